/*
 * Load for relays: the application behind one, and its clients. One thread, epoll, loopback only.
 *
 *   loadgen relay application                   echoes; for 'S' and 8 bytes (big-endian) it sends that many bytes of the
 *                                               pattern; for 'R' and 8 bytes it receives as many, and sends 'R'
 *   loadgen relay echo PORT CONNS SIZE SECONDS  each connection sends SIZE bytes and waits for them, repeatedly
 *   loadgen relay short PORT CONNS SIZE TOTAL   connect, exchange SIZE bytes each way, close: TOTAL times, CONNS at once
 *   loadgen relay bulk PORT CONNS BYTES         BYTES from the application on each of CONNS connections
 *   loadgen relay upload PORT CONNS BYTES       BYTES to the application on each of CONNS connections
 *   loadgen relay hold PORT CONNS SIZE          one echo on each connection, and one more for each line of stdin, until
 *                                               that ends; none may have been closed by then
 *   loadgen relay return PORT CONNS FIRST [REPLY]
 *                                               sessions that come back when they are cut, from source address FIRST on;
 *                                               with REPLY, a file, policy clients. A line "g" of stdin begins a turn (and
 *                                               all policy clients ask), "r" ends it when all are served
 *
 *   loadgen relay ws-application                the same application, which speaks WebSocket
 *   loadgen relay application PORT [COST]       on this port; it sleeps COST µs for each connection that it accepts, has
 *                                               a queue of 511 for them, and prints the accepts of each 100 ms
 *                                               and how many SYNs were dropped at the full queue until then
 *
 *   loadgen relay [--tls VERSION] [--ws] [--together] MODE …
 *                                               clients of TLS 1.2 or 1.3, of WebSocket, or of both. Their `echo`, and that
 *                                               of plain ones with --together, prints a line when all connections have
 *                                               their handshakes, starts after a line of stdin, and leaves them open until
 *                                               stdin ends
 *
 * The application prints "port N". Clients print one line of JSON, `hold` one after each round of echoes. Every byte is
 * compared, and a message contains its sender's number: a byte that is wrong, missing or another client's ends the
 * program with status 2.
 */
#ifndef RELAY_H
#define RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CHUNK_BYTES = 65536, /* bytes that are read or written at once */
    PERIOD = 65521, /* of the pattern: a prime, so that a block that is moved, lost or duplicated differs */
    RELAY_EVENTS = 256,
    HEAD = 9, /* bytes of a request for a stream: 'S' or 'R', and a number of bytes, big-endian */
};

/* PERIOD bytes repeated: CHUNK_BYTES of them from any position below PERIOD. */
extern unsigned char pattern[PERIOD + CHUNK_BYTES];
void make_pattern(void);

/* The mode that the arguments name; returns the exit code. */
int run_relay(int argc, char **argv);

/* Runs until it is killed. websocket: whether it speaks that. port: 0: the kernel chooses it. cost: of an accept, µs. */
void relay_application(bool websocket, uint16_t port, unsigned cost) __attribute__((noreturn));

/* How clients connect. together: those of an echo wait until all are connected. */
struct manner {
    bool tls, websocket, together;
};

/* Clients that come back (returning.c). Runs until stdin ends. argv: what follows the name. */
void relay_returning(int argc, char **argv, struct manner manner) __attribute__((noreturn));

/* A mode of the clients. False: no mode has that name and number of arguments. argv: what follows the name. */
bool relay_clients(const char *mode, int argc, char **argv, struct manner manner);

#endif
