/* What all modes share: the clock, addresses, sockets of clients, files, limits, and how an impossible run ends. */
#ifndef CLIENT_H
#define CLIENT_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define REQUEST "<policy-file-request/>" /* sizeof counts the NUL, which is on the wire too: 23 bytes */

enum {
    FIRST_SOURCE = 0x7f010101, /* 127.1.1.1 */
    MAX_MESSAGE = 4 << 20,     /* bytes of a request or a reply: far above what any client accepts */
};

/* Options of a client's socket. All zero: the kernel's defaults, and TCP may delay small segments. */
struct shape {
    int receive_buffer; /* SO_RCVBUF in bytes; 0: the kernel's */
    int segment;        /* TCP_MAXSEG, which limits the server's segments and so what its socket buffers; 0: the kernel's */
    bool no_delay;      /* TCP_NODELAY: each send is a segment of its own */
    bool close_with_rst; /* so that no socket stays in TIME_WAIT */
    uint16_t port;       /* the source port, also after a disconnect; 0: the kernel chooses one for each connect */
};

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t); /* no system call: vDSO */
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t to_ns(double seconds) { return (uint64_t)(seconds * 1e9); }

/* Print a message, with the error of the last system call, and exit 2: for what makes a run impossible. */
void die(const char *what) __attribute__((noreturn));

/* Print a message, and exit 2. */
void give_up(const char *why) __attribute__((noreturn));

/* An IPv4 address in host order. Gives up if the text is none. */
uint32_t parse_address(const char *text);

/* Address `n` counted from `first`, 250 in each /24: 127.1.1.1 to .250, 127.1.2.1 and so on. A run from many addresses
   cannot use up the ports of one. */
uint32_t source_address(uint32_t first, unsigned n);

/* A port of 127.0.0.1. */
struct sockaddr_in server_address(uint16_t port);

/* A non-blocking socket bound to this address; connect chooses its port. */
int client_socket(uint32_t source, struct shape shape);

/* Start to connect. False: refused, or no port is left. On loopback the handshake is over when this returns. */
bool start_connect(int fd, uint16_t port);

/* From now on, close ends the connection with RST. */
void set_close_with_rst(int fd);

/* The bytes of a file, 1 byte to 4 MB, and their number in *size. */
char *read_file(const char *path, size_t *size);

/* Raise the soft limit of open files to the hard one, and return it. */
unsigned long allow_many_files(void);

#endif
