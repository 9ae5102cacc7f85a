# What happens to a connection once it is accepted: the states and transitions drawn at the head of _fastpath.pyx.

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy, memmove
from posix.unistd cimport close

from flashpol._native.accept.match cimport A_MATCH, A_MORE, A_OTHER, Answer, REQUEST_BYTES, SEEN_BYTES
from flashpol._native.accept.proxy cimport ProxyParser
from flashpol._native.accept.state cimport (
    BOUNDS, BUCKET_COUNT, Core, H_AWAITED, H_READ, Handed, Listener, O_REPLY, O_RESET, O_TIMEOUT, P_SILENT, Q_FIRST,
    Q_GRACE, Q_LINGER, Q_NONE, Q_REQUEST, QUEUE_COUNT, R_CAPACITY, R_HTTP, R_MALFORMED, R_NONE, R_OTHER, R_OVERSIZED,
    READ_BYTES, Reason, Record, S_FREE, S_GRACE, S_LINGER, S_REQUEST, S_SESSION, S_SLOW_REPLY,
)
from flashpol._native.common.system cimport (
    epoll_ctl, EPOLL_CTL_ADD, EPOLL_CTL_DEL, epoll_event, epoll_wait, EPOLLIN, MSG_MORE, MSG_NOSIGNAL, recv, send,
    SHUT_WR, shutdown, sockaddr_in6,
)

cdef enum:
    EVENTS = 64                 # ready records taken at a time
    # Ready records, and overdue ones of each queue, handled in one wake-up for each listener: more than BURST and a
    # HANDFUL, so that accepting cannot outrun them.
    COLLECT = 128


cdef inline void park(Core* core, int fd, uint8_t state, uint8_t queue) noexcept nogil:
    """Enter `state` and the deadline queue `queue`; watch for input."""
    cdef Record* record = &core.records[fd]
    cdef Listener* listener = core.listeners[record.listener]
    cdef epoll_event event
    if not record.watched:
        event.events = EPOLLIN
        event.data.fd = fd
        if epoll_ctl(core.epoll, EPOLL_CTL_ADD, fd, &event) != 0:
            # The kernel has no room to watch it (max_user_watches, ENOMEM): only the deadline ends it now.
            listener.counters.accept_errors += 1
        else:
            record.watched = True
    if record.queue == Q_NONE:
        listener.counters.parked += 1
    else:
        dequeue(&core.queues[record.queue], &record.link)
    record.state = state
    record.queue = queue
    enqueue(&core.queues[queue], &record.link, fd, now_ns())


cdef inline void unpark(Core* core, int fd) noexcept nogil:
    cdef Record* record = &core.records[fd]
    if record.queue != Q_NONE:
        dequeue(&core.queues[record.queue], &record.link)
        record.queue = Q_NONE
        core.listeners[record.listener].counters.parked -= 1
    if record.watched:
        # close() would do, unless a fork of the embedding program holds a copy: then the event would come for ever.
        epoll_ctl(core.epoll, EPOLL_CTL_DEL, fd, NULL)
        record.watched = False


cdef inline void end(Core* core, int fd) noexcept nogil:
    cdef Record* record = &core.records[fd]
    unpark(core, fd)
    record.state = S_FREE
    core.listeners[record.listener].counters.open -= 1
    if core.address_limits != NULL:
        core.address_limits.own.held -= 1
        leave(core.address_limits, record.place)
    close(fd)


cdef inline void linger(Core* core, int fd) noexcept nogil:
    shutdown(fd, SHUT_WR)
    core.records[fd].progress = 0
    park(core, fd, S_LINGER, Q_LINGER)


cdef inline void lost(Core* core, int fd) noexcept nogil:
    """The client closed or reset the connection before it had its reply."""
    core.listeners[core.records[fd].listener].counters.resets += 1
    decided(core, fd, O_RESET)
    end(core, fd)


cdef inline void count_refused(Listener* listener, Reason reason) noexcept nogil:
    listener.counters.refused[<int>reason] += 1


