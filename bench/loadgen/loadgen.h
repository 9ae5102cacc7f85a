/* What the modes of the load generator share: options, the interface of a mode, and what a loop calls back. */
#ifndef LOADGEN_H
#define LOADGEN_H

#include "client.h"
#include "tally.h"

enum {
    EVENTS = 1024, /* per epoll_wait */
    MAX_PROCESSES = 64,
    MAX_CPUS = 64,
    MAX_PORTS = 1024,
    TICK_MS = 100, /* how often an idle loop checks timeouts */
};

/* What a misbehaving client sends first, and what it does then. */
enum say { SAY_NOTHING, SAY_HALF, SAY_WHOLE, SAY_MIXED, SAY_COUNT };
enum then { THEN_HOLD, THEN_DRIP, THEN_FLOOD, THEN_CLOSE, THEN_RESET, THEN_FINISH, THEN_COUNT };

struct options {
    uint16_t ports[MAX_PORTS]; /* one listener each; clients use them in turn */
    unsigned port_count;
    uint32_t source;         /* the first source address */
    unsigned first;          /* the number, counted from there, of this run's first source address */
    unsigned addresses;      /* fresh, misbehaving: how many source addresses are used in turn; 0: no limit */
    unsigned connections;    /* closed, open, misbehaving: the most at one time; silent: how many are held */
    uint64_t count;          /* closed, open, misbehaving: connections in all; 0: until `seconds` */
    double seconds;          /* closed, open: length if count is 0; all: no run is longer */
    double rate;             /* connections started per second; silent: 0 starts all at once */
    double warm_up;          /* seconds at the start that the percentiles leave out; those replies are still counted */
    double timeout;          /* closed, open: seconds that one connection may take */
    const char *expect_path; /* closed, open: the file with the exact reply */
    const char *send_path;   /* a file with the bytes to send; NULL: the policy request */
    const char *trace_path;  /* closed, open: a file for a line per connection; NULL: none */
    const char *tls_version; /* closed, open: "1.2" or "1.3"; NULL: plain */
    bool fresh;              /* closed, open: a new socket for each connection, from the next address, closed by FIN */
    bool until_input_ends;   /* closed, open: the end of stdin ends the run, before `seconds` */
    unsigned exchanges;      /* 0: one, and the server closes the connection; N: so many, and the client closes it */
    size_t split;            /* bytes of a piece of the request; 0: all at once */
    double pace;             /* seconds between two pieces; misbehaving: between two bytes */
    struct shape shape;
    bool ask;                /* silent: send the request, and never read the reply */
    enum say say;            /* misbehaving */
    enum then then;          /* misbehaving */
    bool deaf;               /* misbehaving: never read, and take the smallest window and segments */
    unsigned processes;
    int nice;
    int cpus[MAX_CPUS]; /* process k runs on the k-th, modulo their number */
    unsigned cpu_count; /* 0: on any CPU */
};

/* A mode prepares in `open`, and works when `start` says so; both in each process. Its counts go to the tally. */
struct mode {
    const char *name;
    void (*open)(const struct options *, struct tally *);
    void (*work)(void);
};

extern const struct mode CLOSED, OPEN;

/* Run the mode in options->processes processes, print the sum as JSON. Returns the exit code. */
int run_processes(const struct mode *mode, const struct options *options);

/* Move process k to its CPU. */
void pin(const struct options *options, unsigned k);

/* Modes of one process, with output of their own; they return the exit code. */
int run_silent(const struct options *options);
int run_misbehaving(const struct options *options);

/* What epoll returns. The first member of everything that is watched. */
struct watched {
    void (*on_event)(struct watched *, uint32_t events);
};

#endif
