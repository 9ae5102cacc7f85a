/* Requests and heads of replies: see http.h. */
#define _GNU_SOURCE
#include "http.h"

#include "../client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const PATHS[] = {[ASK_OPEN] = "open", [ASK_SEND] = "send", [ASK_IDLE] = "idle", [ASK_CLOSE] = "close"};
static const char LENGTH[] = "\ncontent-length:";
static char fields[REQUEST_HEAD / 2]; /* those that all requests have */

void prepare_requests(uint16_t port, bool fresh)
{
    snprintf(fields, sizeof fields,
             " HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nAccept: */*\r\nUser-Agent: Shockwave Flash\r\nConnection: %s\r\n"
             "Cache-Control: no-cache\r\nContent-type: application/x-fcs\r\nContent-length: ",
             port, fresh ? "close" : "Keep-Alive");
}

size_t write_request(char *to, enum ask ask, const char *id, uint64_t number, const void *body, size_t size)
{
    int n;
    if (!body)
        size = 1;
    if (ask == ASK_OPEN)
        n = snprintf(to, REQUEST_HEAD, "POST /open/1%s%zu\r\n\r\n", fields, size);
    else
        n = snprintf(to, REQUEST_HEAD, "POST /%s/%s/%llu%s%zu\r\n\r\n", PATHS[ask], id, (unsigned long long)number, fields,
                     size);
    if (body)
        memcpy(to + n, body, size);
    else
        to[n] = 0;
    return (size_t)n + size;
}

/* Status and length of a complete head, which ends with NUL. */
static bool parse_head(struct reply *reply)
{
    static const char version[] = "HTTP/1.";
    if (strncmp(reply->head, version, strlen(version)) != 0 || reply->head[strlen(version) + 1] != ' ')
        return false;
    reply->status = atoi(reply->head + strlen(version) + 2);
    const char *length = strcasestr(reply->head, LENGTH);
    if (!length)
        return false;
    char *end;
    length += strlen(LENGTH);
    length += *length == ' ';
    reply->left = strtoull(length, &end, 10);
    return end > length && *end == '\r' && *length != '-';
}

long take_head(struct reply *reply, const char *bytes, size_t size)
{
    size_t had = reply->head_size, room = sizeof reply->head - 1 - had, more = size < room ? size : room;
    memcpy(reply->head + had, bytes, more);
    size_t begin = had < 3 ? 0 : had - 3; /* the end may be divided */
    const char *end = memmem(reply->head + begin, had + more - begin, "\r\n\r\n", 4);
    if (!end) {
        reply->head_size = (uint16_t)(had + more);
        return more < size || more == room ? -1 : (long)more;
    }
    reply->head_size = (uint16_t)(end + 4 - reply->head);
    reply->head[reply->head_size] = 0;
    reply->has_head = true;
    return parse_head(reply) ? (long)(reply->head_size - had) : -1;
}
