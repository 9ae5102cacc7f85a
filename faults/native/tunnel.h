/* RTMPT for good and hostile clients: requests of a tunnel session, and replies to them. No socket, no clock. */
#ifndef TUNNEL_H
#define TUNNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TUNNEL_ID = 16, TUNNEL_HEAD = 512, TUNNEL_REPLY = 66000 };

/* In files of requests: what the id of the session and the number of the request replace. */
#define ID_MARK "IIIIIIIIIIIIIIII"
#define NUMBER_MARK "NNNNNNNN"

enum tunnel_kind { TUNNEL_OPEN, TUNNEL_SEND, TUNNEL_IDLE, TUNNEL_CLOSE };

struct tunnel {
    char id[TUNNEL_ID];
    uint64_t number; /* of the next request */
    char *out;       /* the request that is under way; NULL: none is */
    size_t out_size, out_sent;
    char in[TUNNEL_REPLY]; /* of its reply */
    size_t in_size;
    int status; /* of a complete one, and its body */
    const char *body;
    size_t body_size;
};

/* Make a request; `apart`: its connection is for it alone. */
void tunnel_ask(struct tunnel *tunnel, enum tunnel_kind kind, const char *body, size_t size, bool apart);

/* 1: the reply in `in` is complete, 0: it is not yet, -1: it is none, or more has come. */
int tunnel_reply(struct tunnel *tunnel);

/* The reply is done with. */
void tunnel_answered(struct tunnel *tunnel);

void tunnel_free(struct tunnel *tunnel);

/* Replace the marks in a file of requests; each request has the number after the one before it. */
void tunnel_fill(char *file, size_t size, const char *id, uint64_t *number);

/* The id in a reply to /open; NULL: there is none (yet). */
const char *tunnel_id(const char *reply, size_t size);

#endif
