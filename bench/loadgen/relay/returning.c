/*
 * Clients that come back when they are cut: sessions, and policy clients that ask at the same moment.
 *
 * A client tries at once. After a failed try it waits for a random time between half of a delay and all of it; the delay
 * is 250 ms at first and doubles up to 4 s. A try that takes 10 s has failed.
 */
#define _GNU_SOURCE
#include "connection.h"

#include "../client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MS 1000000ull

enum {
    SIZE = 100, /* bytes of an echo */
    OPENING = 128, /* at once before the cut: a server may limit handshakes */
    TICK_MS = 10,
    FIRST_DELAY_MS = 250,
    LONGEST_DELAY_MS = 4000,
    TRY_MS = 10000,
    PATIENCE_MS = 60000, /* for the opening, and from the request for a report: what is not served by then has failed */
};

/* The last two are at rest. */
enum state { AWAY, CONNECTING, TLS_HANDSHAKE, UPGRADE, SPEAKING, OPEN, SERVED };

struct returning {
    int fd;
    tls *tls;
    struct frames frames;
    enum state state;
    bool back; /* it was served since it was cut, or it was not cut */
    uint64_t number, round, position;
    uint64_t since, due; /* ns: when it was cut; when it tries again, or its try has failed */
    unsigned tries; /* that failed since it was cut */
};

static struct {
    struct manner manner;
    uint16_t port;
    unsigned first;
    const char *policy; /* NULL: sessions */
    size_t policy_size;
    struct returning *clients;
    uint64_t count, begun, pending; /* pending: begun and not at rest */
    uint64_t cut, served, again, tries, wrong, last;
    uint32_t *waited_us; /* of the served, in their order */
    uint64_t room;
    uint64_t random;
    int epoll_fd;
} run;

static bool at_rest(enum state state) { return state >= OPEN; }

static void set_state(struct returning *client, enum state state)
{
    run.pending += (uint64_t)at_rest(client->state) - (uint64_t)at_rest(state);
    client->state = state;
}

static void watch(struct returning *client, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = client};
    if (epoll_ctl(run.epoll_fd, operation, client->fd, &event) < 0)
        die("epoll_ctl");
}

static void leave(struct returning *client)
{
    if (client->tls)
        tls_free(client->tls);
    if (client->fd >= 0)
        close(client->fd);
    client->tls = NULL;
    client->fd = -1;
}

static uint64_t random_number(void)
{
    run.random ^= run.random << 13;
    run.random ^= run.random >> 7;
    run.random ^= run.random << 17;
    return run.random;
}

static void fail(struct returning *client)
{
    leave(client);
    uint64_t delay = FIRST_DELAY_MS;
    for (unsigned i = 0; i < client->tries && delay < LONGEST_DELAY_MS; i++)
        delay *= 2;
    delay *= MS;
    client->tries++;
    client->due = now_ns() + delay / 2 + random_number() % (delay / 2);
    set_state(client, AWAY);
}

static void try_now(struct returning *client)
{
    uint32_t source = source_address(FIRST_SOURCE, run.first + (unsigned)client->number);
    client->fd = client_socket(source, (struct shape){.no_delay = true});
    client->frames = (struct frames){0};
    client->position = 0;
    client->due = now_ns() + TRY_MS * MS;
    set_state(client, CONNECTING);
    if (start_connect(client->fd, run.port))
        watch(client, EPOLL_CTL_ADD, EPOLLOUT);
    else
        fail(client);
}

static void come_back(struct returning *client)
{
    client->since = now_ns();
    client->back = false;
    client->tries = 0;
    try_now(client);
}

/* The connection has ended before its time. */
static void lose(struct returning *client)
{
    if (!client->back) {
        fail(client);
        return;
    }
    run.cut++;
    leave(client);
    come_back(client);
}

static void serve_complete(struct returning *client)
{
    client->round++;
    client->position = 0;
    if (run.policy)
        leave(client);
    set_state(client, run.policy ? SERVED : OPEN);
    if (client->back)
        return;
    client->back = true;
    uint64_t now = now_ns();
    if (run.served == run.room) {
        run.room = run.room ? 2 * run.room : run.count;
        run.waited_us = realloc(run.waited_us, run.room * sizeof *run.waited_us);
        if (!run.waited_us)
            die("realloc");
    }
    run.waited_us[run.served++] = (uint32_t)((now - client->since) / 1000);
    run.again += client->tries > 0;
    run.tries += client->tries;
    run.last = now;
}

