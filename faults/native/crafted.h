/* TLS records made by hand, so that an attacker says what no library does. */
#ifndef CRAFTED_H
#define CRAFTED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LARGEST_RECORD = 16384, OVERHEAD = 64, SECRET = 32, KEY = 16, NONCE = 12 };
enum content { CHANGE_CIPHER_SPEC = 20, ALERT = 21, HANDSHAKE = 22, APPLICATION_DATA = 23 };

/* A client's keys for what it sends: AES-128-GCM with SHA-256. */
struct keys {
    bool tls13;
    uint8_t secret[SECRET], key[KEY], nonce[NONCE]; /* secret: TLS 1.3; of the nonce TLS 1.2 uses four bytes */
    uint64_t sequence;
};

/* A TLS 1.2 or 1.3 client on this socket, which accepts any certificate. Gives up without memory. */
struct handshake;
struct handshake *handshake_begin(int fd, bool tls13);

/* Go on. 1: it is complete, and the keys are set; 0: it waits for the server; -1: it failed. */
int handshake_go_on(struct handshake *handshake, struct keys *keys);
void handshake_end(struct handshake *handshake);

/* Write the record of this content, at most LARGEST_RECORD bytes, to `record`, which has OVERHEAD bytes more. Returns its
   size. */
size_t seal(struct keys *keys, enum content content, const char *bytes, size_t size, char *record);

/* What follows a KeyUpdate: the next keys. */
void update_keys(struct keys *keys);

#endif
