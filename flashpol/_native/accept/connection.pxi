# What happens to a connection after accept: one function for each event. transitions.pxi has the picture of the states.

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcpy, memmove

from flashpol._native.accept.match cimport MatchVerdict, REQUEST_BYTES, SEEN_BYTES, V_MATCH, V_MORE, V_OTHER
from flashpol._native.accept.proxy cimport ProxyParser
from flashpol._native.accept.state cimport (
    Core, H_AWAITED, H_READ, O_TIMEOUT, P_SILENT, QUEUE_COUNT, R_HTTP, R_MAX_ADDRESS_CONNECTIONS, R_NONE, R_OTHER,
    R_PROXY_MALFORMED, R_PROXY_OVERSIZED, R_TLS, R_TLS_ONLY, READ_BYTES, Reason, Record, S_BODY, S_FIRST_BYTE,
    S_FRESH, S_GRACE, S_HEAD, S_HELLO, S_LINGER, S_PREFIX, S_REQUEST, S_UNREAD,
)
from flashpol._native.account.places cimport K_WAITING
from flashpol._native.codecs.codec cimport HF_TIMEOUT
from flashpol._native.common.system cimport epoll_event, epoll_wait, recv, sockaddr_in6

cdef enum:
    EVENTS = 64                 # ready records taken at a time
    # Ready records, and overdue ones of each queue, handled in one wake-up for each listener: more than BURST + BATCH,
    # so that accepting cannot outrun them.
    DISPATCH = 128
    # Bytes of bodies that one wake-up reads, and requests that come behind others: each is half a millisecond or more.
    DISPATCH_BODIES = 1048576
    DISPATCH_REQUESTS = 256


# ---------------------------------------------------------------------------------------------------------------- input

cdef inline uint8_t waiting_state(Core* core, int fd) noexcept nogil:
    """The state in which a connection without a complete request waits.

    On a shared port first_byte_timeout is for the silence of the client. A PROXY header is the proxy's to send, so
    until it has come the deadline is request_timeout.
    """
    cdef Record* record = &core.records[fd]
    if is_relayed(core, record, P_SILENT) and record.header_state != H_AWAITED:
        return S_FIRST_BYTE
    return S_REQUEST


cdef inline void on_other_protocol(Core* core, int fd, size_t matched, const char* data, size_t size) noexcept nogil:
    """Refuse or relay input that is not a policy request, after `matched` bytes of one, by the name of its protocol.

    A prefix of several protocols (`P` may be POST or PRI) is kept in `seen` until a signature matches. On a shared port
    it waits for more no longer than a request waits for its terminator, so that relayed clients are not delayed.
    """
    cdef Record* record = &core.records[fd]
    cdef uint8_t name = R_OTHER
    cdef size_t n, seen = record.seen_size
    if record.matched == 0:
        n = min(size, <size_t>(SEEN_BYTES - record.seen_size))
        memcpy(record.seen + seen, data, n)
        record.seen_size += <uint8_t>n
        if sniff(&core.signatures, record.seen, record.seen_size, &name) == V_MORE:
            if may_begin_tls(core, record) and record.seen[0] == TLS_RECORD:
                if record.state != S_HELLO:
                    enter(core, fd, S_HELLO)
            elif takes_http(core, record) and b"A" <= record.seen[0] <= b"Z":
                if record.state != S_REQUEST:
                    enter(core, fd, S_REQUEST)          # most likely a request that is still arriving
            elif is_relayed(core, record, R_OTHER):
                if record.state != S_PREFIX:
                    enter(core, fd, S_PREFIX)
            elif record.state == S_FRESH:
                enter(core, fd, S_REQUEST)
            return
    if name == R_TLS and may_begin_tls(core, record):
        begin_codec(core, fd, seen, data, size)
    elif name == R_HTTP and takes_http(core, record):
        begin_head(core, fd, seen, data, size)
    elif is_relayed(core, record, name) and not (name == R_TLS and record.has_codec):
        begin_session(core, fd, name, matched, seen, data, size, False)
    else:
        refuse(core, fd, <Reason>name if record.has_codec or not core.listeners[record.listener].tls_only
               else R_TLS_ONLY)


