/*
 * Good clients of several kinds at several places, each kind a row with a script of its own.
 *
 *   faults-good TRACE NICE ROW …     a row is one argument: words NAME=VALUE, and a script
 *
 *   port=P  source=ADDRESS  addresses=N   the port of 127.0.0.1; the first source address, and how many are used in turn
 *   rate=R     clients that start in a second, at fixed times, however many are under way
 *   count=N    this many clients at a time instead, `rate` a second until there are so many: those whose script loops
 *   window=N   SO_RCVBUF in bytes, with the smallest segments: the network is slow
 *   tls=FILE  name=NAME   in TLS, with the certificate of this file and name; the first bytes begin the handshake
 *   script=STEP,STEP,…
 *       send:FILE   expect:FILE   exactly these bytes                   wait:MS
 *       end         the server's FIN, and no byte before it; in TLS, close_notify and then FIN
 *       loop:N      from step N again, without a new connection
 *       hello       the first message of the handshake; after it the network may be slow
 *       open        a tunnel session (RTMPT)      close   its end
 *       echo:FILE   send these bytes by the session, and poll until they have come back
 *       poll        once, when nothing is due; as long as the server may hold it counts as a wait
 *       apart       from here on each request of a session has a connection of its own
 *       pace:BYTES/MS             from here on, read at most so many bytes in MS
 *
 * A client whose script is over closes. The trace has a line for each client, and for each turn of a loop: the row's
 * number, the start (ns, CLOCK_MONOTONIC), the time that it took without its own waits (ns), the waits (ns), and the
 * outcome. A client has TIMEOUT_MS from its start for all of its script, its waits included. The end of stdin ends the
 * run: no client starts after it, and those that are under way finish.
 */
#define _GNU_SOURCE
#include "good.h"
#include "tunnel.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TIMEOUT_MS = 3000, HOLD_MS = 500, TICK_MS = 20, MAX_ROWS = 64, MAX_CLIENTS = 1 << 15, EVENTS = 512, STARTS = 16 };

struct client {
    int fd; /* -1: free */
    struct row *row;
    struct secure *secure; /* NULL: without TLS */
    struct tunnel *tunnel; /* NULL: none is open */
    uint32_t source;
    bool apart, used; /* used: a request has been sent on this connection */
    unsigned step;
    bool woken; /* this step's wait is over */
    size_t done; /* bytes of this step */
    size_t pace; /* bytes at once; 0: no limit */
    bool said;      /* the bytes of this step have been sent by the session */
    uint64_t asked; /* ns, when its last request was begun */
    uint64_t pace_ns, started, waited, due; /* due: ns, when a pause ends; 0: there is none */
};

static struct {
    struct row rows[MAX_ROWS];
    unsigned row_count, used, idle_count;
    struct client clients[MAX_CLIENTS]; /* those below `used` have been in use */
    unsigned idle[MAX_CLIENTS];
    uint64_t earliest; /* ns: no pause ends before */
    FILE *trace;
    int epoll_fd;
    bool ending;
} run = {.earliest = UINT64_MAX};

static void record(struct client *client, const char *outcome)
{
    uint64_t now = now_ns(), early = client->due > now && !client->pace ? client->due - now : 0; /* of the last wait */
    uint64_t waited = client->waited - early;
    fprintf(run.trace, "%d %llu %llu %llu %s\n", (int)(client->row - run.rows), (unsigned long long)client->started,
            (unsigned long long)(now - client->started - waited), (unsigned long long)waited, outcome);
}

static void hang_up(struct client *client)
{
    if (client->secure)
        secure_close(client->secure);
    tunnel_free(client->tunnel);
    close(client->fd);
    client->fd = -1;
    client->row->live--;
    run.idle[run.idle_count++] = (unsigned)(client - run.clients);
}

static void finish(struct client *client, const char *outcome)
{
    record(client, outcome);
    hang_up(client);
}

