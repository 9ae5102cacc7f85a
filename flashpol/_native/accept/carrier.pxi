# RTMPT: connections that carry the requests of tunnel sessions, one after the other, with keep-alive or without. They
# are records, without a greenlet. The sessions are behind the Gate: it is given each request when its body is complete,
# and replies at once or later.
#
# Requests of a connection are carried out one at a time, in their order. What comes behind one that has no reply yet
# waits here, and in the kernel. A client that sends requests and leaves at once, as rtmpdump does, gets them carried
# out: a reply that cannot be sent is no reason to read no further.

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

from flashpol._native.accept.state cimport (
    Carrier, Core, Guesses, HR_BODY, HR_BUSY, HR_METHOD, Listener, O_SERVED, PENDING_OPEN,
    QUEUE_COUNT, R_CAPACITY, R_HTTP, R_HTTP_MALFORMED, R_NONE, READ_BYTES, Reason, Record, S_BEHIND, S_BODY, S_DECISION,
    S_EXCHANGE, S_KEEP, S_LINGER, S_SENDING,
)
from flashpol._native.codecs.codec cimport Codec, CODEC_PLAIN
from flashpol._native.common.system cimport (
    getsockopt, IPPROTO_TCP, MSG_NOSIGNAL, MSG_PEEK, recv, send, setsockopt, SHUT_WR, shutdown, socklen_t, TCP_INFO,
    TCP_NODELAY,
)
from flashpol._native.http.head cimport HE_MALFORMED, HeadField, HeadParser, HM_POST
from flashpol._native.http.tunnel_path cimport BAD_NUMBER, TK_IDENT, TK_NONE, TK_OPEN, TunnelPath

cdef enum:
    BODY_READ = 65536           # bytes of one read of a body
    BODY_ROOM = 8192            # allocated for the first bytes of a body; then as they come, twice as much each time
    BODIES_LOOKED_AT = 256      # connections that are considered when there is no memory for a body
    MAX_REPLY = 65536           # bytes of a body
    REPLY_HEAD = 256
    GUESSES = 20                # requests for sessions that there are not, of one address
    GUESSES_NS = 10_000_000_000     # in so long; the next ones get no reply

cdef extern from *:
    """
    #define FLASHPOL_TUNNEL_HEAD "HTTP/1.1 %d %s\\r\\nContent-Type: application/x-fcs\\r\\nContent-Length: %u\\r\\n" \\
        "Cache-Control: no-cache\\r\\nConnection: %s\\r\\n\\r\\n"
    """
    const char* TUNNEL_HEAD "FLASHPOL_TUNNEL_HEAD"

cdef extern from "<stdio.h>" nogil:
    int snprintf(char* to, size_t size, const char* format, ...)

cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char* one, const char* other, size_t size)

cdef extern from "<netinet/tcp.h>" nogil:
    int TCP_ESTABLISHED


# -------------------------------------------------------------------------------------------------------- begin and end

cdef inline bint takes_tunnels(const Core* core, const Record* record) noexcept nogil:
    return core.listeners[record.listener].rtmpt and core.gate != NULL


cdef inline Carrier* carrier_of(const Core* core, int fd) noexcept nogil:
    return core.carriers[fd]


cdef void leave_resumed(Core* core, Carrier* carrier) noexcept nogil:
    carrier.resumes = False
    if carrier.before == NULL:
        core.resumed = carrier.after
    else:
        carrier.before.after = carrier.after
    if carrier.after == NULL:
        core.resumed_last = carrier.before
    else:
        carrier.after.before = carrier.before


cdef void drop_body(Core* core, Carrier* carrier) noexcept nogil:
    core.body_bytes -= carrier.room
    free(carrier.body)
    carrier.body = NULL
    carrier.have = carrier.room = 0


cdef void drop_carrier(Core* core, int fd) noexcept nogil:
    """The connection is closed, or lingers."""
    cdef Carrier* carrier = carrier_of(core, fd)
    if carrier.waits and core.gate != NULL:
        core.gate.forget(core.gate, fd)
    if carrier.resumes:
        leave_resumed(core, carrier)
    drop_body(core, carrier)
    drop_unsent(core, carrier)
    free(carrier.rest)
    free(carrier)
    core.carriers[fd] = NULL
    core.records[fd].has_carrier = False


