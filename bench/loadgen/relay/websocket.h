/*
 * WebSocket (RFC 6455) as Chrome speaks it for Ruffle, and as an application of this bench does: binary messages, of one
 * frame each. All clients send the same key, so the application knows the reply.
 */
#ifndef WEBSOCKET_H
#define WEBSOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FRAME_HEAD = 14, /* bytes, at most */
    FRAME_PAYLOAD = 16384, /* of the frames of a stream */
    HANDSHAKE_BYTES = 2048, /* of a request or a reply, at most: far above what any server here sends */
    OP_BINARY = 2,
    OP_CLOSE = 8,
    OP_PING = 9,
    OP_PONG = 10,
};

/* What was read of the frames of one direction. All zero: at the begin of a frame. */
struct frames {
    uint64_t left; /* bytes of this frame's payload that are still to come */
    unsigned char head[FRAME_HEAD];
    uint8_t head_size; /* bytes of the head that were received */
    uint8_t opcode;
    uint8_t phase; /* which byte of the mask is next */
    unsigned char mask[4];
    bool masked; /* the frames must be; else they must not be */
    bool closed; /* Close was received: nothing follows */
    bool pinged; /* a ping was received, to which the reader has to reply */
};

/* Take bytes of frames and leave the payload of binary ones in their place. Returns its size, -1 if they are no frames
   of this direction. */
long unframe(struct frames *frames, unsigned char *bytes, size_t size);

/* Write a frame's head. Returns its size. */
size_t frame_head(unsigned char *to, int opcode, uint64_t payload, bool masked);

/* Mask the payload of a frame, from its byte `position`. */
void mask(unsigned char *bytes, size_t size, uint64_t position);

/* Write a frame without payload, or Close with code 1000. Returns its size. */
size_t control_frame(unsigned char *to, int opcode, bool masked);

/* A stream of `payload` bytes of the pattern, in frames: its size, and a part of it. */
uint64_t framed_size(uint64_t payload, bool masked);
size_t framed(unsigned char *to, size_t room, uint64_t position, uint64_t payload, bool masked);

/* The request of a client. Returns its size. */
size_t upgrade_request(char *to, uint16_t port);

/* The reply of an application. */
extern const char UPGRADE_REPLY[];

/* Whether these bytes contain a whole head: its size, 0 if not. */
size_t head_size(const char *bytes, size_t size);

/* Whether a complete request has the key, and a complete reply status 101 and what belongs to the key. */
bool is_upgrade_request(const char *head, size_t size);
bool is_upgrade_reply(const char *head, size_t size);

#endif
