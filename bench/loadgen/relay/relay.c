/* Load for relays: the application behind one, and its clients. One thread, epoll, 127.0.0.1 only.
 *
 *   relay upstream                        an application: echoes; to 'S' and 8 bytes (big-endian) it sends so many bytes
 *   relay echo PORT CONNS SIZE SECONDS    each connection sends SIZE bytes and waits for them, again and again
 *   relay short PORT CONNS TOTAL SIZE     connect, SIZE bytes there and back, close: TOTAL times, CONNS at once
 *   relay bulk PORT CONNS BYTES           BYTES from the application on each of CONNS connections
 *   relay idle PORT CONNS                 one echo on each, then nothing, until the standard input ends
 *
 * Clients print one line of JSON. Any byte that is wrong or missing is an error, and ends the program with 1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 65536, EVENTS = 256, MAX_FD = 1 << 17, MAX_SAMPLES = 1 << 22, STALL_MS = 10000 };

struct conn {
    uint64_t left;     /* upstream: bytes to send as a source. Clients: bytes that are still to come */
    uint64_t since;    /* ns: when this round began */
    uint32_t begin, end;
    char *held;        /* upstream: read and not yet echoed */
    uint8_t asked;     /* upstream: bytes of the first message read */
    uint8_t source, ended, started;
    unsigned char first[9];
};

static struct conn *conns;
static char buffer[CHUNK];
static int ep;

static void fail(const char *what) {
    fprintf(stderr, "relay: %s: %s\n", what, errno ? strerror(errno) : "wrong");
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void watch(int operation, int fd, uint32_t events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(ep, operation, fd, &event) != 0) fail("epoll_ctl");
}

/* ------------------------------------------------------------------------------------------------------ upstream */

static void drop(int fd) {
    free(conns[fd].held);
    memset(&conns[fd], 0, sizeof conns[fd]);
    close(fd);
}

static void give(int fd) {
    struct conn *c = &conns[fd];
    while (c->left) {
        ssize_t n = send(fd, buffer, c->left < CHUNK ? c->left : CHUNK, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno != EAGAIN) drop(fd);
            return;
        }
        c->left -= (uint64_t)n;
    }
    shutdown(fd, SHUT_WR);
    watch(EPOLL_CTL_MOD, fd, EPOLLIN);
}

static void serve(int fd, uint32_t events) {
    struct conn *c = &conns[fd];
    if (c->source && (events & EPOLLOUT)) {
        give(fd);
        return;
    }
    if (c->held) {
        ssize_t n = send(fd, c->held + c->begin, c->end - c->begin, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) {
            drop(fd);
            return;
        }
        if (n > 0) c->begin += (uint32_t)n;
        if (c->begin < c->end) return;
        free(c->held);
        c->held = NULL;
        watch(EPOLL_CTL_MOD, fd, EPOLLIN);
    }
    ssize_t n = recv(fd, buffer, CHUNK, 0);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN) drop(fd);
        return;
    }
    if (c->asked < 9) {
        ssize_t more = n < 9 - c->asked ? n : 9 - c->asked;
        memcpy(c->first + c->asked, buffer, (size_t)more);
        c->asked += (uint8_t)more;
        if (c->first[0] == 'S') {
            if (c->asked == 9) {
                for (int i = 1; i < 9; i++) c->left = c->left << 8 | c->first[i];
                c->source = 1;
                watch(EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT);
            }
            return;
        }
    }
    if (c->source) return;
    ssize_t sent = send(fd, buffer, (size_t)n, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        drop(fd);
        return;
    }
    if (sent < 0) sent = 0;
    if (sent < n) {
        c->held = malloc(CHUNK);
        if (!c->held) fail("malloc");
        memcpy(c->held, buffer + sent, (size_t)(n - sent));
        c->begin = 0;
        c->end = (uint32_t)(n - sent);
        watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
    }
}

static _Noreturn void upstream(void) {
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    if (bind(listening, (struct sockaddr *)&at, size) || listen(listening, 65535)) fail("listen");
    getsockname(listening, (struct sockaddr *)&at, &size);
    setsockopt(listening, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    printf("port %d\n", ntohs(at.sin_port));
    fflush(stdout);
    watch(EPOLL_CTL_ADD, listening, EPOLLIN);
    for (;;) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(ep, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd != listening) {
                serve(fd, events[i].events);
                continue;
            }
            for (int k = 0; k < 64; k++) {
                fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK);
                if (fd < 0) break;
                if (fd >= MAX_FD) fail("too many connections");
                memset(&conns[fd], 0, sizeof conns[fd]);
                watch(EPOLL_CTL_ADD, fd, EPOLLIN);
            }
        }
    }
}

/* ------------------------------------------------------------------------------------------------------- clients */

