/*
 * A load generator for socket policy servers: one thread, one epoll, loopback only.
 *
 *   loadgen closed --port P --expect FILE --connections C (--count N | --seconds S) [--timeout S] [--cpu N] [--send FILE]
 *   loadgen silent --port P --connections C [--rate R] --seconds S [--cpu N]
 *
 * closed: C clients, each asking again as soon as it is answered. Every reply is compared byte for byte, with its end.
 * silent: C clients connect, say nothing, and are held until the server closes them, stdin ends, or S seconds are over.
 *
 * Results are JSON on stdout, one object a line. Exit: 0 clean, 1 errors were counted, 2 it could not run.
 * A new mode is a file of its own with one run_ function, and a line in the table below.
 */
#define _GNU_SOURCE
#include "loadgen.h"

#include <arpa/inet.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

static const struct { const char *name; int (*run)(const struct options *); } MODES[] = {
    {"closed", run_closed},
    {"silent", run_silent},
};

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

int client_socket(unsigned n)
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
        bind(fd, (struct sockaddr *)&source, sizeof source) < 0)
        die("client socket");
    return fd;
}

static void usage(const char *why)
{
    fprintf(stderr, "loadgen: %s\nusage: see the head of main.c\n", why);
    exit(2);
}

static void parse(int argc, char **argv, struct options *options)
{
    for (int i = 2; i < argc; i += 2) {
        if (i + 1 == argc)
            usage("an option without a value");
        const char *name = argv[i], *value = argv[i + 1];
        if (!strcmp(name, "--port"))
            options->port = (uint16_t)strtoul(value, NULL, 10);
        else if (!strcmp(name, "--connections"))
            options->connections = (unsigned)strtoul(value, NULL, 10);
        else if (!strcmp(name, "--count"))
            options->count = strtoull(value, NULL, 10);
        else if (!strcmp(name, "--seconds"))
            options->seconds = strtod(value, NULL);
        else if (!strcmp(name, "--rate"))
            options->rate = strtod(value, NULL);
        else if (!strcmp(name, "--timeout"))
            options->timeout = strtod(value, NULL);
        else if (!strcmp(name, "--cpu"))
            options->cpu = (int)strtol(value, NULL, 10);
        else if (!strcmp(name, "--expect"))
            options->expect_path = value;
        else if (!strcmp(name, "--send"))
            options->send_path = value;
        else
            usage(name);
    }
    if (!options->port || !options->connections)
        usage("--port and --connections are needed");
}

int main(int argc, char **argv)
{
    struct options options = {.seconds = 60, .timeout = 10, .cpu = -1}; /* nothing here runs for ever by mistake */
    struct rlimit limit;
    if (argc < 2)
        usage("no mode");
    parse(argc, argv, &options);
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (options.connections + 16 > limit.rlim_cur)
        usage("more connections than this process may have files");
    if (options.cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((unsigned)options.cpu, &set);
        if (sched_setaffinity(0, sizeof set, &set) < 0)
            die("--cpu");
    }
    for (size_t i = 0; i < sizeof MODES / sizeof *MODES; i++)
        if (!strcmp(argv[1], MODES[i].name))
            return MODES[i].run(&options);
    usage(argv[1]);
    return 2;
}
