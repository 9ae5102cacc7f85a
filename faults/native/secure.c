/* TLS for the good clients: see secure.h. A machine without the headers of OpenSSL builds the rest of them. */
#define _GNU_SOURCE
#include "secure.h"

#include "../../bench/loadgen/client.h"

#if __has_include(<openssl/ssl.h>)

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct secure {
    SSL *ssl;
    int fd;
    bool failed, closed; /* closed: the server's close_notify has come */
};

/* One for all clients. */
static SSL_CTX *context_of(const char *authority)
{
    static SSL_CTX *context;
    static const char *made_for;
    if (context) {
        if (strcmp(made_for, authority))
            give_up("all TLS clients have one authority");
        return context;
    }
    context = SSL_CTX_new(TLS_client_method());
    if (!context || SSL_CTX_load_verify_locations(context, authority, NULL) != 1)
        give_up("the certificate of the server cannot be read");
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    /* A repeated SSL_write may have its bytes elsewhere: they are in the file that the script names. */
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    made_for = authority;
    return context;
}

struct secure *secure_client(int fd, const char *authority, const char *name)
{
    struct secure *secure = calloc(1, sizeof *secure);
    if (!secure || !(secure->ssl = SSL_new(context_of(authority))) || SSL_set_fd(secure->ssl, fd) != 1 ||
        SSL_set_tlsext_host_name(secure->ssl, name) != 1 || SSL_set1_host(secure->ssl, name) != 1)
        give_up("no memory for a TLS client");
    secure->fd = fd;
    SSL_set_connect_state(secure->ssl);
    return secure;
}

/* The result of an SSL function, as of a system call. */
static ssize_t result(struct secure *secure, int n)
{
    if (n > 0)
        return n;
    int saved = errno, error = SSL_get_error(secure->ssl, n);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        errno = EAGAIN;
        return -1;
    }
    secure->failed = true;
    bool cut = error == SSL_ERROR_SSL && ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
    if (error == SSL_ERROR_SYSCALL && saved)
        errno = saved;
    else
        errno = cut || error == SSL_ERROR_SYSCALL || error == SSL_ERROR_ZERO_RETURN ? ENODATA : EPROTO;
    return -1;
}

static void prepare(void)
{
    ERR_clear_error();
    errno = 0;
}

bool secure_hello(struct secure *secure)
{
    prepare();
    int n = SSL_do_handshake(secure->ssl);
    return SSL_get_error(secure->ssl, n) == SSL_ERROR_WANT_READ || result(secure, n) > 0;
}

ssize_t secure_send(struct secure *secure, const char *bytes, size_t size)
{
    prepare();
    return result(secure, SSL_write(secure->ssl, bytes, (int)size));
}

ssize_t secure_recv(struct secure *secure, char *bytes, size_t room)
{
    if (!secure->closed) {
        prepare();
        int n = SSL_read(secure->ssl, bytes, (int)room);
        if (n > 0 || SSL_get_error(secure->ssl, n) != SSL_ERROR_ZERO_RETURN)
            return result(secure, n);
        secure->closed = true;
    }
    char more;
    ssize_t n = recv(secure->fd, &more, 1, 0);
    if (n <= 0)
        return n;
    secure->failed = true;
    errno = EPROTO;
    return -1;
}

void secure_close(struct secure *secure)
{
    ERR_clear_error();
    if (!secure->failed && SSL_is_init_finished(secure->ssl))
        SSL_shutdown(secure->ssl);
    SSL_free(secure->ssl);
    free(secure);
}

#else

struct secure *secure_client(int fd, const char *authority, const char *name)
{
    (void)fd, (void)authority, (void)name;
    give_up("the good clients were built without TLS: install libssl-dev");
}

bool secure_hello(struct secure *secure)
{
    (void)secure;
    return false;
}

ssize_t secure_send(struct secure *secure, const char *bytes, size_t size)
{
    (void)secure, (void)bytes, (void)size;
    return -1;
}

ssize_t secure_recv(struct secure *secure, char *bytes, size_t room)
{
    (void)secure, (void)bytes, (void)room;
    return -1;
}

void secure_close(struct secure *secure) { (void)secure; }

#endif
