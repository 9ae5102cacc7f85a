/* The application behind a relay: it echoes what it reads, or is a source of bytes. */
#define _GNU_SOURCE
#include "relay.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FD = 1 << 17, ACCEPTED_AT_ONCE = 64 };

struct conversation {
    char *held; /* read and not yet echoed: the client does not read */
    uint32_t begin, end; /* of what is held */
    bool source;
    uint8_t asked; /* bytes of the head that have come */
    unsigned char head[HEAD];
    uint64_t position, size; /* of a source: sent, and in all */
};

static struct conversation *conversations; /* by descriptor */
static int epoll_fd;

static void watch(int operation, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(epoll_fd, operation, fd, &event) < 0)
        fail("epoll_ctl");
}

static void drop(int fd)
{
    free(conversations[fd].held);
    memset(&conversations[fd], 0, sizeof conversations[fd]);
    close(fd);
}

/* As much as the socket takes; after the last byte comes the end. */
static void give(int fd)
{
    struct conversation *c = &conversations[fd];
    while (c->position < c->size) {
        uint64_t left = c->size - c->position;
        ssize_t n = send(fd, pattern + c->position % PERIOD, left < CHUNK ? left : CHUNK, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno != EAGAIN)
                drop(fd);
            return;
        }
        c->position += (uint64_t)n;
    }
    shutdown(fd, SHUT_WR);
    watch(EPOLL_CTL_MOD, fd, EPOLLIN);
}

/* Whether these bytes belong to the head of a source; the first one tells. */
static bool asks_for_source(int fd, const char *bytes, size_t size)
{
    struct conversation *c = &conversations[fd];
    size_t more = c->asked + size > HEAD ? (size_t)(HEAD - c->asked) : size;
    if (!more)
        return c->source;
    memcpy(c->head + c->asked, bytes, more);
    c->asked = (uint8_t)(c->asked + more);
    if (c->head[0] != 'S') {
        c->asked = HEAD;
        return false;
    }
    c->source = true;
    if (c->asked == HEAD) {
        for (int i = 1; i < HEAD; i++)
            c->size = c->size << 8 | c->head[i];
        watch(EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT);
    }
    return true;
}

/* False: nothing more to be done with this descriptor now. */
static bool send_held(int fd)
{
    struct conversation *c = &conversations[fd];
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

static void serve(int fd, uint32_t events)
{
    static char buffer[CHUNK];
    struct conversation *c = &conversations[fd];
    if (c->source && c->asked == HEAD && (events & EPOLLOUT)) {
        give(fd);
        return;
    }
    if (c->held && !send_held(fd))
        return;
    ssize_t n = recv(fd, buffer, CHUNK, 0);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN)
            drop(fd);
        return;
    }
    if (asks_for_source(fd, buffer, (size_t)n))
        return;
    ssize_t sent = send(fd, buffer, (size_t)n, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        drop(fd);
        return;
    }
    sent = sent < 0 ? 0 : sent;
    if (sent < n) {
        c->held = malloc(CHUNK);
        if (!c->held)
            fail("malloc");
        memcpy(c->held, buffer + sent, (size_t)(n - sent));
        c->begin = 0;
        c->end = (uint32_t)(n - sent);
        watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
    }
}

static int listen_somewhere(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0 || /* inherited */
        bind(fd, (struct sockaddr *)&at, size) < 0 || listen(fd, 65535) < 0 ||
        getsockname(fd, (struct sockaddr *)&at, &size) < 0)
        fail("listen");
    printf("port %d\n", ntohs(at.sin_port));
    fflush(stdout);
    return fd;
}

static void accept_some(int listening)
{
    for (int k = 0; k < ACCEPTED_AT_ONCE; k++) {
        int fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK);
        if (fd < 0 && errno == EMFILE)
            fail("accept");
        if (fd < 0)
            return;
        if (fd >= MAX_FD)
            wrong("too many connections");
        watch(EPOLL_CTL_ADD, fd, EPOLLIN);
    }
}

void application(void)
{
    conversations = calloc(MAX_FD, sizeof *conversations);
    epoll_fd = epoll_create1(0);
    if (!conversations || epoll_fd < 0)
        fail("epoll");
    int listening = listen_somewhere();
    watch(EPOLL_CTL_ADD, listening, EPOLLIN);
    for (;;) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == listening)
                accept_some(listening);
            else
                serve(events[i].data.fd, events[i].events);
        }
    }
}
