/*
 * A load generator for socket policy servers: processes of one thread and one epoll each, loopback only.
 *
 *   loadgen closed --port P --expect FILE --connections C (--count N | --seconds S) [options]
 *   loadgen open   --port P --expect FILE --connections C --rate R --seconds S [options]
 *   loadgen silent --port P --connections C [--rate R] --seconds S [--ask 1] [options]
 *
 * closed: C clients, each asking again as soon as it is answered.
 * open:   R clients a second begin at fixed times, C at most at once; latency counts from the intended time.
 *         Every reply is compared byte for byte, with its end.
 * silent: C clients connect, say nothing (--ask: the request, and never read), and are held until the server closes
 *         them, stdin ends, or S seconds are over.
 *
 *   --port P            may be repeated: clients take turns
 *   --processes N       the work is divided among N; --cpu K, repeated: they run on these CPUs in turn
 *   --warm-up S         the percentiles leave out who was to begin in the first S seconds
 *   --timeout S         one connection may take so long, default 10
 *   --split N           the request in pieces of N bytes, --pace S apart
 *   --send FILE         instead of the policy request
 *   --exchanges N       N times request and reply on a connection, and then the client ends it: for servers that echo
 *   --receive-buffer N, --segment N   SO_RCVBUF and TCP_MAXSEG of the clients
 *   --silent N --drip N --garbage N   so many that misbehave, beside those that ask
 *   --first N           number of the first source address: for a second generator beside this one
 *
 * Results are JSON on stdout, one object a line; on a terminal, stderr shows how far it is. Exit: 0 clean, 1 errors
 * were counted, 2 it could not run. A new mode is a file of its own with a `struct mode`, and a line in the table below.
 */
#define _GNU_SOURCE
#include "loadgen.h"

#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

static const struct mode *const MODES[] = {&CLOSED, &OPEN};

void die(const char *what)
{
    perror(what);
    exit(2);
}

struct sockaddr_in server_address(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

int client_socket(unsigned n, struct shape shape)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0)
        die("socket");
    /* Many source addresses: no run can use up the ports of one. 127.1.1.1 and up; last byte 1..250. */
    struct sockaddr_in source = {.sin_family = AF_INET};
    source.sin_addr.s_addr = htonl(0x7f010001u + (n / 250 % 250 + 1) * 256 + n % 250);
    struct linger reset = {.l_onoff = 1, .l_linger = 0}; /* close ends in RST: nobody is left in TIME_WAIT */
    if (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) < 0 ||
        (shape.receive_buffer && setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &shape.receive_buffer, sizeof(int)) < 0) ||
        (shape.segment && setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &shape.segment, sizeof(int)) < 0) ||
        bind(fd, (struct sockaddr *)&source, sizeof source) < 0)
        die("client socket");
    return fd;
}

char *read_file(const char *path, size_t *size)
{
    FILE *file = path ? fopen(path, "rb") : NULL;
    if (!file)
        die(path ? path : "--expect");
    char *bytes = malloc(MAX_MESSAGE);
    *size = bytes ? fread(bytes, 1, MAX_MESSAGE, file) : 0;
    fclose(file);
    if (!*size || *size == MAX_MESSAGE)
        die("a file is 1 byte to 4 MB");
    return bytes;
}

static void usage(const char *why)
{
    fprintf(stderr, "loadgen: %s\nusage: see the head of main.c\n", why);
    exit(2);
}

static bool parse_number(const char *name, double value, struct options *o)
{
    const struct { const char *name; double *to; } reals[] = {
        {"--seconds", &o->seconds}, {"--rate", &o->rate}, {"--timeout", &o->timeout}, {"--pace", &o->pace},
        {"--warm-up", &o->warm_up}};
    const struct { const char *name; unsigned *to; } whole[] = {
        {"--connections", &o->connections}, {"--exchanges", &o->exchanges},  {"--processes", &o->processes},
        {"--silent", &o->others[SILENT]},   {"--drip", &o->others[DRIP]},    {"--garbage", &o->others[GARBAGE]},
        {"--first", &o->first}};
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++)
        if (!strcmp(name, reals[i].name))
            return *reals[i].to = value, true;
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        if (!strcmp(name, whole[i].name))
            return *whole[i].to = (unsigned)value, true;
    if (!strcmp(name, "--port") && o->port_count < sizeof o->ports / sizeof *o->ports)
        return o->ports[o->port_count++] = (uint16_t)value, true;
    if (!strcmp(name, "--cpu") && o->cpu_count < MAX_CPUS)
        return o->cpus[o->cpu_count++] = (int)value, true;
    if (!strcmp(name, "--count"))
        return o->count = (uint64_t)value, true;
    if (!strcmp(name, "--split"))
        return o->split = (size_t)value, true;
    if (!strcmp(name, "--receive-buffer"))
        return o->shape.receive_buffer = (int)value, true;
    if (!strcmp(name, "--segment"))
        return o->shape.segment = (int)value, true;
    if (!strcmp(name, "--ask"))
        return o->ask = value != 0, true;
    return false;
}

static void parse(int argc, char **argv, struct options *options)
{
    for (int i = 2; i < argc; i += 2) {
        if (i + 1 == argc)
            usage("an option without a value");
        char *rest;
        double number = strtod(argv[i + 1], &rest);
        if (!strcmp(argv[i], "--expect"))
            options->expect_path = argv[i + 1];
        else if (!strcmp(argv[i], "--send"))
            options->send_path = argv[i + 1];
        else if (*rest || rest == argv[i + 1] || number < 0)
            usage(argv[i + 1]);
        else if (!parse_number(argv[i], number, options))
            usage(argv[i]);
    }
    if (!options->port_count || !options->connections)
        usage("--port and --connections are needed");
    if (!options->processes || options->processes > MAX_PROCESSES || options->processes > options->connections)
        usage("--processes: 1 to 64, and not more than connections");
}

static void check_files(const struct options *options)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    unsigned files = options->connections;
    for (int kind = 0; kind < OTHER_KINDS; kind++)
        files += options->others[kind];
    if (files / options->processes + 32 > limit.rlim_cur)
        usage("more connections than these processes may have files");
}

int main(int argc, char **argv)
{
    struct options options = {.seconds = 60, .timeout = 10, .processes = 1}; /* nothing runs for ever by mistake */
    if (argc < 2)
        usage("no mode");
    parse(argc, argv, &options);
    check_files(&options);
    if (!strcmp(argv[1], "silent"))
        return run_silent(&options);
    if (!strcmp(argv[1], "open") && options.rate <= 0)
        usage("an open loop has a --rate");
    for (size_t i = 0; i < sizeof MODES / sizeof *MODES; i++)
        if (!strcmp(argv[1], MODES[i]->name))
            return run_processes(MODES[i], &options);
    usage(argv[1]);
    return 2;
}
