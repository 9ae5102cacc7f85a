/*
 * The load generator of the bench and fault suites: clients of a socket policy server, well-behaved and misbehaving, and
 * load for relays. One thread and one epoll set in each process, loopback only.
 *
 *   loadgen closed      --port P --expect FILE --connections C (--count N | --seconds S) [options]
 *   loadgen open        --port P --expect FILE --connections C --rate R --seconds S [options]
 *   loadgen silent      --port P --connections C [--rate R] --seconds S [--ask 1] [options]
 *   loadgen misbehaving --port P --connections C --rate R --seconds S --say WHAT --then WHAT [--deaf 1] [options]
 *   loadgen relay …     the application behind a relay, and its clients: see relay/relay.h
 *   loadgen rtmpt …     clients of RTMPT: see rtmpt/rtmpt.h
 *
 * closed: C clients, each of which sends the next request as soon as it has the reply.
 * open:   R clients a second start at fixed times, C at most at once; latency counts from the intended time.
 *         Every reply is compared byte for byte, with its end.
 * silent: C clients connect, send nothing (--ask: the request, and never read), and are held until the server closes
 *         them, stdin ends, or S seconds are over.
 * misbehaving: C clients, opened at R a second; see misbehaving.c.
 *
 *   --port P            may be repeated: clients use the ports in turn
 *   --processes N       closed, open: the work is divided among N
 *   --cpu K             may be repeated: the processes run on these CPUs in turn
 *   --nice N            their priority, if the system allows it
 *   --warm-up S         the percentiles leave out clients that were to start in the first S seconds
 *   --timeout S         how long one connection may take, default 10
 *   --split N           the request in pieces of N bytes, --pace S apart
 *   --send FILE         send this instead of the policy request
 *   --exchanges N       N requests and replies on a connection, which the client then closes: for servers that echo
 *   --trace FILE        a line for each connection: when it started (ns, CLOCK_MONOTONIC), how long it took (ns), outcome
 *   --fresh 1           a new socket for each connection, from the next source address, closed by FIN
 *   --tls VERSION       closed, open: through TLS 1.2 or 1.3, with a full handshake for each connection; implies --fresh
 *   --until-input-ends 1   end the run when stdin ends
 *   --receive-buffer N, --segment N   SO_RCVBUF and TCP_MAXSEG of the clients
 *   --source ADDRESS    the first source address, default 127.1.1.1; 250 in each /24
 *   --first N           skip N source addresses: for a second generator beside this one
 *   --addresses N       --fresh, misbehaving: use N source addresses in turn
 *
 * Results are JSON on stdout, one object a line; on a terminal, stderr shows progress. Exit status: 0 clean, 1 errors
 * were counted, 2 the run was impossible. A new mode is a file of its own with a `struct mode`, and a line in the table
 * below.
 */
#define _GNU_SOURCE
#include "loadgen.h"
#include "relay/relay.h"
#include "rtmpt/rtmpt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static const struct mode *const MODES[] = {&CLOSED, &OPEN};
static const char *const SAY[SAY_COUNT] = {"nothing", "half", "whole", "mixed"};
static const char *const THEN[THEN_COUNT] = {"hold", "drip", "flood", "close", "reset", "finish"};

static void usage(const char *why)
{
    fprintf(stderr, "loadgen: %s\nusage: see the head of bench/loadgen/main.c\n", why);
    exit(2);
}

static unsigned parse_choice(const char *value, const char *const *names, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (!strcmp(value, names[i]))
            return i;
    usage(value);
    return 0;
}

static bool parse_text(const char *name, const char *value, struct options *o)
{
    if (!strcmp(name, "--expect"))
        return o->expect_path = value, true;
    if (!strcmp(name, "--send"))
        return o->send_path = value, true;
    if (!strcmp(name, "--trace"))
        return o->trace_path = value, true;
    if (!strcmp(name, "--tls"))
        return o->tls_version = value, o->fresh = true;
    if (!strcmp(name, "--source"))
        return o->source = parse_address(value), true;
    if (!strcmp(name, "--say"))
        return o->say = (enum say)parse_choice(value, SAY, SAY_COUNT), true;
    if (!strcmp(name, "--then"))
        return o->then = (enum then)parse_choice(value, THEN, THEN_COUNT), true;
    return false;
}

