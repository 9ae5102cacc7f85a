/*
 * Clients that send requests and compare replies. The loop decides when they start.
 *
 * On a machine with two cores the generator must cost as little as possible, so a connection is four system calls and
 * its share of one epoll_wait. The rest is the kernel's work for the handshake, which is charged to the client.
 *   connect(AF_UNSPEC)  ends the last connection with RST (its end of stream was read: nothing is lost) and makes the
 *                       socket usable again: no socket, setsockopt, bind, epoll_ctl or close per connection, no
 *                       TIME_WAIT
 *   connect             non-blocking; on loopback the handshake is over when it returns EINPROGRESS
 *   send                at once. EAGAIN (the SYN was dropped, the accept queue is full) waits for EPOLLOUT
 *   recv                once: only the FIN wakes us (EPOLLRDHUP without EPOLLIN), and by then the whole reply is here
 * A reply that is larger than the receive buffer would never reach its FIN that way, so it is read as it comes.
 *
 * With --fresh each connection has a new socket and the next source address, and ends with FIN, as a real client's does.
 * With --tls so too. Then it has a handshake of its own, and the reply must end with close_notify.
 */
#define _GNU_SOURCE
#include "requests.h"
#include "tls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    FITS_RECEIVE_BUFFER = 32 * 1024, /* of the default 128 KB, half may be overhead */
    MAX_ERRORS = 1000,               /* the server is gone: end the run instead of spinning */
};

struct client {
    struct watched watched;
    int fd;
    tls *tls; /* NULL: plain, or idle */
    unsigned number, exchanges; /* exchanges that are done */
    uint64_t started, exchange_started; /* ns; 0: idle */
    size_t sent, received;
    bool blocked, differs, ending;
    bool handshaking; /* the request waits for the end of the handshake */
    uint64_t due;               /* ns: when to send the next piece, while the client is in the pacing queue */
    struct client *prev, *next; /* neighbours there */
};

static struct {
    const struct options *options;
    struct tally *tally;
    FILE *trace;
    struct sockaddr_in servers[MAX_PORTS];
    struct shape shape;
    struct client *clients;
    unsigned *idle, idle_count; /* numbers of clients without a connection: a stack */
    char *request, *expected, *buffer;
    size_t request_length, expected_length, buffer_size;
    struct client pacing; /* head of a ring: all pauses have one length, so the oldest entry is due first */
    uint32_t interest;
    int epoll_fd;
    uint64_t errors;
} run;

static void on_event(struct watched *watched, uint32_t events);

/* source: the number of its address. */
static void open_client(struct client *client, unsigned source)
{
    client->watched.on_event = on_event;
    client->fd = client_socket(source_address(run.options->source, run.options->first + source), run.shape);
    struct epoll_event event = {.events = run.interest, .data.ptr = client};
    if (epoll_ctl(run.epoll_fd, EPOLL_CTL_ADD, client->fd, &event) < 0)
        die("epoll_ctl");
}

