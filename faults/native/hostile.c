/*
 * Hostile TLS clients: a number of connections at a time, each opened again as soon as it has ended.
 *
 *   faults-hostile WORDS     one argument: words NAME=VALUE
 *
 *   ports=P+P      ports of 127.0.0.1, in turn
 *   source=ADDRESS first=N addresses=N     the first source address; skip so many; how many are used in turn
 *   connections=N  rate=R   so many at a time, opened so many a second
 *   total=N        so many in all; 0: no limit
 *   vary=N         eight digits of the first file, at this place, are another number for each connection
 *   small-window=1 the smallest window and segments that the kernel allows
 *   nice=N         the priority, if the system allows it
 *   script=STEP,STEP,…
 *       send:FILE[*N]      the file as it is; of it the first N bytes
 *       drip:FILE*MS       the same, a byte every MS, without the last byte
 *       await              until the server has sent something
 *       hello:12|13        the first message of a handshake of TLS 1.2 or 1.3 by OpenSSL; what the server replies is not read
 *       secure:12|13       the handshake, or the rest of it
 *       data:FILE          the file in a record
 *       cut:FILE*N         the first N bytes of such a record
 *       records:KIND*N     N records: empty (no data), update (KeyUpdate), request-update (the same, and the server is to
 *                          update its keys as well), warning (an alert), change (a ChangeCipherSpec in plain text)
 *       renegotiate:FILE*N N records with the hello of the file
 *       deaf               read nothing from here on; before it what comes is read and discarded
 *       sip:BYTES*MS       the same, but for so many bytes every MS, without end
 *       wait:MS   loop:STEP   fin   reset
 *       learn              the id in the reply to the /open that was sent (RTMPT); a client that gets none is reset
 *       ask:FILE[*N]       the file, in which the id and the numbers of the session's next requests are filled in; the
 *                          first N numbers are left out. `await` waits for a reply to it
 *       renew              the same session on a new connection; the old one is reset
 *
 * A client whose script is over waits until the server ends the connection. The end of stdin ends the run, which prints
 * one line of JSON: connections opened, failed (not connected, or the handshake failed), secured (the handshake was
 * complete), answered (`await` was passed), ended by the server, and open at the end; bytes that the kernel took.
 */
#define _GNU_SOURCE
#include "crafted.h"
#include "hostile.h"
#include "tunnel.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    STARTS = 256, /* connections that are owed at most, so that a pause does not cause a burst */
    EVENTS = 512,
    SMALLEST_SEGMENT = 536,
    BATCH = 1 << 13, /* bytes of records that are sent at once */
    TURNS = 4, /* steps of one client in a row */
    VARIED = 8,
    HEARD = 400, /* of a reply to /open */
};

struct client {
    int fd; /* -1: free */
    unsigned step;
    size_t done; /* bytes of this step, or records */
    uint64_t due; /* ns, when a pause ends; 0: there is none */
    bool deaf, received, secured;
    struct handshake *handshake;
    struct keys keys;
    char *out; /* records that the kernel has not taken; NULL: none */
    size_t out_size, out_sent;
    char *heard; /* a part of the reply to /open, then the session's id; NULL: it is to be read and discarded */
    size_t heard_size;
    uint64_t next; /* number of the session's next request */
    uint32_t source;
    uint16_t port;
};

static struct {
    struct options options;
    struct client *clients;
    unsigned *idle, idle_count, open;
    uint64_t opened, failed, secured, answered, ended, taken, earliest;
    int epoll_fd;
} run = {.earliest = UINT64_MAX};

static void drop(struct client *client, bool by_rst)
{
    if (client->handshake)
        handshake_end(client->handshake);
    free(client->out);
    free(client->heard);
    if (by_rst)
        set_close_with_rst(client->fd);
    close(client->fd);
    *client = (struct client){.fd = -1};
    run.idle[run.idle_count++] = (unsigned)(client - run.clients);
    run.open--;
}

/* The server, or the network, has ended the connection. */
static bool lost(struct client *client)
{
    run.ended++;
    drop(client, true);
    return false;
}

static bool pause_for(struct client *client, uint64_t ns)
{
    client->due = now_ns() + ns;
    run.earliest = client->due < run.earliest ? client->due : run.earliest;
    return false;
}

static bool next_step(struct client *client)
{
    client->step++;
    client->done = 0;
    return true;
}

