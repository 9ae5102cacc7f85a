/*
 * Silent clients connect and send nothing, to measure how the server holds and ends them. With --ask they send the
 * request and never read: a reply that is larger than their receive window stays with the server.
 *
 * Connections are opened at a given rate, so that a server which accepts as fast as that never has a full accept queue.
 * The first line of output comes when all are established. The second line, and the end, comes when the server has
 * closed them all, stdin has ended, or the time is over: how many were closed and how, and how long after its own
 * connect each one was.
 */
#define _GNU_SOURCE
#include "loadgen.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct client {
    int fd; /* -1: ended */
    bool established, refused;
    uint64_t started; /* ns */
};

static struct {
    const struct options *options;
    struct client *clients;
    int epoll_fd;
    unsigned opened, established, failed, closed, reset, sent_to;
    uint64_t *held; /* ns, of connections that the server ended, in that order */
    unsigned held_count;
} run;

static void open_client(void)
{
    struct client *client = &run.clients[run.opened];
    uint16_t port = run.options->ports[run.opened % run.options->port_count];
    struct shape shape = run.options->shape;
    shape.close_with_rst = true;
    client->fd = client_socket(source_address(run.options->source, run.options->first + run.opened++), shape);
    client->started = now_ns();
    /* EPOLLOUT comes once, with the end of the handshake. */
    struct epoll_event event = {.events = EPOLLET | EPOLLOUT | EPOLLRDHUP, .data.ptr = client};
    client->refused = !start_connect(client->fd, port);
    if (epoll_ctl(run.epoll_fd, EPOLL_CTL_ADD, client->fd, &event) < 0)
        die("epoll_ctl");
}

static void end_client(struct client *client)
{
    char byte;
    ssize_t n = recv(client->fd, &byte, 1, 0);
    bool reached = n >= 0 || errno == ECONNRESET || errno == EPIPE; /* it was established, even if the server ended it before we saw that */
    run.established += reached && !client->established;
    if (client->refused || !(client->established || reached)) {
        run.failed++;
    } else {
        run.held[run.held_count++] = now_ns() - client->started;
        *(n > 0 ? &run.sent_to : n == 0 ? &run.closed : &run.reset) += 1;
    }
    close(client->fd);
    client->fd = -1;
}

static void on_event(struct client *client, uint32_t events)
{
    if (client->fd < 0)
        return;
    if (!client->established && (events & EPOLLOUT) && !(events & (EPOLLERR | EPOLLHUP))) {
        client->established = true;
        run.established++;
        if (run.options->ask)
            (void)!send(client->fd, REQUEST, sizeof REQUEST, MSG_NOSIGNAL); /* the next event reports a failure */
    }
    if (events & (EPOLLRDHUP | EPOLLERR | EPOLLHUP))
        end_client(client);
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void report_established(uint64_t begin)
{
    printf("{\"mode\": \"silent\", \"event\": \"established\", \"established\": %u, \"failed\": %u, \"ended\": %u, "
           "\"seconds\": %.6f}\n",
           run.established, run.failed, run.held_count, (double)(now_ns() - begin) * 1e-9);
    fflush(stdout);
}

static int report_end(void)
{
    qsort(run.held, run.held_count, sizeof *run.held, by_size);
    printf("{\"mode\": \"silent\", \"event\": \"end\", \"established\": %u, \"failed\": %u, \"open\": %u, "
           "\"closed\": %u, \"reset\": %u, \"sent_to\": %u, \"held_seconds\": ",
           run.established, run.failed, run.established - run.held_count, run.closed, run.reset, run.sent_to);
    if (run.held_count)
        printf("{\"min\": %.6f, \"median\": %.6f, \"max\": %.6f}}\n", (double)run.held[0] * 1e-9,
               (double)run.held[run.held_count / 2] * 1e-9, (double)run.held[run.held_count - 1] * 1e-9);
    else
        printf("null}\n");
    return run.failed ? 1 : 0;
}

int run_silent(const struct options *options)
{
    static struct epoll_event events[EVENTS];
    run.options = options;
    pin(options, 0);
    run.clients = calloc(options->connections, sizeof *run.clients);
    run.held = calloc(options->connections, sizeof *run.held);
    run.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event input = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = NULL};
    if (epoll_ctl(run.epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &input) < 0)
        die("stdin must be a pipe that is held open");
    uint64_t begin = now_ns(), end = begin + (uint64_t)(options->seconds * 1e9);
    bool holding = false, reported = false;
    while (!reported || holding) {
        uint64_t now = now_ns();
        double due = options->rate > 0 ? (double)(now - begin) * 1e-9 * options->rate : options->connections;
        while (run.opened < options->connections && (double)run.opened <= due)
            open_client();
        int n = epoll_wait(run.epoll_fd, events, EVENTS, run.opened < options->connections ? 1 : TICK_MS);
        bool input_ended = false;
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr)
                on_event(events[i].data.ptr, events[i].events);
            else
                input_ended = true;
        }
        if (!reported && run.established + run.failed == options->connections) {
            report_established(begin);
            reported = true;
        }
        holding = run.held_count < run.established;
        if (input_ended || now >= end)
            break;
    }
    return report_end();
}
