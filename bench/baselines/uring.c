/*
 * The baseline on io_uring: it shows the gain of batched system calls.
 *
 * One thread, one ring. A multishot accept hands out connections; each gets a recv, and then a send with MSG_MORE linked
 * to a close, so that reply and FIN leave in one segment. Completions are collected in batches, so a reply costs a
 * fraction of a system call; the kernel's work for accept, recv, send and close is the same. No timeouts, counters or
 * limits.
 *
 * Usage: uring POLICY_FILE. Listens on a port of 127.0.0.1 that the kernel picks and prints "port N"; ends on SIGTERM.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <liburing.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

static const char REQUEST[] = "<policy-file-request/>"; /* sizeof counts the NUL, which is on the wire too */

enum {
    BACKLOG = 65535,
    ENTRIES = 4096,
    MAX_REPLY = 1 << 20,
    BUFFER = 64, /* of one connection: more than a request, so that extra input is seen */
};
enum what { ACCEPTED, RECEIVED, SENT, CLOSED };

struct connection {
    char buffer[BUFFER];
    uint32_t seen;
};

static struct io_uring ring;
static struct connection *connections; /* by fd */
static char *reply;
static size_t reply_length;

static void die(const char *what, int error)
{
    fprintf(stderr, "%s: %s\n", what, strerror(error));
    exit(1);
}

static struct io_uring_sqe *next_entry(void)
{
    struct io_uring_sqe *entry = io_uring_get_sqe(&ring);
    if (!entry) {
        io_uring_submit(&ring);
        entry = io_uring_get_sqe(&ring);
    }
    if (!entry)
        die("the ring is full", EBUSY);
    return entry;
}

/* Call it after the entry is prepared, which clears the label. */
static void label(struct io_uring_sqe *entry, enum what what, int fd)
{
    io_uring_sqe_set_data64(entry, (uint64_t)what << 32 | (uint32_t)fd);
}

static void accept_on(int fd)
{
    struct io_uring_sqe *entry = next_entry();
    io_uring_prep_multishot_accept(entry, fd, NULL, NULL, SOCK_CLOEXEC);
    label(entry, ACCEPTED, fd);
}

static void receive(int fd)
{
    struct connection *connection = &connections[fd];
    struct io_uring_sqe *entry = next_entry();
    io_uring_prep_recv(entry, fd, connection->buffer + connection->seen, BUFFER - connection->seen, 0);
    label(entry, RECEIVED, fd);
}

static void end(int fd)
{
    struct io_uring_sqe *entry = next_entry();
    io_uring_prep_close(entry, fd);
    label(entry, CLOSED, fd);
}

static void send_reply(int fd)
{
    if (io_uring_sq_space_left(&ring) < 2) /* both entries must be in one batch, or the link would break */
        io_uring_submit(&ring);
    struct io_uring_sqe *entry = next_entry();
    io_uring_prep_send(entry, fd, reply, reply_length, MSG_NOSIGNAL | MSG_MORE | MSG_WAITALL);
    entry->flags |= IOSQE_IO_HARDLINK; /* close even if send fails */
    label(entry, SENT, fd);
    end(fd);
}

static void on_received(int fd, int n)
{
    struct connection *connection = &connections[fd];
    if (n > 0)
        connection->seen += (uint32_t)n;
    if (n <= 0 || connection->seen > sizeof REQUEST || memcmp(connection->buffer, REQUEST, connection->seen) != 0)
        end(fd);
    else if (connection->seen < sizeof REQUEST)
        receive(fd);
    else
        send_reply(fd);
}

static void on_completion(const struct io_uring_cqe *done)
{
    enum what what = (enum what)(done->user_data >> 32);
    int fd = (int)(uint32_t)done->user_data;
    if (what == RECEIVED)
        on_received(fd, done->res);
    if (what != ACCEPTED)
        return;
    if (done->res >= 0) {
        connections[done->res].seen = 0;
        receive(done->res);
    }
    if (!(done->flags & IORING_CQE_F_MORE))
        accept_on(fd);
}

static int listen_on_loopback(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) < 0 || listen(fd, BACKLOG) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        die("listen", errno);
    printf("port %d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void load_reply(const char *path)
{
    FILE *file = fopen(path, "rb");
    reply = malloc(MAX_REPLY + 1);
    if (!file || !reply)
        die(path, errno);
    reply_length = fread(reply, 1, MAX_REPLY, file);
    fclose(file);
    if (reply_length == 0 || reply[reply_length - 1] != '\0')
        reply[reply_length++] = '\0';
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return fprintf(stderr, "usage: %s POLICY_FILE\n", argv[0]), 2;
    load_reply(argv[1]);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    connections = calloc(limit.rlim_cur, sizeof *connections);
    struct io_uring_params parameters = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
        .cq_entries = 4 * ENTRIES};
    int error = io_uring_queue_init_params(ENTRIES, &ring, &parameters);
    if (error < 0 || !connections)
        die("io_uring (Linux 6.1)", -error);
    accept_on(listen_on_loopback());
    for (;;) {
        error = io_uring_submit_and_wait(&ring, 1);
        if (error < 0 && error != -EINTR)
            die("io_uring_submit_and_wait", -error);
        struct io_uring_cqe *done;
        unsigned head, n = 0;
        io_uring_for_each_cqe(&ring, head, done)
        {
            on_completion(done);
            n++;
        }
        io_uring_cq_advance(&ring, n);
    }
}
