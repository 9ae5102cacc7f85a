/*
 * TLS of clients, with OpenSSL over the client's socket. No session is ever resumed, and no certificate is checked, but
 * its signature is. Only one cipher suite is offered, and a key share of X25519 only, so that all servers do the same
 * work. (P-256 is offered too, because TLS 1.2 limits the curves of certificates by it.)
 *
 * A build without OpenSSL (no WITH_TLS) has these functions too; then `tls_prepare` gives up and says what is missing.
 */
#ifndef TLS_H
#define TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct ssl_st; /* OpenSSL's SSL */
typedef struct ssl_st tls;

/* Before the first client. version: "1.2" or "1.3", the only one that clients offer. */
void tls_prepare(const char *version);

/* A client on a connected or connecting socket, which stays the caller's. */
tls *tls_open(int fd);

/* These return and set errno as recv and send do. EAGAIN: see `tls_wants_to_send`. EPROTO: an alert, or bytes that are
   no TLS. ENODATA: FIN without close_notify. */
int tls_handshake(tls *client); /* 0: complete */
ssize_t tls_recv(tls *client, void *to, size_t size); /* 0: close_notify */
ssize_t tls_send(tls *client, const void *from, size_t size);

/* After EAGAIN: whether the socket must be writable before the next call; else it must be readable. */
bool tls_wants_to_send(tls *client);

/* Whether bytes have left the socket and not yet been received: its readability says nothing about them. */
bool tls_pending(tls *client);

/* Send close_notify; the client may go on to receive. */
void tls_finish(tls *client);

/* Free a client. */
void tls_free(tls *client);

/* What OpenSSL says about the last EPROTO. */
const char *tls_error(void);

#endif
