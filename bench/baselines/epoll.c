/*
 * The baseline: a socket policy server as a competent C programmer writes it.
 *
 * One thread, one epoll set. Each wake-up of the listening socket accepts until EAGAIN; a complete request gets the whole
 * reply in one send, then close. A request may arrive split into any number of segments. There are no timeouts, metrics,
 * limits or logs: it does less than any server that it is compared with.
 *
 * Each option can be measured: `python -m bench experiments`; the figures are in docs/performance.md.
 *   --epoll-first      no recv right after accept: register with epoll, recv after its event. Hence the recv at once
 *   --shutdown         shutdown(SHUT_WR) before close. Hence close alone
 *   --look             recv before close, to see whether more input has come: close would send RST then
 *   --look-ioctl       the same with ioctl(SIOCINQ)
 *   --look-together    the same with one poll for all that were replied to in a wake-up, at most 32
 *   --close-range      one close_range for those of them that have neighbouring descriptors
 *   --with-address     accept4 returns the client's address
 *   --one-segment      MSG_MORE on the reply, so that reply and FIN leave in one segment with the close
 *   --defer-accept     TCP_DEFER_ACCEPT: accept a connection only when it has sent something. Off in the baseline: the
 *                      server would never see a silent client, whose timeout would be the kernel's
 *   --spin             never sleep: poll for events all the time
 *   --port=P           listen on this port, beside other processes (SO_REUSEPORT)
 *   --incoming-cpu=N   of several that share a port, prefer this one for connections that arrive on that CPU (SO_INCOMING_CPU)
 *
 * Usage: epoll [options] POLICY_FILE. Listens on a port of 127.0.0.1 that the kernel picks and prints "port N"; ends on
 * SIGTERM with one JSON line of counts.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static const char REQUEST[] = "<policy-file-request/>"; /* sizeof counts the NUL, which is on the wire too */

enum {
    BACKLOG = 65535, /* as every server under test has; the kernel lowers it to net.core.somaxconn */
    EVENTS = 256,   /* per epoll_wait: as many as there are clients in the main scenario */
    MAX_REPLY = 1 << 20,
    DEFER_SECONDS = 3,
    TOGETHER = 32,
};

static struct {
    bool one_segment, shut_down, look, look_ioctl, look_together, close_range, with_address;
    bool epoll_first, defer_accept, spin;
    uint16_t port;
    int incoming_cpu;
} options = {.incoming_cpu = -1};
static struct { uint64_t readable, more_input, accepted, ready_at_accept, replies, refused, wakeups; } counts;

static char *reply;
static size_t reply_length;
static uint8_t *matched; /* by fd: bytes of the request seen so far */
static int epoll_fd, listen_fd;
static volatile sig_atomic_t stopping;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void on_signal(int number)
{
    (void)number;
    stopping = 1;
}

static int ending[TOGETHER], endings; /* replies that are sent, whose sockets are not closed yet */

/* Look whether more input has come to any of them, with one system call, and close them. */
static void end_together(void)
{
    struct pollfd polled[TOGETHER];
    char more[256];
    for (int i = 0; i < endings; i++)
        polled[i] = (struct pollfd){.fd = ending[i], .events = POLLIN};
    if (options.look_together && endings && poll(polled, (nfds_t)endings, 0) > 0)
        for (int i = 0; i < endings; i++)
            if (polled[i].revents & POLLIN) {
                counts.readable++;
                counts.more_input += recv(ending[i], more, sizeof more, 0) > 0;
            }
    for (int i = 0, end; i < endings; i = end) {
        for (end = i + 1; options.close_range && end < endings && ending[end] == ending[end - 1] + 1; end++)
            ;
        if (end == i + 1)
            close(ending[i]);
        else
            close_range((unsigned)ending[i], (unsigned)ending[end - 1], 0);
    }
    endings = 0;
}

static void send_reply(int fd)
{
    int flags = MSG_NOSIGNAL | (options.one_segment ? MSG_MORE : 0);
    if (send(fd, reply, reply_length, flags) == (ssize_t)reply_length)
        counts.replies++;
    if (options.shut_down)
        shutdown(fd, SHUT_WR);
    if (options.look_together || options.close_range) {
        ending[endings++] = fd;
        if (endings == TOGETHER)
            end_together();
        return;
    }
    int waiting = 0;
    char more[256];
    if (options.look_ioctl)
        ioctl(fd, SIOCINQ, &waiting);
    else if (options.look && recv(fd, more, sizeof more, 0) > 0)
        waiting = 1;
    counts.more_input += waiting != 0;
    close(fd);
}

