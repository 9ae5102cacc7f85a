/* The clients of a relay: what they send, and what must come back. */
#define _GNU_SOURCE
#include "connection.h"

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

enum {
    STALL_MS = 10000,
    SOURCES = 62500,
    SMALLEST = 1 + 2 * sizeof(uint64_t),
    HANDSHAKES = 128, /* at once: a server may limit those of TLS, and more would wait for the server only */
};

struct client {
    struct connection connection;
    bool connected; /* with its handshakes, if it has TLS or WebSocket */
    uint64_t number, round;
    uint64_t position, size; /* bytes received of the reply, and in all */
    uint64_t left; /* bytes of an upload that are not yet sent, with the heads of frames */
    uint64_t since; /* ns: the start of this round; in a short session, of its connect */
};

struct mode {
    const char *name;
    int arguments; /* after the port */
    void (*speak)(struct client *);
    const unsigned char *(*expected)(const struct client *); /* the reply, from the client's position */
    void (*complete)(struct client *); /* after the last byte; NULL: the session ends with the FIN after it */
};

static struct {
    const struct mode *mode;
    uint16_t port;
    bool together; /* clients of an echo wait until all are connected */
    uint64_t connections, size, total, until, bytes_each;
    uint64_t begun; /* clients that have dialled at least once; the others wait for the handshakes of these */
    uint64_t dialled, connected, open, resting, rounds, bytes;
    struct client *clients;
    struct histogram latency;
    int epoll_fd;
} run;

static void watch(struct client *client, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = client};
    if (epoll_ctl(run.epoll_fd, operation, client->connection.fd, &event) < 0)
        die("epoll_ctl");
}

/* Each connection comes from another source address, since servers limit connections by address. */
static void dial(struct client *client)
{
    uint64_t n = run.dialled++;
    uint32_t source = source_address(FIRST_SOURCE, (unsigned)(n % SOURCES));
    *client = (struct client){
        .connection.fd = client_socket(source, (struct shape){.no_delay = true}), .number = n, .since = now_ns()};
    if (!start_connect(client->connection.fd, run.port))
        die("connect");
    watch(client, EPOLL_CTL_ADD, EPOLLOUT);
    run.open++;
}

static void hang_up(struct client *client)
{
    close_connection(&client->connection);
    run.open--;
}

