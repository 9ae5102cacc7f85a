/*
 * Clients that mean no good: so many at a time, opened again as soon as one has ended.
 *
 *   attack --port P --connections N --rate R --say WHAT --then WHAT [--every S] [--deaf 1] [--addresses A]
 *
 * say    what each begins with: nothing, half (of the request), whole, or mixed: by turns one of the three
 * then   hold    until the server ends it
 *        drip    a byte of the request every S seconds
 *        flood   input without end, as fast as the server takes it
 *        close   at once, in order         reset   at once, by RST
 * deaf   reads nothing, behind the smallest window and segments there are; the others read and throw away
 *
 * addresses  that they come from, by turns: at most 1,048,575, from 127.16.0.1 on
 *
 * Ends when stdin does, or is killed, and then says on stdout in JSON what it did: opened connections, those that the
 * server ended, and the bytes that it took. A connection counts as opened when the handshake is over.
 */
#define _GNU_SOURCE
#include "clients.h"

enum { FIRST_ADDRESS = 16 << 16, EVENTS = 1024, PRIORITY = 19, CHUNK = 1 << 16, SMALLEST_SEGMENT = 536, AT_ONCE = 256 };
enum then { HOLD, DRIP, FLOOD, CLOSE, RESET };
static const char *const THEN[] = {"hold", "drip", "flood", "close", "reset"};
static const char *const SAY[] = {"nothing", "half", "whole", "mixed"};
enum { MIXED = 3 };

struct client {
    int fd; /* 0: free */
    unsigned said; /* bytes of the request */
    uint64_t due; /* ns, of the next drip */
};

static struct {
    uint16_t port;
    unsigned connections, addresses, say, open, opened, ended, failed;
    enum then then;
    double rate;
    uint64_t every, taken;
    bool deaf;
    int epoll_fd;
    struct client *clients;
    unsigned *idle, idle_count;
    char garbage[CHUNK], sink[CHUNK];
} run;

static unsigned choice(const char *value, const char *const *names, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (!strcmp(value, names[i]))
            return i;
    fprintf(stderr, "attack: %s is unknown\n", value);
    exit(2);
}

static void drop(struct client *client, bool by_reset)
{
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    if (by_reset)
        setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(client->fd);
    client->fd = 0;
    run.idle[run.idle_count++] = (unsigned)(client - run.clients);
    run.open--;
}

static void open_client(void)
{
    struct client *client = &run.clients[run.idle[--run.idle_count]];
    unsigned n = run.opened + run.failed, say = run.say == MIXED ? n % 3 : run.say;
    static const size_t SAID[] = {0, sizeof REQUEST / 2, sizeof REQUEST};
    *client = (struct client){.fd = client_socket(FIRST_ADDRESS + n % run.addresses), .said = (unsigned)SAID[say], .due = now_ns() + run.every};
    if (!client->fd)
        die("socket");
    run.open++;
    if (run.deaf) {
        int segment = SMALLEST_SEGMENT, window = 0; /* the kernel raises it to what it must have */
        setsockopt(client->fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
        setsockopt(client->fd, SOL_SOCKET, SO_RCVBUF, &window, sizeof window);
    }
    if (!begin_connect(client->fd, run.port) || (client->said && send(client->fd, REQUEST, client->said, 0) < 0)) {
        run.failed++; /* nobody listens, or the accept queue is full */
        drop(client, true);
        return;
    }
    run.opened++;
    if (run.then == CLOSE || run.then == RESET) {
        drop(client, run.then == RESET);
        return;
    }
    struct epoll_event event = {.data.ptr = client, .events = EPOLLRDHUP};
    event.events |= (run.deaf ? 0 : (uint32_t)EPOLLIN) | (run.then == FLOOD ? (uint32_t)EPOLLOUT : 0);
    if (epoll_ctl(run.epoll_fd, EPOLL_CTL_ADD, client->fd, &event) < 0)
        die("epoll_ctl");
}

static void on_event(struct client *client, uint32_t events)
{
    if (!client->fd)
        return;
    ssize_t n = 1;
    if (!run.deaf && events & EPOLLIN)
        n = recv(client->fd, run.sink, sizeof run.sink, 0);
    bool over = events & (EPOLLERR | EPOLLHUP) || n == 0 || (n < 0 && errno != EAGAIN);
    /* A flood goes on after the server's FIN, until it answers with RST. */
    over |= events & EPOLLRDHUP && run.then != FLOOD;
    if (!over && run.then == FLOOD && events & EPOLLOUT) {
        n = send(client->fd, run.garbage, sizeof run.garbage, 0);
        run.taken += n > 0 ? (uint64_t)n : 0;
        over = n < 0 && errno != EAGAIN;
    }
    if (over) {
        run.ended++;
        drop(client, true);
    }
}

static void drip(uint64_t now)
{
    for (unsigned i = 0; i < run.connections; i++) {
        struct client *client = &run.clients[i];
        if (!client->fd || client->due > now || client->said >= sizeof REQUEST - 1) /* never the whole request */
            continue;
        client->due = now + run.every;
        if (send(client->fd, REQUEST + client->said, 1, 0) == 1)
            client->said++;
    }
}

int main(int argc, char **argv)
{
    static struct epoll_event events[EVENTS];
    run.port = (uint16_t)strtoul(option(argc, argv, "port", NULL), NULL, 10);
    run.connections = (unsigned)strtoul(option(argc, argv, "connections", NULL), NULL, 10);
    run.rate = strtod(option(argc, argv, "rate", NULL), NULL);
    run.say = choice(option(argc, argv, "say", NULL), SAY, sizeof SAY / sizeof *SAY);
    run.then = choice(option(argc, argv, "then", NULL), THEN, sizeof THEN / sizeof *THEN);
    run.every = (uint64_t)(strtod(option(argc, argv, "every", "1"), NULL) * 1e9);
    run.addresses = (unsigned)strtoul(option(argc, argv, "addresses", "60000"), NULL, 10);
    run.deaf = *option(argc, argv, "deaf", "0") == '1';
    take_place(PRIORITY);
    run.clients = calloc(run.connections, sizeof *run.clients);
    run.idle = calloc(run.connections, sizeof *run.idle);
    for (unsigned i = 0; i < run.connections; i++)
        run.idle[run.idle_count++] = i;
    for (unsigned i = 0; i < CHUNK; i++)
        run.garbage[i] = (char)(i * 2654435761u >> 13);
    run.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event input = {.events = EPOLLIN | EPOLLRDHUP};
    if (epoll_ctl(run.epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &input) < 0)
        die("stdin must be a pipe that is held open");
    uint64_t last = now_ns(), look = last;
    double owed = 0; /* connections; never more than AT_ONCE, so that a pause is not made up for by a burst */
    for (bool stopping = false; !stopping;) {
        uint64_t now = now_ns();
        owed += (double)(now - last) * 1e-9 * run.rate;
        owed = owed > AT_ONCE ? AT_ONCE : owed;
        last = now;
        for (; owed >= 1 && run.idle_count; owed--)
            open_client();
        int n = epoll_wait(run.epoll_fd, events, EVENTS, 1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr)
                on_event(events[i].data.ptr, events[i].events);
            else
                stopping = true;
        }
        if (run.then == DRIP && now - look > 10000000u) {
            drip(now);
            look = now;
        }
    }
    printf("{\"opened\": %u, \"failed\": %u, \"ended\": %u, \"open\": %u, \"taken\": %llu}\n", run.opened, run.failed,
           run.ended, run.open, (unsigned long long)run.taken);
    return 0;
}
