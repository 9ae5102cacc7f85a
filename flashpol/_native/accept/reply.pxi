# How a connection ends: with a reply, refused, relayed, or because the client is gone.

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy
from posix.unistd cimport close

from flashpol._native.accept.address_limits cimport SECOND, Slot
from flashpol._native.accept.state cimport (
    BATCH, BOUNDS, BUCKET_COUNT, Core, Listener, O_REPLY, O_RESET, P_RTMPT, P_SILENT, PENDING_SESSION, PendingSession,
    R_CAPACITY, R_HTTP, R_MAX_SLOW_REPLIES, R_NONE, R_OTHER, R_TLS_ONLY, READ_BYTES, Reason, Record, S_FREE, S_FRESH,
    S_LINGER, S_REPLIED, S_SESSION, S_SLOW_REPLY, S_UNREAD,
)
from flashpol._native.account.places cimport K_LINGER, K_NONE
from flashpol._native.common.system cimport (
    close_range, getsockopt, ioctl, IPPROTO_TCP, linger as linger_option, MSG_MORE, MSG_NOSIGNAL, poll, pollfd, POLLIN,
    recv, send, setsockopt, SHUT_WR, shutdown, SIOCOUTQ, SO_LINGER, sockaddr_in6, socklen_t, SOL_SOCKET, TCP_CLOSE,
    tcp_info, TCP_INFO,
)

cdef enum:
    CHECK_EVERY = 128           # of so many replies one is watched
    CHECK_BUSY = 8              # and of so many to an address with
    WATCHED_RATE = 12           # more than so many connections in the second
    WATCHED_LINGERING = 3       # so many kept of such an address, and all its replies are watched for a second
    UNREAD_SECONDS = 60         # how long they all are, after one was not acknowledged within linger_timeout


cdef inline void forget_connection(Core* core, int fd) noexcept nogil:
    """All of close_connection but the close itself."""
    cdef bint session = core.records[fd].state == S_SESSION
    cdef bint held = not (session and core.account.entries[fd].leaving)     # else `evict_session` has given it back
    if core.records[fd].has_head:
        drop_head(core, fd)
    if core.records[fd].has_carrier:
        drop_carrier(core, fd)
    if core.records[fd].has_codec:
        drop_codec(core, fd)
    enter(core, fd, S_FREE)
    core.account.held -= held
    if core.address_table != NULL:
        release_slot(core.address_table, core.records[fd].slot, session)
        core.address_table.own.held -= held
    if session:
        forget_session(core.account, fd)


cdef inline void close_connection(Core* core, int fd) noexcept nogil:
    forget_connection(core, fd)
    close(fd)


cdef void leave_session(Core* core, int fd) noexcept nogil:
    """The connection goes on without being a session: it counts as any other of its address."""
    cdef Record* record = &core.records[fd]
    set_kind(core.account, fd, record.slot, K_NONE)     # out of the listener's line, which `forget_session` forgets
    forget_session(core.account, fd)
    if core.address_table != NULL and not end_session_of_slot(core.address_table, record.slot):
        record.slot = 0


cdef inline void linger(Core* core, int fd) noexcept nogil:
    """Close the sending side, then discard input until the client closes. nginx calls it lingering_close.

    Linux sends RST when a socket is closed with unread input, and RST can destroy a reply that is still under way.
    """
    if core.records[fd].has_carrier:
        drop_carrier(core, fd)
    if core.records[fd].has_codec:
        drop_codec(core, fd)                # what still comes is discarded as it is
    if core.records[fd].state == S_SESSION:
        if core.account.entries[fd].leaving:
            close_connection(core, fd)      # its place is another's already
            return
        leave_session(core, fd)
    if core.records[fd].state != S_REPLIED:
        shutdown(fd, SHUT_WR)
    core.records[fd].progress = 0
    enter(core, fd, S_LINGER)


cdef inline void on_client_gone(Core* core, int fd) noexcept nogil:
    """The client closed or reset the connection before it had its reply."""
    if core.records[fd].has_carrier and end_carrier(core, fd):
        return
    core.listeners[core.records[fd].listener].counters.resets += 1
    record_outcome(core, fd, O_RESET)
    close_connection(core, fd)