int requests_open(const struct options *options, struct tally *tally)
{
    run.options = options;
    run.tally = tally;
    for (unsigned i = 0; i < options->port_count; i++)
        run.servers[i] = server_address(options->ports[i]);
    run.expected = read_file(options->expect_path, &run.expected_length);
    run.request = options->send_path ? read_file(options->send_path, &run.request_length) : REQUEST;
    run.request_length = options->send_path ? run.request_length : sizeof REQUEST;
    run.shape = options->shape;
    run.shape.no_delay = options->split > 0;
    run.shape.close_with_rst = !options->fresh;
    run.trace = options->trace_path ? fopen(options->trace_path, "w") : NULL;
    if (options->trace_path && !run.trace)
        die(options->trace_path);
    bool read_as_it_comes = options->tls_version || run.expected_length > FITS_RECEIVE_BUFFER || options->exchanges ||
                            options->shape.receive_buffer;
    if (options->tls_version)
        tls_prepare(options->tls_version);
    run.interest = EPOLLET | EPOLLRDHUP | (read_as_it_comes ? (uint32_t)EPOLLIN : 0);
    run.buffer_size = run.expected_length + 4096; /* more than expected, so that more than expected is seen */
    run.buffer = malloc(run.buffer_size);
    run.pacing.prev = run.pacing.next = &run.pacing;
    run.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    run.clients = calloc(options->connections, sizeof *run.clients);
    run.idle = calloc(options->connections, sizeof *run.idle);
    for (unsigned i = 0; i < options->connections; i++) {
        run.clients[i].number = i;
        if (!options->fresh)
            open_client(&run.clients[i], i);
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
    if (run.trace)
        fprintf(run.trace, "%llu %llu %s\n", (unsigned long long)client->started,
                (unsigned long long)(now_ns() - client->started), OUTCOME_NAMES[outcome]);
    if (outcome == OK && !run.options->exchanges && is_warm(client->started))
        histogram_record(&run.tally->latency, now_ns() - client->started);
    pause_over(client);
    client->started = 0;
    run.idle[run.idle_count++] = client->number;
    if (outcome != OK)
        run.errors++;
    if (client->tls) {
        if (outcome == OK)
            tls_finish(client->tls);
        tls_free(client->tls);
        client->tls = NULL;
    }
    static const struct sockaddr disconnect = {.sa_family = AF_UNSPEC};
    if (outcome == OK && !run.options->fresh && connect(client->fd, &disconnect, sizeof disconnect) == 0)
        return;
    close(client->fd); /* after an error a new socket, so that the next connection inherits nothing */
    if (!run.options->fresh)
        open_client(client, client->number);
}

/* The outcome for errno, after a send, a receive or a handshake. */
static enum outcome of_error(void)
{
    switch (errno) {
    case EPROTO:
        return TLS_ERROR;
    case ENODATA:
        return SHORT;
    default:
        return errno == EPIPE || errno == ECONNRESET ? RESET : REFUSED;
    }
}

static void wait_until_writable(struct client *client)
{
    client->blocked = true;
    watch(client, run.interest | EPOLLOUT);
}

/* Go on with the handshake. True: it is complete, or there is none. */
static bool complete_handshake(struct client *client)
{
    if (!client->handshaking)
        return true;
    if (client->blocked)
        watch(client, run.interest);
    client->blocked = false;
    client->handshaking = tls_handshake(client->tls) < 0;
    if (!client->handshaking)
        return true;
    if (errno != EAGAIN)
        finish(client, of_error());
    else if (tls_wants_to_send(client->tls))
        wait_until_writable(client);
    return false;
}

static ssize_t send_bytes(struct client *client, const char *bytes, size_t size)
{
    return client->tls ? tls_send(client->tls, bytes, size) : send(client->fd, bytes, size, MSG_NOSIGNAL);
}

/* Send what is left of the request, or its next piece. */
static void send_request(struct client *client)
{
    if (!complete_handshake(client))
        return;
    size_t split = run.options->split;
    while (client->sent < run.request_length) {
        size_t left = run.request_length - client->sent, size = split && split < left ? split : left;
        ssize_t n = send_bytes(client, run.request + client->sent, size);
        if (n < 0 && errno == EAGAIN) {
            wait_until_writable(client);
            return;
        }
        if (n < 0) {
            finish(client, of_error());
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

void requests_start(uint64_t intended)
{
    struct client *client = &run.clients[run.idle[--run.idle_count]];
    if (run.options->fresh)
        open_client(client, (unsigned)(run.tally->started % (run.options->addresses ? run.options->addresses : UINT32_MAX)));
    const struct sockaddr_in *server = &run.servers[run.tally->started % run.options->port_count];
    client->sent = client->received = 0;
    client->exchanges = 0;
    client->blocked = client->differs = client->ending = false;
    client->started = client->exchange_started = intended;
    run.tally->started++;
    client->handshaking = run.options->tls_version;
    if (connect(client->fd, (const struct sockaddr *)server, sizeof *server) < 0 && errno != EINPROGRESS) {
        finish(client, REFUSED);
        return;
    }
    if (client->handshaking)
        client->tls = tls_open(client->fd);
    send_request(client);
}

/* One of several exchanges is complete: start the next one, or end the connection, which the server must confirm. */
static void next_exchange(struct client *client)
{
    uint64_t now = now_ns();
    if (is_warm(client->exchange_started))
        histogram_record(&run.tally->latency, now - client->exchange_started);
    client->exchange_started = now;
    if (++client->exchanges == run.options->exchanges) {
        client->ending = true;
        shutdown(client->fd, SHUT_WR);
    } else {
        client->sent = client->received = 0;
        send_request(client);
    }
}

static enum outcome verdict(const struct client *client)
{
    if (client->differs)
        return MISMATCH;
    bool all = run.options->exchanges ? client->ending : client->received == run.expected_length;
    return all ? OK : SHORT;
}

static ssize_t receive_bytes(struct client *client)
{
    return client->tls ? tls_recv(client->tls, run.buffer, run.buffer_size)
                       : recv(client->fd, run.buffer, run.buffer_size, 0);
}

/* Read what is there. If the FIN was seen and the buffer was not filled, this was everything: no recv for the end. */
static void receive(struct client *client, uint32_t events)
{
    bool at_end = (events & EPOLLRDHUP) && !(events & (EPOLLERR | EPOLLHUP)) && !client->tls;
    for (;;) {
        ssize_t n = receive_bytes(client);
        if (n < 0) {
            if (errno != EAGAIN)
                finish(client, client->tls ? of_error() : client->blocked && !client->sent ? REFUSED : RESET);
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
        if (!client->started) /* sending the next request failed */
            return;
    }
}

static void on_event(struct watched *watched, uint32_t events)
{
    struct client *client = (struct client *)watched;
    if (!client->started) /* a late event of a connection that has ended */
        return;
    bool failed = events & (EPOLLERR | EPOLLHUP);
    if (client->handshaking || (client->blocked && (events & EPOLLOUT) && !failed))
        send_request(client);
    if (client->started && !client->handshaking && (events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP)))
        receive(client, events);
}

void requests_continue(uint64_t now)
{
    struct client *client;
    while ((client = run.pacing.next) != &run.pacing && client->due <= now) {
        pause_over(client);
        send_request(client);
    }
}

uint64_t requests_due(void) { return run.pacing.next == &run.pacing ? UINT64_MAX : run.pacing.next->due; }

void requests_expire(uint64_t now)
{
    for (unsigned i = 0; i < run.options->connections; i++)
        if (run.clients[i].started && now > run.clients[i].started + to_ns(run.options->timeout))
            finish(&run.clients[i], TIMEOUT);
}

unsigned requests_idle(void) { return run.idle_count; }

/* A trace is for servers that may be away for a while. */
bool requests_hopeless(void) { return !run.trace && run.errors > MAX_ERRORS; }

void requests_close(void)
{
    if (run.trace && fclose(run.trace) != 0)
        die(run.options->trace_path);
}
