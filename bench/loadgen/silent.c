/*
 * Silent clients: connect, say nothing, and see what the server does about it. With --ask they send the request and
 * never read: a reply that is larger than their receive window stays with the server.
 *
 * Connections are opened at a given rate, so that a server which accepts as fast as that never has a full accept queue.
 * First line: when all are established. Second line, and the end: when the server has closed them all, or stdin ended,
 * or the time is over: how many were closed and how, and how long after its own connect each one was.
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
    int fd; /* -1: over */
    bool established, refused;
    uint64_t started; /* ns */
};

static struct {
    const struct options *options;
    struct client *clients;
    int epoll_fd;
    unsigned opened, established, failed, closed, reset, spoke;
    uint64_t *held; /* ns, of those that the server ended; in the order of their end */
    unsigned held_count;
} run;

static void open_client(void)
{
    struct client *client = &run.clients[run.opened];
    struct sockaddr_in server = server_address(run.options->ports[run.opened % run.options->port_count]);
    client->fd = client_socket(run.options->first + run.opened++, run.options->shape);
    client->started = now_ns();
    /* EPOLLOUT comes once, with the end of the handshake. */
    struct epoll_event event = {.events = EPOLLET | EPOLLOUT | EPOLLRDHUP, .data.ptr = client};
    if (connect(client->fd, (const struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS)
        client->refused = true;
    if (epoll_ctl(run.epoll_fd, EPOLL_CTL_ADD, client->fd, &event) < 0)
        die("epoll_ctl");
}

static void end_client(struct client *client)
{
    char byte;
    ssize_t n = recv(client->fd, &byte, 1, 0);
    bool reached = n >= 0 || errno == ECONNRESET || errno == EPIPE; /* a server that is quick to end it was reached */
    run.established += reached && !client->established;
    if (client->refused || !(client->established || reached)) {
        run.failed++;
    } else {
        run.held[run.held_count++] = now_ns() - client->started;
        *(n > 0 ? &run.spoke : n == 0 ? &run.closed : &run.reset) += 1;
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
            (void)!send(client->fd, REQUEST, sizeof REQUEST, MSG_NOSIGNAL); /* what fails is told by the next event */
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
           "\"closed\": %u, \"reset\": %u, \"spoke\": %u, \"held_seconds\": ",
           run.established, run.failed, run.established - run.held_count, run.closed, run.reset, run.spoke);
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
    bool holding = false, told = false;
    while (!told || holding) {
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
        if (!told && run.established + run.failed == options->connections) {
            report_established(begin);
            told = true;
        }
        holding = run.held_count < run.established;
        if (input_ended || now >= end)
            break;
    }
    return report_end();
}
