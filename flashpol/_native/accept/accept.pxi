# From the kernel's accept queue to records.

from libc.errno cimport (
    EAGAIN, ECONNABORTED, EHOSTDOWN, EHOSTUNREACH, EINTR, EMFILE, ENETDOWN, ENETUNREACH, ENFILE, ENOPROTOOPT,
    EOPNOTSUPP, EPERM, EPROTO, errno,
)
from libc.stdint cimport int64_t, uint32_t
from posix.unistd cimport close

from flashpol._native.accept.state cimport (
    BATCH, Core, Counters, H_NONE, Listener, QUEUE_COUNT, R_CAPACITY, R_MAX_ADDRESS_CONNECTIONS, R_MAX_CONNECTIONS,
    R_NONE, Reason, Record, S_FRESH, TOGETHER,
)
from flashpol._native.common.system cimport (
    accept4, getsockopt, IPPROTO_TCP, SOCK_CLOEXEC, SOCK_NONBLOCK, sockaddr_in6, socklen_t, tcp_info, TCP_INFO,
)

cdef enum:
    BURST = 64                  # connections handled in one wake-up: about 0.3 ms; then greenlets run


cdef inline int accept_queue_length(int fd) noexcept nogil:
    """Connections in the accept queue (Linux reports them in tcpi_unacked of a listening socket's TCP_INFO)."""
    cdef tcp_info info
    cdef socklen_t size = <socklen_t>(<char*>&info.tcpi_sacked - <char*>&info)
    if getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0:
        return BATCH
    return <int>info.tcpi_unacked


cdef inline bint is_transient(int error) noexcept nogil:
    """accept(2) reports pending network errors of the new socket; the next socket may have none."""
    return error in (EINTR, ECONNABORTED, EPROTO, ENOPROTOOPT, EHOSTDOWN, EHOSTUNREACH, ENETDOWN, ENETUNREACH,
                     EOPNOTSUPP, EPERM)


cdef inline int accept_batch(
    Core* core, Listener* listener, int sock, int* fds, int limit, int* accepted,
) noexcept nogil:
    """Accept up to `limit` connections into `fds`; `accepted` is their number. Returns 0 or the errno of accept4."""
    cdef int fd, error
    cdef uint32_t sample, slot
    cdef int64_t now
    cdef bint sampled, wants_peer
    cdef sockaddr_in6 peer
    cdef socklen_t size
    cdef Reason reason
    cdef Counters* counters = listener.counters
    accepted[0] = 0
    if core.address_table != NULL:
        refresh_others(core.address_table)
    for _ in range(limit):
        # accept4 reports the address: getpeername fails for a client that has reset the connection meanwhile.
        sampled = core.samples != NULL and should_sample(core)
        wants_peer = sampled or listener.needs_address
        size = sizeof(peer)
        fd = accept4(
            sock, &peer if wants_peer else NULL, &size if wants_peer else NULL, SOCK_NONBLOCK | SOCK_CLOEXEC
        )
        if fd < 0:
            error = errno
            if error == EAGAIN:
                return 0
            counters.accept_errors += 1
            if is_transient(error) or (error in (EMFILE, ENFILE) and make_room(core, R_CAPACITY)):
                continue
            return error
        counters.accepted += 1
        now = now_ns()
        sample = begin_sample(core, listener.index, &peer, now) if sampled else 0
        reason = judge_connection(core, listener, fd, &peer, now, &slot)
        if reason == R_MAX_ADDRESS_CONNECTIONS and slot != 0:
            reason = make_room_of_address(core, &slot)
        # Evict only after all other checks have passed. One eviction per admission keeps the limit.
        if reason == R_NONE and not has_files(core.account) and not make_room(core, R_CAPACITY):
            if core.address_table != NULL:
                release_slot(core.address_table, slot, False)
            reason = R_CAPACITY
        if (reason == R_NONE and core.address_table != NULL and not has_place(core)
                and not make_room(core, R_MAX_CONNECTIONS)):
            release_slot(core.address_table, slot, False)
            reason = R_MAX_CONNECTIONS
        if reason != R_NONE:
            count_refused(core, listener, fd, reason, &peer if wants_peer else NULL)
            if sample:
                enqueue_sample(core, sample, reason, 0, 0)
            close(fd)
            continue
        begin_connection(core, listener, fd, now, sample, slot)
        if listener.proxies != NULL:
            expect_header(core, fd, &peer)
        fds[accepted[0]] = fd
        accepted[0] += 1
    return 0


cdef inline void begin_connection(
    Core* core, Listener* listener, int fd, int64_t now, uint32_t sample, uint32_t slot,
) noexcept nogil:
    cdef Record* record = &core.records[fd]
    core.account.held += 1
    if core.address_table != NULL:
        core.address_table.own.held += 1
    record.accepted_at = now
    record.listener = listener.index
    record.sample = sample
    record.slot = slot
    record.progress = 0
    record.matched = 0
    record.header_state = H_NONE
    record.seen_size = 0
    record.has_codec = record.has_place = record.has_carrier = False
    enter(core, fd, S_FRESH)


cdef inline int accept_burst(Core* core, Listener* listener, int sock, int limit, int* total) noexcept nogil:
    """Accept and handle connections until the queue is empty, or `limit`. `total` is their number. Returns 0 or errno.

    The kernel is asked for the length of the queue, because an accept4 that finds it empty has made and thrown away a
    socket and a file first: without the question a reply cost 0.83 of the C yardstick's CPU, with accept4 until EAGAIN
    0.94 (load on the other CPU, one run).
    A batch is accepted before the first of it is read, and those without input are read again before they are parked:
    most requests arrive in the microseconds after the handshake, and parking costs four system calls. The end of a
    long batch says whether the queue is empty.
    """
    cdef int[BATCH] fds
    cdef int i, n, error = 0
    total[0] = 0
    while True:
        n = accept_queue_length(sock)
        if n == 0 and total[0] > 0:
            break
        core.ends_together = n >= TOGETHER
        # The first time at least one is accepted, whatever the kernel says: the event loop reported the socket.
        error = accept_batch(core, listener, sock, fds, min(max(n, 1), <int>BATCH), &n)
        for i in range(n):
            on_readable(core, fds[i])
        for i in range(n):
            if core.records[fds[i]].state == S_FRESH:
                on_readable(core, fds[i])
                if core.records[fds[i]].state == S_FRESH:
                    enter(core, fds[i], waiting_state(core, fds[i]))
        total[0] += n
        if core.ends_together and not end_replied(core, sock):
            break
        if n == 0 or error or total[0] >= limit:
            break
    core.ends_together = False
    arm_timer(&core.poller, core.queues, core.timeouts_count * QUEUE_COUNT)
    return error
