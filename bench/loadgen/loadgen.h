/* What the modes of the load generator share: options, clock, addresses, sockets, what a loop calls back. */
#ifndef LOADGEN_H
#define LOADGEN_H

#include "tally.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define REQUEST "<policy-file-request/>" /* sizeof counts the NUL, which is on the wire too: 23 bytes */

enum {
    EVENTS = 1024,         /* per epoll_wait */
    MAX_MESSAGE = 4 << 20, /* of a request or a reply: far above any that a client accepts */
    MAX_PROCESSES = 64,
    MAX_CPUS = 64,
    TICK_MS = 100, /* how often an idle loop looks at deadlines */
};

struct options {
    uint16_t ports[1024];    /* one listener each; clients take turns */
    unsigned port_count;
    unsigned first;          /* number of the first source address */
    unsigned connections;    /* closed, open: at the same time, at most; silent: held */
    uint64_t count;          /* closed, open: connections in all; 0: until `seconds` */
    double seconds;          /* closed, open: length when count is 0; all: no run is longer than this */
    double rate;             /* open: connections begun per second; silent: opened per second, 0: all at once */
    double warm_up;          /* seconds; who was to begin earlier is answered and counted, but not in the percentiles */
    double timeout;          /* closed, open: seconds one connection may take */
    const char *expect_path; /* closed, open: file with the exact reply */
    const char *send_path;   /* file with what is sent; NULL: the policy request */
    unsigned exchanges;      /* 0: one, and the server ends the connection; N: so many, and the client ends it */
    size_t split;            /* bytes of a piece of the request; 0: all at once */
    double pace;             /* seconds between two pieces */
    struct shape {
        int receive_buffer;  /* SO_RCVBUF; 0: the kernel's */
        int segment;         /* TCP_MAXSEG: what the server may put into one; 0: the kernel's. It bounds how much of a
                                reply the server's socket takes */
    } shape;
    bool ask;                /* silent: send the request, and never read what comes */
    unsigned others[OTHER_KINDS]; /* closed, open: clients that misbehave beside those that ask */
    unsigned processes;
    int cpus[MAX_CPUS]; /* process k runs on the k-th, modulo their number */
    unsigned cpu_count; /* 0: wherever the kernel likes */
};

/* A mode prepares in `open`, and works when `start` says so; both in each process. Its counts go to the tally. */
struct mode {
    const char *name;
    void (*open)(const struct options *, struct tally *);
    void (*work)(void);
};

extern const struct mode CLOSED, OPEN;

/* Runs the mode in options->processes processes, prints the sum as JSON. Returns the exit code. */
int run_processes(const struct mode *mode, const struct options *options);

/* Onto the CPU of process k. */
void pin(const struct options *options, unsigned k);

/* Its own process, its own lines; returns the exit code. */
int run_silent(const struct options *options);

/* What epoll hands back. First member of whatever is watched. */
struct watched {
    void (*on_event)(struct watched *, uint32_t events);
};

/* The clients that misbehave: open them, look after them every few ms. */
void others_open(const struct options *options, struct tally *tally, int epoll_fd);
void others_tick(uint64_t now);

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t); /* no system call: vDSO */
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t to_ns(double seconds) { return (uint64_t)(seconds * 1e9); }

struct sockaddr_in server_address(uint16_t port);

/* A non-blocking socket bound to source address number n of 127.1.0.0/16; its port is chosen anew at each connect. */
int client_socket(unsigned n, struct shape shape);

/* Bytes of a file, their number in *size. */
char *read_file(const char *path, size_t *size);

/* Print why and exit 2: for what makes a run impossible, not for errors that are counted. */
void die(const char *what) __attribute__((noreturn));

#endif
