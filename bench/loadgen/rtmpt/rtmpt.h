/*
 * Load for RTMPT, and for servers that reply to the same requests. One thread, epoll, loopback only.
 *
 *   loadgen rtmpt poll|echo|hold --port P --sessions K [options]
 *
 * First K sessions are opened, each by a POST of /open/1 from an address of its own, and a line of JSON says so. Then
 * every line of stdin starts a turn, whose tally is printed as the other modes print theirs. The end of stdin closes the
 * sessions. A session has one request under way at any time. A failure ends its connections, and it sends nothing more.
 *
 *   poll   each session sends /idle as soon as it has the reply to the last one. A reply is status 200 and an interval
 *          byte, and nothing else
 *   echo   each sends a message by /send, and polls until all of it has come back, repeatedly. Its latency counts from the
 *          request with the message to the end of the reply that completes it
 *   hold   each polls, also before and between turns, whose line is printed when all have their first poll under way. A
 *          turn is one echo on each session, which begins with the reply to the poll that is under way
 *
 *   --seconds S, --count N   length of a turn of poll and echo: one of them; default 1 second
 *   --size N         bytes of a message, default 100
 *   --fresh 1        a new connection for each request, with `Connection: close`; a reply ends with the FIN
 *   --spread N       the requests of a session use N connections in turn
 *   --workers W      the same number of sessions at each of W workers, by characters 2 and 3 of the ids; others are closed
 *                    at once. The requests of a session use the connection that opened it; with --fresh the same source
 *                    address and port, by which the kernel chooses the same worker's queue (SO_REUSEPORT)
 *   --foreign 1      with --workers: the requests of a session use the connection of a session at another worker
 *   --made-up 1      poll: nothing is opened, ids are made up, and only the status of a reply is compared: for servers
 *                    that do not speak RTMPT
 *   --abandon 1      the end of stdin ends the connections, and closes no session
 *   --pace S         poll and echo: a session pauses so long after each, default 0
 *   --ramp S         poll and echo: the sessions begin a turn one after another within this time, default 0
 *   --timeout S      how long one request may take, default 10
 *   --first N        skip N source addresses: for a second generator beside this one
 *
 * Exit status: 0 clean, 1 failures were counted or a session was not closed, 2 the run was impossible; that includes a
 * session that was not opened.
 */
#ifndef RTMPT_H
#define RTMPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    ID_ROOM = 64, /* of a tunnel id with its NUL: as much as ffmpeg has */
    WORKER_BEGIN = 1, /* characters 2 and 3 of an id name the worker */
    WORKER_SIZE = 2,
    MAX_WORKERS = 64,
    SMALLEST_MESSAGE = 1 + 2 * sizeof(uint64_t),
    LARGEST_MESSAGE = 16384, /* with its head it always fits the buffers of a socket */
    LARGEST_SPREAD = 64,
};

enum manner_of { POLL, ECHO, HOLD, MANNERS };

struct rtmpt_options {
    enum manner_of manner;
    uint16_t port;
    unsigned sessions, spread, workers, first;
    uint64_t count, size;
    double seconds, timeout, pace, ramp;
    bool fresh, foreign, made_up, abandon;
};

/* The mode that the arguments name; returns the exit code. */
int run_rtmpt(int argc, char **argv);

#endif
