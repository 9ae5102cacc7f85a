/* What is counted: one block for each process, in memory that the first process shares with its children. */
#ifndef TALLY_H
#define TALLY_H

#include "histogram.h"

#include <stdio.h>

enum outcome { OK, REFUSED, RESET, SHORT, MISMATCH, TIMEOUT, TLS_ERROR, STATUS, OUTCOMES };

struct tally {
    uint64_t started, outcomes[OUTCOMES];
    uint64_t reply_bytes;     /* received and compared, equal or not */
    uint64_t begin, end;      /* ns */
    uint64_t cpu;             /* ns of user and system time between them */
    struct histogram latency; /* ns, of exact replies: from connect (closed) or from the intended time (open) */
    struct histogram lag;     /* ns by which an open loop started later than intended: the generator's own delay */
};

extern const char *const OUTCOME_NAMES[OUTCOMES];

void tally_add(struct tally *sum, const struct tally *one);
uint64_t tally_failed(const struct tally *tally);
/* One line of JSON. */
void tally_print(FILE *out, const char *mode, const struct tally *tally, unsigned processes);

#endif