static bool send_all(struct returning *client, const void *bytes, size_t size)
{
    ssize_t n = client->tls ? tls_send(client->tls, bytes, size) : send(client->fd, bytes, size, MSG_NOSIGNAL);
    return n == (ssize_t)size;
}

/* A message contains the numbers of its client and round, so no other message can pass as its echo. 'e' is the first
   byte of no protocol that a server recognises. */
static const unsigned char *message(const struct returning *client)
{
    static unsigned char bytes[SIZE];
    uint64_t number = run.first + client->number;
    memcpy(bytes, pattern, SIZE);
    bytes[0] = 'e';
    memcpy(bytes + 1, &number, sizeof number);
    memcpy(bytes + 1 + sizeof number, &client->round, sizeof client->round);
    return bytes;
}

static void speak(struct returning *client)
{
    unsigned char wire[FRAME_HEAD + SIZE];
    size_t head = run.manner.websocket ? frame_head(wire, OP_BINARY, SIZE, true) : 0;
    memcpy(wire + head, message(client), SIZE);
    if (head)
        mask(wire + head, SIZE, 0);
    client->due = now_ns() + TRY_MS * MS;
    set_state(client, SPEAKING);
    if (!(run.policy ? send_all(client, REQUEST, sizeof REQUEST) : send_all(client, wire, head + SIZE)))
        lose(client);
}

/* Bytes that came, at most `size`; 0: none for now, or the connection is lost. */
static size_t receive(struct returning *client, void *to, size_t size)
{
    ssize_t n = client->tls ? tls_recv(client->tls, to, size) : recv(client->fd, to, size, 0);
    if (n > 0)
        return (size_t)n;
    if (n == 0 && run.policy && client->position == run.policy_size)
        serve_complete(client);
    else if (n == 0 || errno != EAGAIN)
        lose(client);
    return 0;
}

static void hear(struct returning *client)
{
    static unsigned char buffer[CHUNK_BYTES];
    long n = (long)receive(client, buffer, sizeof buffer);
    if (!n)
        return;
    if (run.manner.websocket) {
        n = unframe(&client->frames, buffer, (size_t)n);
        if (n < 0)
            run.wrong++;
        if (n < 0 || client->frames.closed) {
            lose(client);
            return;
        }
        if (client->frames.pinged) {
            unsigned char frame[FRAME_HEAD];
            send_all(client, frame, control_frame(frame, OP_PONG, true));
            client->frames.pinged = false;
        }
    }
    if (!n)
        return;
    const unsigned char *expected = run.policy ? (const unsigned char *)run.policy : message(client);
    uint64_t left = (run.policy ? run.policy_size : SIZE) - client->position;
    if (client->state != SPEAKING || (uint64_t)n > left || memcmp(buffer, expected + client->position, (size_t)n) != 0) {
        run.wrong++;
        lose(client);
        return;
    }
    client->position += (uint64_t)n;
    if (!run.policy && client->position == SIZE)
        serve_complete(client);
}

static void ask_for_upgrade(struct returning *client)
{
    char head[HANDSHAKE_BYTES];
    set_state(client, UPGRADE);
    if (send_all(client, head, upgrade_request(head, run.port)))
        watch(client, EPOLL_CTL_MOD, EPOLLIN);
    else
        lose(client);
}

static void go_on(struct returning *client)
{
    if (client->state == CONNECTING) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &length);
        if (error) {
            fail(client);
            return;
        }
        if (run.manner.tls)
            client->tls = tls_open(client->fd);
        set_state(client, TLS_HANDSHAKE);
    }
    if (client->state == TLS_HANDSHAKE) {
        if (client->tls && tls_handshake(client->tls) != 0) {
            if (errno != EAGAIN)
                fail(client);
            else
                watch(client, EPOLL_CTL_MOD, tls_wants_to_send(client->tls) ? EPOLLOUT : EPOLLIN);
            return;
        }
        if (run.manner.websocket) {
            ask_for_upgrade(client);
            return;
        }
        watch(client, EPOLL_CTL_MOD, EPOLLIN);
        speak(client);
        return;
    }
    if (client->state == UPGRADE) {
        char head[HANDSHAKE_BYTES];
        size_t n = receive(client, head, sizeof head);
        if (n && is_upgrade_reply(head, n) && head_size(head, n) == n)
            speak(client);
        else if (n) /* 502, 503: the application is away */
            fail(client);
        return;
    }
    do
        hear(client);
    while (client->tls && tls_pending(client->tls));
}

