/* What the application and its clients share: clock, pattern, epoll. */
#ifndef RELAY_H
#define RELAY_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

enum {
    CHUNK = 65536, /* bytes that are read or written at once */
    PERIOD = 65521, /* of the pattern: a prime, so that a block that is moved, lost or doubled differs */
    EVENTS = 256,
    HEAD = 9, /* bytes of what asks for a source: 'S', and a number of bytes, big-endian */
};

/* PERIOD bytes again and again: so many from any position below PERIOD. */
extern unsigned char pattern[PERIOD + CHUNK];

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Say what a system call failed at, or what was not as it should be, and exit 1. */
void fail(const char *what) __attribute__((noreturn));
void wrong(const char *what) __attribute__((noreturn));

/* Runs until it is ended. */
void application(void) __attribute__((noreturn));

/* Modes of the clients; 1 if there is none of that name. argv: what follows the name. */
int clients(const char *mode, int argc, char **argv);

#endif
