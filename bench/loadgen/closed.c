/*
 * Closed loop: a fixed number of clients, each asking again when it has its answer.
 *
 * On a machine with two cores the generator must cost as little as can be, so a connection is four system calls and its
 * share of one epoll_wait. The rest is the kernel's work for the handshake, which falls to who begins it.
 *   connect(AF_UNSPEC)  ends the last connection with RST (its end of stream was read: nothing is lost) and makes the
 *                       socket new again: no socket, setsockopt, bind, epoll_ctl or close per connection, no TIME_WAIT
 *   connect             non-blocking; on loopback the handshake is over when it returns, although it says EINPROGRESS
 *   send                at once. EAGAIN (the SYN was dropped, accept queue full) waits for EPOLLOUT like anybody else
 *   recv                once: only the FIN wakes us (EPOLLRDHUP without EPOLLIN), by then the whole reply is here
 * A reply too large for the receive buffer would never reach its FIN that way, so those are read as they come.
 */
#define _GNU_SOURCE
#include "histogram.h"
#include "loadgen.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    FITS_RECEIVE_BUFFER = 32 * 1024, /* of the default 128 KB, half may be overhead */
    MAX_ERRORS = 1000,               /* a server that is gone: say so, do not spin */
};

enum outcome { ANSWERED, CONNECT, RESET, SHORT, MISMATCH, TIMEOUT, OUTCOMES };
static const char *const NAMES[OUTCOMES] = {"answered", "connect", "reset", "short", "mismatch", "timeout"};

struct client {
    int fd;
    unsigned number;
    uint64_t started; /* ns; 0: idle */
    size_t received;
    bool connecting, differs;
};

static struct {
    const struct options *options;
    struct sockaddr_in server;
    struct client *clients;
    unsigned *idle, idle_count; /* numbers of clients without a connection: a stack */
    char *request, *expected, *buffer;
    size_t request_length, expected_length, buffer_size;
    uint32_t interest;
    int epoll_fd;
    uint64_t begin, end, started, errors;
    uint64_t outcomes[OUTCOMES];
    struct histogram latency;
} run;

static char *load(const char *option, const char *path, size_t *length)
{
    FILE *file = path ? fopen(path, "rb") : NULL;
    if (!file)
        die(option);
    char *data = malloc(MAX_REPLY);
    *length = fread(data, 1, MAX_REPLY, file);
    fclose(file);
    if (!*length)
        die(option);
    return data;
}

static void load_files(const struct options *options)
{
    static char request[] = REQUEST;
    run.request = request;
    run.request_length = sizeof request;
    if (options->send_path)
        run.request = load("--send", options->send_path, &run.request_length);
    run.expected = load("--expect", options->expect_path, &run.expected_length);
    run.interest = EPOLLET | EPOLLRDHUP | (run.expected_length > FITS_RECEIVE_BUFFER ? (uint32_t)EPOLLIN : 0);
    run.buffer_size = run.expected_length + 4096; /* more than expected, so that more than expected is seen */
    run.buffer = malloc(run.buffer_size);
}

static void open_client(struct client *client)
{
    client->fd = client_socket(client->number);
    struct epoll_event event = {.events = run.interest, .data.ptr = client};
    if (epoll_ctl(run.epoll_fd, EPOLL_CTL_ADD, client->fd, &event) < 0)
        die("epoll_ctl");
}

static void watch(struct client *client, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = client};
    if (epoll_ctl(run.epoll_fd, EPOLL_CTL_MOD, client->fd, &event) < 0)
        die("epoll_ctl");
}

static void finish(struct client *client, enum outcome outcome)
{
    run.outcomes[outcome]++;
    if (outcome == ANSWERED)
        histogram_record(&run.latency, now_ns() - client->started);
    client->started = 0;
    run.idle[run.idle_count++] = client->number;
    static const struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    if (outcome == ANSWERED && connect(client->fd, &nobody, sizeof nobody) == 0)
        return;
    if (outcome != ANSWERED && ++run.errors > MAX_ERRORS)
        run.end = 0; /* over */
    close(client->fd); /* after an error: a new socket, so that nothing of it is carried on */
    open_client(client);
}

static void ask(struct client *client)
{
    ssize_t n = send(client->fd, run.request, run.request_length, MSG_NOSIGNAL);
    if (n == (ssize_t)run.request_length) {
        if (client->connecting)
            watch(client, run.interest);
        client->connecting = false;
    } else if (n < 0 && errno == EAGAIN) {
        client->connecting = true;
        watch(client, run.interest | EPOLLOUT);
    } else {
        finish(client, n < 0 && (errno == EPIPE || errno == ECONNRESET) ? RESET : CONNECT);
    }
}

