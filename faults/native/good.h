/* The rows of good clients, and the steps of their scripts: see good.c. */
#ifndef GOOD_H
#define GOOD_H

#include "../../bench/loadgen/client.h"
#include "secure.h"

enum { MAX_STEPS = 12 };

enum what { SEND, EXPECT, WAIT, PACE, END, LOOP, HELLO, APART, OPEN, ECHO, POLL, CLOSE, KINDS_OF_STEP };

struct step {
    enum what what;
    char *bytes; /* SEND, EXPECT, ECHO */
    size_t size; /* of them; WAIT: ns; PACE: bytes at once; LOOP: the step */
    uint64_t ns; /* PACE: between two reads */
};

struct row {
    uint16_t port;
    uint32_t source;
    unsigned addresses, count, live, step_count;
    const char *authority, *name; /* NULL: without TLS */
    double rate;
    struct shape shape;
    uint64_t opened, next; /* next: ns, when the next client is due */
    struct step steps[MAX_STEPS];
};

/* A row from its words; the text is cut in pieces. Gives up if it cannot be read. */
void parse_row(char *text, struct row *row);

#endif
