/*
 * Misbehaving clients: a number of connections at a time, each opened again as soon as it has ended. With --count N there
 * are N in all.
 *
 * say    what each sends first: nothing, half (of the request), whole, or mixed: one of the three in turn. With
 *        --send FILE it is the file instead
 * then   hold    wait until the server ends the connection
 *        drip    send a byte of the request every --pace seconds, but never the last one
 *        flood   send input without end, as fast as the server takes it
 *        close   close at once, in order         reset   close at once, by RST
 *        finish  send FIN, and wait until the server ends the connection
 * deaf   read nothing, with the smallest window and segments that the kernel allows; others read and discard
 *
 * The run ends when stdin ends or the time is over, and prints one line of JSON: connections opened (the handshake was
 * started and not refused), failed, and ended by the server; those still open; bytes that the kernel took.
 */
#define _GNU_SOURCE
#include "loadgen.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    CHUNK = 1 << 16,        /* bytes that a flood sends at once */
    SMALLEST_SEGMENT = 536, /* bytes */
    STARTS = 256,           /* connections that are owed at most, so that a pause does not cause a burst */
    DRIP_CHECK_MS = 10,
};
static const size_t SAID[] = {[SAY_NOTHING] = 0, [SAY_HALF] = sizeof REQUEST / 2, [SAY_WHOLE] = sizeof REQUEST};

struct client {
    int fd;        /* -1: free */
    unsigned sent; /* bytes of the request */
    uint64_t due;  /* ns: the next drip */
};

static struct {
    const struct options *options;
    unsigned open, opened, ended, failed;
    uint64_t taken; /* bytes */
    int epoll_fd;
    struct client *clients;
    unsigned *idle, idle_count; /* numbers of free clients: a stack */
    char *said; /* the file's bytes; NULL: there is none */
    size_t said_size;
    char garbage[CHUNK], sink[CHUNK];
} run;

static void drop(struct client *client, bool by_rst)
{
    if (by_rst)
        set_close_with_rst(client->fd);
    close(client->fd);
    client->fd = -1;
    run.idle[run.idle_count++] = (unsigned)(client - run.clients);
    run.open--;
}

/* Connect, and say what the client is to say first. False: refused, or the accept queue is full. */
static bool connect_and_say(struct client *client, uint16_t port)
{
    const char *bytes = run.said ? run.said : REQUEST;
    size_t size = run.said ? run.said_size : client->sent;
    return start_connect(client->fd, port) && (!size || send(client->fd, bytes, size, MSG_NOSIGNAL) >= 0);
}

static void open_client(void)
{
    const struct options *options = run.options;
    struct client *client = &run.clients[run.idle[--run.idle_count]];
    unsigned number = run.opened + run.failed;
    unsigned source = options->addresses ? number % options->addresses : number;
    struct shape shape = options->shape;
    if (options->deaf)
        shape = (struct shape){.segment = SMALLEST_SEGMENT, .receive_buffer = 1}; /* raised to the kernel's minimum */
    *client = (struct client){
        .fd = client_socket(source_address(options->source, options->first + source), shape),
        .sent = (unsigned)SAID[options->say == SAY_MIXED ? number % SAY_MIXED : options->say],
        .due = now_ns() + to_ns(options->pace)};
    run.open++;
    if (!connect_and_say(client, options->ports[number % options->port_count])) {
        run.failed++;
        drop(client, true);
        return;
    }
    run.opened++;
    if (options->then == THEN_CLOSE || options->then == THEN_RESET) {
        drop(client, options->then == THEN_RESET);
        return;
    }
    if (options->then == THEN_FINISH)
        shutdown(client->fd, SHUT_WR);
    struct epoll_event event = {.data.ptr = client, .events = EPOLLRDHUP};
    event.events |= (options->deaf ? 0 : (uint32_t)EPOLLIN) | (options->then == THEN_FLOOD ? (uint32_t)EPOLLOUT : 0);
    if (epoll_ctl(run.epoll_fd, EPOLL_CTL_ADD, client->fd, &event) < 0)
        die("epoll_ctl");
}

static void on_event(struct client *client, uint32_t events)
{
    if (client->fd < 0)
        return;
    bool flood = run.options->then == THEN_FLOOD;
    ssize_t n = 1;
    if (!run.options->deaf && events & EPOLLIN)
        n = recv(client->fd, run.sink, sizeof run.sink, 0);
    bool over = events & (EPOLLERR | EPOLLHUP) || n == 0 || (n < 0 && errno != EAGAIN);
    /* A flood goes on after the server's FIN, until the server responds with RST. */
    over |= events & EPOLLRDHUP && !flood;
    if (!over && flood && events & EPOLLOUT) {
        n = send(client->fd, run.garbage, sizeof run.garbage, MSG_NOSIGNAL);
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
    for (unsigned i = 0; i < run.options->connections; i++) {
        struct client *client = &run.clients[i];
        if (client->fd < 0 || client->due > now || client->sent >= sizeof REQUEST - 1)
            continue;
        client->due = now + to_ns(run.options->pace);
        if (send(client->fd, &REQUEST[client->sent], 1, MSG_NOSIGNAL) == 1)
            client->sent++;
    }
}

static void prepare(const struct options *options)
{
    run.options = options;
    run.said = options->send_path ? read_file(options->send_path, &run.said_size) : NULL;
    run.clients = calloc(options->connections, sizeof *run.clients);
    run.idle = calloc(options->connections, sizeof *run.idle);
    for (unsigned i = 0; i < options->connections; i++) {
        run.clients[i].fd = -1;
        run.idle[run.idle_count++] = i;
    }
    for (unsigned i = 0; i < CHUNK; i++)
        run.garbage[i] = (char)(i * 2654435761u >> 13);
    run.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event input = {.events = EPOLLIN | EPOLLRDHUP};
    if (epoll_ctl(run.epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &input) < 0)
        die("stdin must be a pipe that is held open");
}

int run_misbehaving(const struct options *options)
{
    static struct epoll_event events[EVENTS];
    pin(options, 0);
    prepare(options);
    uint64_t last = now_ns(), checked = last, end = last + to_ns(options->seconds);
    double owed = 0; /* connections */
    for (bool stopping = false; !stopping;) {
        uint64_t now = now_ns();
        owed += (double)(now - last) * 1e-9 * options->rate;
        owed = owed > STARTS ? STARTS : owed;
        last = now;
        for (; owed >= 1 && run.idle_count && (!options->count || run.opened + run.failed < options->count); owed--)
            open_client();
        int n = epoll_wait(run.epoll_fd, events, EVENTS, 1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr)
                on_event(events[i].data.ptr, events[i].events);
            else
                stopping = true;
        }
        if (options->then == THEN_DRIP && now - checked > DRIP_CHECK_MS * 1000000ull) {
            drip(now);
            checked = now;
        }
        stopping |= now >= end;
    }
    printf("{\"mode\": \"misbehaving\", \"opened\": %u, \"failed\": %u, \"ended\": %u, \"open\": %u, \"taken\": %llu}\n",
           run.opened, run.failed, run.ended, run.open, (unsigned long long)run.taken);
    return 0;
}
