/*
 * Clients that ask, and compare what they get. When they begin is the loop's affair.
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
#include "asking.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    FITS_RECEIVE_BUFFER = 32 * 1024, /* of the default 128 KB, half may be overhead */
    MAX_ERRORS = 1000,               /* a server that is gone: say so, do not spin */
};

struct client {
    struct watched watched;
    int fd;
    unsigned number, exchanges; /* exchanges that are done */
    uint64_t started, asked;    /* ns, 0: idle; of the connection, of the exchange */
    size_t sent, received;
    bool blocked, differs, ending;
    uint64_t due;                /* ns: when the next piece is to be sent, while in the queue of those that pace */
    struct client *prev, *next;  /* neighbours there */
};

static struct {
    const struct options *options;
    struct tally *tally;
    struct sockaddr_in servers[1024];
    struct client *clients;
    unsigned *idle, idle_count; /* numbers of clients without a connection: a stack */
    char *request, *expected, *buffer;
    size_t request_length, expected_length, buffer_size;
    struct client pacing; /* head of a ring: all pauses have one length, so who came first is due first */
    uint32_t interest;
    int epoll_fd;
    uint64_t errors;
} run;

static void on_event(struct watched *watched, uint32_t events);

static void open_client(struct client *client)
{
    int on = 1;
    client->watched.on_event = on_event;
    client->fd = client_socket(run.options->first + client->number, run.options->shape);
    if (run.options->split && setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
        die("TCP_NODELAY"); /* each piece is a segment of its own */
    struct epoll_event event = {.events = run.interest, .data.ptr = client};
    if (epoll_ctl(run.epoll_fd, EPOLL_CTL_ADD, client->fd, &event) < 0)
        die("epoll_ctl");
}

int asking_open(const struct options *options, struct tally *tally)
{
    run.options = options;
    run.tally = tally;
    for (unsigned i = 0; i < options->port_count; i++)
        run.servers[i] = server_address(options->ports[i]);
    run.expected = read_file(options->expect_path, &run.expected_length);
    run.request = options->send_path ? read_file(options->send_path, &run.request_length) : REQUEST;
    run.request_length = options->send_path ? run.request_length : sizeof REQUEST;
    bool read_as_it_comes = run.expected_length > FITS_RECEIVE_BUFFER || options->exchanges || options->shape.receive_buffer;
    run.interest = EPOLLET | EPOLLRDHUP | (read_as_it_comes ? (uint32_t)EPOLLIN : 0);
    run.buffer_size = run.expected_length + 4096; /* more than expected, so that more than expected is seen */
    run.buffer = malloc(run.buffer_size);
    run.pacing.prev = run.pacing.next = &run.pacing;
    run.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    run.clients = calloc(options->connections, sizeof *run.clients);
    run.idle = calloc(options->connections, sizeof *run.idle);
    for (unsigned i = 0; i < options->connections; i++) {
        run.clients[i].number = i;
        open_client(&run.clients[i]);
        run.idle[run.idle_count++] = i;
    }
    return run.epoll_fd;
}

static void watch(struct client *client, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = client};
    if (epoll_ctl(run.epoll_fd, EPOLL_CTL_MOD, client->fd, &event) < 0)
        die("epoll_ctl");
}

static void pause_before_next(struct client *client)
{
    client->due = now_ns() + to_ns(run.options->pace);
    client->prev = run.pacing.prev;
    client->next = &run.pacing;
    client->prev->next = run.pacing.prev = client;
}

static void pause_over(struct client *client)
{
    if (!client->next)
        return;
    client->prev->next = client->next;
    client->next->prev = client->prev;
    client->next = client->prev = NULL;
}

static bool is_warm(uint64_t when) { return when >= run.tally->begin + to_ns(run.options->warm_up); }

static void finish(struct client *client, enum outcome outcome)
{
    run.tally->outcomes[outcome]++;
    if (outcome == ANSWERED && !run.options->exchanges && is_warm(client->started))
        histogram_record(&run.tally->latency, now_ns() - client->started);
    pause_over(client);
    client->started = 0;
    run.idle[run.idle_count++] = client->number;
    static const struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    if (outcome == ANSWERED && connect(client->fd, &nobody, sizeof nobody) == 0)
        return;
    if (outcome != ANSWERED)
        run.errors++;
    close(client->fd); /* after an error: a new socket, so that nothing of it is carried on */
    open_client(client);
}

