/*
 * The closed and the open loop: when clients start.
 *
 *   closed   after the reply to the last request: a fixed number is always under way, and a slow server gets fewer
 *   open     at fixed times that the server cannot influence, however many are waiting. Latency counts from the time at
 *            which a client was to start, not from when it could: a pause delays all clients that fall into it, and all
 *            of them are in the percentiles. (Measuring from the start would leave them out: coordinated omission.)
 *            A trace is the exception: its times count from the start, so that they do not contain the loop's own lag.
 */
#define _GNU_SOURCE
#include "requests.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Starts in a row; then replies are read. Without the limit a generator that is behind would add to latency. */
enum { STARTS = 32 };

static struct {
    const struct options *options;
    struct tally *tally;
    int epoll_fd;
    bool open;
    uint64_t end;    /* ns: no client starts later */
    double interval; /* ns between two arrivals */
    struct watched input;
} run;

static void on_input(struct watched *watched, uint32_t events)
{
    (void)watched, (void)events;
    run.end = now_ns();
    epoll_ctl(run.epoll_fd, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
}

static void open_closed(const struct options *options, struct tally *tally)
{
    run.options = options;
    run.tally = tally;
    run.epoll_fd = requests_open(options, tally);
    run.input.on_event = on_input;
    struct epoll_event input = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = &run.input};
    if (options->until_input_ends && epoll_ctl(run.epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &input) < 0)
        die("stdin must be a pipe that is held open");
}

static void open_open(const struct options *options, struct tally *tally)
{
    run.open = true;
    run.interval = 1e9 / options->rate;
    open_closed(options, tally);
}

/* When the next client is to start, ns; 0: no more. In a closed loop that is now. */
static uint64_t next_arrival(uint64_t now)
{
    uint64_t begun = run.tally->started;
    if (requests_hopeless() || (run.options->count && begun >= run.options->count))
        return 0;
    uint64_t at = run.open ? run.tally->begin + (uint64_t)((double)begun * run.interval) : now;
    return at < run.end ? at : 0;
}

static void start_idle(void)
{
    uint64_t now = now_ns(), at;
    for (int i = 0; i < STARTS && requests_idle() && (at = next_arrival(now)) && at <= now; i++) {
        now = now_ns();
        if (run.open && at >= run.tally->begin + to_ns(run.options->warm_up))
            histogram_record(&run.tally->lag, now - at);
        requests_start(run.open && !run.options->trace_path ? at : now);
    }
}

/* How long the loop may sleep, unless a reply comes. */
static struct timespec time_to_sleep(uint64_t now)
{
    uint64_t at = now + TICK_MS * 1000000ull;
    uint64_t arrival = requests_idle() ? next_arrival(now) : 0, due = requests_due();
    at = arrival && arrival < at ? arrival : at;
    at = due < at ? due : at;
    uint64_t ns = at > now ? at - now : 0;
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
}

/* An open loop that is behind does not end when its time is over, since all clients that were to start by then are owed.
 * It ends a timeout later, and those that never started count as timeouts. */
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
    uint64_t looked = 0;
    prctl(PR_SET_TIMERSLACK, 1); /* ns: the default of 50 us would be lag */
    run.end = run.tally->begin + to_ns(run.options->seconds);
    for (;;) {
        start_idle();
        uint64_t now = now_ns();
        if (requests_idle() == run.options->connections && !next_arrival(now))
            break;
        struct timespec wait = time_to_sleep(now);
        int n = epoll_pwait2(run.epoll_fd, events, EVENTS, &wait, NULL);
        if (n < 0 && errno != EINTR)
            die("epoll_pwait2, which Linux has since 5.11");
        for (int i = 0; i < n; i++) {
            struct watched *watched = events[i].data.ptr;
            watched->on_event(watched, events[i].events);
        }
        now = now_ns();
        requests_continue(now);
        if (now - looked > TICK_MS * 1000000ull) {
            requests_expire(now);
            give_up_on_owed(now);
            looked = now;
        }
    }
    requests_close();
}

const struct mode CLOSED = {"closed", open_closed, work};
const struct mode OPEN = {"open", open_open, work};