cdef inline void discard_input(Core* core, int fd, ssize_t size) noexcept nogil:
    cdef Record* record = &core.records[fd]
    record.progress += <uint32_t>size
    if record.progress > core.listeners[record.listener].linger_bytes:
        close_connection(core, fd)


cdef inline void on_request_bytes(Core* core, int fd, size_t size) noexcept nogil:
    """The buffer has `size` bytes of input from a connection that has no reply yet."""
    cdef Record* record = &core.records[fd]
    cdef size_t used = 0, before = record.matched
    cdef MatchVerdict verdict = V_OTHER
    if record.state == S_BODY:
        on_body_bytes(core, fd, core.buffer, size)
        return
    if record.has_head:
        on_head_bytes(core, fd, core.buffer, size)
        return
    if record.has_carrier:
        begin_head(core, fd, 0, core.buffer, size)
        return
    if record.seen_size == 0:
        verdict = match_feed(&record.matched, core.buffer, size, &used, core.listeners[record.listener].terminated)
    if verdict == V_MATCH:
        reply(core, fd, used == size and size < READ_BYTES and core.buffer[size - 1] == 0)
    elif verdict == V_OTHER:
        on_other_protocol(core, fd, before, core.buffer, size)
    elif record.matched == REQUEST_BYTES:
        enter(core, fd, S_GRACE)
    elif record.state == S_FRESH:
        enter(core, fd, waiting_state(core, fd))


cdef inline void expect_header(Core* core, int fd, const sockaddr_in6* peer) noexcept nogil:
    cdef ProxyParser* header = &core.headers[fd]
    core.records[fd].header_state = H_AWAITED
    proxy_begin(header)
    header.source = peer[0]


cdef inline size_t on_header_bytes(Core* core, int fd, size_t size) noexcept nogil:
    """The buffer begins with a PROXY header or a part of one. Move what follows it to the front; return its size.

    0: nothing follows, or the connection has ended.
    """
    cdef Record* record = &core.records[fd]
    cdef ProxyParser* header = &core.headers[fd]
    cdef size_t used = 0
    cdef MatchVerdict verdict = proxy_feed(header, core.buffer, size, &used)
    cdef Reason reason
    cdef char[READ_BYTES] rest
    if verdict == V_OTHER:
        refuse(core, fd, R_PROXY_OVERSIZED if header.oversized else R_PROXY_MALFORMED)
        return 0
    if verdict == V_MORE:
        return 0
    record.header_state = H_READ
    if record.sample != 0:
        core.samples[record.sample].peer = header.source
    reason = judge_client(core, core.listeners[record.listener], &header.source, now_ns(), &record.slot)
    if reason == R_MAX_ADDRESS_CONNECTIONS and record.slot:
        # Whichever connection gives way may be read first, into the same buffer.
        memcpy(rest, core.buffer + used, size - used)
        reason = make_room_of_address(core, &record.slot)
        memcpy(core.buffer + used, rest, size - used)
    if reason != R_NONE:
        record.slot = 0
        refuse(core, fd, reason)
        return 0
    if record.state != S_FRESH:
        set_kind(core.account, fd, record.slot, K_WAITING)      # now in the line of its own address
    if is_relayed(core, record, P_SILENT) and record.state != S_FRESH:
        enter(core, fd, S_FIRST_BYTE)               # the silence of the client itself begins here
    memmove(core.buffer, core.buffer + used, size - used)
    return size - used


cdef inline void on_fin(Core* core, int fd) noexcept nogil:
    cdef Record* record = &core.records[fd]
    if record.state == S_LINGER:
        close_acknowledged(core, fd, False)
    elif record.matched == REQUEST_BYTES:
        reply(core, fd, True)
    elif record.has_head or record.has_carrier:
        on_client_gone(core, fd)
    elif is_relayed(core, record, R_OTHER) and (record.matched or record.seen_size):
        begin_session_now(core, fd, True)
    elif record.seen_size:
        refuse(core, fd, R_OTHER)
    else:
        on_client_gone(core, fd)


