/* The application behind a relay: it echoes, or sends or receives a stream of bytes; all of that in WebSocket too. */
#define _GNU_SOURCE
#include "relay.h"

#include "../client.h"
#include "websocket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FD = 1 << 17, ACCEPTED_AT_ONCE = 64, SLOW_QUEUE = 511, WINDOW_NS = 100000000 };

struct session {
    char *held; /* read and not yet echoed, because the client does not read */
    uint32_t begin, end; /* of the held bytes */
    char stream;        /* 'S': it sends one; 'R': it receives one; 0: it echoes */
    uint8_t head_bytes; /* bytes of the head that were received */
    unsigned char head[HEAD];
    uint64_t position, size; /* of a stream: bytes sent (with the heads of frames) or received, and in all */
    struct frames *frames; /* of WebSocket, once it is agreed on; else NULL */
    bool said_close;
};

static struct session *sessions; /* by descriptor */
static bool websocket;
static unsigned accept_cost; /* µs; 0: none */
static int epoll_fd;

static void watch(int operation, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(epoll_fd, operation, fd, &event) < 0)
        die("epoll_ctl");
}

static void drop(int fd)
{
    free(sessions[fd].held);
    free(sessions[fd].frames);
    memset(&sessions[fd], 0, sizeof sessions[fd]);
    close(fd);
}

/* Send these few bytes, then say that nothing follows: FIN, or Close. */
static void send_last(int fd, const void *bytes, size_t size)
{
    unsigned char wire[2 * FRAME_HEAD];
    size_t n = 0;
    if (websocket && size)
        n = frame_head(wire, OP_BINARY, size, false);
    for (size_t i = 0; i < size; i++)
        wire[n++] = ((const unsigned char *)bytes)[i];
    if (websocket)
        n += control_frame(wire + n, OP_CLOSE, false);
    sessions[fd].said_close = websocket;
    if (n && send(fd, wire, n, MSG_NOSIGNAL) != (ssize_t)n)
        drop(fd);
    else if (!websocket) /* a client of WebSocket replies with its own Close */
        shutdown(fd, SHUT_WR);
}

/* Send as much as the socket takes. */
static void send_pattern(int fd)
{
    static unsigned char wire[CHUNK_BYTES];
    struct session *c = &sessions[fd];
    uint64_t total = websocket ? framed_size(c->size, false) : c->size;
    while (c->position < total) {
        const unsigned char *bytes = pattern + c->position % PERIOD;
        size_t size = total - c->position < CHUNK_BYTES ? (size_t)(total - c->position) : CHUNK_BYTES;
        if (websocket) {
            size = framed(wire, sizeof wire, c->position, c->size, false);
            bytes = wire;
        }
        ssize_t n = send(fd, bytes, size, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno != EAGAIN)
                drop(fd);
            return;
        }
        c->position += (uint64_t)n;
    }
    watch(EPOLL_CTL_MOD, fd, EPOLLIN);
    send_last(fd, NULL, 0);
}

/* Compare what was received; after the last byte, confirm the stream. Wrong bytes end the session without that. */
static void receive_pattern(int fd, const char *bytes, size_t size)
{
    struct session *c = &sessions[fd];
    if (size > c->size - c->position || memcmp(bytes, pattern + c->position % PERIOD, size) != 0) {
        drop(fd);
        return;
    }
    c->position += size;
    if (c->position < c->size)
        return;
    send_last(fd, "R", 1);
}

/* Whether these bytes belong to a stream or to a request for one; the first byte of a session decides. */
static bool is_stream(int fd, const char *bytes, size_t size)
{
    struct session *c = &sessions[fd];
    size_t more = c->head_bytes + size > HEAD ? (size_t)(HEAD - c->head_bytes) : size;
    memcpy(c->head + c->head_bytes, bytes, more);
    c->head_bytes = (uint8_t)(c->head_bytes + more);
    if (more && c->head[0] != 'S' && c->head[0] != 'R') {
        c->head_bytes = HEAD;
        return false;
    }
    if (more)
        c->stream = (char)c->head[0];
    if (more && c->head_bytes == HEAD) {
        for (int i = 1; i < HEAD; i++)
            c->size = c->size << 8 | c->head[i];
        if (c->stream == 'S')
            watch(EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT);
    }
    if (c->stream == 'R' && size > more) {
        receive_pattern(fd, bytes + more, size - more);
        return true;
    }
    return c->stream;
}

/* Send the held bytes. False: some are left, or the session has ended. */
static bool send_held(int fd)
{
    struct session *c = &sessions[fd];
    ssize_t n = send(fd, c->held + c->begin, c->end - c->begin, MSG_NOSIGNAL);
    if (n < 0) {
        if (errno != EAGAIN)
            drop(fd);
        return false;
    }
    c->begin += (uint32_t)n;
    if (c->begin < c->end)
        return false;
    free(c->held);
    c->held = NULL;
    watch(EPOLL_CTL_MOD, fd, EPOLLIN);
    return true;
}