cdef void count_carrier(Core* core, int fd, Reason reason) noexcept nogil:
    """The connection ends: it was served, if one of its requests was carried out, or is refused."""
    cdef const Carrier* carrier = carrier_of(core, fd)
    cdef Listener* listener = core.listeners[core.records[fd].listener]
    if carrier.served:
        listener.counters.served += 1
        record_outcome(core, fd, O_SERVED)
        return
    if carrier.reason != R_NONE:
        reason = <Reason>carrier.reason
    count_refused(core, listener, fd, reason, header_source(core, fd))
    record_outcome(core, fd, reason)


cdef bint end_carrier(Core* core, int fd) noexcept nogil:
    """The client has left, or is silent. False: it had no reply, and counts as any other."""
    cdef const Carrier* carrier = carrier_of(core, fd)
    if not carrier.served and carrier.reason == R_NONE:
        return False
    count_carrier(core, fd, R_HTTP)
    close_connection(core, fd)
    return True


# -------------------------------------------------------------------------------------------------------------- replies

cdef const char* phrase_of(int status) noexcept nogil:
    if status == 200:
        return b"OK"
    if status == 404:
        return b"Not Found"
    if status == 502:
        return b"Bad Gateway"
    if status == 503:
        return b"Service Unavailable"
    return b"Gateway Timeout" if status == 504 else b"Forbidden"


cdef bint is_guessing(Core* core, int fd) noexcept nogil:
    """A request asked for a session that there is not: whether its address has asked for too many."""
    cdef uint32_t slot = core.records[fd].slot
    cdef Guesses* guesses
    cdef int64_t now
    if slot == 0 or core.guesses == NULL or slot_at(core.address_table, slot).exempt:
        return False
    guesses = &core.guesses[slot]
    now = now_ns()
    if now - guesses.since > <int64_t>GUESSES_NS:
        guesses.since, guesses.count = now, 0
    guesses.count += 1
    return guesses.count > <uint32_t>GUESSES


cdef bint keep_unsent(Core* core, Carrier* carrier, const char* data, uint32_t size) noexcept nogil:
    """Keep what the client does not take. False: there is no memory."""
    if core.body_bytes + size > core.max_body_bytes:
        return False
    carrier.unsent = <char*>malloc(size)
    if carrier.unsent == NULL:
        return False
    core.body_bytes += size
    memcpy(carrier.unsent, data, size)
    carrier.unsent_begin, carrier.unsent_end = 0, size
    return True


cdef inline void drop_unsent(Core* core, Carrier* carrier) noexcept nogil:
    if carrier.unsent != NULL:
        core.body_bytes -= carrier.unsent_end
        free(carrier.unsent)
        carrier.unsent = NULL


cdef bint send_some(Core* core, int fd, const char* data, uint32_t size, uint32_t* taken) noexcept nogil:
    """Send what the kernel takes. False: writing has failed for good."""
    cdef Codec* codec = core.account.codecs[fd]
    cdef ssize_t n = 0
    cdef uint32_t piece
    taken[0] = 0
    if codec == NULL:
        while taken[0] < size:
            n = send(fd, data + taken[0], size - taken[0], MSG_NOSIGNAL)
            if n < 0:
                break
            taken[0] += <uint32_t>n
        return n >= 0 or errno == EAGAIN or errno == EINTR
    if codec.unsent != NULL and not send_unsent(core, fd):
        return errno == EAGAIN
    while taken[0] < size and codec.unsent == NULL:
        piece = min(<uint32_t>PIECE, size - taken[0])
        if not encode_piece(core, fd, data + taken[0], piece, False):
            return False
        taken[0] += piece
    return True


cdef inline bint is_sent(const Core* core, int fd) noexcept nogil:
    cdef const Codec* codec = core.account.codecs[fd]
    return carrier_of(core, fd).unsent == NULL and (codec == NULL or codec.unsent == NULL)


cdef bint send_out(Core* core, int fd, const char* data, uint32_t size) noexcept nogil:
    """Send, and keep what the client does not take. Where it can be sent no more, nothing is kept.

    False: there is no memory to keep it."""
    cdef Carrier* carrier = carrier_of(core, fd)
    cdef uint32_t taken = 0
    if carrier.failed:
        return True
    if not send_some(core, fd, data, size, &taken):
        carrier.failed = True
    return carrier.failed or taken == size or keep_unsent(core, carrier, data + taken, size - taken)


