/* TLS of clients: see tls.h. */
#define _GNU_SOURCE
#include "tls.h"

#include "client.h"

#ifdef WITH_TLS

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <string.h>

static struct {
    SSL_CTX *context;
    unsigned long error;
} run;

/* With SSL_VERIFY_NONE OpenSSL verifies the chain, and ignores the result. */
static int accept_any(X509_STORE_CTX *chain, void *nothing)
{
    (void)chain, (void)nothing;
    return 1;
}

void tls_prepare(const char *version)
{
    int number = !strcmp(version, "1.3") ? TLS1_3_VERSION : !strcmp(version, "1.2") ? TLS1_2_VERSION : 0;
    if (!number)
        give_up("the version of TLS is 1.2 or 1.3");
    run.context = SSL_CTX_new(TLS_client_method());
    if (!run.context || !SSL_CTX_set_min_proto_version(run.context, number) ||
        !SSL_CTX_set_max_proto_version(run.context, number) ||
        !SSL_CTX_set_ciphersuites(run.context, "TLS_AES_256_GCM_SHA384") ||
        !SSL_CTX_set_cipher_list(run.context, "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384") ||
        !SSL_CTX_set1_groups_list(run.context, "X25519:P-256"))
        give_up("OpenSSL cannot make such a client");
    SSL_CTX_set_session_cache_mode(run.context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_cert_verify_callback(run.context, accept_any, NULL);
    SSL_CTX_set_read_ahead(run.context, 1); /* one recv for a record, not one for its head and one for its body */
    SSL_CTX_set_mode(run.context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                      SSL_MODE_RELEASE_BUFFERS);
    signal(SIGPIPE, SIG_IGN); /* OpenSSL sends without MSG_NOSIGNAL */
}

tls *tls_open(int fd)
{
    SSL *client = SSL_new(run.context);
    if (!client || !SSL_set_fd(client, fd))
        give_up("no memory for TLS");
    SSL_set_connect_state(client);
    return client;
}

/* errno for what an operation returned. */
static int failed(SSL *client, int result)
{
    switch (SSL_get_error(client, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        errno = EAGAIN;
        break;
    case SSL_ERROR_SYSCALL: /* errno has the reason */
        errno = errno ? errno : ECONNRESET;
        break;
    default:
        run.error = ERR_peek_error();
        errno = ERR_GET_REASON(run.error) == SSL_R_UNEXPECTED_EOF_WHILE_READING ? ENODATA : EPROTO;
    }
    ERR_clear_error();
    return -1;
}

int tls_handshake(tls *client)
{
    errno = 0;
    int result = SSL_do_handshake(client);
    return result == 1 ? 0 : failed(client, result);
}

ssize_t tls_recv(tls *client, void *to, size_t size)
{
    size_t received;
    errno = 0;
    int result = SSL_read_ex(client, to, size, &received);
    if (result == 1)
        return (ssize_t)received;
    return SSL_get_error(client, result) == SSL_ERROR_ZERO_RETURN ? 0 : failed(client, result);
}

ssize_t tls_send(tls *client, const void *from, size_t size)
{
    size_t sent;
    errno = 0;
    int result = SSL_write_ex(client, from, size, &sent);
    return result == 1 ? (ssize_t)sent : failed(client, result);
}

bool tls_wants_to_send(tls *client) { return SSL_want_write(client); }

bool tls_pending(tls *client) { return SSL_has_pending(client); }

void tls_finish(tls *client)
{
    SSL_shutdown(client);
    ERR_clear_error();
}

void tls_free(tls *client) { SSL_free(client); }

const char *tls_error(void)
{
    const char *text = run.error ? ERR_reason_error_string(run.error) : NULL;
    return text ? text : "no reason is known";
}

#else

#include <stdlib.h>

void tls_prepare(const char *version)
{
    (void)version;
    give_up("it was built without OpenSSL: install its headers (Debian: libssl-dev)");
}

/* Nothing calls these: there is no client without `tls_prepare`. */
tls *tls_open(int fd) { (void)fd, abort(); }
int tls_handshake(tls *client) { (void)client, abort(); }
ssize_t tls_recv(tls *client, void *to, size_t size) { (void)client, (void)to, (void)size, abort(); }
ssize_t tls_send(tls *client, const void *from, size_t size) { (void)client, (void)from, (void)size, abort(); }
bool tls_wants_to_send(tls *client) { (void)client, abort(); }
bool tls_pending(tls *client) { (void)client, abort(); }
void tls_finish(tls *client) { (void)client, abort(); }
void tls_free(tls *client) { (void)client, abort(); }
const char *tls_error(void) { abort(); }

#endif