/* Send what is left of the request, or its next piece. */
static void ask(struct client *client)
{
    size_t split = run.options->split;
    while (client->sent < run.request_length) {
        size_t left = run.request_length - client->sent, size = split && split < left ? split : left;
        ssize_t n = send(client->fd, run.request + client->sent, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            client->blocked = true;
            watch(client, run.interest | EPOLLOUT);
            return;
        }
        if (n < 0) {
            finish(client, errno == EPIPE || errno == ECONNRESET ? RESET : CONNECT);
            return;
        }
        if (client->blocked)
            watch(client, run.interest);
        client->blocked = false;
        client->sent += (size_t)n;
        if (run.options->pace > 0 && client->sent < run.request_length) {
            pause_before_next(client);
            return;
        }
    }
}

void asking_start(uint64_t intended)
{
    struct client *client = &run.clients[run.idle[--run.idle_count]];
    const struct sockaddr_in *server = &run.servers[run.tally->started % run.options->port_count];
    client->sent = client->received = 0;
    client->exchanges = 0;
    client->blocked = client->differs = client->ending = false;
    client->started = client->asked = intended;
    run.tally->started++;
    if (connect(client->fd, (const struct sockaddr *)server, sizeof *server) < 0 && errno != EINPROGRESS)
        finish(client, CONNECT);
    else
        ask(client);
}

/* One of several exchanges is complete: the next one, or the end, which the server is to confirm. */
static void next_exchange(struct client *client)
{
    uint64_t now = now_ns();
    if (is_warm(client->asked))
        histogram_record(&run.tally->latency, now - client->asked);
    client->asked = now;
    if (++client->exchanges == run.options->exchanges) {
        client->ending = true;
        shutdown(client->fd, SHUT_WR);
    } else {
        client->sent = client->received = 0;
        ask(client);
    }
}

static enum outcome verdict(const struct client *client)
{
    if (client->differs)
        return MISMATCH;
    bool all = run.options->exchanges ? client->ending : client->received == run.expected_length;
    return all ? ANSWERED : SHORT;
}

/* Read what is there. FIN seen and not all of the buffer used means that this was everything: no recv for the end. */
static void receive(struct client *client, uint32_t events)
{
    bool at_end = (events & EPOLLRDHUP) && !(events & (EPOLLERR | EPOLLHUP));
    for (;;) {
        ssize_t n = recv(client->fd, run.buffer, run.buffer_size, 0);
        if (n < 0) {
            if (errno != EAGAIN)
                finish(client, client->blocked && !client->sent ? CONNECT : RESET);
            return;
        }
        size_t length = (size_t)n;
        run.tally->reply_bytes += length;
        if (length > run.expected_length - client->received || (length && client->ending)) {
            finish(client, MISMATCH);
            return;
        }
        client->differs |= memcmp(run.buffer, run.expected + client->received, length) != 0;
        client->received += length;
        if (length == 0 || (at_end && length < run.buffer_size && !run.options->exchanges)) {
            finish(client, verdict(client));
            return;
        }
        if (run.options->exchanges && client->received == run.expected_length)
            next_exchange(client);
        if (!client->started) /* asking again has failed */
            return;
    }
}

static void on_event(struct watched *watched, uint32_t events)
{
    struct client *client = (struct client *)watched;
    if (!client->started) /* the echo of a connection that is over */
        return;
    if (client->blocked && (events & EPOLLOUT) && !(events & (EPOLLERR | EPOLLHUP)))
        ask(client);
    if (client->started && (events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP)))
        receive(client, events);
}

void asking_continue(uint64_t now)
{
    struct client *client;
    while ((client = run.pacing.next) != &run.pacing && client->due <= now) {
        pause_over(client);
        ask(client);
    }
}

uint64_t asking_due(void) { return run.pacing.next == &run.pacing ? UINT64_MAX : run.pacing.next->due; }

void asking_give_up(uint64_t now)
{
    for (unsigned i = 0; i < run.options->connections; i++)
        if (run.clients[i].started && now > run.clients[i].started + to_ns(run.options->timeout))
            finish(&run.clients[i], TIMEOUT);
}

unsigned asking_idle(void) { return run.idle_count; }

bool asking_in_vain(void) { return run.errors > MAX_ERRORS; }