/* Take the request as soon as it is complete, and agree. It is rarely incomplete, so no part of it is kept. */
static void agree(int fd)
{
    char head[HANDSHAKE_BYTES];
    ssize_t n = recv(fd, head, sizeof head, MSG_PEEK);
    size_t size = n > 0 ? head_size(head, (size_t)n) : 0;
    if (n > 0 && !size && n < (ssize_t)sizeof head)
        return;
    if (size && recv(fd, head, size, 0) == (ssize_t)size && is_upgrade_request(head, size) &&
        send(fd, UPGRADE_REPLY, strlen(UPGRADE_REPLY), MSG_NOSIGNAL) == (ssize_t)strlen(UPGRADE_REPLY)) {
        sessions[fd].frames = calloc(1, sizeof *sessions[fd].frames);
        if (!sessions[fd].frames)
            die("calloc");
        sessions[fd].frames->masked = true;
        return;
    }
    drop(fd);
}

/* What the frames in `bytes` mean, in place. Returns its size; 0: nothing yet, or the session has ended. */
static size_t decode(int fd, char *bytes, size_t size)
{
    unsigned char close_frame[FRAME_HEAD];
    long n = unframe(sessions[fd].frames, (unsigned char *)bytes, size);
    if (n >= 0 && !sessions[fd].frames->closed)
        return (size_t)n;
    if (n >= 0 && !sessions[fd].said_close)
        send(fd, close_frame, control_frame(close_frame, OP_CLOSE, false), MSG_NOSIGNAL);
    drop(fd);
    return 0;
}

static void serve(int fd, uint32_t events)
{
    static char wire[FRAME_HEAD + CHUNK_BYTES];
    char *buffer = wire + FRAME_HEAD; /* a head is put in front of what is echoed */
    struct session *c = &sessions[fd];
    if (c->stream == 'S' && c->head_bytes == HEAD && (events & EPOLLOUT)) {
        send_pattern(fd);
        return;
    }
    if (c->held && !send_held(fd))
        return;
    if (websocket && !c->frames) {
        agree(fd);
        return;
    }
    ssize_t n = recv(fd, buffer, CHUNK_BYTES, 0);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN)
            drop(fd);
        return;
    }
    if (websocket && !(n = (ssize_t)decode(fd, buffer, (size_t)n)))
        return;
    if (is_stream(fd, buffer, (size_t)n))
        return;
    if (websocket) {
        unsigned char head[FRAME_HEAD];
        size_t size = frame_head(head, OP_BINARY, (uint64_t)n, false);
        buffer -= size;
        memcpy(buffer, head, size);
        n += (ssize_t)size;
    }
    ssize_t sent = send(fd, buffer, (size_t)n, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        drop(fd);
        return;
    }
    sent = sent < 0 ? 0 : sent;
    if (sent < n) {
        c->held = malloc((size_t)n);
        if (!c->held)
            die("malloc");
        memcpy(c->held, buffer + sent, (size_t)(n - sent));
        c->begin = 0;
        c->end = (uint32_t)(n - sent);
        watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
    }
}

static int listen_on_loopback(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    struct sockaddr_in at = server_address(port);
    socklen_t size = sizeof at;
    if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0 || /* inherited */
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(fd, (struct sockaddr *)&at, size) < 0 || listen(fd, accept_cost ? SLOW_QUEUE : 65535) < 0 ||
        getsockname(fd, (struct sockaddr *)&at, &size) < 0)
        die("listen");
    printf("port %d\n", ntohs(at.sin_port));
    fflush(stdout);
    return fd;
}

/* Packets that the kernel dropped at this socket: SYNs, at a full accept queue. One that is sent again counts again. */
static unsigned dropped_at(int listening)
{
    uint32_t counts[SK_MEMINFO_VARS] = {0};
    socklen_t size = sizeof counts;
    if (getsockopt(listening, SOL_SOCKET, SO_MEMINFO, counts, &size) < 0)
        die("SO_MEMINFO");
    return counts[SK_MEMINFO_DROPS];
}

/* An application that loads a player's state at each connect, for example. */
static void pay_for_accept(int listening)
{
    static uint64_t window, accepted;
    uint64_t now = now_ns() / WINDOW_NS;
    if (now != window && accepted) {
        printf("accepts %llu %llu %u\n", (unsigned long long)window, (unsigned long long)accepted,
               dropped_at(listening));
        fflush(stdout);
        accepted = 0;
    }
    window = now;
    accepted++;
    usleep(accept_cost);
}

static void accept_some(int listening)
{
    for (int k = 0; k < (accept_cost ? 1 : ACCEPTED_AT_ONCE); k++) {
        int fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK);
        if (fd < 0 && errno == EMFILE)
            die("accept");
        if (fd < 0)
            return;
        if (fd >= MAX_FD)
            give_up("too many connections");
        if (accept_cost)
            pay_for_accept(listening);
        watch(EPOLL_CTL_ADD, fd, EPOLLIN);
    }
}

void relay_application(bool speaks_websocket, uint16_t port, unsigned cost)
{
    websocket = speaks_websocket;
    accept_cost = cost;
    sessions = calloc(MAX_FD, sizeof *sessions);
    epoll_fd = epoll_create1(0);
    if (!sessions || epoll_fd < 0)
        die("epoll");
    int listening = listen_on_loopback(port);
    watch(EPOLL_CTL_ADD, listening, EPOLLIN);
    for (;;) {
        struct epoll_event events[RELAY_EVENTS];
        int n = epoll_wait(epoll_fd, events, RELAY_EVENTS, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == listening)
                accept_some(listening);
            else
                serve(events[i].data.fd, events[i].events);
        }
    }
}
