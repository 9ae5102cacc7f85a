/*
 * An application behind a shared port: it echoes, and may speak first.
 *
 *   faults-application ADDRESS [mute | GREETING TICK MS]     prints "port N"; mute: it reads, and never replies
 *
 * GREETING and TICK are files. Each connection gets the greeting at once. One on which no byte has come for two ticks gets
 * the tick every MS milliseconds: so do the spectators of a game, who never send anything. Without descriptors it accepts
 * no more until a connection has ended.
 */
#define _GNU_SOURCE
#include "../../bench/loadgen/client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FD = 1 << 17, CHUNK = 1 << 16, EVENTS = 512, ACCEPTED_AT_ONCE = 64, FIRST_TICK = 3 };

static struct {
    int epoll_fd, listening, highest;
    bool full; /* of descriptors */
    bool mute;
    unsigned char silent[MAX_FD]; /* by descriptor: 0 unless it is connected and no byte has come; else ticks until the first */
    char *greeting, *tick;
    size_t greeting_size, tick_size;
    uint64_t tick_ns;
} run;

static void watch(int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(run.epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl");
}

static void drop(int fd)
{
    run.silent[fd] = 0;
    close(fd);
    if (run.full)
        watch(run.listening);
    run.full = false;
}

static void accept_some(void)
{
    for (int k = 0; k < ACCEPTED_AT_ONCE; k++) {
        int fd = accept4(run.listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE)) {
            run.full = true;
            epoll_ctl(run.epoll_fd, EPOLL_CTL_DEL, run.listening, NULL);
        }
        if (fd < 0)
            return;
        if (fd >= MAX_FD)
            give_up("too many connections");
        run.highest = fd > run.highest ? fd : run.highest;
        run.silent[fd] = FIRST_TICK;
        watch(fd);
        if (run.greeting)
            (void)!send(fd, run.greeting, run.greeting_size, MSG_NOSIGNAL); /* the next event reports a failure */
    }
}

/* What the client does not take at once is lost to it: no client of the suite sends that much without reading. */
static void echo(int fd)
{
    static char buffer[CHUNK];
    ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    if (n > 0) {
        run.silent[fd] = 0;
        if (!run.mute)
            (void)!send(fd, buffer, (size_t)n, MSG_NOSIGNAL);
    } else if (n == 0 || errno != EAGAIN) {
        drop(fd);
    }
}

static void send_ticks(void)
{
    for (int fd = 0; fd <= run.highest; fd++)
        if (run.silent[fd] > 1)
            run.silent[fd]--;
        else if (run.silent[fd])
            (void)!send(fd, run.tick, run.tick_size, MSG_NOSIGNAL);
}

static void listen_on(const char *address)
{
    int on = 1;
    run.listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(parse_address(address))};
    socklen_t size = sizeof at;
    if (run.listening < 0 || setsockopt(run.listening, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0 ||
        bind(run.listening, (struct sockaddr *)&at, size) < 0 || listen(run.listening, 65535) < 0 ||
        getsockname(run.listening, (struct sockaddr *)&at, &size) < 0)
        die("listen");
    printf("port %d\n", ntohs(at.sin_port));
    fflush(stdout);
}

int main(int argc, char **argv)
{
    run.mute = argc == 3 && !strcmp(argv[2], "mute");
    if (argc != 2 && argc != 5 && !run.mute)
        give_up("usage: see the head of faults/native/application.c");
    allow_many_files();
    if (argc == 5) {
        run.greeting = read_file(argv[2], &run.greeting_size);
        run.tick = read_file(argv[3], &run.tick_size);
        run.tick_ns = strtoull(argv[4], NULL, 10) * 1000000u;
    }
    run.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    listen_on(argv[1]);
    watch(run.listening);
    for (uint64_t due = now_ns() + run.tick_ns;;) {
        static struct epoll_event events[EVENTS];
        uint64_t now = now_ns();
        int n = epoll_wait(run.epoll_fd, events, EVENTS, run.tick ? (int)(due > now ? (due - now) / 1000000u + 1 : 0) : -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == run.listening)
                accept_some();
            else
                echo(events[i].data.fd);
        }
        if (run.tick && now_ns() >= due) {
            send_ticks();
            due += run.tick_ns;
        }
    }
}
