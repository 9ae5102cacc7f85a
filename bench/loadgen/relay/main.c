/*
 * Load for relays: the application behind one, and its clients. One thread, epoll, loopback only.
 *
 *   relay application                     echoes; to 'S' and 8 bytes (big-endian) it sends so many bytes of the pattern
 *   relay echo PORT CONNS SIZE SECONDS    each connection sends SIZE bytes and waits for them, again and again
 *   relay short PORT CONNS SIZE TOTAL     connect, SIZE bytes there and back, close: TOTAL times, CONNS at once
 *   relay bulk PORT CONNS BYTES           BYTES from the application on each of CONNS connections
 *   relay hold PORT CONNS SIZE            one echo on each, and one more for each line of the standard input, until
 *                                         that ends; none may have been closed by then
 *
 * The application says "port N". Clients print one line of JSON, `hold` one after each round of echoes. Every byte is
 * compared, and messages say whose they are: what is wrong, missing or somebody else's ends the program with 1.
 */
#define _GNU_SOURCE
#include "relay.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

unsigned char pattern[PERIOD + CHUNK];

void fail(const char *what)
{
    fprintf(stderr, "relay: %s: %s\n", what, strerror(errno));
    exit(1);
}

void wrong(const char *what)
{
    fprintf(stderr, "relay: %s\n", what);
    exit(1);
}

static void make_pattern(void)
{
    uint32_t state = 843;
    for (size_t i = 0; i < PERIOD; i++) {
        state = state * 1664525u + 1013904223u;
        pattern[i] = (unsigned char)(state >> 24);
    }
    for (size_t i = PERIOD; i < sizeof pattern; i++)
        pattern[i] = pattern[i - PERIOD];
}

int main(int argc, char **argv)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    make_pattern();
    if (argc == 2 && !strcmp(argv[1], "application"))
        application();
    if (argc >= 4 && clients(argv[1], argc - 2, argv + 2) == 0)
        return 0;
    wrong("usage: see the head of main.c");
}
