/* Tunnel sessions: see sessions.h. What a reply may contain is checked in `on_body` and `wrong_reply`. */
#define _GNU_SOURCE
#include "sessions.h"

#include "../client.h"
#include "../relay/relay.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

enum {
    OPENED_AT_ONCE = 128, /* a server may limit how many connect to the application at one time */
    ATTEMPTS = 64, /* for each session, to reach a worker that still needs one */
    EVENTS_AT_ONCE = 256,
    TICK_MS = 100, /* how often timeouts are checked */
    NO_INTERVAL = 0xff, /* of a reply with an empty body */
};

enum phase { OPENING, TURN, CLOSING };

struct session {
    struct connection *connections;
    unsigned index, turn; /* turn: of its connections */
    unsigned worker;      /* the number of its worker, in the order in which they were seen */
    char id[ID_ROOM];
    uint64_t number; /* of its next request */
    enum ask asked;
    uint64_t asked_at;       /* ns; 0: no request is under way */
    uint64_t since;          /* ns: the start of this poll or echo */
    uint64_t round, echoed;  /* echoed: bytes of this message that have come back */
    uint64_t before;         /* echoed, when this reply began */
    unsigned char interval;  /* the first byte of this reply */
    uint64_t due;            /* ns: when to begin, in the queue of those that pause */
    struct session *after;   /* the next one there */
    bool opened, surplus, failed;
    bool wants_echo, echoing; /* hold: an echo is owed; a message is under way */
};

static struct {
    const struct rtmpt_options *options;
    struct tally *tally;
    enum phase phase;
    struct session *sessions;
    struct connection *connections;
    unsigned begun, opened, busy; /* busy: sessions that the phase waits for */
    uint64_t opened_in_all, sources;
    char workers[MAX_WORKERS][WORKER_SIZE];
    unsigned known_workers, at_worker[MAX_WORKERS];
    unsigned unclosed;
    struct session *pausing, *last_pausing; /* a queue: all pauses of a turn have one length, after those of its begin */
    uint64_t until, looked; /* ns: the end of the turn; the last check of timeouts */
    int epoll_fd;
} run;

/* ------------------------------------------------------------------------------------------------------- requests */

/* It contains the numbers of its session and round, so no other message can pass as its echo. 'e' is the first byte of no
   protocol that a server recognises. */
static const unsigned char *message(const struct session *session)
{
    static unsigned char bytes[LARGEST_MESSAGE];
    uint64_t number = run.options->first + session->index;
    memcpy(bytes, pattern, run.options->size);
    bytes[0] = 'e';
    memcpy(bytes + 1, &number, sizeof number);
    memcpy(bytes + 1 + sizeof number, &session->round, sizeof session->round);
    return bytes;
}

static void ask(struct session *session, enum ask what)
{
    static char bytes[REQUEST_HEAD + LARGEST_MESSAGE];
    const void *body = what == ASK_SEND ? message(session) : NULL;
    size_t size = write_request(bytes, what, session->id, session->number, body, run.options->size);
    session->number += what != ASK_OPEN;
    session->asked = what;
    session->asked_at = now_ns();
    session->before = session->echoed;
    session->interval = NO_INTERVAL;
    start_request(&session->connections[session->turn++ % run.options->spread], session, bytes, size);
}

static void poll_once(struct session *session)
{
    if (run.options->manner == POLL) {
        session->since = now_ns();
        run.tally->started++;
    }
    ask(session, ASK_IDLE);
}

static void send_message(struct session *session)
{
    run.tally->started++;
    session->since = now_ns();
    session->echoed = 0;
    session->echoing = true;
    session->wants_echo = false;
    ask(session, ASK_SEND);
}

/* -------------------------------------------------------------------------------------------------------- opening */

static void open_session(struct session *session)
{
    for (unsigned i = 0; i < run.options->spread; i++)
        session->connections[i].source = run.options->first + (unsigned)run.sources;
    run.sources++;
    session->id[0] = 0;
    session->turn = 0;
    session->number = 0;
    ask(session, ASK_OPEN);
}