static bool parse_number(const char *name, double value, struct options *o)
{
    const struct { const char *name; double *to; } reals[] = {
        {"--seconds", &o->seconds}, {"--rate", &o->rate}, {"--timeout", &o->timeout}, {"--pace", &o->pace},
        {"--warm-up", &o->warm_up}};
    const struct { const char *name; unsigned *to; } whole[] = {
        {"--connections", &o->connections}, {"--exchanges", &o->exchanges}, {"--processes", &o->processes},
        {"--first", &o->first},             {"--addresses", &o->addresses}};
    const struct { const char *name; bool *to; } flags[] = {
        {"--ask", &o->ask}, {"--deaf", &o->deaf}, {"--fresh", &o->fresh}, {"--until-input-ends", &o->until_input_ends}};
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++)
        if (!strcmp(name, reals[i].name))
            return *reals[i].to = value, true;
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        if (!strcmp(name, whole[i].name))
            return *whole[i].to = (unsigned)value, true;
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (!strcmp(name, flags[i].name))
            return *flags[i].to = value != 0, true;
    if (!strcmp(name, "--port") && o->port_count < MAX_PORTS)
        return o->ports[o->port_count++] = (uint16_t)value, true;
    if (!strcmp(name, "--cpu") && o->cpu_count < MAX_CPUS)
        return o->cpus[o->cpu_count++] = (int)value, true;
    if (!strcmp(name, "--nice"))
        return o->nice = (int)value, true;
    if (!strcmp(name, "--count"))
        return o->count = (uint64_t)value, true;
    if (!strcmp(name, "--split"))
        return o->split = (size_t)value, true;
    if (!strcmp(name, "--receive-buffer"))
        return o->shape.receive_buffer = (int)value, true;
    if (!strcmp(name, "--segment"))
        return o->shape.segment = (int)value, true;
    return false;
}

static void parse(int argc, char **argv, struct options *options)
{
    for (int i = 2; i < argc; i += 2) {
        if (i + 1 == argc)
            usage("an option without a value");
        if (parse_text(argv[i], argv[i + 1], options))
            continue;
        char *rest;
        double number = strtod(argv[i + 1], &rest);
        if (*rest || rest == argv[i + 1] || (number < 0 && strcmp(argv[i], "--nice")))
            usage(argv[i + 1]);
        if (!parse_number(argv[i], number, options))
            usage(argv[i]);
    }
    if (!options->port_count || !options->connections)
        usage("--port and --connections are needed");
    if (!options->processes || options->processes > MAX_PROCESSES || options->processes > options->connections)
        usage("--processes: 1 to 64, and not more than connections");
    if (options->tls_version && options->exchanges)
        usage("--exchanges is for plain connections");
    if (options->trace_path && options->processes > 1)
        usage("--trace is written by one process");
    if (options->connections / options->processes + 32 > allow_many_files())
        usage("more connections than these processes may have files");
}

int main(int argc, char **argv)
{
    struct options options = { /* the default of --seconds ends a run that was started by mistake */
        .seconds = 60, .timeout = 10, .processes = 1, .source = FIRST_SOURCE};
    if (argc < 2)
        usage("no mode");
    if (!strcmp(argv[1], "relay"))
        return run_relay(argc - 2, argv + 2);
    if (!strcmp(argv[1], "rtmpt"))
        return run_rtmpt(argc - 2, argv + 2);
    parse(argc, argv, &options);
    if (options.nice)
        setpriority(PRIO_PROCESS, 0, options.nice); /* fails without the right, and the run goes on */
    if (!strcmp(argv[1], "silent"))
        return run_silent(&options);
    if (options.rate <= 0 && strcmp(argv[1], "closed"))
        usage("--rate is needed");
    if (!strcmp(argv[1], "misbehaving"))
        return run_misbehaving(&options);
    for (size_t i = 0; i < sizeof MODES / sizeof *MODES; i++)
        if (!strcmp(argv[1], MODES[i]->name))
            return run_processes(MODES[i], &options);
    usage(argv[1]);
    return 2;
}
