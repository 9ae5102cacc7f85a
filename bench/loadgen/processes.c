/*
 * One mode in several processes: each has a CPU, a file table, an epoll set, and a block of counts that this process
 * reads while it writes. They prepare first and start together, so a run begins when all of them can.
 */
#define _GNU_SOURCE
#include "loadgen.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROGRESS_MS = 500 };

/* The part of a total for process k of n: parts differ by one at most and add up. */
static uint64_t part(uint64_t total, unsigned k, unsigned n) { return total / n + (k < total % n); }

static struct options share(const struct options *options, unsigned k)
{
    struct options mine = *options;
    unsigned n = options->processes;
    mine.connections = (unsigned)part(options->connections, k, n);
    mine.count = part(options->count, k, n);
    mine.rate = options->rate / n;
    for (unsigned i = 0; i < k; i++) /* each has its own source addresses */
        mine.first += (unsigned)part(options->connections, i, n);
    return mine;
}

void pin(const struct options *options, unsigned k)
{
    if (!options->cpu_count)
        return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((unsigned)options->cpus[k % options->cpu_count], &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0)
        die("--cpu");
}

static uint64_t cpu_used(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void child(const struct mode *mode, const struct options *options, unsigned k, struct tally *tally, int ready,
                  int go)
{
    char byte = 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin(options, k);
    struct options mine = share(options, k);
    mode->open(&mine, tally);
    if (write(ready, &byte, 1) != 1 || read(go, &byte, 1) != 0)
        _exit(2); /* the first process is gone */
    uint64_t used = cpu_used();
    tally->begin = now_ns();
    mode->work();
    tally->end = now_ns();
    tally->cpu = cpu_used() - used;
    _exit(0);
}

static void sum_up(struct tally *sum, const struct tally *tallies, unsigned n)
{
    *sum = (struct tally){0};
    for (unsigned k = 0; k < n; k++)
        tally_add(sum, &tallies[k]);
}

static void show_progress(const struct tally *tallies, unsigned n, uint64_t begin)
{
    static struct tally sum; /* a quarter of a megabyte */
    sum_up(&sum, tallies, n);
    double seconds = (double)(now_ns() - begin) * 1e-9;
    fprintf(stderr, "\r%6.1f s  %12llu replies  %9.0f/s  p99 %8.0f us  %llu errors  ", seconds,
            (unsigned long long)sum.outcomes[OK], (double)sum.outcomes[OK] / seconds,
            (double)histogram_quantile(&sum.latency, 0.99) / 1e3, (unsigned long long)tally_failed(&sum));
}

/* Wait until all have ended: only they hold the pipe `ended` open. False: one of them could not run. */
static bool wait_for_all(const struct tally *tallies, const pid_t *pids, unsigned n, int ended)
{
    bool terminal = isatty(STDERR_FILENO), good = true;
    uint64_t begin = now_ns();
    struct pollfd end = {.fd = ended, .events = POLLIN};
    for (;;) {
        int ready = poll(&end, 1, PROGRESS_MS);
        if (ready > 0 || (ready < 0 && errno != EINTR))
            break;
        if (terminal)
            show_progress(tallies, n, begin);
    }
    for (unsigned k = 0; k < n; k++) {
        int status;
        good &= waitpid(pids[k], &status, 0) == pids[k] && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }
    if (terminal)
        fprintf(stderr, "\r\033[K");
    return good;
}

int run_processes(const struct mode *mode, const struct options *options)
{
    unsigned n = options->processes;
    int ready[2], go[2], ended[2];
    pid_t pids[MAX_PROCESSES];
    static struct tally sum;
    struct tally *tallies = mmap(NULL, n * sizeof *tallies, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (tallies == MAP_FAILED || pipe(ready) < 0 || pipe(go) < 0 || pipe(ended) < 0)
        die("shared memory");
    for (unsigned k = 0; k < n; k++) {
        pids[k] = fork();
        if (pids[k] < 0)
            die("fork");
        if (pids[k] == 0) {
            close(go[1]);
            close(ready[0]);
            child(mode, options, k, &tallies[k], ready[1], go[0]);
        }
    }
    close(ready[1]);
    close(ended[1]);
    char byte;
    unsigned prepared = 0;
    while (prepared < n && read(ready[0], &byte, 1) == 1)
        prepared++;
    close(go[1]);
    bool good = wait_for_all(tallies, pids, n, ended[0]) && prepared == n;
    sum_up(&sum, tallies, n);
    if (!good)
        return 2;
    tally_print(stdout, mode->name, &sum, n);
    return tally_failed(&sum) ? 1 : 0;
}