cdef void resume_later(Core* core, int fd) noexcept nogil:
    """What has come behind a request is the next one's, in the next wake-up."""
    cdef Carrier* carrier = carrier_of(core, fd)
    if core.records[fd].state != S_BEHIND:
        enter(core, fd, S_BEHIND)
    carrier.resumes = True
    carrier.before, carrier.after = core.resumed_last, NULL
    if core.resumed_last != NULL:
        core.resumed_last.after = carrier
    else:
        core.resumed = carrier
    core.resumed_last = carrier
    fire_timer(&core.poller)


cdef void after_reply(Core* core, int fd) noexcept nogil:
    """The reply is sent, or cannot be: what comes next on this connection, unless its input is being served."""
    cdef Carrier* carrier = carrier_of(core, fd)
    if not carrier.keeps and not carrier.failed:
        count_carrier(core, fd, R_HTTP)
        if carrier.rest_size or core.records[fd].has_codec:
            linger(core, fd)
            return
        shutdown(fd, SHUT_WR)
        if recv(fd, core.encoded, READ_BYTES, 0) > 0:
            linger(core, fd)
        else:
            close_connection(core, fd)
        return
    if core.serving == fd:
        return
    if carrier.rest_size == 0:
        if core.records[fd].state == S_SENDING:
            enter(core, fd, S_KEEP)             # which has the same deadline queue; the next line begins the deadline
        enter(core, fd, S_KEEP)
        return
    resume_later(core, fd)


cdef void reply_to_request(void* self, int fd, int status, const char* body, uint32_t size) noexcept nogil:
    """Gate.reply. status: one of `phrase_of`.

    The connection counts as served with 200, and where a session could not begin: that is counted for the session."""
    cdef Core* core = <Core*>self
    cdef Carrier* carrier = carrier_of(core, fd)
    cdef int head
    carrier.waits = False
    if status == 200 or (status >= 502 and carrier.reason == R_NONE):
        carrier.served = True
        renew_place(core.account, fd)
    elif carrier.reason == R_NONE:
        carrier.reason = R_HTTP
    if status == 404 and carrier.path.kind > TK_OPEN and is_guessing(core, fd):
        count_carrier(core, fd, R_HTTP)
        close_connection(core, fd)
        return
    head = snprintf(core.outgoing, REPLY_HEAD, TUNNEL_HEAD, status, phrase_of(status), size,
                    <const char*>b"Keep-Alive" if carrier.keeps else <const char*>b"close")
    if size:
        memcpy(core.outgoing + head, body, size)
    if not send_out(core, fd, core.outgoing, <uint32_t>head + size):
        # It has a part of the reply. Over another connection it can ask for it once more.
        count_carrier(core, fd, R_CAPACITY)
        close_connection(core, fd)
    elif not is_sent(core, fd) and not carrier.failed:
        enter(core, fd, S_SENDING)
    else:
        after_reply(core, fd)
    if core.serving < 0:
        # Called from outside: a deadline may be the first, and a line of the access log may be due.
        arm_timer(&core.poller, core.queues, core.timeouts_count * QUEUE_COUNT)
        if core.done_samples:
            fire_timer(&core.poller)


cdef bint is_client_there(int fd) noexcept nogil:
    """Gate.is_there. The connection may be in a state in which nothing is read."""
    cdef uint8_t state = 0                              # the first byte of struct tcp_info
    cdef socklen_t size = sizeof(state)
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &state, &size) == 0 and state == TCP_ESTABLISHED


cdef void on_writable(Core* core, int fd) noexcept nogil:
    """S_SENDING: the client takes more of the reply."""
    cdef Carrier* carrier = carrier_of(core, fd)
    cdef uint32_t taken = 0
    cdef uint32_t size = carrier.unsent_end - carrier.unsent_begin if carrier.unsent != NULL else 0
    if not send_some(core, fd, carrier.unsent + carrier.unsent_begin if size else NULL, size, &taken):
        carrier.failed = True
    carrier.unsent_begin += taken
    if carrier.failed or taken == size:
        drop_unsent(core, carrier)
    if carrier.failed or is_sent(core, fd):
        after_reply(core, fd)


# ------------------------------------------------------------------------------------------------------------- requests

