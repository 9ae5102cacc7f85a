/* Requests and replies of RTMPT: see tunnel.h. */
#define _GNU_SOURCE
#include "tunnel.h"

#include "../../bench/loadgen/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const KINDS[] = {"open", "send", "idle", "close"};

void tunnel_ask(struct tunnel *tunnel, enum tunnel_kind kind, const char *body, size_t size, bool apart)
{
    char path[64];
    if (kind == TUNNEL_OPEN)
        snprintf(path, sizeof path, "/open/1");
    else
        snprintf(path, sizeof path, "/%s/%.*s/%llu", KINDS[kind], TUNNEL_ID, tunnel->id,
                 (unsigned long long)tunnel->number++);
    if (!(tunnel->out = malloc(TUNNEL_HEAD + size)))
        give_up("no memory for requests");
    int head = snprintf(tunnel->out, TUNNEL_HEAD,
                        "POST %s HTTP/1.1\r\nHost: media.example\r\nContent-Type: application/x-fcs\r\n"
                        "Connection: %s\r\nContent-Length: %zu\r\n\r\n",
                        path, apart ? "close" : "Keep-Alive", size);
    memcpy(tunnel->out + head, body, size);
    tunnel->out_size = (size_t)head + size;
    tunnel->out_sent = tunnel->in_size = 0;
}

int tunnel_reply(struct tunnel *tunnel)
{
    const char *end = memmem(tunnel->in, tunnel->in_size, "\r\n\r\n", 4);
    if (!end)
        return tunnel->in_size < TUNNEL_HEAD ? 0 : -1;
    size_t head = (size_t)(end - tunnel->in) + 4;
    const char *length = memmem(tunnel->in, head, "Content-Length: ", 16);
    if (!length || strncmp(tunnel->in, "HTTP/1.1 ", 9))
        return -1;
    tunnel->status = atoi(tunnel->in + 9);
    tunnel->body_size = strtoul(length + 16, NULL, 10);
    tunnel->body = tunnel->in + head;
    if (head + tunnel->body_size > sizeof tunnel->in || tunnel->in_size > head + tunnel->body_size)
        return -1;
    return tunnel->in_size == head + tunnel->body_size;
}

void tunnel_answered(struct tunnel *tunnel)
{
    free(tunnel->out);
    tunnel->out = NULL;
    tunnel->out_size = tunnel->out_sent = tunnel->in_size = 0;
}

void tunnel_free(struct tunnel *tunnel)
{
    if (tunnel)
        free(tunnel->out);
    free(tunnel);
}

void tunnel_fill(char *file, size_t size, const char *id, uint64_t *number)
{
    char *end = file + size, *at = file, text[9];
    while ((at = memmem(at, (size_t)(end - at), ID_MARK, TUNNEL_ID))) {
        memcpy(at, id, TUNNEL_ID);
        at += TUNNEL_ID;
        if (end - at > 8 && !memcmp(at + 1, NUMBER_MARK, 8)) {
            snprintf(text, sizeof text, "%08llu", (unsigned long long)((*number)++ % 100000000u));
            memcpy(at + 1, text, 8);
        }
    }
}

const char *tunnel_id(const char *reply, size_t size)
{
    const char *end = memmem(reply, size, "\r\n\r\n", 4);
    if (!end || size < 12 || memcmp(reply + 9, "200", 3) || reply + size < end + 4 + TUNNEL_ID + 1)
        return NULL;
    return end + 4;
}
