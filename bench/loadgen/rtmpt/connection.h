/* Connections of the clients of RTMPT: one request and its reply at a time, kept open or a new one for each request. */
#ifndef RTMPT_CONNECTION_H
#define RTMPT_CONNECTION_H

#include "http.h"

#include "../tally.h"

struct session;

struct connection {
    int fd; /* -1: none yet */
    unsigned source; /* the number of its address */
    struct session *session; /* whose request is under way; NULL: none */
    bool connected;
    char *unsent; /* of the request; NULL: nothing */
    size_t unsent_size;
    struct reply reply;
};

/* What follows from replies. A failure ends the connection. */
struct events {
    /* Bytes of a body, from the reply's `position`. False: they are wrong. */
    bool (*on_body)(struct session *, const struct reply *, const unsigned char *bytes, size_t size);
    void (*on_reply)(struct session *, const struct reply *);
    void (*on_failure)(struct session *, enum outcome);
};

/* Before the first connection. Returns the epoll set, whose events point to connections. */
int prepare_rtmpt_connections(const struct rtmpt_options *options, const struct events *events);

/* Send a request, on a new connection if this one has none. */
void start_request(struct connection *connection, struct session *session, const char *bytes, size_t size);

/* What epoll returned. */
void continue_request(struct connection *connection, uint32_t events);

/* End the connection; the request that is under way fails with this outcome. */
void fail_request(struct connection *connection, enum outcome outcome);

/* End the connection, which has no request. */
void drop_connection(struct connection *connection);

#endif