/* Read input and act on it. False: none, or not enough yet. True: the connection has ended. */
static bool serve(int fd)
{
    char buffer[256];
    ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    size_t seen = matched[fd];
    if (n <= 0 || (size_t)n > sizeof REQUEST - seen || memcmp(buffer, REQUEST + seen, (size_t)n) != 0) {
        counts.refused++;
        close(fd);
        return true;
    }
    matched[fd] = (uint8_t)(seen + (size_t)n);
    if (matched[fd] < sizeof REQUEST)
        return false;
    send_reply(fd);
    return true;
}

static void accept_all(void)
{
    for (;;) {
        struct sockaddr_in6 peer;
        socklen_t size = sizeof peer;
        int fd = accept4(listen_fd, options.with_address ? (struct sockaddr *)&peer : NULL,
                         options.with_address ? &size : NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == ECONNABORTED || errno == EINTR)
                continue;
            if (errno != EAGAIN)
                die("accept4"); /* out of files: the figures would mean nothing */
            return;
        }
        counts.accepted++;
        matched[fd] = 0;
        if (!options.epoll_first && serve(fd)) {
            counts.ready_at_accept++;
            continue;
        }
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
            die("epoll_ctl");
    }
}

static void load_reply(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        die(path);
    reply = malloc(MAX_REPLY + 1);
    reply_length = fread(reply, 1, MAX_REPLY, file);
    fclose(file);
    if (reply_length == 0 || reply[reply_length - 1] != '\0')
        reply[reply_length++] = '\0';
}

static void listen_on_loopback(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int seconds = DEFER_SECONDS, on = 1;
    address.sin_port = htons(options.port);
    listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (options.port && setsockopt(listen_fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0)
        die("SO_REUSEPORT");
    if (options.incoming_cpu >= 0 &&
        setsockopt(listen_fd, SOL_SOCKET, SO_INCOMING_CPU, &options.incoming_cpu, sizeof(int)) < 0)
        die("SO_INCOMING_CPU");
    if (listen_fd < 0 || bind(listen_fd, (struct sockaddr *)&address, length) < 0)
        die("bind");
    if (options.defer_accept && setsockopt(listen_fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof seconds) < 0)
        die("TCP_DEFER_ACCEPT");
    if (listen(listen_fd, BACKLOG) < 0 || getsockname(listen_fd, (struct sockaddr *)&address, &length) < 0)
        die("listen");
    printf("port %d\n", ntohs(address.sin_port));
    fflush(stdout);
}

static void allow_many_files(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    matched = calloc(limit.rlim_cur, sizeof *matched);
    if (!matched)
        die("calloc");
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return fprintf(stderr, "usage: %s [options] POLICY_FILE\n", argv[0]), 2;
    for (int i = 1; i < argc - 1; i++) {
        if (!strcmp(argv[i], "--one-segment"))
            options.one_segment = true;
        else if (!strcmp(argv[i], "--shutdown"))
            options.shut_down = true;
        else if (!strcmp(argv[i], "--look"))
            options.look = true;
        else if (!strcmp(argv[i], "--look-ioctl"))
            options.look_ioctl = true;
        else if (!strcmp(argv[i], "--look-together"))
            options.look_together = true;
        else if (!strcmp(argv[i], "--close-range"))
            options.close_range = true;
        else if (!strcmp(argv[i], "--with-address"))
            options.with_address = true;
        else if (!strcmp(argv[i], "--epoll-first"))
            options.epoll_first = true;
        else if (!strcmp(argv[i], "--defer-accept"))
            options.defer_accept = true;
        else if (!strcmp(argv[i], "--spin"))
            options.spin = true;
        else if (!strncmp(argv[i], "--port=", 7))
            options.port = (uint16_t)strtoul(argv[i] + 7, NULL, 10);
        else if (!strncmp(argv[i], "--incoming-cpu=", 15))
            options.incoming_cpu = (int)strtol(argv[i] + 15, NULL, 10);
        else
            return fprintf(stderr, "unknown option %s\n", argv[i]), 2;
    }
    struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART: epoll_wait must return */
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    load_reply(argv[argc - 1]);
    allow_many_files();
    listen_on_loopback();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event listening = {.events = EPOLLIN, .data.fd = listen_fd}, events[EVENTS];
    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &listening) < 0)
        die("epoll");
    while (!stopping) {
        int n = epoll_wait(epoll_fd, events, EVENTS, options.spin ? 0 : -1);
        counts.wakeups++;
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == listen_fd)
                accept_all();
            else
                serve(events[i].data.fd);
        }
        end_together();
    }
    printf("{\"accepted\": %llu, \"ready_at_accept\": %llu, \"replies\": %llu, \"refused\": %llu, "
           "\"wakeups\": %llu, \"readable\": %llu, \"more_input\": %llu}\n",
           (unsigned long long)counts.accepted, (unsigned long long)counts.ready_at_accept,
           (unsigned long long)counts.replies, (unsigned long long)counts.refused, (unsigned long long)counts.wakeups,
           (unsigned long long)counts.readable, (unsigned long long)counts.more_input);
    return 0;
}
