/* Connections of clients: see connection.h. */
#define _GNU_SOURCE
#include "connection.h"

#include "../client.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static struct {
    struct manner manner;
    uint16_t port;
} run;

void prepare_connections(struct manner manner, uint16_t port)
{
    run.manner = manner;
    run.port = port;
}

static void fail(const char *what) __attribute__((noreturn));
static void fail(const char *what)
{
    if (errno == EPROTO)
        give_up(tls_error());
    if (errno == ENODATA)
        give_up("closed without close_notify");
    die(what);
}

static ssize_t send_now(struct connection *connection, const void *bytes, size_t size)
{
    return connection->tls ? tls_send(connection->tls, bytes, size) : send(connection->fd, bytes, size, MSG_NOSIGNAL);
}

static ssize_t receive_now(struct connection *connection, void *to, size_t size)
{
    ssize_t n = connection->tls ? tls_recv(connection->tls, to, size) : recv(connection->fd, to, size, 0);
    if (n < 0 && errno != EAGAIN)
        fail("recv");
    return n;
}

static void send_control(struct connection *connection, int opcode)
{
    unsigned char frame[FRAME_HEAD];
    send_now(connection, frame, control_frame(frame, opcode, true)); /* if the server has left, the next call finds that */
}

size_t send_some(struct connection *connection, const void *bytes, size_t size)
{
    ssize_t n = send_now(connection, bytes, size);
    if (n < 0 && errno != EAGAIN)
        fail("send");
    return n < 0 ? 0 : (size_t)n;
}

void send_message(struct connection *connection, const unsigned char *bytes, size_t size)
{
    static unsigned char frame[FRAME_HEAD + CHUNK_BYTES];
    if (run.manner.websocket) {
        size_t head = frame_head(frame, OP_BINARY, size, true);
        memcpy(frame + head, bytes, size);
        mask(frame + head, size, 0);
        bytes = frame;
        size += head;
    }
    while (size) { /* a record has at most 16 KB */
        size_t sent = send_some(connection, bytes, size);
        if (!sent)
            die("send");
        bytes += sent;
        size -= sent;
    }
}

uint64_t upload_size(uint64_t payload) { return run.manner.websocket ? framed_size(payload, true) : payload; }

const void *upload_part(uint64_t position, uint64_t payload, size_t *size)
{
    static unsigned char wire[CHUNK_BYTES];
    uint64_t left = upload_size(payload) - position;
    *size = left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;
    if (!run.manner.websocket)
        return pattern + position % PERIOD;
    *size = framed(wire, *size, position, payload, true);
    return wire;
}

/* 0: the handshake of TLS is complete; else the events to wait for. */
static uint32_t go_on_with_tls(struct connection *connection)
{
    if (!connection->tls)
        connection->tls = tls_open(connection->fd);
    if (tls_handshake(connection->tls) == 0)
        return 0;
    if (errno != EAGAIN)
        fail("handshake");
    return tls_wants_to_send(connection->tls) ? EPOLLOUT : EPOLLIN;
}

/* The same for that of WebSocket. */
static uint32_t go_on_with_upgrade(struct connection *connection)
{
    char head[HANDSHAKE_BYTES];
    if (!connection->asked) {
        size_t size = upgrade_request(head, run.port);
        if (send_some(connection, head, size) != size)
            give_up("the request for WebSocket was not sent at once");
        connection->asked = true;
        return EPOLLIN;
    }
    ssize_t n = receive_now(connection, head, sizeof head);
    if (n < 0)
        return EPOLLIN;
    /* Every server here sends its reply at once, and nothing behind it before the client has spoken. */
    if (!is_upgrade_reply(head, (size_t)n) || head_size(head, (size_t)n) != (size_t)n)
        give_up("no WebSocket: other bytes than status 101 for the client's key");
    return 0;
}

uint32_t go_on_with_handshakes(struct connection *connection)
{
    uint32_t events = run.manner.tls && !connection->asked ? go_on_with_tls(connection) : 0;
    return !events && run.manner.websocket ? go_on_with_upgrade(connection) : events;
}

ssize_t receive_session(struct connection *connection, unsigned char *to, bool *ended)
{
    ssize_t n = receive_now(connection, to, CHUNK_BYTES);
    *ended = n == 0;
    if (!run.manner.websocket || n < 0)
        return n;
    if (n == 0)
        give_up("closed without Close");
    n = unframe(&connection->frames, to, (size_t)n);
    if (n < 0)
        give_up("other bytes than frames of a server");
    if (connection->frames.pinged)
        send_control(connection, OP_PONG);
    connection->frames.pinged = false;
    *ended = connection->frames.closed;
    return n;
}

bool has_pending(const struct connection *connection) { return connection->tls && tls_pending(connection->tls); }

void close_connection(struct connection *connection)
{
    if (run.manner.websocket)
        send_control(connection, OP_CLOSE);
    if (connection->tls) {
        tls_finish(connection->tls);
        tls_free(connection->tls);
        connection->tls = NULL;
    }
    close(connection->fd);
}
