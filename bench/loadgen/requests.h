/* Clients that send requests and compare replies: what a loop may do with them. */
#ifndef REQUESTS_H
#define REQUESTS_H

#include "loadgen.h"

/* Open the sockets. Returns the epoll set; its events point to `struct watched`. */
int requests_open(const struct options *options, struct tally *tally);

/* How many clients have no connection now; the others wait for their reply. */
unsigned requests_idle(void);

/* An idle client starts. intended: ns, when it was to start; its latency counts from then. */
void requests_start(uint64_t intended);

/* Send the pieces that are due; and when the next one is, ns, UINT64_MAX if there is none. */
void requests_continue(uint64_t now);
uint64_t requests_due(void);

/* End connections that are older than the timeout. */
void requests_expire(uint64_t now);

/* So many errors that the server must be gone. */
bool requests_hopeless(void);

/* Write the rest of the trace. */
void requests_close(void);

#endif