cdef inline void count_reply(Listener* listener, int64_t duration) noexcept nogil:
    cdef int i = 0
    while i < BUCKET_COUNT - 1 and duration > BOUNDS[i]:
        i += 1
    listener.counters.reply_bytes += listener.reply_size
    listener.counters.duration_ns += <uint64_t>duration
    listener.counters.buckets[i] += 1


cdef inline bint send_reply(Core* core, int fd) noexcept nogil:
    """Send what is left of the reply. True: all is with the kernel, and counted. False: it takes no more now."""
    cdef Record* record = &core.records[fd]
    cdef Listener* listener = core.listeners[record.listener]
    cdef ssize_t n
    while record.progress < listener.reply_size:
        # MSG_MORE holds the segment back for the FIN that shutdown or close is about to add: one segment, one wake-up
        # of the client, a fifth less CPU than two.
        n = send(fd, listener.reply + record.progress, listener.reply_size - record.progress, MSG_NOSIGNAL | MSG_MORE)
        if n < 0:
            if errno == EINTR:
                continue
            return False
        record.progress += <uint32_t>n
    count_reply(listener, now_ns() - record.accepted_at)
    decided(core, fd, O_REPLY)
    return True


cdef inline void reply(Core* core, int fd, bint clean) noexcept nogil:
    """Answer. `clean`: all input was read and no more is due, so the close will not turn into RST."""
    cdef Record* record = &core.records[fd]
    record.progress = 0
    if send_reply(core, fd):
        if clean:
            # The reply is on its way; a close that finds input now would send RST after it. The look costs 0.2 µs.
            shutdown(fd, SHUT_WR)
            if recv(fd, core.buffer, READ_BYTES, 0) > 0:
                linger(core, fd)
            else:
                end(core, fd)
        else:
            linger(core, fd)
    elif errno == EAGAIN:
        unpark(core, fd)
        record.state = S_SLOW_REPLY
        record.link.next = core.handoff
        core.handoff = fd
        core.listeners[record.listener].counters.slow_replies += 1
    else:
        lost(core, fd)


cdef inline void refuse(Core* core, int fd, Reason reason) noexcept nogil:
    count_refused(core.listeners[core.records[fd].listener], reason)
    decided(core, fd, reason)
    if reason == R_HTTP and send(fd, core.http_answer, core.http_answer_size, MSG_NOSIGNAL | MSG_MORE) > 0:
        linger(core, fd)
    else:
        end(core, fd)


cdef inline void hand_over(
    Core* core, int fd, uint8_t protocol, size_t matched, size_t seen, const char* data, size_t size,
) noexcept nogil:
    """Give it to a greenlet that relays it, with every byte that was read: `matched` of a request or `seen`, `data`."""
    cdef Record* record = &core.records[fd]
    cdef Handed* handed = <Handed*>malloc(sizeof(Handed) + matched + seen + size)
    if handed == NULL:
        refuse(core, fd, R_CAPACITY)
        return
    memcpy(handed.data, <const char*>b"<policy-file-request/>", matched)
    memcpy(handed.data + matched, record.seen, seen)
    memcpy(handed.data + matched + seen, data, size)
    handed.size = matched + seen + size
    handed.fd = fd
    handed.next = NULL
    if core.handed == NULL:
        core.handed = handed
    else:
        core.handed_last.next = handed
    core.handed_last = handed
    unpark(core, fd)
    record.state = S_SESSION
    record.protocol = protocol
    core.listeners[record.listener].counters.sessions += 1


cdef inline void hand_over_seen(Core* core, int fd) noexcept nogil:
    """No more is to be waited for."""
    cdef Record* record = &core.records[fd]
    cdef uint8_t protocol = R_OTHER if record.matched or record.seen_size else P_SILENT
    hand_over(core, fd, protocol, record.matched, record.seen_size, core.buffer, 0)