cdef inline void count_refused(
    Core* core, Listener* listener, int fd, Reason reason, const sockaddr_in6* client,
) noexcept nogil:
    """client: NULL if only the kernel knows it."""
    listener.counters.refused[<int>reason] += 1
    if is_logged(reason):
        note_refused(core, listener, fd, reason, client)


cdef inline void refuse(Core* core, int fd, Reason reason) noexcept nogil:
    if core.records[fd].has_carrier:
        count_carrier(core, fd, reason)
        close_connection(core, fd)
        return
    count_refused(core, core.listeners[core.records[fd].listener], fd, reason, header_source(core, fd))
    record_outcome(core, fd, reason)
    if reason == R_HTTP and send_last(core, fd, core.http_reply, core.http_reply_size):
        linger(core, fd)
    else:
        close_connection(core, fd)


# ------------------------------------------------------------------------------------------------------------ the reply

cdef inline void count_reply(Listener* listener, int64_t duration) noexcept nogil:
    cdef int i = 0
    while i < BUCKET_COUNT - 1 and duration > BOUNDS[i]:
        i += 1
    listener.counters.reply_bytes += listener.reply_size
    listener.counters.duration_ns += <uint64_t>duration
    listener.counters.buckets[i] += 1


cdef inline bint send_reply(Core* core, int fd) noexcept nogil:
    """Send the rest of the reply. True: the kernel has all of it, and it is counted. False: errno says why not."""
    cdef Record* record = &core.records[fd]
    cdef Listener* listener = core.listeners[record.listener]
    cdef ssize_t n
    if record.has_codec:
        return send_encoded_reply(core, fd)
    while record.progress < listener.reply_size:
        # MSG_MORE holds the segment back for the FIN that shutdown or close adds next: one segment and one wake-up of
        # the client, for a fifth less CPU than two.
        n = send(fd, listener.reply + record.progress, listener.reply_size - record.progress, MSG_NOSIGNAL | MSG_MORE)
        if n < 0:
            if errno == EINTR:
                continue
            return False
        record.progress += <uint32_t>n
    count_reply(listener, now_ns() - record.accepted_at)
    record_outcome(core, fd, O_REPLY)
    return True


cdef enum Look:
    L_NOTHING                   # no input has come
    L_INPUT                     # close() would send RST, which can destroy the reply
    L_RESET                     # the client has reset the connection


cdef inline Look look(Core* core, int fd) noexcept nogil:
    """What has come since the request was read."""
    cdef ssize_t n = recv(fd, core.buffer, READ_BYTES, 0)
    if n > 0:
        return L_INPUT
    return L_RESET if n < 0 and errno != EAGAIN and errno != EINTR else L_NOTHING


cdef inline bint ends(Core* core, int fd, bint readable) noexcept nogil:
    """Whether a connection ends with its reply: it is forgotten, and the caller closes its descriptor.

    readable: it may have more input.
    """
    cdef Look seen = look(core, fd) if readable else L_NOTHING
    if seen == L_INPUT or (seen == L_NOTHING and is_watched(core, fd)):
        linger(core, fd)
        return False
    forget_connection(core, fd)
    return True


cdef inline void close_descriptors(Core* core, int first, int last) noexcept nogil:
    """Close `first` to `last`, which are all connections that were forgotten."""
    cdef int fd
    if first != last and core.has_close_range:
        if close_range(first, last) == 0:
            return
        core.has_close_range = False
    for fd in range(first, last + 1):
        close(fd)


cdef inline bint end_replied(Core* core, int sock) noexcept nogil:
    """End the connections of a batch that have their replies. Returns whether more wait in the accept queue of `sock`.

    A single poll looks whether input has come to any of them. It comes later than a look after each reply would, and
    finds more. Their descriptors are mostly neighbours, since accept4 takes the lowest that are free: one close_range
    closes them.
    """
    cdef pollfd[BATCH + 1] polled
    cdef int i, fd, first = -1, last = -2, count = core.replied_count
    cdef bint is_known
    polled[count].fd = sock
    polled[count].events = POLLIN
    for i in range(count):
        polled[i].fd = core.replied[i]
        polled[i].events = POLLIN
    is_known = poll(polled, <unsigned long>count + 1, 0) >= 0
    core.replied_count = 0
    for i in range(count):
        fd = core.replied[i]
        if not ends(core, fd, not is_known or polled[i].revents != 0):
            continue
        if fd != last + 1:
            if first >= 0:
                close_descriptors(core, first, last)
            first = fd
        last = fd
    if first >= 0:
        close_descriptors(core, first, last)
    return not is_known or polled[count].revents != 0


