/* Tunnel sessions: opened, placed at workers, polled, echoed and closed. */
#ifndef RTMPT_SESSIONS_H
#define RTMPT_SESSIONS_H

#include "connection.h"

/* Open them; those of `hold` have their first poll under way. Returns how many were opened in all, with those that were
   closed at once because their worker had enough. The turns count in the tally. */
uint64_t open_sessions(const struct rtmpt_options *options, struct tally *tally);

/* One turn: until its length is over and every session has its last reply. */
void run_turn(void);

/* hold: go on to poll until stdin has something to read. */
void go_on_until_input(void);

/* Close those that had no failure. Returns how many could not be closed. */
unsigned close_sessions(void);

#endif