static void pause_for(struct client *client, uint64_t ns)
{
    client->due = now_ns() + ns;
    run.earliest = client->due < run.earliest ? client->due : run.earliest;
}

static void next_step(struct client *client)
{
    client->step++;
    client->done = 0;
    client->woken = false;
}

static const char *failure(void)
{
    switch (errno) {
    case ECONNREFUSED:
    case EADDRNOTAVAIL: return "refused";
    case EPROTO: return "tls";
    case ENODATA: return "truncated";
    default: return "reset";
    }
}

static ssize_t put(struct client *client, const char *bytes, size_t size)
{
    return client->secure ? secure_send(client->secure, bytes, size) : send(client->fd, bytes, size, MSG_NOSIGNAL);
}

static ssize_t get(struct client *client, char *bytes, size_t room)
{
    return client->secure ? secure_recv(client->secure, bytes, room) : recv(client->fd, bytes, room, 0);
}

/* Each of these returns whether the script goes on now. */
static bool send_some(struct client *client, const struct step *step)
{
    ssize_t n = put(client, step->bytes + client->done, step->size - client->done);
    if (n < 0) {
        if (errno != EAGAIN)
            finish(client, failure());
        return false;
    }
    client->done += (size_t)n;
    if (client->done == step->size)
        next_step(client);
    return true;
}

static bool expect_some(struct client *client, const struct step *step)
{
    static char buffer[1 << 16];
    size_t most = step->what == END ? 1 : step->size - client->done;
    most = client->pace && client->pace < most ? client->pace : most;
    most = most < sizeof buffer ? most : sizeof buffer;
    ssize_t n = get(client, buffer, most);
    if (n < 0) {
        if (errno != EAGAIN)
            finish(client, failure());
        return false;
    }
    if (n == 0 && step->what == END) {
        next_step(client);
        return true;
    }
    if (n == 0 || step->what == END || memcmp(buffer, step->bytes + client->done, (size_t)n) != 0) {
        finish(client, n ? "mismatch" : "short");
        return false;
    }
    client->done += (size_t)n;
    if (client->done == step->size)
        next_step(client);
    else if (client->pace)
        pause_for(client, client->pace_ns);
    return !client->due;
}

/* False: the client could not connect. */
static bool begin_connection(struct client *client)
{
    client->fd = client_socket(client->source, client->row->shape);
    client->used = false;
    if (client->row->authority)
        client->secure = secure_client(client->fd, client->row->authority, client->row->name);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = client};
    bool connected = start_connect(client->fd, client->row->port);
    if (!connected)
        finish(client, failure());
    else if (epoll_ctl(run.epoll_fd, EPOLL_CTL_ADD, client->fd, &event) < 0)
        die("epoll_ctl");
    return connected;
}

static bool ask(struct client *client, const struct step *step)
{
    if (!client->tunnel && !(client->tunnel = calloc(1, sizeof *client->tunnel)))
        give_up("no memory for a tunnel session");
    if (client->apart && client->used) {
        if (client->secure)
            secure_close(client->secure);
        close(client->fd);
        if (!begin_connection(client))
            return false;
    }
    client->used = true;
    client->asked = now_ns();
    if (step->what == ECHO && !client->said) {
        client->said = true;
        tunnel_ask(client->tunnel, TUNNEL_SEND, step->bytes, step->size, client->apart);
    } else {
        enum tunnel_kind kind = step->what == OPEN ? TUNNEL_OPEN : step->what == CLOSE ? TUNNEL_CLOSE : TUNNEL_IDLE;
        tunnel_ask(client->tunnel, kind, "", 1, client->apart);
    }
    return true;
}