static uint32_t samples[MAX_SAMPLES];
static size_t sample_count;

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double percentile(double share) {
    if (!sample_count) return 0;
    return samples[(size_t)(share * (double)(sample_count - 1))] / 1000.0;
}

static void sampled(uint64_t ns) {
    if (sample_count < MAX_SAMPLES) samples[sample_count++] = ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns;
}

static int dial(int port) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0 || fd >= MAX_FD) fail("socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) fail("connect");
    memset(&conns[fd], 0, sizeof conns[fd]);
    conns[fd].since = now_ns();
    watch(EPOLL_CTL_ADD, fd, EPOLLOUT);
    return fd;
}

static void say(int fd, const char *data, size_t size) {
    if (send(fd, data, size, MSG_NOSIGNAL) != (ssize_t)size) fail("send");
}

/* A message that says whose it is: nobody else's would do as an answer. */
static void message(int fd, uint64_t round, char *out, size_t size) {
    memset(out, 'e', size);
    snprintf(out, size, "e%d.%llu", fd, (unsigned long long)round);
}

int main(int argc, char **argv) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    conns = calloc(MAX_FD, sizeof *conns);
    ep = epoll_create1(0);
    if (argc < 2 || !conns || ep < 0) fail("usage: see the head of relay.c");
    if (!strcmp(argv[1], "upstream")) upstream();
    if (argc < 4) fail("arguments");
    const char *mode = argv[1];
    int echo = !strcmp(mode, "echo"), brief = !strcmp(mode, "short"), bulk = !strcmp(mode, "bulk");
    int idle = !strcmp(mode, "idle");
    int port = atoi(argv[2]), count = atoi(argv[3]);
    uint64_t total = brief ? strtoull(argv[4], NULL, 10) : 0;
    uint64_t bytes = bulk ? strtoull(argv[4], NULL, 10) : 0;
    size_t size = echo ? (size_t)atoi(argv[4]) : brief ? (size_t)atoi(argv[5]) : 100;
    uint64_t begin = now_ns(), until = echo ? begin + (uint64_t)(atof(argv[5]) * 1e9) : UINT64_MAX;
    uint64_t done = 0, received = 0, dialled = 0;
    int open = 0, quiet = 0;
    static char expected[CHUNK], asking[9];
    if (bulk) {
        asking[0] = 'S';
        for (int i = 0; i < 8; i++) asking[8 - i] = (char)(bytes >> (8 * i));
    }
    for (; open < count && (!brief || dialled < total); open++, dialled++) dial(port);
    while (open && !(idle && done == (uint64_t)count)) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(ep, events, EVENTS, STALL_MS);
        if (n == 0 && ++quiet) {
            errno = 0;
            fail("stalled");
        }
        uint64_t now = now_ns();
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            struct conn *c = &conns[fd];
            if (!c->started) {
                int error = 0;
                socklen_t length = sizeof error;
                getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
                if ((errno = error)) fail("connect");
                c->started = 1;
                watch(EPOLL_CTL_MOD, fd, EPOLLIN);
                if (bulk) {
                    say(fd, asking, sizeof asking);
                    c->left = bytes;
                } else {
                    message(fd, done, expected, size);
                    say(fd, expected, size);
                    c->left = size;
                }
                continue;
            }
            ssize_t got = recv(fd, buffer, CHUNK, 0);
            if (got < 0 && errno == EAGAIN) continue;
            if (got < 0) fail("recv");
            if (got == 0) {
                errno = 0;
                if (!bulk || c->left) fail("closed early");
                close(fd);
                open--;
                continue;
            }
            received += (uint64_t)got;
            if ((uint64_t)got > c->left) fail("more bytes than expected");
            c->left -= (uint64_t)got;
            if (bulk || c->left) continue;
            sampled(now - c->since);
            char start[16];
            int length = snprintf(start, sizeof start, "e%d.", fd);
            errno = 0;
            if ((size_t)got == size && memcmp(buffer, start, (size_t)length)) fail("somebody else's bytes");
            done++;
            if (brief || now >= until) {
                close(fd);
                open--;
                if (brief && dialled < total) {
                    dial(port);
                    dialled++;
                    open++;
                }
            } else if (echo) {
                c->since = now;
                c->left = size;
                message(fd, done, expected, size);
                say(fd, expected, size);
            }
        }
    }
    double seconds = (double)(now_ns() - begin) / 1e9;
    qsort(samples, sample_count, sizeof *samples, by_value);
    printf("{\"rounds\": %llu, \"bytes\": %llu, \"seconds\": %.6f, \"p50_us\": %.1f, \"p99_us\": %.1f}\n",
           (unsigned long long)done, (unsigned long long)received, seconds, percentile(0.5), percentile(0.99));
    fflush(stdout);
    if (idle)
        while (read(0, buffer, CHUNK) > 0) {}
    return 0;
}
