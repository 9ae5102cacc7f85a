/* The clients of a relay: what they say, and what must come back. */
#define _GNU_SOURCE
#include "relay.h"

#include "../histogram.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { STALL_MS = 10000, SMALLEST = 1 + 2 * sizeof(uint64_t) };

struct client {
    int fd;
    bool connected;
    uint64_t number, round;
    uint64_t position, size; /* of what is to come: come already, and in all */
    uint64_t since; /* ns: when this round began; of a short conversation, with its connect */
};

struct mode {
    const char *name;
    int arguments; /* after the port */
    void (*speak)(struct client *);
    void (*complete)(struct client *); /* all has come; NULL: it is over when the end comes too */
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
        fail("epoll_ctl");
}

/* From many source addresses, as clients come: servers limit what one may have. 127.1.1.1 and up; last byte 1..250. */
static void dial(struct client *client)
{
    uint64_t n = run.dialled++;
    struct sockaddr_in from = {.sin_family = AF_INET};
    from.sin_addr.s_addr = htonl(0x7f010001u + (uint32_t)(n / 250 % 250 + 1) * 256 + (uint32_t)(n % 250));
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(run.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0 ||
        bind(fd, (struct sockaddr *)&from, sizeof from) < 0)
        fail("socket");
    *client = (struct client){.fd = fd, .number = n, .since = now_ns()};
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS)
        fail("connect");
    watch(client, EPOLL_CTL_ADD, EPOLLOUT);
    run.open++;
}

static void hang_up(struct client *client)
{
    close(client->fd);
    run.open--;
}

static void say(struct client *client, const void *bytes, size_t size, uint64_t answer)
{
    client->position = 0;
    client->size = answer;
    if (send(client->fd, bytes, size, MSG_NOSIGNAL) != (ssize_t)size)
        fail("send");
}

/* A message that says whose it is, and which: no other would do as an echo. 'e' begins no protocol that is known. */
static const unsigned char *message(const struct client *client)
{
    static unsigned char bytes[CHUNK];
    memcpy(bytes, pattern, run.size);
    bytes[0] = 'e';
    memcpy(bytes + 1, &client->number, sizeof client->number);
    memcpy(bytes + 1 + sizeof client->number, &client->round, sizeof client->round);
    return bytes;
}

static void speak(struct client *client) { say(client, message(client), run.size, run.size); }

static void ask_for_source(struct client *client)
{
    unsigned char head[HEAD] = {'S'};
    for (int i = 1; i < HEAD; i++)
        head[i] = (unsigned char)(run.bytes_each >> (8 * (HEAD - 1 - i)));
    say(client, head, sizeof head, run.bytes_each);
}

static void again_until_the_end(struct client *client)
{
    client->since = now_ns();
    if (client->since >= run.until)
        hang_up(client);
    else
        speak(client);
}

static void another_one(struct client *client)
{
    hang_up(client);
    if (run.dialled < run.total)
        dial(client);
}

static void stay(struct client *client) { (void)client; }

static const struct mode MODES[] = {
    {"echo", 3, speak, again_until_the_end},
    {"short", 3, speak, another_one},
    {"bulk", 2, ask_for_source, NULL},
    {"hold", 2, speak, stay},
};

static void connected(struct client *client)
{
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if ((errno = error))
        fail("connect");
    client->connected = true;
    watch(client, EPOLL_CTL_MOD, EPOLLIN);
    run.mode->speak(client);
}

static void receive(struct client *client)
{
    static unsigned char buffer[CHUNK];
    bool bulk = !run.mode->complete;
    ssize_t n = recv(client->fd, buffer, CHUNK, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n < 0)
        fail("recv");
    if (n == 0) {
        if (!bulk || client->position < client->size)
            wrong("closed early");
        run.rounds++;
        hang_up(client);
        return;
    }
    if ((uint64_t)n > client->size - client->position)
        wrong("more bytes than expected");
    const unsigned char *expected = bulk ? pattern + client->position % PERIOD : message(client) + client->position;
    if (memcmp(buffer, expected, (size_t)n) != 0)
        wrong("other bytes than expected");
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
    struct epoll_event events[EVENTS];
    int n = epoll_wait(run.epoll_fd, events, EVENTS, STALL_MS);
    if (n == 0)
        wrong("nothing has come for 10 s");
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

/* One round of echoes at a time, each when we are told to. */
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
        wrong("closed while it was held");
}

int clients(const char *mode, int argc, char **argv)
{
    for (size_t i = 0; i < sizeof MODES / sizeof *MODES; i++)
        if (!strcmp(mode, MODES[i].name) && argc == 1 + MODES[i].arguments)
            run.mode = &MODES[i];
    if (!run.mode)
        return 1;
    uint64_t begin = now_ns(), last = strtoull(argv[2], NULL, 10);
    run.port = (uint16_t)atoi(argv[0]);
    run.connections = strtoull(argv[1], NULL, 10);
    run.size = run.bytes_each = last;
    run.total = run.connections;
    if (!strcmp(mode, "short"))
        run.total = strtoull(argv[3], NULL, 10);
    if (!strcmp(mode, "echo"))
        run.until = begin + (uint64_t)(atof(argv[3]) * 1e9);
    if (run.mode->complete && (run.size < SMALLEST || run.size > CHUNK))
        wrong("a message has 17 to 65536 bytes");
    run.clients = calloc(run.connections, sizeof *run.clients);
    run.epoll_fd = epoll_create1(0);
    if (!run.clients || run.epoll_fd < 0)
        fail("epoll");
    for (uint64_t i = 0; i < run.connections && run.dialled < run.total; i++)
        dial(&run.clients[i]);
    if (run.mode->complete == stay)
        return hold(begin), 0;
    while (run.open)
        turn();
    return report(begin), 0;
}
