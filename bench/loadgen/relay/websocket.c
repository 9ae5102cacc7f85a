/* Frames and handshakes of WebSocket: see websocket.h. */
#define _GNU_SOURCE
#include "websocket.h"

#include "relay.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define KEY "dGhlIHNhbXBsZSBub25jZQ==" /* of RFC 6455, with its reply */
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

static const unsigned char MASK[4] = {0x37, 0xfa, 0x21, 0x3d}; /* a client of a page has another one in each frame */
static const unsigned char NORMAL[2] = {1000 >> 8, 1000 & 0xff};

const char UPGRADE_REPLY[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             "Sec-WebSocket-Accept: " ACCEPT "\r\n\r\n";

size_t upgrade_request(char *to, uint16_t port)
{
    return (size_t)snprintf(
        to, HANDSHAKE_BYTES,
        "GET /game HTTP/1.1\r\n"
        "Host: bench.example:%u\r\n"
        "Connection: Upgrade\r\n"
        "Pragma: no-cache\r\n"
        "Cache-Control: no-cache\r\n"
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 "
        "Safari/537.36\r\n"
        "Upgrade: websocket\r\n"
        "Origin: https://games.example.com\r\n"
        "Sec-WebSocket-Version: 13\r\n"
        "Accept-Encoding: gzip, deflate, br, zstd\r\n"
        "Accept-Language: en-US,en;q=0.9\r\n"
        "Sec-WebSocket-Key: " KEY "\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n",
        port);
}

size_t head_size(const char *bytes, size_t size)
{
    const char *end = memmem(bytes, size, "\r\n\r\n", 4);
    return end ? (size_t)(end - bytes) + 4 : 0;
}

/* Whether a field of the head has exactly this value. Names of fields have no case. */
static bool has_field(const char *head, size_t size, const char *name, const char *value)
{
    size_t name_size = strlen(name), value_size = strlen(value);
    for (const char *at = head, *end = head + size; (at = memmem(at, (size_t)(end - at), "\r\n", 2));) {
        at += 2;
        if ((size_t)(end - at) >= name_size + value_size + 4 && !strncasecmp(at, name, name_size) &&
            !memcmp(at + name_size, ": ", 2) && !memcmp(at + name_size + 2, value, value_size) &&
            !memcmp(at + name_size + 2 + value_size, "\r\n", 2))
            return true;
    }
    return false;
}

bool is_upgrade_request(const char *head, size_t size) { return has_field(head, size, "sec-websocket-key", KEY); }

bool is_upgrade_reply(const char *head, size_t size)
{
    static const char STATUS[] = "HTTP/1.1 101 ";
    return size > sizeof STATUS && !memcmp(head, STATUS, sizeof STATUS - 1) &&
           has_field(head, size, "sec-websocket-accept", ACCEPT);
}

/* Change bytes by a mask whose next byte is number `phase`. */
static void apply(unsigned char *bytes, size_t size, const unsigned char *with, unsigned phase)
{
    unsigned char rotated[8];
    uint64_t word, key;
    size_t i = 0;
    for (unsigned k = 0; k < sizeof rotated; k++)
        rotated[k] = with[(phase + k) & 3];
    memcpy(&key, rotated, sizeof key);
    for (; i + sizeof word <= size; i += sizeof word) {
        memcpy(&word, bytes + i, sizeof word);
        word ^= key;
        memcpy(bytes + i, &word, sizeof word);
    }
    for (; i < size; i++)
        bytes[i] ^= rotated[i & 7];
}

void mask(unsigned char *bytes, size_t size, uint64_t position) { apply(bytes, size, MASK, position & 3); }

size_t frame_head(unsigned char *to, int opcode, uint64_t payload, bool masked)
{
    unsigned extended = payload < 126 ? 0 : payload < 65536 ? 2 : 8;
    to[0] = (unsigned char)(0x80 | opcode);
    to[1] = (unsigned char)((masked ? 0x80 : 0) | (extended == 0 ? payload : extended == 2 ? 126 : 127));
    for (unsigned i = 0; i < extended; i++)
        to[2 + i] = (unsigned char)(payload >> (8 * (extended - 1 - i)));
    if (masked)
        memcpy(to + 2 + extended, MASK, sizeof MASK);
    return 2 + extended + (masked ? sizeof MASK : 0);
}

size_t control_frame(unsigned char *to, int opcode, bool masked)
{
    size_t payload = opcode == OP_CLOSE ? sizeof NORMAL : 0, head = frame_head(to, opcode, payload, masked);
    memcpy(to + head, NORMAL, payload);
    if (masked)
        mask(to + head, payload, 0);
    return head + payload;
}

uint64_t framed_size(uint64_t payload, bool masked)
{
    unsigned char head[FRAME_HEAD];
    uint64_t whole = payload / FRAME_PAYLOAD, rest = payload % FRAME_PAYLOAD;
    return whole * (FRAME_PAYLOAD + frame_head(head, OP_BINARY, FRAME_PAYLOAD, masked)) +
           (rest ? rest + frame_head(head, OP_BINARY, rest, masked) : 0);
}

size_t framed(unsigned char *to, size_t room, uint64_t position, uint64_t payload, bool masked)
{
    unsigned char head[FRAME_HEAD];
    uint64_t unit = FRAME_PAYLOAD + frame_head(head, OP_BINARY, FRAME_PAYLOAD, masked);
    uint64_t total = framed_size(payload, masked);
    size_t made = 0;
    while (made < room && position < total) {
        uint64_t begin = position / unit * FRAME_PAYLOAD, at = position % unit;
        uint64_t size = payload - begin < FRAME_PAYLOAD ? payload - begin : FRAME_PAYLOAD;
        size_t in_head = frame_head(head, OP_BINARY, size, masked), n;
        if (at < in_head) {
            n = in_head - at < room - made ? in_head - at : room - made;
            memcpy(to + made, head + at, n);
        } else {
            at -= in_head;
            n = size - at < room - made ? size - at : room - made;
            memcpy(to + made, pattern + (begin + at) % PERIOD, n);
            if (masked)
                mask(to + made, n, at);
        }
        made += n;
        position += n;
    }
    return made;
}

/* The head is complete. False: it is none that a peer of this direction sends here. */
static bool begin_frame(struct frames *frames)
{
    unsigned size = frames->head[1] & 0x7f, extended = size < 126 ? 0 : size == 126 ? 2 : 8;
    uint64_t payload = extended ? 0 : size;
    for (unsigned i = 0; i < extended; i++)
        payload = payload << 8 | frames->head[2 + i];
    frames->opcode = frames->head[0] & 0x0f;
    frames->left = payload;
    frames->phase = 0;
    frames->head_size = 0;
    memcpy(frames->mask, frames->head + 2 + extended, sizeof frames->mask);
    if (!(frames->head[0] == (0x80 | frames->opcode)))
        return false;
    if (frames->opcode == OP_PING)
        frames->pinged = true;
    else if (frames->opcode == OP_CLOSE)
        frames->closed = true;
    return frames->opcode == OP_BINARY || (frames->opcode == OP_CLOSE && payload < 126) || payload == 0;
}

long unframe(struct frames *frames, unsigned char *bytes, size_t size)
{
    size_t made = 0;
    for (size_t at = 0; at < size && !frames->closed;) {
        if (frames->left) {
            size_t n = frames->left < size - at ? (size_t)frames->left : size - at;
            memmove(bytes + made, bytes + at, n);
            if (frames->masked)
                apply(bytes + made, n, frames->mask, frames->phase);
            frames->phase = (uint8_t)((frames->phase + n) & 3);
            frames->left -= n;
            made += n;
            at += n;
            continue;
        }
        frames->head[frames->head_size++] = bytes[at++];
        if (frames->head_size < 2)
            continue;
        unsigned length = frames->head[1] & 0x7f;
        if (!(frames->head[1] & 0x80) == frames->masked)
            return -1;
        if (frames->head_size == 2u + (length == 126 ? 2 : length == 127 ? 8 : 0) + (frames->masked ? 4 : 0) &&
            !begin_frame(frames))
            return -1;
    }
    return (long)made;
}
