/* Handshakes, their keys, and records: see crafted.h. The handshake is OpenSSL's. */
#define _GNU_SOURCE
#include "crafted.h"

#include "../../bench/loadgen/client.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER = 5, EXPLICIT_NONCE = 8, TAG = 16, RANDOM = 32, MASTER = 48 };

struct handshake {
    SSL *ssl;
    uint8_t secret[SECRET]; /* TLS 1.3: of the client's application data */
};

static void hash(const uint8_t *key, size_t key_size, const uint8_t *text, size_t size, uint8_t *digest)
{
    if (!HMAC(EVP_sha256(), key, (int)key_size, text, size, digest, NULL))
        give_up("HMAC fails");
}

/* HKDF-Expand-Label of RFC 8446 without a context, for at most one block. */
static void expand(const uint8_t *secret, const char *label, uint8_t *out, size_t size)
{
    uint8_t info[64], digest[SECRET];
    int length = snprintf((char *)info + 3, sizeof info - 3, "tls13 %s", label);
    info[0] = 0;
    info[1] = (uint8_t)size;
    info[2] = (uint8_t)length;
    info[3 + length] = 0; /* the context is empty */
    info[4 + length] = 1; /* the first block */
    hash(secret, SECRET, info, (size_t)length + 5, digest);
    memcpy(out, digest, size);
}

static void set_tls13_keys(struct keys *keys)
{
    expand(keys->secret, "key", keys->key, KEY);
    expand(keys->secret, "iv", keys->nonce, NONCE);
    keys->sequence = 0;
}

void update_keys(struct keys *keys)
{
    uint8_t next[SECRET];
    expand(keys->secret, "traffic upd", next, SECRET);
    memcpy(keys->secret, next, SECRET);
    set_tls13_keys(keys);
}

/* The key block of RFC 5246: two keys, then the first bytes of two nonces; the client's is first of each. */
static void set_tls12_keys(SSL *ssl, struct keys *keys)
{
    uint8_t master[MASTER], seed[128], chained[SECRET + sizeof seed], block[2 * SECRET];
    size_t size = strlen("key expansion");
    memcpy(seed, "key expansion", size);
    size += SSL_get_server_random(ssl, seed + size, RANDOM);
    size += SSL_get_client_random(ssl, seed + size, RANDOM);
    SSL_SESSION_get_master_key(SSL_get_session(ssl), master, MASTER);
    hash(master, MASTER, seed, size, chained);
    for (int i = 0; i < 2; i++) {
        memcpy(chained + SECRET, seed, size);
        hash(master, MASTER, chained, SECRET + size, block + i * SECRET);
        hash(master, MASTER, chained, SECRET, chained);
    }
    memcpy(keys->key, block, KEY);
    memcpy(keys->nonce, block + 2 * KEY, 4);
    keys->sequence = 1; /* after the client's Finished */
}

/* OpenSSL's line for a key log: LABEL CLIENT_RANDOM SECRET. */
static void on_key_log(const SSL *ssl, const char *line)
{
    static const char LABEL[] = "CLIENT_TRAFFIC_SECRET_0 ";
    struct handshake *handshake = SSL_get_app_data(ssl);
    const char *text = strrchr(line, ' ');
    if (!text || strncmp(line, LABEL, strlen(LABEL)))
        return;
    for (int i = 0; i < SECRET; i++) {
        unsigned byte = 0;
        sscanf(text + 1 + 2 * i, "%2x", &byte);
        handshake->secret[i] = (uint8_t)byte;
    }
}

static SSL_CTX *context_of(bool tls13)
{
    static SSL_CTX *contexts[2];
    SSL_CTX *context = contexts[tls13];
    if (context)
        return context;
    int version = tls13 ? TLS1_3_VERSION : TLS1_2_VERSION;
    context = SSL_CTX_new(TLS_client_method());
    if (!context || !SSL_CTX_set_min_proto_version(context, version) || !SSL_CTX_set_max_proto_version(context, version) ||
        !SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256") ||
        !SSL_CTX_set_cipher_list(context, "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"))
        give_up("no context for TLS attackers");
    SSL_CTX_set_keylog_callback(context, on_key_log);
    return contexts[tls13] = context;
}

struct handshake *handshake_begin(int fd, bool tls13)
{
    struct handshake *handshake = calloc(1, sizeof *handshake);
    if (!handshake || !(handshake->ssl = SSL_new(context_of(tls13))) || SSL_set_fd(handshake->ssl, fd) != 1)
        give_up("no memory for a TLS attacker");
    SSL_set_app_data(handshake->ssl, handshake);
    SSL_set_connect_state(handshake->ssl);
    return handshake;
}

int handshake_go_on(struct handshake *handshake, struct keys *keys)
{
    ERR_clear_error();
    int n = SSL_do_handshake(handshake->ssl), error = SSL_get_error(handshake->ssl, n);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
        return 0;
    if (n != 1)
        return -1;
    keys->tls13 = SSL_version(handshake->ssl) == TLS1_3_VERSION;
    if (keys->tls13) {
        memcpy(keys->secret, handshake->secret, SECRET);
        set_tls13_keys(keys);
    } else {
        set_tls12_keys(handshake->ssl, keys);
    }
    return 1;
}

void handshake_end(struct handshake *handshake)
{
    SSL_free(handshake->ssl); /* it was not shut down, so that nothing is sent */
    free(handshake);
}

static void put(uint8_t *to, uint64_t number, int bytes)
{
    for (int i = 0; i < bytes; i++)
        to[i] = (uint8_t)(number >> 8 * (bytes - 1 - i));
}

size_t seal(struct keys *keys, enum content content, const char *bytes, size_t size, char *record)
{
    static EVP_CIPHER_CTX *cipher;
    uint8_t *out = (uint8_t *)record, nonce[NONCE], sequence[8], type = (uint8_t)content, extra[13];
    size_t clear = keys->tls13 ? 0 : EXPLICIT_NONCE, body = clear + size + (keys->tls13 ? 1 : 0) + TAG, extra_size;
    int n, done = 0;
    put(sequence, keys->sequence++, sizeof sequence);
    out[0] = keys->tls13 ? APPLICATION_DATA : type;
    put(out + 1, 0x0303, 2);
    put(out + 3, body, 2);
    memcpy(nonce, keys->nonce, NONCE);
    if (keys->tls13) {
        for (int i = 0; i < 8; i++)
            nonce[4 + i] ^= sequence[i];
        memcpy(extra, out, HEADER);
        extra_size = HEADER;
    } else {
        memcpy(nonce + 4, sequence, sizeof sequence);
        memcpy(out + HEADER, sequence, EXPLICIT_NONCE);
        memcpy(extra, sequence, sizeof sequence);
        memcpy(extra + 8, out, 3);
        put(extra + 11, size, 2);
        extra_size = sizeof extra;
    }
    cipher = cipher ? cipher : EVP_CIPHER_CTX_new();
    uint8_t *to = out + HEADER + clear;
    if (!cipher || !EVP_EncryptInit_ex(cipher, EVP_aes_128_gcm(), NULL, keys->key, nonce) ||
        !EVP_EncryptUpdate(cipher, NULL, &n, extra, (int)extra_size) ||
        !EVP_EncryptUpdate(cipher, to, &done, (const uint8_t *)bytes, (int)size) ||
        (keys->tls13 && (!EVP_EncryptUpdate(cipher, to + done, &n, &type, 1))) ||
        !EVP_EncryptFinal_ex(cipher, to + size, &n) ||
        !EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_GET_TAG, TAG, out + HEADER + body - TAG))
        give_up("AES-GCM fails");
    return HEADER + body;
}