/* The worker's number, by the id; MAX_WORKERS: it is none of those that get sessions. */
static unsigned worker_of(const char *id)
{
    if (run.options->workers == 1)
        return 0;
    for (unsigned i = 0; i < run.known_workers; i++)
        if (!memcmp(run.workers[i], id + WORKER_BEGIN, WORKER_SIZE))
            return i;
    if (run.known_workers == run.options->workers)
        return MAX_WORKERS;
    memcpy(run.workers[run.known_workers], id + WORKER_BEGIN, WORKER_SIZE);
    return run.known_workers++;
}

static void begin_another(void)
{
    if (run.begun < run.options->sessions)
        open_session(&run.sessions[run.begun++]);
}

/* An id and LF have come: keep the session if its worker needs one. */
static void keep_or_close(struct session *session)
{
    size_t length = strcspn(session->id, "\r\n");
    if (length < WORKER_BEGIN + WORKER_SIZE || session->id[length] != '\n' || session->id[length + 1])
        give_up("the reply to /open is no id with LF");
    session->id[length] = 0;
    unsigned worker = worker_of(session->id);
    run.opened_in_all++;
    if (worker == MAX_WORKERS || run.at_worker[worker] == run.options->sessions / run.options->workers) {
        session->surplus = true;
        ask(session, ASK_CLOSE);
        return;
    }
    run.at_worker[worker]++;
    session->worker = worker;
    session->opened = true;
    run.opened++;
    run.busy--;
    begin_another();
}

/* The session that was not needed is closed: try from the next address. */
static void try_again(struct session *session)
{
    if (run.sources > (uint64_t)ATTEMPTS * run.options->sessions)
        give_up("other workers than --workers were not reached");
    session->surplus = false;
    drop_connection(session->connections);
    open_session(session);
}

/* Each session gets the connection of one at the next worker. */
static void exchange_connections(void)
{
    unsigned workers = run.options->workers, each = run.options->sessions / workers, filled[MAX_WORKERS] = {0};
    struct session **by_worker = calloc(run.options->sessions, sizeof *by_worker);
    struct connection **theirs = calloc(run.options->sessions, sizeof *theirs);
    if (!by_worker || !theirs)
        die("calloc");
    for (unsigned i = 0; i < run.options->sessions; i++) {
        struct session *session = &run.sessions[i];
        by_worker[session->worker * each + filled[session->worker]++] = session;
    }
    for (unsigned i = 0; i < run.options->sessions; i++)
        theirs[i] = by_worker[(i + each) % run.options->sessions]->connections;
    for (unsigned i = 0; i < run.options->sessions; i++)
        by_worker[i]->connections = theirs[i];
    free(by_worker);
    free(theirs);
}

static void make_up(struct session *session)
{
    static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    static uint64_t state = 843;
    for (int i = 0; i < 16; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        session->id[i] = digits[(state >> 33) % (sizeof digits - 1)];
    }
    session->connections[0].source = run.options->first + session->index;
    for (unsigned i = 1; i < run.options->spread; i++)
        session->connections[i].source = session->connections[0].source;
    session->opened = true;
}

/* -------------------------------------------------------------------------------------------------------- replies */

static bool on_body(struct session *session, const struct reply *reply, const unsigned char *bytes, size_t size)
{
    if (reply->status != 200 || run.options->made_up)
        return true;
    if (session->asked == ASK_OPEN) {
        if (reply->position + size >= ID_ROOM)
            return false;
        memcpy(session->id + reply->position, bytes, size);
        session->id[reply->position + size] = 0;
        return true;
    }
    if (reply->position == 0) {
        session->interval = *bytes++;
        size--;
    }
    if (session->asked == ASK_CLOSE || !session->echoing)
        return size == 0;
    if (size > run.options->size - session->echoed || memcmp(bytes, message(session) + session->echoed, size) != 0)
        return false;
    session->echoed += size;
    run.tally->reply_bytes += size;
    return true;
}

