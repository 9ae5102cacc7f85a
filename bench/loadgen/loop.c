/*
 * The closed and the open loop: when those who ask begin.
 *
 *   closed   as soon as there is an answer: a fixed number is always under way, and a slow server is asked more slowly
 *   open     at fixed times that the server has no influence on, whoever is still waiting. Latency counts from the
 *            time at which a client was to begin, not from when it could: a pause delays all who fall into it, and all
 *            of them are in the percentiles. (Measuring from the begin would leave them out: coordinated omission.)
 */
#define _GNU_SOURCE
#include "asking.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

enum {
    OTHERS_MS = 20, /* how often those that misbehave are looked after */
    STARTS = 32,    /* in a row; then whoever is answered is read. Else a generator that is behind would add to latency */
};

static struct {
    const struct options *options;
    struct tally *tally;
    int epoll_fd;
    bool open, others;
    uint64_t end;     /* ns: nobody begins later */
    double interval;  /* ns between two arrivals */
} run;

static void open_closed(const struct options *options, struct tally *tally)
{
    run.options = options;
    run.tally = tally;
    run.epoll_fd = asking_open(options, tally);
    for (int kind = 0; kind < OTHER_KINDS; kind++)
        run.others |= options->others[kind] > 0;
    others_open(options, tally, run.epoll_fd);
}

static void open_open(const struct options *options, struct tally *tally)
{
    run.open = true;
    run.interval = 1e9 / options->rate;
    open_closed(options, tally);
}

/* When the next client is to begin, ns; 0: no more. In a closed loop that is now. */
static uint64_t next_arrival(uint64_t now)
{
    uint64_t begun = run.tally->started;
    if (asking_in_vain() || (run.options->count && begun >= run.options->count))
        return 0;
    uint64_t at = run.open ? run.tally->begin + (uint64_t)((double)begun * run.interval) : now;
    return at < run.end ? at : 0;
}

static void start_idle(void)
{
    uint64_t now = now_ns(), at;
    for (int i = 0; i < STARTS && asking_idle() && (at = next_arrival(now)) && at <= now; i++) {
        now = now_ns();
        if (run.open && at >= run.tally->begin + to_ns(run.options->warm_up))
            histogram_record(&run.tally->lag, now - at);
        asking_start(run.open ? at : now);
    }
}

/* How long nothing is to be done, unless a client is answered. */
static struct timespec leisure(uint64_t now)
{
    uint64_t at = now + (run.others ? OTHERS_MS : TICK_MS) * 1000000ull;
    uint64_t arrival = asking_idle() ? next_arrival(now) : 0, due = asking_due();
    at = arrival && arrival < at ? arrival : at;
    at = due < at ? due : at;
    uint64_t ns = at > now ? at - now : 0;
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
}

/* An open loop that is overrun does not end when its time is over: all that were to begin by then are owed. For so
 * long as one may wait; then they count as those do that waited in vain. */
static void give_up_on_owed(uint64_t now)
{
    if (!run.open || now < run.end + to_ns(run.options->timeout))
        return;
    while (next_arrival(now)) {
        run.tally->started++;
        run.tally->outcomes[TIMEOUT]++;
    }
}

static void work(void)
{
    static struct epoll_event events[EVENTS];
    uint64_t looked = 0, others_looked = 0;
    prctl(PR_SET_TIMERSLACK, 1); /* ns: the default of 50 us would be lag */
    run.end = run.tally->begin + to_ns(run.options->seconds);
    for (;;) {
        start_idle();
        uint64_t now = now_ns();
        if (asking_idle() == run.options->connections && !next_arrival(now))
            break;
        struct timespec wait = leisure(now);
        int n = epoll_pwait2(run.epoll_fd, events, EVENTS, &wait, NULL);
        if (n < 0 && errno != EINTR)
            die("epoll_pwait2, which Linux has since 5.11");
        for (int i = 0; i < n; i++) {
            struct watched *watched = events[i].data.ptr;
            watched->on_event(watched, events[i].events);
        }
        now = now_ns();
        asking_continue(now);
        if (run.others && now - others_looked > OTHERS_MS * 1000000ull) {
            others_tick(now);
            others_looked = now;
        }
        if (now - looked > TICK_MS * 1000000ull) {
            asking_give_up(now);
            give_up_on_owed(now);
            looked = now;
        }
    }
}

const struct mode CLOSED = {"closed", open_closed, work};
const struct mode OPEN = {"open", open_open, work};