static void start(struct client *client)
{
    client->received = 0;
    client->connecting = client->differs = false;
    client->started = now_ns();
    run.started++;
    if (connect(client->fd, (struct sockaddr *)&run.server, sizeof run.server) < 0 && errno != EINPROGRESS)
        finish(client, CONNECT);
    else
        ask(client);
}

/* Read what is there. FIN seen and not all of the buffer used means that this was everything: no recv for the end. */
static void receive(struct client *client, uint32_t events)
{
    bool at_end = (events & EPOLLRDHUP) && !(events & (EPOLLERR | EPOLLHUP));
    for (;;) {
        ssize_t n = recv(client->fd, run.buffer, run.buffer_size, 0);
        if (n < 0) {
            if (errno != EAGAIN)
                finish(client, client->connecting ? CONNECT : RESET);
            return;
        }
        size_t length = (size_t)n;
        if (length > run.expected_length - client->received) {
            finish(client, MISMATCH);
            return;
        }
        client->differs |= memcmp(run.buffer, run.expected + client->received, length) != 0;
        client->received += length;
        if (length == 0 || (at_end && length < run.buffer_size)) {
            finish(client, client->differs ? MISMATCH : client->received < run.expected_length ? SHORT : ANSWERED);
            return;
        }
    }
}

static bool more_to_start(uint64_t now)
{
    return now < run.end && (!run.options->count || run.started < run.options->count);
}

static void start_idle(void)
{
    uint64_t now = now_ns();
    while (run.idle_count && more_to_start(now))
        start(&run.clients[run.idle[--run.idle_count]]);
}

static void give_up_on_late(uint64_t now)
{
    for (unsigned i = 0; i < run.options->connections; i++)
        if (run.clients[i].started && (double)(now - run.clients[i].started) * 1e-9 > run.options->timeout)
            finish(&run.clients[i], TIMEOUT);
}

static int report(double seconds)
{
    uint64_t failed = run.started - run.outcomes[ANSWERED];
    printf("{\"mode\": \"closed\", \"started\": %llu, \"failed\": %llu, \"seconds\": %.6f",
           (unsigned long long)run.started, (unsigned long long)failed, seconds);
    for (int i = 0; i < OUTCOMES; i++)
        printf(", \"%s\": %llu", NAMES[i], (unsigned long long)run.outcomes[i]);
    static const struct { const char *name; double fraction; } quantiles[] = {
        {"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}};
    printf(", \"latency_us\": {");
    for (size_t i = 0; i < sizeof quantiles / sizeof *quantiles; i++)
        printf("\"%s\": %.3f, ", quantiles[i].name,
               (double)histogram_quantile(&run.latency, quantiles[i].fraction) / 1e3);
    printf("\"max\": %.3f}}\n", (double)run.latency.max / 1e3);
    return failed ? 1 : 0;
}

int run_closed(const struct options *options)
{
    static struct epoll_event events[EVENTS];
    run.options = options;
    run.server = server_address(options->port);
    load_files(options);
    run.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    run.clients = calloc(options->connections, sizeof *run.clients);
    run.idle = calloc(options->connections, sizeof *run.idle);
    for (unsigned i = 0; i < options->connections; i++) {
        run.clients[i].number = i;
        open_client(&run.clients[i]);
        run.idle[run.idle_count++] = i;
    }
    run.begin = now_ns();
    run.end = run.begin + (uint64_t)(options->seconds * 1e9);
    uint64_t look = run.begin;
    for (;;) {
        start_idle();
        uint64_t now = now_ns();
        if (run.idle_count == options->connections && !more_to_start(now))
            break;
        int n = epoll_wait(run.epoll_fd, events, EVENTS, TICK_MS);
        for (int i = 0; i < n; i++) {
            struct client *client = events[i].data.ptr;
            if (!client->started) /* the echo of a connection that is over */
                continue;
            if (client->connecting && !(events[i].events & (EPOLLERR | EPOLLHUP)))
                ask(client);
            else
                receive(client, events[i].events);
        }
        if (now - look > TICK_MS * 1000000ull) {
            give_up_on_late(now);
            look = now;
        }
    }
    return report((double)(now_ns() - run.begin) * 1e-9);
}