cdef inline void reply(Core* core, int fd, bint clean) noexcept nogil:
    """Send the reply. `clean`: all input was read and no more is due, so that close() sends no RST."""
    cdef Record* record = &core.records[fd]
    if core.listeners[record.listener].tls_only and not record.has_codec:
        refuse(core, fd, R_TLS_ONLY)
        return
    record.progress = 0
    if send_reply(core, fd):
        if clean and not record.has_codec:      # else the client says as well that it sends nothing more
            shutdown(fd, SHUT_WR)
            if core.ends_together and record.state == S_FRESH:
                enter(core, fd, S_REPLIED)
                core.replied[core.replied_count] = fd
                core.replied_count += 1
            elif ends(core, fd, True):
                close(fd)
        else:
            linger(core, fd)
    elif errno == EAGAIN and not may_reply_slowly(core, fd):
        refuse(core, fd, R_MAX_SLOW_REPLIES)
    elif errno == EAGAIN:
        enter(core, fd, S_SLOW_REPLY)
        record.link.next = core.pending_slow_replies
        core.pending_slow_replies = fd
    else:
        on_client_gone(core, fd)


# ---------------------------------------------------------------------------------------- replies that are not read

cdef inline uint32_t unacknowledged(int fd) noexcept nogil:
    """Bytes of a connection, its FIN among them, that the kernel keeps until the client has acknowledged them.

    After RST it keeps none, but SIOCOUTQ still counts what was not acknowledged before.
    """
    cdef int size = 0
    cdef tcp_info info
    cdef socklen_t info_size = sizeof(info.tcpi_state)
    if ioctl(fd, SIOCOUTQ, &size) != 0 or size == 0:
        return 0
    info.tcpi_state = 0
    if getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &info_size) == 0 and info.tcpi_state == TCP_CLOSE:
        return 0
    return <uint32_t>size


cdef inline bint is_unread(const Core* core, uint32_t number) noexcept nogil:
    """Whether replies to this address were left unacknowledged lately, or several linger at this moment."""
    cdef const Slot* slot = slot_at(core.address_table, number)
    if slot.unread_until != 0 and <uint16_t>(slot.unread_until - slot.second) <= UNREAD_SECONDS:
        return True
    return slot.count > WATCHED_RATE and has_at_least(core.account, number, K_LINGER, WATCHED_LINGERING)


cdef inline bint is_watched(Core* core, int fd) noexcept nogil:
    """Whether a connection is kept after its reply until the client has acknowledged it.

    What the kernel has taken is lost from sight once the socket is closed, and 131,072 such sockets of a host make the
    kernel reset all that follow (tcp_max_orphans). One reply of CHECK_EVERY is watched, and one of CHECK_BUSY to an
    address with more than WATCHED_RATE connections in this second. If several of an address linger, or one was not
    acknowledged within linger_timeout, all are watched: they keep their places meanwhile.
    """
    cdef uint32_t number = core.records[fd].slot
    cdef bint busy = number != 0 and slot_at(core.address_table, number).count > WATCHED_RATE
    core.until_check -= CHECK_EVERY // CHECK_BUSY if busy else 1
    if core.until_check < 0:
        core.until_check += CHECK_EVERY
    elif number == 0 or not is_unread(core, number):
        return False
    return unacknowledged(fd) != 0