/* Send from `bytes`. Returns how many the kernel took; -1: the client has gone. */
static ssize_t send_some(struct client *client, const char *bytes, size_t size)
{
    ssize_t n = send(client->fd, bytes, size, MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n < 0) {
        lost(client);
        return -1;
    }
    run.taken += (uint64_t)n;
    return n;
}

/* Each step returns whether the script goes on now. */
static bool send_file(struct client *client, struct step *step)
{
    size_t size = step->count && step->count < step->size ? step->count : step->size;
    ssize_t n = send_some(client, step->bytes + client->done, size - client->done);
    if (n <= 0)
        return false;
    client->done += (size_t)n;
    return client->done == size ? next_step(client) : false;
}

static bool drip(struct client *client, const struct step *step)
{
    if (client->done + 1 >= step->size)
        return next_step(client);
    ssize_t n = send_some(client, step->bytes + client->done, 1);
    if (n < 0)
        return false;
    client->done += (size_t)n;
    return pause_for(client, step->count * 1000000u);
}

static bool learn(struct client *client)
{
    if (!client->heard) {
        client->heard_size = 0;
        if (!(client->heard = malloc(HEARD)))
            give_up("no memory for a tunnel session");
    }
    ssize_t n = recv(client->fd, client->heard + client->heard_size, HEARD - client->heard_size, 0);
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n <= 0)
        return lost(client);
    client->heard_size += (size_t)n;
    const char *id = tunnel_id(client->heard, client->heard_size);
    if (!id && (client->heard_size == HEARD || !memmem(client->heard, client->heard_size, " 200 ", 5))) {
        run.failed++;
        drop(client, true);
        return false;
    }
    if (!id)
        return true;
    memmove(client->heard, id, TUNNEL_ID);
    client->next = client->heard_size = 0;
    run.secured++;
    return next_step(client);
}

static bool ask(struct client *client, const struct step *step)
{
    static char filled[MAX_MESSAGE];
    uint64_t number = client->next + step->count;
    memcpy(filled, step->bytes, step->size);
    tunnel_fill(filled, step->size, client->heard, &number);
    ssize_t n = send_some(client, filled + client->done, step->size - client->done);
    if (n <= 0)
        return false;
    client->done += (size_t)n;
    if (client->done < step->size)
        return false;
    client->next = number;
    client->received = false;
    return next_step(client);
}

static bool connect_client(struct client *client)
{
    struct shape shape = {.no_delay = true};
    if (run.options.small_window)
        shape = (struct shape){.segment = SMALLEST_SEGMENT, .receive_buffer = 1, .no_delay = true};
    client->fd = client_socket(client->source, shape);
    struct epoll_event event = {.data.ptr = client, .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET};
    if (!start_connect(client->fd, client->port)) {
        run.failed++;
        drop(client, true);
        return false;
    }
    if (epoll_ctl(run.epoll_fd, EPOLL_CTL_ADD, client->fd, &event) < 0)
        die("epoll_ctl");
    return true;
}

static bool renew(struct client *client)
{
    set_close_with_rst(client->fd);
    close(client->fd);
    client->received = false;
    return connect_client(client) && next_step(client);
}

static bool await(struct client *client)
{
    if (!client->received)
        return false;
    run.answered++;
    return next_step(client);
}

static bool shake_hands(struct client *client, const struct step *step)
{
    if (client->secured) /* the server was so fast that the hello was enough */
        return next_step(client);
    if (!client->handshake)
        client->handshake = handshake_begin(client->fd, step->count != 12);
    int done = handshake_go_on(client->handshake, &client->keys);
    if (done < 0) {
        run.failed++;
        drop(client, true);
        return false;
    }
    if (!done)
        return step->what == HELLO ? next_step(client) : false;
    handshake_end(client->handshake);
    client->handshake = NULL;
    client->secured = true;
    run.secured++;
    return next_step(client);
}

