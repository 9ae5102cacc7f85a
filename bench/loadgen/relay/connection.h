/* One connection of a client: its socket, with TLS and WebSocket if the run has them. */
#ifndef CONNECTION_H
#define CONNECTION_H

#include "relay.h"

#include "../tls.h"
#include "websocket.h"

#include <sys/types.h>

/* All zero but the descriptor at first. */
struct connection {
    int fd;
    tls *tls;             /* NULL: plain, or not yet connected */
    bool asked;           /* for WebSocket */
    struct frames frames; /* from the server, of WebSocket */
};

/* Before the first connection: how all of them speak, and the port that they connect to. */
void prepare_connections(struct manner manner, uint16_t port);

/* Go on with the handshakes, once TCP's is complete. 0: they are complete, too; else the events of epoll to wait for. */
uint32_t go_on_with_handshakes(struct connection *connection);

/* As many bytes as the socket takes, on the wire of WebSocket if there is one. */
size_t send_some(struct connection *connection, const void *bytes, size_t size);

/* All of a message of at most CHUNK_BYTES; gives up if the socket does not take it. */
void send_message(struct connection *connection, const unsigned char *bytes, size_t size);

/* A stream of `payload` bytes of the pattern: its bytes on the wire, of WebSocket if there is one, and the next of them:
   at most CHUNK_BYTES, their number in *size. */
uint64_t upload_size(uint64_t payload);
const void *upload_part(uint64_t position, uint64_t payload, size_t *size);

/* Bytes of the session, at most CHUNK_BYTES; -1: there are none now. ended: nothing follows them. */
ssize_t receive_session(struct connection *connection, unsigned char *to, bool *ended);

/* Whether bytes have left the socket and were not yet received. */
bool has_pending(const struct connection *connection);

/* Say that nothing follows, as TLS and WebSocket do, and close. */
void close_connection(struct connection *connection);

#endif
