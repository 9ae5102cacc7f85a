/* The command line of the mode, and its turns: see rtmpt.h. */
#define _GNU_SOURCE
#include "sessions.h"

#include "../client.h"
#include "../relay/relay.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const MANNER_NAMES[MANNERS] = {"poll", "echo", "hold"};

static void usage(const char *why) __attribute__((noreturn));
static void usage(const char *why)
{
    fprintf(stderr, "loadgen: rtmpt: %s\nusage: see the head of bench/loadgen/rtmpt/rtmpt.h\n", why);
    exit(2);
}

static bool parse_option(const char *name, double value, struct rtmpt_options *o)
{
    const struct { const char *name; double *to; } reals[] = {
        {"--seconds", &o->seconds}, {"--timeout", &o->timeout}, {"--pace", &o->pace}, {"--ramp", &o->ramp}};
    const struct { const char *name; uint64_t *to; } large[] = {{"--count", &o->count}, {"--size", &o->size}};
    const struct { const char *name; unsigned *to; } whole[] = {
        {"--sessions", &o->sessions}, {"--spread", &o->spread}, {"--workers", &o->workers}, {"--first", &o->first}};
    const struct { const char *name; bool *to; } flags[] = {
        {"--fresh", &o->fresh}, {"--foreign", &o->foreign}, {"--made-up", &o->made_up}, {"--abandon", &o->abandon}};
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++)
        if (!strcmp(name, reals[i].name))
            return *reals[i].to = value, true;
    for (size_t i = 0; i < sizeof large / sizeof *large; i++)
        if (!strcmp(name, large[i].name))
            return *large[i].to = (uint64_t)value, true;
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        if (!strcmp(name, whole[i].name))
            return *whole[i].to = (unsigned)value, true;
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (!strcmp(name, flags[i].name))
            return *flags[i].to = value != 0, true;
    if (!strcmp(name, "--port"))
        return o->port = (uint16_t)value, true;
    return false;
}

static struct rtmpt_options parse(int argc, char **argv)
{
    struct rtmpt_options o = {.seconds = 1, .timeout = 10, .size = 100, .spread = 1, .workers = 1};
    o.manner = MANNERS;
    for (unsigned i = 0; argc && i < MANNERS; i++)
        if (!strcmp(argv[0], MANNER_NAMES[i]))
            o.manner = (enum manner_of)i;
    if (o.manner == MANNERS)
        usage("poll, echo or hold");
    for (int i = 1; i < argc; i += 2) {
        char *rest;
        double value = i + 1 < argc ? strtod(argv[i + 1], &rest) : -1;
        if (value < 0 || *rest || rest == argv[i + 1] || !parse_option(argv[i], value, &o))
            usage(argv[i]);
    }
    if (!o.port || !o.sessions)
        usage("--port and --sessions are needed");
    if (!o.spread || o.spread > LARGEST_SPREAD || (o.spread > 1 && o.workers > 1))
        usage("--spread: 1 to 64, and not with --workers");
    if (!o.workers || o.workers > MAX_WORKERS || o.sessions % o.workers || (o.foreign && o.workers < 2))
        usage("--workers: 1 to 64, of which the sessions are a multiple; --foreign needs two");
    if (o.made_up && (o.manner != POLL || o.workers > 1))
        usage("--made-up is for poll, without --workers");
    if (o.manner != POLL && (o.size < SMALLEST_MESSAGE || o.size > LARGEST_MESSAGE))
        usage("--size: 17 to 16384");
    if (o.sessions * o.spread + 32ul > allow_many_files())
        usage("more connections than this process may have files");
    return o;
}

static uint64_t cpu_used(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* False: stdin has ended. */
static bool wait_for_line(const struct rtmpt_options *options)
{
    char byte = 0;
    while (byte != '\n') {
        if (options->manner == HOLD)
            go_on_until_input();
        ssize_t n = read(STDIN_FILENO, &byte, 1);
        if (n == 0 || (n < 0 && errno != EINTR))
            return false;
    }
    return true;
}

int run_rtmpt(int argc, char **argv)
{
    static struct tally tally;
    static char mode[32];
    struct rtmpt_options options = parse(argc, argv);
    bool failed = false;
    snprintf(mode, sizeof mode, "rtmpt %s", argv[0]);
    make_pattern();
    uint64_t begin = now_ns(), opened = open_sessions(&options, &tally);
    printf("{\"sessions\": %u, \"opened\": %llu, \"seconds\": %.6f}\n", options.sessions, (unsigned long long)opened,
           (double)(now_ns() - begin) * 1e-9);
    fflush(stdout);
    while (wait_for_line(&options)) {
        uint64_t used = cpu_used();
        tally.begin = now_ns();
        run_turn();
        tally.end = now_ns();
        tally.cpu = cpu_used() - used;
        tally_print(stdout, mode, &tally, 1);
        fflush(stdout);
        failed |= tally_failed(&tally) > 0;
        tally = (struct tally){0};
    }
    failed |= tally_failed(&tally) > 0; /* of a session that was held */
    if (!options.abandon && close_sessions() > 0) {
        fprintf(stderr, "loadgen: a session was not closed\n");
        failed = true;
    }
    return failed ? 1 : 0;
}