cdef inline void on_readable(Core* core, int fd) noexcept nogil:
    """Read once and act on it. epoll is level-triggered: what is not read now is reported again.

    This is the only reader of a connection, apart from the check in `reply`.
    """
    cdef Record* record = &core.records[fd]
    cdef ssize_t n
    if record.has_carrier and on_carrier_readable(core, fd):
        return
    if record.has_codec:
        on_encoded_input(core, fd)
        return
    n = recv(fd, core.buffer, READ_BYTES, 0)
    if n > 0 and record.header_state == H_AWAITED:
        n = <ssize_t>on_header_bytes(core, fd, <size_t>n)
        if n == 0:
            return          # the connection has ended, or is parked already, or about to be parked
    if n > 0:
        if record.state == S_LINGER:
            discard_input(core, fd, n)
        else:
            on_request_bytes(core, fd, <size_t>n)
    elif n == 0:
        on_fin(core, fd)
    elif errno == EAGAIN or errno == EINTR:
        pass
    elif record.state == S_LINGER:
        close_connection(core, fd)
    else:
        on_client_gone(core, fd)


# ------------------------------------------------------------------------------------------------------------ deadlines

cdef inline void on_deadline(Core* core, int fd) noexcept nogil:
    cdef Record* record = &core.records[fd]
    if record.state == S_GRACE:
        reply(core, fd, False)
    elif record.state == S_LINGER:
        close_acknowledged(core, fd, True)
    elif record.state == S_UNREAD:
        on_unread(core, fd)
    elif record.state == S_HEAD or record.state == S_BODY:
        on_head_overdue(core, fd)
    elif record.has_carrier and end_carrier(core, fd):
        pass
    elif record.state == S_FIRST_BYTE and record.matched:
        enter(core, fd, S_REQUEST)                  # most likely a policy request that is still arriving
    elif is_relayed(core, record, protocol_by_now(record)) and record.header_state != H_AWAITED and not (
            record.has_codec and in_handshake(record)):
        begin_session_now(core, fd, False)
    else:
        if record.has_codec:
            codec_of(core, fd).failure = HF_TIMEOUT
        core.listeners[record.listener].counters.timeouts += 1
        record_outcome(core, fd, O_TIMEOUT)
        close_connection(core, fd)


cdef inline void dispatch(Core* core) noexcept nogil:
    """Handle ready records, then overdue ones, a limited number of each."""
    cdef epoll_event[EVENTS] events
    cdef int i, set_of_timeouts, fd, n, left
    cdef int limit = DISPATCH * max(1, <int>core.listener_count)
    cdef int64_t now
    cdef bint fired = False
    core.body_left = DISPATCH_BODIES
    core.requests_left = DISPATCH_REQUESTS
    left = limit
    while left > 0:
        n = epoll_wait(core.poller.epoll, events, EVENTS, 0)
        for i in range(n):
            if is_timer(&events[i]):
                fired = True
            elif core.records[events[i].data.fd].watched:
                on_readable(core, events[i].data.fd)
        if n < EVENTS:
            break
        left -= n
    if fired:
        now = now_ns()
        for i in range(QUEUE_COUNT):
            for set_of_timeouts in range(core.timeouts_count):
                for _ in range(limit):
                    fd = first_overdue(&core.queues[set_of_timeouts * QUEUE_COUNT + i], now)
                    if fd < 0:
                        break
                    on_deadline(core, fd)
        # Records that are still overdue set the timer to a time that has passed: it fires in the loop's next round.
        set_timer(&core.poller, 0)
        run_turns(core)
        run_resumed(core, limit)
    arm_timer(&core.poller, core.queues, core.timeouts_count * QUEUE_COUNT)