/* A reply is complete: whether it is what the step expects. */
static bool is_expected(struct client *client, const struct step *step)
{
    struct tunnel *tunnel = client->tunnel;
    size_t data = tunnel->body_size ? tunnel->body_size - 1 : 0; /* behind the interval */
    if (!tunnel->body_size)
        return false;
    if (step->what == OPEN) {
        memcpy(tunnel->id, tunnel->body, TUNNEL_ID);
        return data == TUNNEL_ID && tunnel->body[TUNNEL_ID] == '\n';
    }
    if (step->what != ECHO)
        return !data;
    if (data > step->size - client->done || memcmp(tunnel->body + 1, step->bytes + client->done, data))
        return false;
    client->done += data;
    return true;
}

/* One request of a session and its reply, or as many as it takes. */
static bool exchange(struct client *client, const struct step *step)
{
    static char status[16];
    if ((!client->tunnel || !client->tunnel->out) && !ask(client, step))
        return false;
    struct tunnel *tunnel = client->tunnel;
    ssize_t n = 1;
    while (n > 0 && tunnel->out_sent < tunnel->out_size)
        if ((n = put(client, tunnel->out + tunnel->out_sent, tunnel->out_size - tunnel->out_sent)) > 0)
            tunnel->out_sent += (size_t)n;
    while (n > 0 && tunnel->in_size < sizeof tunnel->in && !tunnel_reply(tunnel))
        if ((n = get(client, tunnel->in + tunnel->in_size, sizeof tunnel->in - tunnel->in_size)) > 0)
            tunnel->in_size += (size_t)n;
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN)
            finish(client, n ? failure() : "short");
        return false;
    }
    bool whole = tunnel_reply(tunnel) > 0;
    if (!whole || tunnel->status != 200 || !is_expected(client, step)) {
        snprintf(status, sizeof status, "http-%d", tunnel->status);
        finish(client, whole && tunnel->status != 200 ? status : "mismatch");
        return false;
    }
    tunnel_answered(tunnel);
    if (step->what == POLL) {
        uint64_t took = now_ns() - client->asked, most = HOLD_MS * 1000000ull;
        client->waited += took < most ? took : most;
    }
    if (step->what != ECHO || client->done == step->size) {
        client->said = false;
        next_step(client);
    }
    return true;
}

static bool greet(struct client *client)
{
    bool sent = secure_hello(client->secure);
    if (sent)
        next_step(client);
    else if (errno != EAGAIN)
        finish(client, failure());
    return sent;
}

static bool wait_once(struct client *client, const struct step *step)
{
    if (client->woken) {
        next_step(client);
        return true;
    }
    client->waited += step->size;
    pause_for(client, step->size);
    return false;
}

static bool repeat(struct client *client, const struct step *step)
{
    record(client, "ok");
    if (run.ending) {
        hang_up(client);
        return false;
    }
    client->step = (unsigned)step->size;
    client->started = now_ns();
    client->waited = client->done = 0;
    client->woken = false;
    return true;
}

static void go_on(struct client *client)
{
    bool more = true;
    while (more && client->step < client->row->step_count) {
        const struct step *step = &client->row->steps[client->step];
        switch (step->what) {
        case SEND: more = send_some(client, step); break;
        case WAIT: more = wait_once(client, step); break;
        case LOOP: more = repeat(client, step); break;
        case HELLO: more = greet(client); break;
        case APART:
            client->apart = true;
            next_step(client);
            break;
        case OPEN:
        case ECHO:
        case POLL:
        case CLOSE: more = exchange(client, step); break;
        case PACE:
            client->pace = step->size;
            client->pace_ns = step->ns;
            next_step(client);
            break;
        default: more = expect_some(client, step);
        }
    }
    if (more)
        finish(client, "ok");
}

static void start(struct row *row)
{
    struct client *client = &run.clients[run.idle_count ? run.idle[--run.idle_count] : run.used++];
    if (client == &run.clients[MAX_CLIENTS])
        give_up("too many good clients at a time");
    *client = (struct client){.row = row, .started = now_ns()};
    client->source = source_address(row->source, (unsigned)(row->opened++ % row->addresses));
    row->live++;
    if (begin_connection(client))
        go_on(client);
}