static void look_at_clock(void)
{
    static uint64_t looked;
    uint64_t now = now_ns();
    if (now - looked < TICK_MS * MS)
        return;
    looked = now;
    for (uint64_t i = 0; i < run.begun; i++) {
        struct returning *client = &run.clients[i];
        if (at_rest(client->state) || client->due > now)
            continue;
        if (client->state == AWAY)
            try_now(client);
        else
            lose(client);
    }
}

static void turn(void)
{
    struct epoll_event events[RELAY_EVENTS];
    int n = epoll_wait(run.epoll_fd, events, RELAY_EVENTS, TICK_MS);
    for (int i = 0; i < n; i++)
        if (events[i].data.ptr)
            go_on(events[i].data.ptr);
    look_at_clock();
}

/* The next line of input: its first byte; 0: there is none yet. */
static char command(void)
{
    char line[2]; /* a letter and its newline: the next line stays */
    struct epoll_event event;
    static int input = -1;
    if (input < 0) {
        input = epoll_create1(0);
        if (epoll_ctl(input, EPOLL_CTL_ADD, 0, &(struct epoll_event){.events = EPOLLIN}) < 0)
            die("stdin");
    }
    if (epoll_wait(input, &event, 1, 0) != 1)
        return 0;
    if (read(0, line, sizeof line) <= 0)
        exit(0);
    return line[0];
}

static void begin(struct returning *client)
{
    run.pending++; /* AWAY is not at rest */
    come_back(client);
}

/* Open all sessions; at the cut, and for policy clients, all try at once. */
static void open_all(void)
{
    uint64_t until = now_ns() + PATIENCE_MS * MS;
    while (!run.policy && (run.begun < run.count || run.pending)) {
        if (now_ns() > until)
            give_up("not all sessions were open within a minute");
        while (run.begun < run.count && run.pending < OPENING)
            begin(&run.clients[run.begun++]);
        turn();
    }
    printf("{\"open\": %llu}\n", (unsigned long long)run.begun);
    fflush(stdout);
}

static void start(void)
{
    run.cut = run.served = run.again = run.tries = run.wrong = run.last = 0;
    for (; run.policy && run.begun < run.count; run.begun++)
        begin(&run.clients[run.begun]);
    for (uint64_t i = 0; run.policy && i < run.count; i++)
        if (run.clients[i].state == SERVED)
            come_back(&run.clients[i]);
}

static bool wait_for_all(uint64_t until)
{
    while (run.pending && now_ns() < until)
        turn();
    return !run.pending;
}

/* Wait until all are served, then echo once more on every session: one that was cut without a word comes back, too. */
static void report(void)
{
    uint64_t until = now_ns() + PATIENCE_MS * MS;
    if (wait_for_all(until) && !run.policy) {
        for (uint64_t i = 0; i < run.count; i++)
            if (run.clients[i].state == OPEN)
                speak(&run.clients[i]);
        wait_for_all(until);
    }
    printf("{\"cut\": %llu, \"served\": %llu, \"again\": %llu, \"tries\": %llu, \"left\": %llu, \"wrong\": %llu, "
           "\"last_ns\": %llu, \"waited_us\": [",
           (unsigned long long)(run.policy ? run.count : run.cut), (unsigned long long)run.served,
           (unsigned long long)run.again, (unsigned long long)run.tries, (unsigned long long)run.pending,
           (unsigned long long)run.wrong, (unsigned long long)run.last);
    for (uint64_t i = 0; i < run.served; i++)
        printf(i ? ", %u" : "%u", run.waited_us[i]);
    printf("]}\n");
    fflush(stdout);
}

void relay_returning(int argc, char **argv, struct manner manner)
{
    run.manner = manner;
    run.port = (uint16_t)atoi(argv[0]);
    run.count = strtoull(argv[1], NULL, 10);
    run.first = (unsigned)atoi(argv[2]);
    if (argc > 3)
        run.policy = read_file(argv[3], &run.policy_size);
    run.random = now_ns() | 1;
    run.clients = calloc(run.count, sizeof *run.clients);
    run.epoll_fd = epoll_create1(0);
    if (!run.clients || run.epoll_fd < 0)
        die("epoll");
    for (uint64_t i = 0; i < run.count; i++)
        run.clients[i] = (struct returning){.fd = -1, .number = i};
    open_all();
    for (;;) {
        char word = command();
        if (word == 'g')
            start();
        if (word == 'r')
            report();
        turn();
    }
}