/* Whether a complete reply of status 200 is wrong in its interval byte, which it must have. */
static bool wrong_reply(const struct session *session)
{
    static const unsigned char intervals[] = {0x01, 0x03, 0x05, 0x09, 0x11, 0x21};
    if (run.options->made_up || session->asked == ASK_OPEN)
        return false;
    if (session->asked == ASK_CLOSE)
        return session->interval != 0;
    if (session->echoed > session->before)
        return session->interval != intervals[0];
    return !memchr(intervals, session->interval, sizeof intervals);
}

static void on_failure(struct session *session, enum outcome outcome)
{
    session->asked_at = 0;
    if (run.phase == OPENING) {
        char why[96];
        snprintf(why, sizeof why, "a session was not opened: %s", OUTCOME_NAMES[outcome]);
        give_up(why);
    }
    bool polls_only = run.phase == TURN && run.options->manner == HOLD && !session->wants_echo && !session->echoing;
    if (run.phase == TURN)
        run.tally->outcomes[outcome]++;
    else
        run.unclosed++;
    for (unsigned i = 0; i < run.options->spread; i++)
        drop_connection(&session->connections[i]);
    session->failed = true;
    session->wants_echo = session->echoing = false;
    run.busy -= !polls_only; /* no turn waits for a session that only polls */
}

/* Whether a poll or an echo is to follow in this turn. */
static bool goes_on(uint64_t now)
{
    return run.options->count ? run.tally->started < run.options->count : now < run.until;
}

static void pause_until(struct session *session, uint64_t due)
{
    session->due = due;
    session->after = NULL;
    if (run.pausing)
        run.last_pausing->after = session;
    else
        run.pausing = session;
    run.last_pausing = session;
}

static void begin_next(struct session *session, uint64_t now)
{
    if (!goes_on(now))
        run.busy--;
    else if (run.options->manner == POLL)
        poll_once(session);
    else
        send_message(session);
}

static void complete(struct session *session, uint64_t now)
{
    run.tally->outcomes[OK]++;
    histogram_record(&run.tally->latency, now - session->since);
    session->echoing = false;
    session->round++;
}

static void go_on(struct session *session)
{
    uint64_t now = now_ns();
    bool echoed = session->echoing && session->echoed == run.options->size;
    if (session->echoing && !echoed) {
        if (now > session->since + to_ns(run.options->timeout))
            on_failure(session, TIMEOUT);
        else
            poll_once(session);
        return;
    }
    if (run.options->manner != HOLD) {
        complete(session, now);
        if (run.options->pace > 0)
            pause_until(session, now + to_ns(run.options->pace));
        else
            begin_next(session, now);
        return;
    }
    if (echoed) {
        complete(session, now);
        run.busy--;
    }
    if (session->wants_echo)
        send_message(session);
    else
        poll_once(session);
}

static void on_reply(struct session *session, const struct reply *reply)
{
    session->asked_at = 0;
    if (reply->status != 200) {
        if (run.phase == OPENING)
            fprintf(stderr, "loadgen: status %d\n", reply->status);
        on_failure(session, STATUS);
    } else if (wrong_reply(session)) {
        on_failure(session, MISMATCH);
    } else if (run.phase == OPENING) {
        if (session->surplus)
            try_again(session);
        else
            keep_or_close(session);
    } else if (run.phase == TURN) {
        go_on(session);
    } else if (session->asked == ASK_CLOSE) {
        run.busy--;
    } else { /* the poll that was under way */
        ask(session, ASK_CLOSE);
    }
}

/* --------------------------------------------------------------------------------------------------------- phases */

static void expire(uint64_t now)
{
    run.looked = now;
    for (unsigned i = 0; i < run.options->sessions; i++) {
        struct session *session = &run.sessions[i];
        if (!session->asked_at || now < session->asked_at + to_ns(run.options->timeout))
            continue;
        fail_request(&session->connections[(session->turn - 1) % run.options->spread], TIMEOUT);
    }
}

