/*
 * Clients that misbehave, beside those that ask: every public server must live with them, so a figure without them is
 * half of it. Each is ended by the server, counted by how, and comes back after a pause.
 *
 *   silent   connects and says nothing
 *   drip     sends a byte of the request every half second
 *   garbage  sends what is not a request, and goes on sending
 */
#define _GNU_SOURCE
#include "loadgen.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    FIRST_SOURCE = 40000, /* source addresses of their own */
    GARBAGE_BYTES = 64,
};
static const uint64_t COME_BACK = 100000000, NEXT_BYTE = 500000000; /* ns */

struct other {
    struct watched watched;
    int fd; /* -1: away */
    enum misbehaviour kind;
    unsigned number, sent;
    uint64_t due; /* ns: for the next byte, or to come back */
};

static struct {
    const struct options *options;
    struct tally *tally;
    struct other *all;
    unsigned count;
    int epoll_fd;
    uint32_t random;
} run = {.random = 2463534242u};

static void leave(struct other *other, enum other_end how)
{
    run.tally->others[other->kind][how]++;
    close(other->fd);
    other->fd = -1;
    other->due = now_ns() + COME_BACK;
}

static void on_event(struct watched *watched, uint32_t events)
{
    struct other *other = (struct other *)watched;
    char byte;
    if (other->fd < 0 || !(events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP)))
        return;
    ssize_t n = recv(other->fd, &byte, 1, 0);
    if (n >= 0 || errno != EAGAIN)
        leave(other, n > 0 ? SPOKEN_TO : n == 0 ? CLOSED_BY_SERVER : RESET_BY_SERVER);
}

static void come(struct other *other, uint64_t now)
{
    struct sockaddr_in server = server_address(run.options->ports[other->number % run.options->port_count]);
    other->fd = client_socket(FIRST_SOURCE + run.options->first + other->number, (struct shape){0});
    other->sent = 0;
    other->due = other->kind == SILENT ? UINT64_MAX : now;
    run.tally->others[other->kind][OPENED]++;
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = other};
    if (epoll_ctl(run.epoll_fd, EPOLL_CTL_ADD, other->fd, &event) < 0)
        die("epoll_ctl");
    if (connect(other->fd, (const struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS)
        leave(other, RESET_BY_SERVER);
}

static char random_byte(void)
{
    run.random ^= run.random << 13;
    run.random ^= run.random >> 17;
    run.random ^= run.random << 5;
    return (char)run.random;
}

/* What fails here is told by the next event. */
static void say(struct other *other, uint64_t now)
{
    char bytes[GARBAGE_BYTES];
    for (int i = 0; i < GARBAGE_BYTES; i++)
        bytes[i] = random_byte();
    if (other->kind == GARBAGE)
        (void)!send(other->fd, bytes, sizeof bytes, MSG_NOSIGNAL);
    else if (other->sent < sizeof REQUEST)
        (void)!send(other->fd, &REQUEST[other->sent++], 1, MSG_NOSIGNAL);
    other->due = now + NEXT_BYTE;
}

void others_open(const struct options *options, struct tally *tally, int epoll_fd)
{
    run.options = options;
    run.tally = tally;
    run.epoll_fd = epoll_fd;
    unsigned count = 0;
    for (int kind = 0; kind < OTHER_KINDS; kind++)
        count += options->others[kind];
    run.all = calloc(count, sizeof *run.all);
    for (int kind = 0; kind < OTHER_KINDS; kind++)
        for (unsigned i = 0; i < options->others[kind]; i++, run.count++)
            run.all[run.count] = (struct other){
                .watched.on_event = on_event, .fd = -1, .kind = (enum misbehaviour)kind, .number = run.count};
}

void others_tick(uint64_t now)
{
    for (unsigned i = 0; i < run.count; i++) {
        struct other *other = &run.all[i];
        if (other->due > now)
            continue;
        if (other->fd < 0)
            come(other, now);
        else
            say(other, now);
    }
}