static size_t one_record(struct client *client, const struct step *step, char *to)
{
    static const char UPDATED[] = {24, 0, 0, 1, 0}, ASKED[] = {24, 0, 0, 1, 1}; /* the messages of the RFCs */
    static const char USER_CANCELLED[] = {1, 90}, CHANGED[] = {20, 3, 3, 0, 1, 1};
    enum { HEADER = 5 }; /* of the hello's record */
    struct keys *keys = &client->keys;
    size_t size;
    if (step->what == RENEGOTIATE)
        return seal(keys, HANDSHAKE, step->bytes + HEADER, step->size - HEADER, to);
    switch (step->records) {
    case WARNING: return seal(keys, ALERT, USER_CANCELLED, sizeof USER_CANCELLED, to);
    case CHANGE: return memcpy(to, CHANGED, sizeof CHANGED), sizeof CHANGED;
    case UPDATE: size = seal(keys, HANDSHAKE, UPDATED, sizeof UPDATED, to); break;
    case REQUEST_UPDATE: size = seal(keys, HANDSHAKE, ASKED, sizeof ASKED, to); break;
    default: return seal(keys, APPLICATION_DATA, "", 0, to);
    }
    update_keys(keys);
    return size;
}

/* Send what is left of the records that were made. False: the kernel takes no more, or the client has gone. */
static bool flush(struct client *client)
{
    while (client->out_sent < client->out_size) {
        ssize_t n = send_some(client, client->out + client->out_sent, client->out_size - client->out_sent);
        if (n <= 0)
            return false;
        client->out_sent += (size_t)n;
    }
    free(client->out);
    client->out = NULL;
    client->out_size = client->out_sent = 0;
    return true;
}

/* Make records until there are enough of them, or a batch. */
static void make_records(struct client *client, const struct step *step, size_t count)
{
    client->out = malloc(BATCH + LARGEST_RECORD + OVERHEAD);
    if (!client->out)
        give_up("no memory for records");
    for (; client->done < count && client->out_size < BATCH; client->done++) {
        char *to = client->out + client->out_size;
        size_t size = step->size < LARGEST_RECORD ? step->size : LARGEST_RECORD;
        if (step->what == RECORDS || step->what == RENEGOTIATE)
            client->out_size += one_record(client, step, to);
        else
            client->out_size += seal(&client->keys, APPLICATION_DATA, step->bytes, size, to);
    }
    if (step->what == CUT && step->count < client->out_size)
        client->out_size = step->count;
}

static bool send_records(struct client *client, const struct step *step)
{
    size_t count = step->what == RECORDS || step->what == RENEGOTIATE ? step->count : 1;
    if (!client->out && client->done < count)
        make_records(client, step, count);
    if (client->out && !flush(client))
        return false;
    return client->done >= count ? next_step(client) : true;
}

static bool end(struct client *client, enum what what)
{
    if (what == RESET) {
        drop(client, true);
        return false;
    }
    shutdown(client->fd, SHUT_WR);
    return next_step(client);
}

static bool sip(struct client *client, const struct step *step)
{
    static char sink[1 << 16];
    client->deaf = true;
    ssize_t n = recv(client->fd, sink, step->size < sizeof sink ? step->size : sizeof sink, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN))
        return lost(client);
    return pause_for(client, step->count * 1000000u);
}

/* Read and discard. False: the server has ended the connection. */
static bool drain(struct client *client)
{
    static char sink[1 << 16];
    const struct step *step = &run.options.steps[client->step];
    if (client->step < run.options.step_count && step->what == LEARN)
        return true;
    while (!client->deaf && !client->handshake) {
        ssize_t n = recv(client->fd, sink, sizeof sink, 0);
        if (n < 0 && errno == EAGAIN)
            return true;
        if (n <= 0)
            return lost(client);
        client->received = true;
    }
    return true;
}

static void go_on(struct client *client)
{
    if (!drain(client))
        return;
    bool more = true;
    for (int turns = 0; more && client->step < run.options.step_count; turns++) {
        struct step *step = &run.options.steps[client->step];
        if (turns == TURNS) {
            pause_for(client, 0); /* others have their turn */
            return;
        }
        switch (step->what) {
        case SEND: more = send_file(client, step); break;
        case DRIP: more = drip(client, step); break;
        case AWAIT: more = await(client); break;
        case HELLO:
        case SECURE: more = shake_hands(client, step); break;
        case DEAF:
            client->deaf = true;
            next_step(client);
            break;
        case SIP: more = sip(client, step); break;
        case WAIT: more = client->done++ ? next_step(client) : pause_for(client, step->count * 1000000u); break;
        case LOOP:
            client->step = (unsigned)step->count;
            client->done = 0;
            break;
        case FIN:
        case RESET: more = end(client, step->what); break;
        case LEARN: more = learn(client); break;
        case ASK: more = ask(client, step); break;
        case RENEW: more = renew(client); break;
        default: more = send_records(client, step);
        }
    }
    /* What came during the handshake, and after it, is read now. */
    if (client->fd >= 0)
        drain(client);
}