/* Start the clients that are due. Returns when the next one is, ns. */
static uint64_t start_due(void)
{
    uint64_t next = UINT64_MAX;
    for (struct row *row = run.rows; row < run.rows + run.row_count && !run.ending; row++) {
        uint64_t interval = (uint64_t)(1e9 / row->rate);
        for (int i = 0; i < STARTS && row->next <= now_ns(); i++) {
            if (!row->count || row->live < row->count)
                start(row);
            row->next += interval;
        }
        next = row->next < next ? row->next : next;
    }
    return next;
}

/* End the pauses that are over, and the clients that are too old. At the end of the run all those that loop wake up: their
 * last turn shows whether they are still connected. */
static void look_at_clients(uint64_t now)
{
    run.earliest = UINT64_MAX;
    for (struct client *client = run.clients; client < run.clients + run.used; client++) {
        if (client->fd < 0)
            continue;
        bool waits = client->due && client->row->steps[client->step].what == WAIT;
        if (client->due && (client->due <= now || (run.ending && waits && client->row->count))) {
            client->waited -= client->due > now ? client->due - now : 0;
            client->due = 0;
            client->woken = waits;
            go_on(client);
        } else if (now > client->started + TIMEOUT_MS * 1000000ull) {
            finish(client, "timeout");
        } else if (client->due) {
            run.earliest = client->due < run.earliest ? client->due : run.earliest;
        }
    }
}

static bool anyone_left(void)
{
    for (unsigned i = 0; i < run.row_count; i++)
        if (run.rows[i].live)
            return true;
    return false;
}

static void work(void)
{
    static struct epoll_event events[EVENTS];
    uint64_t looked = 0;
    while (!run.ending || anyone_left()) {
        uint64_t next = start_due(), now = now_ns();
        if (now >= run.earliest || now - looked > TICK_MS * 1000000ull) {
            look_at_clients(now);
            looked = now;
        }
        uint64_t at = now + TICK_MS * 1000000ull;
        at = next < at ? next : at;
        at = run.earliest < at ? run.earliest : at;
        now = now_ns();
        uint64_t ns = at > now ? at - now : 0;
        struct timespec sleep = {.tv_sec = 0, .tv_nsec = (long)ns};
        int n = epoll_pwait2(run.epoll_fd, events, EVENTS, &sleep, NULL);
        for (int i = 0; i < n; i++) {
            struct client *client = events[i].data.ptr;
            if (!client) {
                run.ending = true;
                epoll_ctl(run.epoll_fd, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
            } else if (client->fd >= 0 && !client->due) {
                go_on(client);
            }
        }
    }
}

int main(int argc, char **argv)
{
    if (argc < 4 || argc - 3 > MAX_ROWS)
        give_up("usage: see the head of faults/native/good.c");
    allow_many_files();
    signal(SIGPIPE, SIG_IGN); /* TLS writes to a socket that its peer may have closed */
    if (!(run.trace = fopen(argv[1], "w")))
        die(argv[1]);
    setpriority(PRIO_PROCESS, 0, atoi(argv[2])); /* fails without the right, and the run goes on */
    prctl(PR_SET_TIMERSLACK, 1);                 /* ns: the default of 50 us would be lag */
    run.row_count = (unsigned)argc - 3;
    run.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event input = {.events = EPOLLIN | EPOLLRDHUP};
    if (run.epoll_fd < 0 || epoll_ctl(run.epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &input) < 0)
        die("stdin must be a pipe that is held open");
    uint64_t begin = now_ns();
    for (unsigned i = 0; i < run.row_count; i++) {
        parse_row(argv[3 + i], &run.rows[i]);
        run.rows[i].next = begin + (uint64_t)(1e9 / run.rows[i].rate * i / run.row_count); /* not all at once */
    }
    work();
    if (fclose(run.trace) != 0)
        die(argv[1]);
    return 0;
}