cdef bint keeps_alive(const char* data, const HeadParser* head) noexcept nogil:
    """Whether the connection goes on after this request (RFC 9112, 9.3)."""
    cdef const HeadField* field
    cdef const char* value
    cdef uint16_t i, k
    cdef bint keep = head.minor == 1
    for i in range(head.field_count):
        field = &head.fields[i]
        if field.name.size != 10 or strncasecmp(data + field.name.begin, b"connection", 10) != 0:
            continue
        value = data + field.value.begin
        for k in range(field.value.size):
            if k + 5 <= field.value.size and strncasecmp(value + k, b"close", 5) == 0:
                return False
            if k + 10 <= field.value.size and strncasecmp(value + k, b"keep-alive", 10) == 0:
                keep = True
    return keep


cdef inline bint is_tunnel_request(Core* core, int fd, const HeadParser* head, TunnelPath* path) noexcept nogil:
    """Whether a complete head, in `whole`, is that of a request of RTMPT."""
    if not takes_tunnels(core, &core.records[fd]):
        return False
    read_tunnel_path(core.whole + head.path.begin, head.path.size, path)
    return path.kind != TK_NONE


cdef inline void send_at_once(int fd) noexcept nogil:
    """With Nagle's algorithm the reply to a request that came behind another waits for an acknowledgement: 40 ms."""
    cdef int one = 1
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))


cdef Carrier* make_carrier(Core* core, int fd) noexcept nogil:
    cdef Carrier* carrier = <Carrier*>malloc(sizeof(Carrier))
    if carrier != NULL:
        memset(carrier, 0, sizeof(Carrier))
        carrier.reason = R_NONE
        carrier.fd = fd
        core.carriers[fd] = carrier
        core.records[fd].has_carrier = True
    return carrier


cdef size_t begin_request(Core* core, int fd, HeadParser* head, size_t size, const TunnelPath* path) noexcept nogil:
    """A head is complete, the first bytes of the `size` in `whole`. Returns how many bytes of the next request are at
    the front of `whole` then; 0: there are none, or they have to wait."""
    cdef Record* record = &core.records[fd]
    cdef Carrier* carrier = carrier_of(core, fd)
    cdef size_t at = head.size
    # A proxy's connection brings new clients, or a browser's does: they shall have another one.
    cdef bint leaves = core.draining and carrier != NULL and path.kind == TK_OPEN
    if carrier == NULL:
        carrier = make_carrier(core, fd)
        if carrier == NULL:
            refuse_http(core, fd, R_CAPACITY, HR_BUSY)
            return 0
        if keeps_alive(core.whole, head):
            send_at_once(fd)
    carrier.path = path[0]
    carrier.keeps = keeps_alive(core.whole, head) and not leaves
    if head.verb != HM_POST:
        refuse_http(core, fd, R_HTTP, HR_METHOD)
    elif path.number == BAD_NUMBER:
        refuse_http(core, fd, R_HTTP_MALFORMED, HE_MALFORMED)
    elif head.body_size > core.listeners[record.listener].max_body:
        refuse_http(core, fd, R_HTTP_MALFORMED, HR_BODY)
    elif size - at < <size_t>head.body_size:
        await_body(core, fd, head, size)
    else:
        return carry_out(core, fd, core.whole, at, core.whole + at, <uint32_t>head.body_size,
                         core.whole + at + head.body_size, size - at - <size_t>head.body_size)
    return 0


cdef void await_body(Core* core, int fd, HeadParser* head, size_t size) noexcept nogil:
    """The body comes in parts. Like a head in parts it is kept, and the connection has a place among the handshakes."""
    cdef Carrier* carrier = carrier_of(core, fd)
    cdef uint32_t have = <uint32_t>(size - head.size)
    cdef uint16_t head_size = head.size
    cdef uint32_t taken = 0
    cdef bint expects = head.expects and have == 0
    carrier.body_size = <uint32_t>head.body_size
    carrier.room = min(carrier.body_size, max(<uint32_t>BODY_ROOM, have))
    carrier.body = <char*>malloc(carrier.room)
    if carrier.body == NULL:
        carrier.room = 0
        refuse_http(core, fd, R_CAPACITY, HR_BUSY)
        return
    core.body_bytes += carrier.room
    memcpy(carrier.body, core.whole + head.size, have)
    carrier.have = have
    if not keep_head(core, fd, head, head_size):
        return
    if expects and (not send_some(core, fd, b"HTTP/1.1 100 Continue\r\n\r\n", 25, &taken) or taken < 25):
        carrier.failed = True
    acknowledge(fd)             # a client with Nagle's algorithm has sent the head, and waits with the body
    if core.records[fd].state != S_BODY:
        enter(core, fd, S_BODY)


