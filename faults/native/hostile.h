/* The words and the script of hostile clients: see hostile.c. */
#ifndef HOSTILE_H
#define HOSTILE_H

#include "../../bench/loadgen/client.h"

enum { MAX_STEPS = 16, MAX_PORTS = 8, RECORD_KINDS = 5 };

enum what { SEND, DRIP, AWAIT, HELLO, SECURE, DATA, CUT, RECORDS, RENEGOTIATE, DEAF, SIP, WAIT, LOOP, FIN, RESET, LEARN, ASK, RENEW, WHATS };
enum records { EMPTY, UPDATE, REQUEST_UPDATE, WARNING, CHANGE };

struct step {
    enum what what;
    char *bytes; /* of the file */
    size_t size, count; /* size: of the file, or what a sip takes; count: the number after it, or alone */
    enum records records;
};

struct options {
    uint16_t ports[MAX_PORTS];
    unsigned port_count, first, addresses, connections, step_count;
    uint64_t total; /* 0: each is opened again when it has ended */
    uint32_t source;
    double rate, seconds;
    size_t vary; /* the first number in the first file; 0: none */
    bool small_window;
    int nice;
    struct step steps[MAX_STEPS];
};

/* The options of these words; they are cut in pieces. Gives up if they cannot be read. */
void parse_options(char *text, struct options *options);

#endif
