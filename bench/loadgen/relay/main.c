/* The modes for relays, and the bytes that their source sends: see relay.h. */
#define _GNU_SOURCE
#include "relay.h"

#include "../client.h"
#include "../tls.h"

#include <stdlib.h>
#include <string.h>

unsigned char pattern[PERIOD + CHUNK_BYTES];

void make_pattern(void)
{
    uint32_t state = 843;
    for (size_t i = 0; i < PERIOD; i++) {
        state = state * 1664525u + 1013904223u;
        pattern[i] = (unsigned char)(state >> 24);
    }
    for (size_t i = PERIOD; i < sizeof pattern; i++)
        pattern[i] = pattern[i - PERIOD];
}

int run_relay(int argc, char **argv)
{
    allow_many_files();
    make_pattern();
    if (argc >= 1 && argc <= 3 && (!strcmp(argv[0], "application") || !strcmp(argv[0], "ws-application")))
        relay_application(argv[0][0] == 'w', argc > 1 ? (uint16_t)atoi(argv[1]) : 0,
                          argc > 2 ? (unsigned)atoi(argv[2]) : 0);
    struct manner manner = {0};
    for (; argc && !strncmp(argv[0], "--", 2); argc--, argv++) {
        if (!strcmp(argv[0], "--tls") && argc > 1) {
            tls_prepare(argv[1]);
            manner.tls = true;
            argc--;
            argv++;
        } else if (!strcmp(argv[0], "--ws")) {
            manner.websocket = true;
        } else if (!strcmp(argv[0], "--together")) {
            manner.together = true;
        } else {
            break; /* no mode has such a name */
        }
    }
    if ((argc == 4 || argc == 5) && !strcmp(argv[0], "return"))
        relay_returning(argc - 1, argv + 1, manner);
    manner.together |= manner.tls || manner.websocket;
    if (argc < 3 || !relay_clients(argv[0], argc - 1, argv + 1, manner))
        give_up("relay: usage: see the head of bench/loadgen/relay/relay.h");
    return 0;
}