cdef inline void mark_unread(Core* core, const Record* record, int64_t now) noexcept nogil:
    if record.slot != 0:
        slot_at(core.address_table, record.slot).unread_until = (
            max(<uint16_t>(<uint16_t>(now // SECOND) + UNREAD_SECONDS), <uint16_t>1))


cdef inline void close_acknowledged(Core* core, int fd, bint overdue) noexcept nogil:
    """The client has sent FIN after its reply, or is overdue to do so: close, if it has acknowledged the reply."""
    cdef Record* record = &core.records[fd]
    cdef uint32_t left = unacknowledged(fd)
    cdef int64_t now
    if left == 0:
        close_connection(core, fd)
        return
    now = now_ns()
    if overdue:
        mark_unread(core, record, now)
    record.progress = left
    record.accepted_at = now
    enter(core, fd, S_UNREAD)


cdef inline void close_with_reset(int fd) noexcept nogil:
    """Make the next close() send RST, which frees the kernel's memory; otherwise the client would decide when."""
    cdef linger_option at_once
    at_once.l_onoff, at_once.l_linger = 1, 0
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once))


cdef inline void on_unread(Core* core, int fd) noexcept nogil:
    """Every linger_timeout: whether the client has acknowledged more. One that does not for reply_timeout is reset."""
    cdef Record* record = &core.records[fd]
    cdef uint32_t left = unacknowledged(fd)
    cdef int64_t now = now_ns()
    if left == 0:
        close_connection(core, fd)
        return
    mark_unread(core, record, now)
    if left != record.progress:
        record.progress = left
        record.accepted_at = now
    elif now - record.accepted_at >= core.listeners[record.listener].unread_timeout:
        close_with_reset(fd)
        close_connection(core, fd)
        return
    enter(core, fd, S_UNREAD)


# ------------------------------------------------------------------------------------------------------------ the relay

cdef inline void append_pending(Core* core, PendingSession* session) noexcept nogil:
    """Have the hooks take it."""
    session.next = NULL
    if core.pending_sessions == NULL:
        core.pending_sessions = session
    else:
        core.pending_sessions_last.next = session
    core.pending_sessions_last = session


cdef inline void enter_session(Core* core, int fd, uint8_t protocol, bint finished) noexcept nogil:
    """A greenlet relays the connection; `judge_session` has found a place for it. finished: the client has sent FIN."""
    core.records[fd].protocol = protocol
    leave_handshakes(core, fd)
    enter(core, fd, S_SESSION)
    begin_place_of_session(
        core.account, fd, &core.listeners[core.records[fd].listener].session_lines,
        &core.listeners[core.records[fd].listener].silent_sessions
        if finished or protocol in (P_SILENT, P_RTMPT) else NULL,
        finished,
    )


cdef inline void begin_session(
    Core* core, int fd, uint8_t protocol, size_t matched, size_t seen, const char* data, size_t size, bint finished,
) noexcept nogil:
    """Give a connection to a greenlet that relays it, with all bytes read: `matched` of a request or `seen`, `data`.
    finished: the client has sent FIN."""
    cdef Record* record = &core.records[fd]
    cdef Reason reason = judge_session(core, fd, protocol == P_SILENT, finished)
    cdef PendingSession* session = NULL
    if reason == R_NONE:
        session = <PendingSession*>malloc(sizeof(PendingSession) + matched + seen + size)
        reason = R_NONE if session != NULL else R_CAPACITY
    if reason != R_NONE:
        refuse(core, fd, reason)
        return
    memcpy(session.data, <const char*>b"<policy-file-request/>", matched)
    memcpy(session.data + matched, record.seen, seen)
    memcpy(session.data + matched + seen, data, size)
    session.size = matched + seen + size
    session.fd = fd
    session.what = PENDING_SESSION
    append_pending(core, session)
    enter_session(core, fd, protocol, finished)


cdef inline uint8_t protocol_by_now(const Record* record) noexcept nogil:
    """As what a connection is relayed from which nothing more is awaited."""
    return R_OTHER if record.matched or record.seen_size else P_SILENT


cdef inline void begin_session_now(Core* core, int fd, bint finished) noexcept nogil:
    """Relay a connection without waiting for more input. finished: the client has sent FIN."""
    cdef Record* record = &core.records[fd]
    begin_session(core, fd, protocol_by_now(record), record.matched, record.seen_size, core.buffer, 0, finished)
