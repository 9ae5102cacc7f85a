/* What the two programs share: the clock, a socket of a client, and options that are `--name value`. */
#ifndef CLIENTS_H
#define CLIENTS_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static const char REQUEST[] = "<policy-file-request/>"; /* sizeof counts the NUL, which is on the wire too */

static inline void die(const char *what)
{
    perror(what);
    exit(2);
}

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The value of `--name`; `otherwise` if it is not there, and if that is NULL the program ends. */
static inline const char *option(int argc, char **argv, const char *name, const char *otherwise)
{
    for (int i = 1; i + 1 < argc; i++)
        if (!strncmp(argv[i], "--", 2) && !strcmp(argv[i] + 2, name))
            return argv[i + 1];
    if (!otherwise) {
        fprintf(stderr, "--%s is missing\n", name);
        exit(2);
    }
    return otherwise;
}

/*
 * A non-blocking socket bound to this address of 127.0.0.0/8; the port is chosen at connect, so that there are as many as
 * are needed. 0 where there are no files left.
 */
static inline int client_socket(uint32_t address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0)
        return 0;
    struct sockaddr_in source = {.sin_family = AF_INET};
    source.sin_addr.s_addr = htonl(0x7f000001u + address);
    if (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on) < 0 ||
        bind(fd, (struct sockaddr *)&source, sizeof source) < 0)
        die("bind");
    return fd;
}

/* True if the connection is made or under way; on loopback the handshake is over when this returns. */
static inline bool begin_connect(int fd, uint16_t port)
{
    struct sockaddr_in server = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return connect(fd, (struct sockaddr *)&server, sizeof server) == 0 || errno == EINPROGRESS;
}

/* Use all files that are granted, and run at this priority where we may. */
static inline void take_place(int nice)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    setpriority(PRIO_PROCESS, 0, nice);
    signal(SIGPIPE, SIG_IGN);
}

#endif