cdef inline uint8_t first_queue(Core* core, int fd) noexcept nogil:
    """A header is the proxy's to send: until it has come, the silence is not the client's."""
    cdef Record* record = &core.records[fd]
    return Q_FIRST if core.listeners[record.listener].shared and record.heading != H_AWAITED else Q_REQUEST


cdef inline void stranger(Core* core, int fd, size_t matched, const char* data, size_t size) noexcept nogil:
    """Input that is not a policy request, after `matched` bytes of one: refuse or relay it by name.

    First bytes that have none yet are kept until they have. What is relayed should not be late, so there they wait for
    more no longer than a request for its terminator.
    """
    cdef Record* record = &core.records[fd]
    cdef bint shared = core.listeners[record.listener].shared
    cdef uint8_t name = R_OTHER
    cdef size_t n, seen = record.seen_size
    if record.matched == 0:
        n = min(size, <size_t>(SEEN_BYTES - record.seen_size))
        memcpy(record.seen + seen, data, n)
        record.seen_size += <uint8_t>n
        if sniff(&core.signatures, record.seen, record.seen_size, &name) == A_MORE:
            if shared and record.queue != Q_GRACE:
                park(core, fd, S_REQUEST, Q_GRACE)
            elif record.queue == Q_NONE:
                park(core, fd, S_REQUEST, Q_REQUEST)
            return
    if shared:
        hand_over(core, fd, name, matched, seen, data, size)
    else:
        refuse(core, fd, <Reason>name)


cdef inline void discard(Core* core, int fd, ssize_t size) noexcept nogil:
    cdef Record* record = &core.records[fd]
    record.progress += <uint32_t>size
    if record.progress > core.linger_bytes:
        end(core, fd)


cdef inline void request(Core* core, int fd, size_t size) noexcept nogil:
    """`size` bytes of input stand in the buffer of a connection that has no reply yet."""
    cdef Record* record = &core.records[fd]
    cdef size_t used = 0, before = record.matched
    cdef Answer answer = A_OTHER
    if record.seen_size == 0:
        answer = match_feed(&record.matched, core.buffer, size, &used, core.listeners[record.listener].terminated)
    if answer == A_MATCH:
        reply(core, fd, used == size and size < READ_BYTES and core.buffer[size - 1] == 0)
    elif answer == A_OTHER:
        stranger(core, fd, before, core.buffer, size)
    elif record.matched == REQUEST_BYTES:
        park(core, fd, S_GRACE, Q_GRACE)
    elif record.queue == Q_NONE:
        park(core, fd, S_REQUEST, first_queue(core, fd))


cdef inline void expect_header(Core* core, int fd, const sockaddr_in6* peer) noexcept nogil:
    cdef ProxyParser* header = &core.headers[fd]
    core.records[fd].heading = H_AWAITED
    proxy_begin(header)
    header.source = peer[0]


cdef inline size_t take_header(Core* core, int fd, size_t size) noexcept nogil:
    """The buffer begins with a PROXY header, or a piece of one. What follows it is moved to the front: so many bytes.

    0: nothing follows, or the connection has ended.
    """
    cdef Record* record = &core.records[fd]
    cdef ProxyParser* header = &core.headers[fd]
    cdef size_t used = 0
    cdef Answer answer = proxy_feed(header, core.buffer, size, &used)
    cdef Reason reason
    if answer == A_OTHER:
        refuse(core, fd, R_OVERSIZED if header.oversized else R_MALFORMED)
        return 0
    if answer == A_MORE:
        return 0
    record.heading = H_READ
    if record.sample != 0:
        core.samples[record.sample].peer = header.source
    reason = judge_client(core, core.listeners[record.listener], &header.source, now_ns(), &record.place)
    if reason != R_NONE:
        refuse(core, fd, reason)
        return 0
    if core.listeners[record.listener].shared and record.queue != Q_NONE:
        park(core, fd, S_REQUEST, Q_FIRST)          # the client's own silence begins here
    memmove(core.buffer, core.buffer + used, size - used)
    return size - used


