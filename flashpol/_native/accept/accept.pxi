# From the kernel's accept queue to records.

from libc.errno cimport (
    EAGAIN, ECONNABORTED, EHOSTDOWN, EHOSTUNREACH, EINTR, EMFILE, ENETDOWN, ENETUNREACH, ENFILE, ENOPROTOOPT,
    EOPNOTSUPP, EPERM, EPROTO, errno,
)
from libc.stdint cimport int64_t, uint16_t, uint32_t
from posix.unistd cimport close

from flashpol._native.accept.state cimport (
    Core, Counters, H_NONE, Listener, Q_NONE, QUEUE_COUNT, R_CAPACITY, R_MAX_CONNECTIONS, R_NONE, Reason, Record,
    S_FRESH, S_REQUEST,
)
from flashpol._native.common.system cimport (
    accept4, getsockopt, IPPROTO_TCP, SOCK_CLOEXEC, SOCK_NONBLOCK, sockaddr_in6, socklen_t, TCP_INFO, tcp_info,
)

cdef enum:
    HANDFUL = 32                # accepted at a time
    BURST = 64                  # connections answered in one wake-up: about 0.3 ms; then greenlets get their turn


cdef inline int waiting(int fd) noexcept nogil:
    """Length of the accept queue (Linux: TCP_INFO of a listening socket has it in tcpi_unacked)."""
    cdef tcp_info info
    cdef socklen_t size = <socklen_t>(<char*>&info.tcpi_sacked - <char*>&info)
    if getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0:
        return HANDFUL
    return <int>info.tcpi_unacked


cdef inline bint transient(int error) noexcept nogil:
    """accept(2): pending network errors of the new socket are reported here; the next one may be well."""
    return error in (EINTR, ECONNABORTED, EPROTO, ENOPROTOOPT, EHOSTDOWN, EHOSTUNREACH, ENETDOWN, ENETUNREACH,
                     EOPNOTSUPP, EPERM)


cdef inline int take(Core* core, Listener* listener, int sock, int* fds, int limit, int* taken) noexcept nogil:
    """Accept up to `limit` connections into `fds`, their number in `taken`. 0, or the errno that ended accepting."""
    cdef int fd, error
    cdef uint16_t sampled
    cdef uint32_t place
    cdef int64_t now
    cdef bint wanted, asked
    cdef sockaddr_in6 peer
    cdef socklen_t size
    cdef Reason reason
    cdef Counters* counters = listener.counters
    taken[0] = 0
    if core.address_limits != NULL:
        look_around(core.address_limits)
    for _ in range(limit):
        # Asked of accept4: getpeername has no answer for a client that has reset the connection meanwhile.
        wanted = core.samples != NULL and chosen(core)
        asked = wanted or listener.asks_address
        size = sizeof(peer)
        fd = accept4(sock, &peer if asked else NULL, &size if asked else NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if fd < 0:
            error = errno
            if error == EAGAIN:
                return 0
            counters.accept_errors += 1
            if transient(error) or (error in (EMFILE, ENFILE) and evict_oldest(core, R_CAPACITY)):
                continue
            return error
        counters.accepted += 1
        now = now_ns()
        sampled = sample(core, listener.index, &peer, now) if wanted else 0
        reason = judge_connection(core, listener, fd, &peer, now, &place)
        # Last, so that nobody gives way to one who is refused anyhow. One goes for one who comes: the caps hold.
        if reason == R_NONE and core.address_limits != NULL and full(core.address_limits) and not evict_oldest(core, R_MAX_CONNECTIONS):
            leave(core.address_limits, place)
            reason = R_MAX_CONNECTIONS
        if reason != R_NONE:
            count_refused(listener, reason)
            if sampled:
                told(core, sampled, reason, 0, 0)
            close(fd)
            continue
        admit(core, listener, fd, now, sampled, place)
        if listener.proxies != NULL:
            expect_header(core, fd, &peer)
        fds[taken[0]] = fd
        taken[0] += 1
    return 0


cdef inline void admit(
    Core* core, Listener* listener, int fd, int64_t now, uint16_t sampled, uint32_t place,
) noexcept nogil:
    cdef Record* record = &core.records[fd]
    listener.counters.open += 1
    if core.address_limits != NULL:
        core.address_limits.own.held += 1
    record.accepted_at = now
    record.state = S_FRESH
    record.queue = Q_NONE
    record.listener = listener.index
    record.sample = sampled
    record.place = place
    record.progress = 0
    record.matched = 0
    record.heading = H_NONE
    record.seen_size = 0


cdef inline int burst(Core* core, Listener* listener, int sock, int limit, int* total) noexcept nogil:
    """Accept and advance connections until there are none, or `limit`; their number in `total`. 0, or an errno.

    The kernel is asked how many wait, because an accept4 that finds none has made and thrown away a socket and a file
    first: without it an answer cost 0.83 of the C yardstick's CPU, with it 0.94 (load on the other CPU, one run).
    A handful is accepted before the first of it is read, and those without input are tried again before they are
    parked: most requests arrive in the microseconds after the handshake, and parking costs four system calls.
    """
    cdef int[HANDFUL] fds
    cdef int i, n, error = 0
    total[0] = 0
    while True:
        n = waiting(sock)
        if n == 0 and total[0] > 0:
            break
        # The first time there is one, whatever the kernel says: that is why we were called.
        error = take(core, listener, sock, fds, min(max(n, 1), <int>HANDFUL), &n)
        for i in range(n):
            advance(core, fds[i])
        for i in range(n):
            if core.records[fds[i]].state == S_FRESH:
                advance(core, fds[i])
                if core.records[fds[i]].state == S_FRESH:
                    park(core, fds[i], S_REQUEST, first_queue(core, fds[i]))
        total[0] += n
        if n == 0 or error or total[0] >= limit:
            break
    arm(&core.timer, core.queues, QUEUE_COUNT)
    return error
