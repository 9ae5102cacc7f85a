/*
 * A wall clock that jumps, for one program: when preloaded, it moves CLOCK_REALTIME a day ahead and back, five times a
 * second. All programs of a machine share the real clock, and no namespace has one of its own, so this library leaves it
 * alone. The kernel's own timers follow CLOCK_MONOTONIC wherever flashpol sets one.
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { PERIOD_NS = 200000000, DAY = 86400 };

static time_t offset(void)
{
    struct timespec t;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t);
    return (t.tv_sec * 1000000000 + t.tv_nsec) / PERIOD_NS % 2 ? DAY : 0;
}

int clock_gettime(clockid_t clock, struct timespec *t)
{
    long result = syscall(SYS_clock_gettime, clock, t);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        t->tv_sec += offset();
    return (int)result;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec;
    t->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *t)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t)
        *t = now.tv_sec;
    return now.tv_sec;
}