/* Write the number of the connection into the digits of the first file, whatever is between them. */
static void vary(uint64_t number)
{
    struct step *step = run.options.steps;
    char text[VARIED + 1];
    while (step < run.options.steps + run.options.step_count && !step->bytes)
        step++;
    if (!run.options.vary || step == run.options.steps + run.options.step_count)
        return;
    snprintf(text, sizeof text, "%08llu", (unsigned long long)(number % 100000000u));
    size_t at = run.options.vary;
    for (const char *digit = text; *digit && at < step->size; at++)
        if (step->bytes[at] >= '0' && step->bytes[at] <= '9')
            step->bytes[at] = *digit++;
}

static void open_client(void)
{
    const struct options *options = &run.options;
    struct client *client = &run.clients[run.idle[--run.idle_count]];
    uint64_t number = run.opened + run.failed;
    *client = (struct client){
        .source = source_address(options->source, options->first + (unsigned)(number % options->addresses)),
        .port = options->ports[number % options->port_count],
    };
    run.open++;
    vary(number);
    if (connect_client(client)) {
        run.opened++;
        go_on(client);
    }
}

static void on_event(struct client *client, uint32_t events)
{
    if (client->fd < 0)
        return;
    /* A client that does not read sees the end here. */
    if (events & (EPOLLERR | EPOLLHUP) || (client->deaf && events & EPOLLRDHUP))
        lost(client);
    else if (!client->due)
        go_on(client);
}

static void end_pauses(uint64_t now)
{
    run.earliest = UINT64_MAX;
    for (unsigned i = 0; i < run.options.connections; i++) {
        struct client *client = &run.clients[i];
        if (client->fd < 0 || !client->due)
            continue;
        if (client->due > now) {
            run.earliest = client->due < run.earliest ? client->due : run.earliest;
            continue;
        }
        client->due = 0;
        go_on(client);
    }
}

static void work(void)
{
    static struct epoll_event events[EVENTS];
    const struct options *options = &run.options;
    uint64_t last = now_ns(), end_at = last + to_ns(options->seconds);
    double owed = 0; /* connections */
    for (bool stopping = false; !stopping;) {
        uint64_t now = now_ns();
        owed += (double)(now - last) * 1e-9 * options->rate;
        owed = owed > STARTS ? STARTS : owed;
        last = now;
        for (; owed >= 1 && run.idle_count && (!options->total || run.opened + run.failed < options->total); owed--)
            open_client();
        if (run.earliest <= now)
            end_pauses(now);
        int n = epoll_wait(run.epoll_fd, events, EVENTS, run.earliest <= now ? 0 : 1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr)
                on_event(events[i].data.ptr, events[i].events);
            else
                stopping = true;
        }
        stopping |= now >= end_at;
    }
}

int main(int argc, char **argv)
{
    if (argc != 2)
        give_up("usage: see the head of faults/native/hostile.c");
    parse_options(argv[1], &run.options);
    allow_many_files();
    signal(SIGPIPE, SIG_IGN);
    setpriority(PRIO_PROCESS, 0, run.options.nice);
    run.clients = calloc(run.options.connections, sizeof *run.clients);
    run.idle = calloc(run.options.connections, sizeof *run.idle);
    if (!run.clients || !run.idle)
        give_up("no memory for so many clients");
    for (unsigned i = 0; i < run.options.connections; i++) {
        run.clients[i].fd = -1;
        run.idle[run.idle_count++] = i;
    }
    run.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event input = {.events = EPOLLIN | EPOLLRDHUP};
    if (run.epoll_fd < 0 || epoll_ctl(run.epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &input) < 0)
        die("stdin must be a pipe that is held open");
    work();
    printf("{\"opened\": %llu, \"failed\": %llu, \"secured\": %llu, \"answered\": %llu, \"ended\": %llu, \"open\": %u, "
           "\"taken\": %llu}\n",
           (unsigned long long)run.opened, (unsigned long long)run.failed, (unsigned long long)run.secured,
           (unsigned long long)run.answered, (unsigned long long)run.ended, run.open, (unsigned long long)run.taken);
    return 0;
}
