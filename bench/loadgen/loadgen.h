/* What the modes of the load generator share: options, clock, addresses, sockets. */
#ifndef LOADGEN_H
#define LOADGEN_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define REQUEST "<policy-file-request/>" /* sizeof counts the NUL, which is on the wire too: 23 bytes */

enum {
    EVENTS = 1024,        /* per epoll_wait */
    MAX_REPLY = 1 << 20,  /* of a policy: far above any that a client accepts */
    TICK_MS = 100,        /* how often an idle loop looks at deadlines */
};

struct options {
    uint16_t port;
    unsigned connections;    /* closed: concurrent; silent: held */
    uint64_t count;          /* closed: answers asked for; 0: until `seconds` */
    double seconds;          /* closed: length when count is 0; both: no run is longer than this */
    double rate;             /* silent: connections opened per second; 0: all at once */
    int cpu;                 /* to run on; -1: any */
    double timeout;          /* closed: seconds one connection may take */
    const char *expect_path; /* closed: file with the exact reply */
    const char *send_path;   /* closed: file with what is sent; NULL: the policy request */
};

/* Each mode prints its JSON on stdout and returns the exit code. */
int run_closed(const struct options *options);
int run_silent(const struct options *options);

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t); /* no system call: vDSO */
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

struct sockaddr_in server_address(uint16_t port);

/* A non-blocking socket bound to source address number n of 127.1.0.0/16; its port is chosen anew at each connect. */
int client_socket(unsigned n);

/* Print why and exit 2: for what makes a run impossible, not for errors that are counted. */
void die(const char *what) __attribute__((noreturn));

#endif
