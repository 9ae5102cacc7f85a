/* Clients that ask: what a loop may do with them. */
#ifndef ASKING_H
#define ASKING_H

#include "loadgen.h"

/* Open the sockets. Returns the epoll set; what it hands back is `struct watched`. */
int asking_open(const struct options *options, struct tally *tally);

/* So many clients have no connection; the others wait for their answer. */
unsigned asking_idle(void);

/* An idle client begins. intended: ns, when it was to; its latency counts from then. */
void asking_start(uint64_t intended);

/* Send the pieces that are due; when the next one is, ns, UINT64_MAX if none is. */
void asking_continue(uint64_t now);
uint64_t asking_due(void);

/* End those that have waited longer than the time-out. */
void asking_give_up(uint64_t now);

/* So many errors that nobody answers there any more. */
bool asking_in_vain(void);

#endif