cdef int body_that_gives_way(const Core* core, int fd, uint32_t least) noexcept nogil:
    """Of the oldest connections with a place the one whose body has most memory, at least so much; -1: none."""
    cdef int at = core.placed.first, found = -1, looked_at = 0
    cdef const Carrier* carrier
    while at >= 0 and looked_at < BODIES_LOOKED_AT:
        carrier = carrier_of(core, at)
        if at != fd and core.records[at].state == S_BODY and carrier.room >= least:
            found, least = at, carrier.room + 1
        looked_at += 1
        at = link_at(core, PLACED, at).after
    return found


cdef bint make_room_for_body(Core* core, int fd, uint32_t more) noexcept nogil:
    """Have room for so many more bytes of a body, or for all that is due. False: there is none, and the request was
    refused."""
    cdef Carrier* carrier = carrier_of(core, fd)
    cdef uint32_t room = min(carrier.body_size, max(carrier.room * 2, carrier.have + more))
    cdef char* larger
    cdef int other
    if carrier.room == carrier.body_size or carrier.room - carrier.have >= more:
        return True
    while core.body_bytes + room - carrier.room > core.max_body_bytes:
        # It is not read first, as others that give way are: it might need room for that itself.
        other = body_that_gives_way(core, fd, room)
        refuse_http(core, fd if other < 0 else other, R_CAPACITY, HR_BUSY)
        if other < 0:
            return False
    larger = <char*>realloc(carrier.body, room)
    if larger == NULL:
        refuse_http(core, fd, R_CAPACITY, HR_BUSY)
        return False
    core.body_bytes += room - carrier.room
    carrier.body, carrier.room = larger, room
    return True


cdef void after_body_bytes(Core* core, int fd, const char* rest, size_t rest_size) noexcept nogil:
    """More of a body has come, and `rest` behind it."""
    cdef Carrier* carrier = carrier_of(core, fd)
    if carrier.have == carrier.body_size:
        rest_size = carry_out(core, fd, core.heads[fd].data, core.heads[fd].size, carrier.body, carrier.body_size,
                              rest, rest_size)
        if rest_size:
            head_begin(&core.head)
            on_head(core, fd, &core.head, rest_size)
    else:
        acknowledge(fd)


cdef void on_body_bytes(Core* core, int fd, const char* data, size_t size) noexcept nogil:
    """S_BODY, decoded: make_room_for_body has been called."""
    cdef Carrier* carrier = carrier_of(core, fd)
    cdef uint32_t n = min(<uint32_t>size, carrier.body_size - carrier.have)
    memcpy(carrier.body + carrier.have, data, n)
    carrier.have += n
    after_body_bytes(core, fd, data + n, size - n)


cdef bint keep_rest(Carrier* carrier, const char* rest, size_t size) noexcept nogil:
    """Keep what has come behind a request. False: there is no memory."""
    free(carrier.rest)
    carrier.rest = NULL
    carrier.rest_size = <uint32_t>size
    if size == 0:
        return True
    carrier.rest = <char*>malloc(size)
    if carrier.rest == NULL:
        carrier.rest_size = 0
        return False
    memcpy(carrier.rest, rest, size)
    return True


