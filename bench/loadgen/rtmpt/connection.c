/*
 * Connections of the clients of RTMPT: see connection.h.
 *
 * A connection that is kept costs this process send, recv and its share of epoll_wait for each request. A new one for
 * each request costs what it does in requests.c: the same socket is disconnected (by RST, after the server's FIN) and
 * connected again, and only that FIN wakes the process.
 */
#define _GNU_SOURCE
#include "connection.h"

#include "../client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SOURCE_PORT = 20001 }; /* below those that the kernel chooses */

static struct {
    const struct rtmpt_options *options;
    const struct events *events;
    struct sockaddr_in server;
    struct shape shape;
    uint32_t interest;
    int epoll_fd;
} run;

int prepare_rtmpt_connections(const struct rtmpt_options *options, const struct events *events)
{
    run.options = options;
    run.events = events;
    run.server = server_address(options->port);
    run.shape = (struct shape){.no_delay = true, .close_with_rst = true};
    if (options->fresh && options->workers > 1)
        run.shape.port = SOURCE_PORT;
    run.interest = EPOLLET | EPOLLRDHUP | (options->fresh ? 0 : (uint32_t)EPOLLIN);
    run.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (run.epoll_fd < 0)
        die("epoll");
    return run.epoll_fd;
}

static void watch(struct connection *connection, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = connection};
    if (epoll_ctl(run.epoll_fd, operation, connection->fd, &event) < 0)
        die("epoll_ctl");
}

void drop_connection(struct connection *connection)
{
    if (connection->fd >= 0)
        close(connection->fd);
    connection->fd = -1;
    connection->connected = false;
    free(connection->unsent);
    connection->unsent = NULL;
}

void fail_request(struct connection *connection, enum outcome outcome)
{
    struct session *session = connection->session;
    drop_connection(connection);
    connection->session = NULL;
    run.events->on_failure(session, outcome);
}

static void fail_by_errno(struct connection *connection)
{
    fail_request(connection, errno == ECONNRESET || errno == EPIPE ? RESET : REFUSED);
}

static bool connect_if_not(struct connection *connection)
{
    if (connection->fd < 0) {
        connection->fd = client_socket(source_address(FIRST_SOURCE, connection->source), run.shape);
        watch(connection, EPOLL_CTL_ADD, run.interest);
    }
    if (connection->connected)
        return true;
    connection->connected = true;
    return connect(connection->fd, (struct sockaddr *)&run.server, sizeof run.server) == 0 || errno == EINPROGRESS;
}

/* Keep the rest of a request until the socket takes it, which it rarely does not. */
static void keep(struct connection *connection, const char *bytes, size_t size)
{
    char *kept = malloc(size);
    if (!kept)
        die("malloc");
    memcpy(kept, bytes, size);
    free(connection->unsent);
    connection->unsent = kept;
    connection->unsent_size = size;
    watch(connection, EPOLL_CTL_MOD, run.interest | EPOLLOUT);
}

static void send_some(struct connection *connection, const char *bytes, size_t size)
{
    ssize_t n = send(connection->fd, bytes, size, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN)
        fail_by_errno(connection);
    else if (n < (ssize_t)size)
        keep(connection, bytes + (n < 0 ? 0 : n), size - (n < 0 ? 0 : (size_t)n));
    else if (connection->unsent) {
        free(connection->unsent);
        connection->unsent = NULL;
        watch(connection, EPOLL_CTL_MOD, run.interest);
    }
}

void start_request(struct connection *connection, struct session *session, const char *bytes, size_t size)
{
    struct reply *reply = &connection->reply;
    connection->session = session;
    reply->head_size = 0;
    reply->has_head = false;
    reply->left = reply->position = 0;
    if (connect_if_not(connection))
        send_some(connection, bytes, size);
    else
        fail_by_errno(connection);
}

/* Take bytes of the reply. False: they are wrong, or belong to none. */
static bool take(struct connection *connection, const char *bytes, size_t size)
{
    struct reply *reply = &connection->reply;
    if (!reply->has_head) {
        long n = take_head(reply, bytes, size);
        if (n < 0)
            return false;
        bytes += n;
        size -= (size_t)n;
    }
    if (!size)
        return true;
    if (size > reply->left || !run.events->on_body(connection->session, reply, (const unsigned char *)bytes, size))
        return false;
    reply->left -= size;
    reply->position += size;
    return true;
}

static void finish(struct connection *connection)
{
    struct session *session = connection->session;
    static const struct sockaddr disconnect = {.sa_family = AF_UNSPEC};
    connection->session = NULL;
    if (run.options->fresh) {
        if (connect(connection->fd, &disconnect, sizeof disconnect) < 0)
            die("disconnect");
        connection->connected = false;
    }
    run.events->on_reply(session, &connection->reply);
}

/* Read what is there. If the FIN was seen and the buffer was not filled, this was everything. */
static void receive(struct connection *connection, uint32_t events)
{
    static char buffer[4 * LARGEST_MESSAGE];
    bool at_end = (events & EPOLLRDHUP) && !(events & (EPOLLERR | EPOLLHUP));
    for (;;) {
        ssize_t n = recv(connection->fd, buffer, sizeof buffer, 0);
        if (n < 0) {
            if (errno != EAGAIN)
                fail_by_errno(connection);
            return;
        }
        if (!take(connection, buffer, (size_t)n)) {
            fail_request(connection, MISMATCH);
            return;
        }
        bool complete = connection->reply.has_head && !connection->reply.left;
        bool ended = n == 0 || (at_end && n < (ssize_t)sizeof buffer);
        if (complete && (ended || !run.options->fresh)) {
            finish(connection);
            return;
        }
        if (ended) {
            fail_request(connection, SHORT);
            return;
        }
    }
}

void continue_request(struct connection *connection, uint32_t events)
{
    if (!connection->session) /* a late event: an end between requests is found by the next one */
        return;
    if (connection->unsent && (events & EPOLLOUT) && !(events & (EPOLLERR | EPOLLHUP)))
        send_some(connection, connection->unsent, connection->unsent_size);
    if (connection->session && (events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP)))
        receive(connection, events);
}