/* Begin what is due. Returns the ns that the loop may sleep. */
static uint64_t begin_due(void)
{
    uint64_t now = now_ns(), most = TICK_MS * 1000000ull;
    while (run.pausing && run.pausing->due <= now) {
        struct session *session = run.pausing;
        run.pausing = session->after;
        begin_next(session, now);
        now = now_ns();
    }
    return run.pausing && run.pausing->due - now < most ? run.pausing->due - now : most;
}

/* Handle what comes. True: stdin, which only `hold` watches, can be read. */
static bool handle_events(void)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    bool input = false;
    uint64_t ns = begin_due();
    bool over = run.phase == TURN && run.options->manner != HOLD && !run.busy; /* that was the last pause */
    struct timespec wait = {.tv_nsec = over ? 0 : (long)ns};
    int n = epoll_pwait2(run.epoll_fd, events, EVENTS_AT_ONCE, &wait, NULL);
    if (n < 0 && errno != EINTR)
        die("epoll_pwait2, which Linux has since 5.11");
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr)
            continue_request(events[i].data.ptr, events[i].events);
        else
            input = true;
    }
    uint64_t now = now_ns();
    if (now > run.looked + TICK_MS * 1000000ull)
        expire(now);
    return input;
}

static void prepare(const struct rtmpt_options *options, struct tally *tally)
{
    static const struct events events = {on_body, on_reply, on_failure};
    run.options = options;
    run.tally = tally;
    run.epoll_fd = prepare_rtmpt_connections(options, &events);
    prepare_requests(options->port, options->fresh);
    run.sessions = calloc(options->sessions, sizeof *run.sessions);
    run.connections = calloc((size_t)options->sessions * options->spread, sizeof *run.connections);
    if (!run.sessions || !run.connections)
        die("calloc");
    for (unsigned i = 0; i < options->sessions * options->spread; i++)
        run.connections[i].fd = -1;
    for (unsigned i = 0; i < options->sessions; i++) {
        run.sessions[i].index = i;
        run.sessions[i].connections = &run.connections[i * options->spread];
    }
}

uint64_t open_sessions(const struct rtmpt_options *options, struct tally *tally)
{
    prepare(options, tally);
    prctl(PR_SET_TIMERSLACK, 1); /* ns: the default of 50 us would lengthen pauses */
    if (options->made_up)
        for (unsigned i = 0; i < options->sessions; i++)
            make_up(&run.sessions[i]);
    run.busy = options->made_up ? 0 : options->sessions;
    while (run.busy && run.begun < options->sessions && run.begun < OPENED_AT_ONCE)
        begin_another();
    while (run.busy)
        handle_events();
    if (options->foreign)
        exchange_connections();
    run.phase = TURN;
    if (options->manner == HOLD) {
        struct epoll_event input = {.events = EPOLLIN};
        if (epoll_ctl(run.epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &input) < 0)
            die("stdin must be a pipe");
        for (unsigned i = 0; i < options->sessions; i++)
            poll_once(&run.sessions[i]);
    }
    return run.opened_in_all;
}

void run_turn(void)
{
    uint64_t now = now_ns(), step = to_ns(run.options->ramp) / run.options->sessions;
    run.until = now + to_ns(run.options->seconds);
    for (unsigned i = 0; i < run.options->sessions; i++) {
        struct session *session = &run.sessions[i];
        if (session->failed)
            continue;
        run.busy++;
        if (run.options->manner == HOLD)
            session->wants_echo = true;
        else
            pause_until(session, now + i * step);
    }
    while (run.busy)
        handle_events();
}

void go_on_until_input(void)
{
    while (!handle_events())
        continue;
}

unsigned close_sessions(void)
{
    run.phase = CLOSING;
    if (run.options->made_up)
        return 0;
    for (unsigned i = 0; i < run.options->sessions; i++) {
        struct session *session = &run.sessions[i];
        if (session->failed)
            continue;
        run.busy++;
        if (!session->asked_at)
            ask(session, ASK_CLOSE);
    }
    while (run.busy)
        handle_events();
    return run.unclosed;
}