cdef size_t carry_out(
    Core* core, int fd, const char* head, size_t head_size, const char* body, uint32_t size, const char* rest,
    size_t rest_size,
) noexcept nogil:
    """A request is complete: give it to the sessions, or to the hook if it opens one. Returns as begin_request does.

    What this calls touches neither `whole` nor `buffer`, in which the request may be. Once it has a reply, `carrier`
    may be gone."""
    cdef Carrier* carrier = carrier_of(core, fd)
    cdef TunnelPath path = carrier.path
    cdef char* kept = carrier.body
    carrier.body = NULL
    core.body_bytes -= carrier.room
    carrier.have = carrier.room = 0
    carrier.waits = True
    if path.kind == TK_OPEN:
        if keep_rest(carrier, rest, rest_size):
            begin_open(core, fd, head, head_size)
        else:
            carrier.waits = False
            refuse_http(core, fd, R_CAPACITY, HR_BUSY)
        free(kept)
        return 0
    if core.records[fd].has_head:
        drop_head(core, fd)
    leave_handshakes(core, fd)
    core.serving = fd
    if path.kind == TK_IDENT:
        reply_to_request(core, fd, 404, NULL, 0)
    else:
        core.gate.request(
            core.gate, fd, core.records[fd].listener, path.kind, path.id if path.id_size else NULL, path.number, body,
            size)
    core.serving = -1
    free(kept)
    carrier = carrier_of(core, fd)
    if carrier == NULL or core.records[fd].state == S_LINGER:
        return 0
    if carrier.waits or core.records[fd].state == S_SENDING:
        if not keep_rest(carrier, rest, rest_size):
            refuse_http(core, fd, R_CAPACITY, HR_BUSY)
        elif carrier.waits:
            enter(core, fd, S_BEHIND if rest_size else S_EXCHANGE)
            if rest_size:
                core.gate.hurry(core.gate, fd)
        return 0
    core.requests_left -= 1
    if rest_size and core.requests_left > 0:
        memmove(core.whole, rest, rest_size)
        return rest_size
    if rest_size:
        if keep_rest(carrier, rest, rest_size):
            resume_later(core, fd)
        else:
            refuse_http(core, fd, R_CAPACITY, HR_BUSY)
        return 0
    enter(core, fd, S_KEEP)
    return 0


cdef void begin_open(Core* core, int fd, const char* head, size_t head_size) noexcept nogil:
    """Have the hook begin a session. It gets the head alone."""
    memmove(core.whole, head, head_size)
    begin_decision(core, fd, head_size, PENDING_OPEN)


# --------------------------------------------------------------------------------------------------------------- events

cdef void on_exchange_readable(Core* core, int fd) noexcept nogil:
    """A client that waits for a reply has sent more, or has left: no poll is held any longer."""
    cdef char one
    cdef ssize_t n
    core.gate.hurry(core.gate, fd)
    if core.records[fd].state != S_EXCHANGE:
        return
    n = recv(fd, &one, 1, MSG_PEEK)
    if n >= 0:
        enter(core, fd, S_BEHIND)
    elif errno != EAGAIN and errno != EINTR:
        on_client_gone(core, fd)


cdef bint on_carrier_readable(Core* core, int fd) noexcept nogil:
    """Handle a carrier in the states that are its own. False: it is read as every connection is."""
    cdef Carrier* carrier = carrier_of(core, fd)
    cdef uint8_t state = core.records[fd].state
    cdef ssize_t n
    if state == S_EXCHANGE:
        on_exchange_readable(core, fd)
    elif state == S_SENDING:
        on_writable(core, fd)
    elif state == S_BODY:
        if core.records[fd].has_codec:
            return not make_room_for_body(core, fd, CODEC_PLAIN)
        if core.body_left <= 0 or not make_room_for_body(core, fd, READ_BYTES):
            return True                                 # in the next round
        n = recv(fd, carrier.body + carrier.have, min(carrier.room - carrier.have, <uint32_t>BODY_READ), 0)
        if n > 0:
            core.body_left -= n
            carrier.have += <uint32_t>n
            after_body_bytes(core, fd, NULL, 0)
        elif n == 0 or (errno != EAGAIN and errno != EINTR):
            on_client_gone(core, fd)
    else:
        return state == S_BEHIND or state == S_DECISION
    return True


cdef void run_resumed(Core* core, int limit) noexcept nogil:
    """Go on with connections whose next request has come already, a limited number in one wake-up."""
    cdef Carrier* carrier
    cdef size_t size
    while core.resumed != NULL and limit > 0 and core.requests_left > 0:
        limit -= 1
        carrier = core.resumed
        leave_resumed(core, carrier)
        size = carrier.rest_size
        memcpy(core.whole, carrier.rest, size)
        keep_rest(carrier, NULL, 0)
        head_begin(&core.head)
        enter(core, carrier.fd, S_KEEP)
        on_head(core, carrier.fd, &core.head, size)
    if core.resumed != NULL:
        fire_timer(&core.poller)