static void say(struct client *client, const unsigned char *bytes, size_t size, uint64_t reply)
{
    client->position = 0;
    client->size = reply;
    send_message(&client->connection, bytes, size);
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

static const unsigned char *echo(const struct client *client) { return message(client) + client->position; }

static void speak(struct client *client) { say(client, message(client), run.size, run.size); }

static const unsigned char *stream(const struct client *client) { return pattern + client->position % PERIOD; }

static void request_stream(struct client *client, unsigned char direction, uint64_t reply)
{
    unsigned char head[HEAD] = {direction};
    for (int i = 1; i < HEAD; i++)
        head[i] = (unsigned char)(run.bytes_each >> (8 * (HEAD - 1 - i)));
    say(client, head, sizeof head, reply);
}

static void request_source(struct client *client) { request_stream(client, 'S', run.bytes_each); }

static const unsigned char *confirmation(const struct client *client)
{
    (void)client;
    return (const unsigned char *)"R";
}

static void request_sink(struct client *client)
{
    request_stream(client, 'R', 1);
    client->left = upload_size(run.bytes_each);
    watch(client, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
}

static void send_stream(struct client *client)
{
    while (client->left) {
        size_t size;
        const void *bytes = upload_part(upload_size(run.bytes_each) - client->left, run.bytes_each, &size);
        size_t sent = send_some(&client->connection, bytes, size);
        if (!sent)
            return;
        client->left -= sent;
    }
    watch(client, EPOLL_CTL_MOD, EPOLLIN);
}

static void repeat_until_end(struct client *client)
{
    client->since = now_ns();
    if (client->since < run.until)
        speak(client);
    else if (run.together)
        run.resting++;
    else
        hang_up(client);
}

static void dial_next(struct client *client)
{
    hang_up(client);
    if (run.dialled < run.total)
        dial(client);
}

static void do_nothing(struct client *client) { (void)client; }

static const struct mode MODES[] = {
    {"echo", 3, speak, echo, repeat_until_end},
    {"short", 3, speak, echo, dial_next},
    {"bulk", 2, request_source, stream, NULL},
    {"upload", 2, request_sink, confirmation, NULL},
    {"hold", 2, speak, echo, do_nothing},
};

/* So that the figures of an echo contain no handshake. */
static bool waits_for_all(void) { return run.together && run.until; }

static void connecting(struct client *client)
{
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(client->connection.fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if ((errno = error))
        die("connect");
    uint32_t events = go_on_with_handshakes(&client->connection);
    if (events) {
        watch(client, EPOLL_CTL_MOD, events);
        return;
    }
    client->connected = true;
    run.connected++;
    if (run.begun < run.connections && run.dialled < run.total)
        dial(&run.clients[run.begun++]);
    watch(client, EPOLL_CTL_MOD, EPOLLIN);
    if (!waits_for_all())
        run.mode->speak(client);
}

/* False: nothing is there, or the session has ended. */
static bool receive_some(struct client *client)
{
    static unsigned char buffer[CHUNK_BYTES];
    bool to_its_end = !run.mode->complete, ended;
    ssize_t n = receive_session(&client->connection, buffer, &ended);
    if (n < 0)
        return false;
    if ((uint64_t)n > client->size - client->position)
        give_up("more bytes than expected");
    if (n && memcmp(buffer, run.mode->expected(client), (size_t)n) != 0)
        give_up("other bytes than expected");
    run.bytes += run.mode->speak == request_sink ? (n ? run.bytes_each : 0) : (uint64_t)n;
    client->position += (uint64_t)n;
    if (ended) {
        if (!to_its_end || client->position < client->size || client->left)
            give_up("closed early");
        run.rounds++;
        hang_up(client);
        return false;
    }
    if (n == 0 || to_its_end || client->position < client->size)
        return true;
    histogram_record(&run.latency, now_ns() - client->since);
    run.rounds++;
    client->round++;
    run.mode->complete(client);
    return client->connected;
}

static void receive(struct client *client)
{
    while (receive_some(client) && has_pending(&client->connection))
        continue;
}

static int handle_events(int timeout)
{
    struct epoll_event events[RELAY_EVENTS];
    int n = epoll_wait(run.epoll_fd, events, RELAY_EVENTS, timeout);
    for (int i = 0; i < n; i++) {
        struct client *client = events[i].data.ptr;
        if (!client->connected)
            connecting(client);
        else if ((events[i].events & EPOLLOUT) && client->left)
            send_stream(client);
        else
            receive(client);
    }
    return n;
}

static void turn(void)
{
    if (handle_events(STALL_MS) == 0)
        give_up("no byte was received for 10 s");
}

static void report(uint64_t begin)
{
    printf("{\"rounds\": %llu, \"bytes\": %llu, \"seconds\": %.6f, \"p50_us\": %.1f, \"p99_us\": %.1f}\n",
           (unsigned long long)run.rounds, (unsigned long long)run.bytes, (double)(now_ns() - begin) / 1e9,
           (double)histogram_quantile(&run.latency, 0.5) / 1e3, (double)histogram_quantile(&run.latency, 0.99) / 1e3);
    fflush(stdout);
}

/* Wait until all are connected, and for a line of input; then let them speak. */
static void start_together(uint64_t *begin)
{
    while (run.connected < run.connections)
        turn();
    printf("{\"connected\": %llu}\n", (unsigned long long)run.connected);
    fflush(stdout);
    if (getchar() == EOF)
        exit(0);
    run.until += now_ns() - *begin;
    *begin = now_ns();
    for (uint64_t i = 0; i < run.connections; i++) {
        run.clients[i].since = now_ns();
        speak(&run.clients[i]);
    }
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
    while (handle_events(0)) /* a ping; anything else gives up */
        continue;
}

/* Echoes on sessions that are open before and after them. */
static void echo_together(uint64_t begin)
{
    start_together(&begin);
    while (run.resting < run.connections)
        turn();
    report(begin);
    while (getchar() != EOF)
        continue;
}

bool relay_clients(const char *mode, int argc, char **argv, struct manner manner)
{
    for (size_t i = 0; i < sizeof MODES / sizeof *MODES; i++)
        if (!strcmp(mode, MODES[i].name) && argc == 1 + MODES[i].arguments)
            run.mode = &MODES[i];
    if (!run.mode)
        return false;
    uint64_t begin = now_ns(), last = strtoull(argv[2], NULL, 10);
    run.together = manner.together;
    prepare_connections(manner, (uint16_t)atoi(argv[0]));
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
    uint64_t at_once = (manner.tls || manner.websocket) && run.connections > HANDSHAKES ? HANDSHAKES : run.connections;
    while (run.begun < at_once && run.dialled < run.total)
        dial(&run.clients[run.begun++]);
    if (run.mode->complete == do_nothing)
        return hold(begin), true;
    if (waits_for_all())
        return echo_together(begin), true;
    while (run.open)
        turn();
    return report(begin), true;
}
