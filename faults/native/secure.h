/* TLS for the good clients, like send and recv of a socket that does not block. See good.c. */
#ifndef SECURE_H
#define SECURE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct secure;

/* A TLS client on this socket. It accepts only a certificate for this name that the file `authority` signs. */
struct secure *secure_client(int fd, const char *authority, const char *name);

/* Send the hello, and do not read what the server replies to it. False with EAGAIN: call it again. */
bool secure_hello(struct secure *secure);

/* As send and recv; the first call does the rest of the handshake. errno is that of the socket, or
 *   EPROTO    the server broke the protocol, has another certificate, or sent an alert
 *   ENODATA   its FIN came without a close_notify
 * 0 from secure_recv: its close_notify came, and then its FIN, with nothing between them. */
ssize_t secure_send(struct secure *secure, const char *bytes, size_t size);
ssize_t secure_recv(struct secure *secure, char *bytes, size_t room);

/* Send close_notify, if the handshake was complete and nothing failed, and free it. The socket stays open. */
void secure_close(struct secure *secure);

#endif
