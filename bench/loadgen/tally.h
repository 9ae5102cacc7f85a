/* What is counted, one block a process, in memory that the first process shares with those it forks. */
#ifndef TALLY_H
#define TALLY_H

#include "histogram.h"

#include <stdio.h>

enum outcome { ANSWERED, CONNECT, RESET, SHORT, MISMATCH, TIMEOUT, OUTCOMES };
enum misbehaviour { SILENT, DRIP, GARBAGE, OTHER_KINDS };
enum other_end { OPENED, CLOSED_BY_SERVER, RESET_BY_SERVER, SPOKEN_TO, OTHER_ENDS };

struct tally {
    uint64_t started, outcomes[OUTCOMES];
    uint64_t reply_bytes;            /* received and compared, equal or not */
    uint64_t begin, end;             /* ns */
    uint64_t cpu;                    /* ns, user and system, while it worked */
    uint64_t others[OTHER_KINDS][OTHER_ENDS];
    struct histogram latency;        /* ns, of those answered: closed from connect, open from the intended time */
    struct histogram lag;            /* ns by which an open loop began later than intended: what it is itself late */
};

extern const char *const OUTCOME_NAMES[OUTCOMES];
extern const char *const OTHER_NAMES[OTHER_KINDS];

void tally_add(struct tally *sum, const struct tally *one);
uint64_t tally_failed(const struct tally *tally);
/* One line of JSON. */
void tally_print(FILE *out, const char *mode, const struct tally *tally, unsigned processes);

#endif