cdef inline void advance(Core* core, int fd) noexcept nogil:
    """Read once and do what follows. Level-triggered: what is not read now is reported again."""
    cdef Record* record = &core.records[fd]
    cdef ssize_t n = recv(fd, core.buffer, READ_BYTES, 0)
    if n > 0 and record.heading == H_AWAITED:
        # Without a request after it the connection waits as it was: it is parked already, or about to be.
        n = <ssize_t>take_header(core, fd, <size_t>n)
        if n > 0:
            request(core, fd, <size_t>n)
    elif n > 0:
        if record.state == S_LINGER:
            discard(core, fd, n)
        else:
            request(core, fd, <size_t>n)
    elif n == 0:
        if record.state == S_LINGER:
            end(core, fd)
        elif record.matched == REQUEST_BYTES:
            reply(core, fd, True)
        elif core.listeners[record.listener].shared and (record.matched or record.seen_size):
            hand_over_seen(core, fd)
        elif record.seen_size:
            refuse(core, fd, R_OTHER)
        else:
            lost(core, fd)
    elif errno == EAGAIN or errno == EINTR:
        pass
    elif record.state == S_LINGER:
        end(core, fd)
    else:
        lost(core, fd)


cdef inline bint evict_oldest(Core* core, Reason reason) noexcept nogil:
    """Where there is no place left, whoever has waited longest gives way to who comes, and is refused for `reason`.

    First those that have their reply; last those that may be silent because the application speaks first. So silence
    cannot keep out those who ask: they need a place for some microseconds only. Whose request has come meanwhile is
    answered, and gives way by that or not at all. False: nobody waits who could give way.
    """
    cdef int fd = core.queues[Q_LINGER].head
    if fd >= 0:
        end(core, fd)
        return True
    return give_way(core, Q_REQUEST, reason) or give_way(core, Q_FIRST, reason)


cdef inline bint give_way(Core* core, int which, Reason reason) noexcept nogil:
    cdef int fd
    while True:
        fd = core.queues[which].head
        if fd < 0:
            return False
        advance(core, fd)
        if core.queues[which].head == fd:
            refuse(core, fd, reason)
            return True
        if core.records[fd].state == S_FREE:
            return True


cdef inline void overdue(Core* core, int fd) noexcept nogil:
    cdef Record* record = &core.records[fd]
    if record.state == S_GRACE:
        reply(core, fd, False)
    elif record.state == S_LINGER:
        end(core, fd)
    elif record.queue == Q_FIRST and record.matched:
        park(core, fd, S_REQUEST, Q_REQUEST)        # a policy request on its way, most likely
    elif core.listeners[record.listener].shared and record.heading != H_AWAITED:
        hand_over_seen(core, fd)
    else:
        core.listeners[record.listener].counters.timeouts += 1
        decided(core, fd, O_TIMEOUT)
        end(core, fd)


cdef inline void collect(Core* core) noexcept nogil:
    """Handle ready records, then overdue ones, a bounded number of each."""
    cdef epoll_event[EVENTS] events
    cdef int i, fd, n, left
    cdef int bound = COLLECT * max(1, <int>core.listener_count)
    cdef int64_t now
    cdef bint fired = False
    left = bound
    while left > 0:
        n = epoll_wait(core.epoll, events, EVENTS, 0)
        for i in range(n):
            if is_timer(&events[i]):
                fired = True
            elif core.records[events[i].data.fd].watched:
                advance(core, events[i].data.fd)
        if n < EVENTS:
            break
        left -= n
    if fired:
        now = now_ns()
        for i in range(QUEUE_COUNT):
            for _ in range(bound):
                fd = overdue_in(&core.queues[i], now)
                if fd < 0:
                    break
                overdue(core, fd)
        # What is still overdue re-arms the timer at a time that has passed: it fires in the next round of the loop.
        set_timer(&core.timer, 0)
    arm(&core.timer, core.queues, QUEUE_COUNT)
