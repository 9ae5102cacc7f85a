/*
 * Well-behaved clients, one at every tick of a clock whatever became of those before: an open loop, so a server that
 * stalls is asked as often as one that does not.
 *
 *   good --port P --expect FILE --rate R [--timeout S]
 *
 * A line for each on stdout: when it began (ns, CLOCK_MONOTONIC), how long it took from connect to end of stream (ns),
 * and what became of it: `ok` is the exact reply and FIN. Ends when stdin does, once the last has ended.
 */
#define _GNU_SOURCE
#include "clients.h"

enum { FIRST_ADDRESS = 2 << 16, ADDRESSES = 60000, EVENTS = 256, TICK_MS = 20, PRIORITY = -20, MAX_REPLY = 1 << 21 };

struct client {
    int fd; /* 0: free */
    bool asked, differs;
    uint64_t began;
    size_t received;
};

static struct client *clients;
static unsigned places, number;
static char *expected, *buffer;
static size_t expected_size;
static int epoll_fd;
static uint16_t port;

static void finish(struct client *client, const char *outcome)
{
    printf("%llu %llu %s\n", (unsigned long long)client->began, (unsigned long long)(now_ns() - client->began), outcome);
    close(client->fd);
    client->fd = 0;
}

static void ask(struct client *client)
{
    ssize_t n = send(client->fd, REQUEST, sizeof REQUEST, 0);
    client->asked = n == (ssize_t)sizeof REQUEST;
    if (!client->asked && !(n < 0 && errno == EAGAIN))
        finish(client, errno == ECONNREFUSED ? "refused" : "reset");
}

static void begin(void)
{
    struct client *client = NULL;
    for (unsigned i = 0; i < places && !client; i++)
        if (!clients[(number + i) % places].fd)
            client = &clients[(number + i) % places];
    if (!client)
        die("more clients than can be under way"); /* the time-out bounds them */
    int fd = client_socket(FIRST_ADDRESS + number++ % ADDRESSES);
    if (!fd)
        die("socket");
    *client = (struct client){.fd = fd, .began = now_ns()};
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = client};
    if (!begin_connect(fd, port))
        finish(client, "refused");
    else if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl");
    else
        ask(client);
}

static void receive(struct client *client)
{
    for (;;) {
        ssize_t n = recv(client->fd, buffer, MAX_REPLY, 0);
        if (n < 0) {
            if (errno != EAGAIN)
                finish(client, errno == ECONNREFUSED ? "refused" : "reset");
            return;
        }
        if (n == 0) {
            finish(client, client->differs ? "differs" : client->received < expected_size ? "short" : "ok");
            return;
        }
        client->differs |= (size_t)n > expected_size - client->received;
        client->differs |= !client->differs && memcmp(buffer, expected + client->received, (size_t)n);
        client->received += client->differs ? 0 : (size_t)n;
    }
}

static int every(double seconds)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct timespec t = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    struct itimerspec spec = {.it_interval = t, .it_value = t};
    if (fd < 0 || timerfd_settime(fd, 0, &spec, NULL) < 0)
        die("timerfd");
    return fd;
}

int main(int argc, char **argv)
{
    static struct epoll_event events[EVENTS];
    double rate = strtod(option(argc, argv, "rate", NULL), NULL);
    double timeout = strtod(option(argc, argv, "timeout", "3"), NULL);
    port = (uint16_t)strtoul(option(argc, argv, "port", NULL), NULL, 10);
    FILE *file = fopen(option(argc, argv, "expect", NULL), "rb");
    if (!file)
        die("--expect");
    take_place(PRIORITY);
    expected = malloc(MAX_REPLY);
    buffer = malloc(MAX_REPLY);
    expected_size = fread(expected, 1, MAX_REPLY, file);
    places = (unsigned)(rate * timeout * 2) + 64;
    clients = calloc(places, sizeof *clients);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int clock = every(1 / rate), stdin_fd = STDIN_FILENO;
    struct epoll_event tick = {.events = EPOLLIN, .data.ptr = &clock};
    struct epoll_event input = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = &stdin_fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, clock, &tick) || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, stdin_fd, &input))
        die("stdin must be a pipe that is held open");
    for (bool stopping = false, left = true; !stopping || left;) {
        int n = epoll_wait(epoll_fd, events, EVENTS, TICK_MS);
        for (int i = 0; i < n; i++) {
            void *what = events[i].data.ptr;
            struct client *client = what;
            if (what == &stdin_fd) {
                stopping = true;
                epoll_ctl(epoll_fd, EPOLL_CTL_DEL, stdin_fd, NULL);
            } else if (what == &clock) {
                uint64_t ticks = 0;
                if (read(clock, &ticks, sizeof ticks) == sizeof ticks)
                    for (; ticks && !stopping; ticks--)
                        begin();
            } else if (client->fd && !client->asked && !(events[i].events & (EPOLLERR | EPOLLHUP))) {
                ask(client);
            } else if (client->fd) {
                receive(client);
            }
        }
        uint64_t now = now_ns();
        left = false;
        for (unsigned i = 0; i < places; i++) {
            if (clients[i].fd && (double)(now - clients[i].began) * 1e-9 > timeout)
                finish(&clients[i], "timeout");
            left |= clients[i].fd != 0;
        }
    }
    return 0;
}
