/* HTTP as clients of RTMPT speak it: requests as librtmp sends them, and what must be understood of replies. */
#ifndef RTMPT_HTTP_H
#define RTMPT_HTTP_H

#include "rtmpt.h"

enum {
    REQUEST_HEAD = 512, /* bytes, more than any request here needs */
    REPLY_HEAD = 1024, /* of a reply, at most: far above what any server here sends */
};

enum ask { ASK_OPEN, ASK_SEND, ASK_IDLE, ASK_CLOSE };

/* A reply of which only a part may have been received. All zero: nothing. */
struct reply {
    char head[REPLY_HEAD];
    uint16_t head_size; /* bytes that were received */
    bool has_head;      /* it is complete, and these are valid */
    int status;
    uint64_t left; /* bytes of the body that are still to come */
    uint64_t position; /* those that have come */
};

/* Before the first request. */
void prepare_requests(uint16_t port, bool fresh);

/* Write a request, REQUEST_HEAD + size bytes at most. body: NULL: the one byte 00. Returns its size. */
size_t write_request(char *to, enum ask ask, const char *id, uint64_t number, const void *body, size_t size);

/* Take the bytes that belong to the head. Returns their number, -1 if this is no head of a reply with a
   Content-Length. */
long take_head(struct reply *reply, const char *bytes, size_t size);

#endif
