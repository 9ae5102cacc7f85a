/* The clients of a relay: what they send, and what must come back. */
#define _GNU_SOURCE
#include "relay.h"

#include "../client.h"

#include "../histogram.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { STALL_MS = 10000, SOURCES = 62500, SMALLEST = 1 + 2 * sizeof(uint64_t) };

struct client {
    int fd;
    bool connected;
    uint64_t number, round;
    uint64_t position, size; /* bytes received of the reply, and in all */
    uint64_t since; /* ns: the start of this round; in a short session, of its connect */
};

struct mode {
    const char *name;
    int arguments; /* after the port */
    void (*speak)(struct client *);
    void (*complete)(struct client *); /* after the last byte; NULL: the session ends with the FIN after it */
};

static struct {
    const struct mode *mode;
    uint16_t port;
    uint64_t connections, size, total, until, bytes_each;
    uint64_t dialled, open, rounds, bytes;
    struct client *clients;
    struct histogram latency;
    int epoll_fd;
} run;

static void watch(struct client *client, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = client};
    if (epoll_ctl(run.epoll_fd, operation, client->fd, &event) < 0)
        die("epoll_ctl");
}

/* Each connection comes from another source address, since servers limit connections by address. */
static void dial(struct client *client)
{
    uint64_t n = run.dialled++;
    uint32_t source = source_address(FIRST_SOURCE, (unsigned)(n % SOURCES));
    *client = (struct client){
        .fd = client_socket(source, (struct shape){.no_delay = true}), .number = n, .since = now_ns()};
    if (!start_connect(client->fd, run.port))
        die("connect");
    watch(client, EPOLL_CTL_ADD, EPOLLOUT);
    run.open++;
}

static void hang_up(struct client *client)
{
    close(client->fd);
    run.open--;
}

static void send_message(struct client *client, const void *bytes, size_t size, uint64_t reply)
{
    client->position = 0;
    client->size = reply;
    if (send(client->fd, bytes, size, MSG_NOSIGNAL) != (ssize_t)size)
        die("send");
}

/* A message contains the numbers of its client and round, so no other message can pass as its echo. 'e' is the first
   byte of no protocol that a server recognises. */
static const unsigned char *message(const struct client *client)
{
    static unsigned char bytes[CHUNK_BYTES];
    memcpy(bytes, pattern, run.size);
    bytes[0] = 'e';
    memcpy(bytes + 1, &client->number, sizeof client->number);
    memcpy(bytes + 1 + sizeof client->number, &client->round, sizeof client->round);
    return bytes;
}

static void speak(struct client *client) { send_message(client, message(client), run.size, run.size); }

static void request_source(struct client *client)
{
    unsigned char head[HEAD] = {'S'};
    for (int i = 1; i < HEAD; i++)
        head[i] = (unsigned char)(run.bytes_each >> (8 * (HEAD - 1 - i)));
    send_message(client, head, sizeof head, run.bytes_each);
}

static void repeat_until_end(struct client *client)
{
    client->since = now_ns();
    if (client->since >= run.until)
        hang_up(client);
    else
        speak(client);
}

static void dial_next(struct client *client)
{
    hang_up(client);
    if (run.dialled < run.total)
        dial(client);
}

static void do_nothing(struct client *client) { (void)client; }

static const struct mode MODES[] = {
    {"echo", 3, speak, repeat_until_end},
    {"short", 3, speak, dial_next},
    {"bulk", 2, request_source, NULL},
    {"hold", 2, speak, do_nothing},
};

static void connected(struct client *client)
{
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if ((errno = error))
        die("connect");
    client->connected = true;
    watch(client, EPOLL_CTL_MOD, EPOLLIN);
    run.mode->speak(client);
}

static void receive(struct client *client)
{
    static unsigned char buffer[CHUNK_BYTES];
    bool bulk = !run.mode->complete;
    ssize_t n = recv(client->fd, buffer, CHUNK_BYTES, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n < 0)
        die("recv");
    if (n == 0) {
        if (!bulk || client->position < client->size)
            give_up("closed early");
        run.rounds++;
        hang_up(client);
        return;
    }
    if ((uint64_t)n > client->size - client->position)
        give_up("more bytes than expected");
    const unsigned char *expected = bulk ? pattern + client->position % PERIOD : message(client) + client->position;
    if (memcmp(buffer, expected, (size_t)n) != 0)
        give_up("other bytes than expected");
    run.bytes += (uint64_t)n;
    client->position += (uint64_t)n;
    if (bulk || client->position < client->size)
        return;
    histogram_record(&run.latency, now_ns() - client->since);
    run.rounds++;
    client->round++;
    run.mode->complete(client);
}

static void turn(void)
{
    struct epoll_event events[RELAY_EVENTS];
    int n = epoll_wait(run.epoll_fd, events, RELAY_EVENTS, STALL_MS);
    if (n == 0)
        give_up("no byte was received for 10 s");
    for (int i = 0; i < n; i++) {
        struct client *client = events[i].data.ptr;
        if (client->connected)
            receive(client);
        else
            connected(client);
    }
}

static void report(uint64_t begin)
{
    printf("{\"rounds\": %llu, \"bytes\": %llu, \"seconds\": %.6f, \"p50_us\": %.1f, \"p99_us\": %.1f}\n",
           (unsigned long long)run.rounds, (unsigned long long)run.bytes, (double)(now_ns() - begin) / 1e9,
           (double)histogram_quantile(&run.latency, 0.5) / 1e3, (double)histogram_quantile(&run.latency, 0.99) / 1e3);
    fflush(stdout);
}

/* One round of echoes for each line of input. */
static void hold(uint64_t begin)
{
    uint64_t wanted = run.connections;
    for (;;) {
        while (run.rounds < wanted)
            turn();
        report(begin);
        if (getchar() == EOF)
            break;
        wanted += run.connections;
        for (uint64_t i = 0; i < run.connections; i++) {
            run.clients[i].since = now_ns();
            speak(&run.clients[i]);
        }
    }
    struct epoll_event event;
    if (epoll_wait(run.epoll_fd, &event, 1, 0) != 0)
        give_up("closed while it was held");
}

bool relay_clients(const char *mode, int argc, char **argv)
{
    for (size_t i = 0; i < sizeof MODES / sizeof *MODES; i++)
        if (!strcmp(mode, MODES[i].name) && argc == 1 + MODES[i].arguments)
            run.mode = &MODES[i];
    if (!run.mode)
        return false;
    uint64_t begin = now_ns(), last = strtoull(argv[2], NULL, 10);
    run.port = (uint16_t)atoi(argv[0]);
    run.connections = strtoull(argv[1], NULL, 10);
    run.size = run.bytes_each = last;
    run.total = run.connections;
    if (!strcmp(mode, "short"))
        run.total = strtoull(argv[3], NULL, 10);
    if (!strcmp(mode, "echo"))
        run.until = begin + (uint64_t)(atof(argv[3]) * 1e9);
    if (run.mode->complete && (run.size < SMALLEST || run.size > CHUNK_BYTES))
        give_up("a message has 17 to 65536 bytes");
    run.clients = calloc(run.connections, sizeof *run.clients);
    run.epoll_fd = epoll_create1(0);
    if (!run.clients || run.epoll_fd < 0)
        die("epoll");
    for (uint64_t i = 0; i < run.connections && run.dialled < run.total; i++)
        dial(&run.clients[i]);
    if (run.mode->complete == do_nothing)
        return hold(begin), true;
    while (run.open)
        turn();
    return report(begin), true;
}
