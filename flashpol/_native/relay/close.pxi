# The end of a session or of an attempt to connect: counted once, out of the epoll set, given to its greenlet. Below
# that, the lists of free and of closed sessions.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset
from posix.unistd cimport close

from flashpol._native.common.system cimport (
    getsockname, getsockopt, IPPROTO_TCP, linger, setsockopt, SO_LINGER, sockaddr_in6, socklen_t, SOL_SOCKET, TCP_CLOSE,
    TCP_INFO, tcp_info, TCP_USER_TIMEOUT, TCPI_OPT_TIMESTAMPS,
)
from flashpol._native.relay.counters cimport (
    DURATION_BOUNDS, DURATION_BUCKETS, E_CLIENT_RESET, E_EVICTED, E_PING, E_PROTOCOL, E_SHUTDOWN, E_UPSTREAM_RESET,
    END_COUNT, F_CUT, F_PORTS, F_RESOURCES,
)
from flashpol._native.relay.state cimport (
    CLIENT, Core, Flow, Q_YOUNG, QUEUE_COUNT, S_CLOSED, S_CONNECTING, S_FREE, S_OPEN, Session, UPSTREAM,
)


cdef inline void close_with_rst(int fd) noexcept nogil:
    """Make the next close() of this descriptor send RST."""
    cdef linger option
    option.l_onoff = 1
    option.l_linger = 0
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &option, sizeof(option))


cdef inline void set_user_timeout(int fd, uint32_t milliseconds) noexcept nogil:
    """For so long the peer may acknowledge nothing, or take nothing; 0: as long as the kernel likes."""
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &milliseconds, sizeof(milliseconds))


cdef inline void settle_upstream(Core* core, Session* session, bint reset) noexcept nogil:
    """The connection to the upstream ends. It leaves its port in TIME-WAIT if our FIN was first, unless it is reset."""
    cdef Flow* flow = &session.flows[UPSTREAM]
    cdef sockaddr_in6 local
    cdef tcp_info info
    cdef socklen_t local_size = sizeof(local), size = sizeof(info)
    cdef bint leaves = session.route >= 0 and not reset and session.first_fin != UPSTREAM
    memset(&info, 0, sizeof(info))
    if not reset and (leaves or session.user_timeout):
        getsockopt(flow.fd, IPPROTO_TCP, TCP_INFO, &info, &size)
        # TCP_CLOSE: both FINs are acknowledged, and the kernel has nothing to deliver; it may be in TIME-WAIT.
        if session.user_timeout and info.tcpi_state != TCP_CLOSE:
            set_user_timeout(flow.fd, session.user_timeout)
    if not leaves:
        if session.route >= 0:
            return_port(core, session)
        return
    memset(&local, 0, sizeof(local))
    # With timestamps the kernel lets a connection take the port over that is bound to it. Before the upstream's FIN has
    # come, it has no TIME-WAIT to take over. While few are in use, which one this is does not matter.
    if (flow.fin_received and info.tcpi_options & TCPI_OPT_TIMESTAMPS
            and not are_few(core.ports, &core.ports.routes[session.route])):
        getsockname(flow.fd, &local, &local_size)
        leave_port(core, session, &local, True)
    else:
        leave_port(core, session, &local, False)


cdef inline void fail_connect(Core* core, int32_t i, uint8_t failure) noexcept nogil:
    """The upstream could not be reached. failures_in_row counts what another backend may do better."""
    cdef Session* session = &core.table[i]
    session.counters.connecting -= 1
    session.counters.failures[failure - END_COUNT] += 1
    if failure != F_RESOURCES and failure != F_CUT and failure != F_PORTS:
        session.failures_in_row[0] += 1
    if session.route >= 0:
        return_port(core, session)
    close_session(core, i, failure)


cdef inline bint is_broken(uint8_t end) noexcept nogil:
    """The client's side has ended in a way that what it sent may be a part of what it meant."""
    return end == E_CLIENT_RESET or end == E_PROTOCOL or end == E_PING


cdef inline void end_session(Core* core, int32_t i, uint8_t end) noexcept nogil:
    """A side that bytes still waited for gets RST instead of FIN, so that it does not take the part for the whole."""
    cdef Session* session = &core.table[i]
    cdef int64_t duration = core.now - session.began
    cdef bint reset = is_broken(end) or session.flows[CLIENT].blocked
    session.counters.open -= 1
    session.counters.ends[end] += 1
    session.counters.duration_ns += <uint64_t>duration
    count_bucket(session.counters.duration_buckets, DURATION_BOUNDS, DURATION_BUCKETS - 1, duration)
    if session.codec != NULL:
        end_codec(core, session, end)
    if reset:
        close_with_rst(session.flows[UPSTREAM].fd)
    if (end == E_PING or session.flows[UPSTREAM].blocked
            or (end == E_UPSTREAM_RESET and not closes_by_message(session.codec))):
        close_with_rst(session.flows[CLIENT].fd)
    # Of what the kernel still has to deliver. While the session was open, its sides could take their time; a young
    # one's client still has the listening socket's.
    if session.user_timeout and session.links[Q_YOUNG].deadline == 0:
        set_user_timeout(session.flows[CLIENT].fd, session.user_timeout)
    settle_upstream(core, session, reset or end == E_UPSTREAM_RESET)
    close_session(core, i, end)


cdef inline void close_session(Core* core, int32_t i, uint8_t outcome) noexcept nogil:
    """Close the upstream's descriptor. The greenlet owns the client's: it closes it, or tries another backend."""
    cdef Session* session = &core.table[i]
    cdef int side, which
    for which in range(QUEUE_COUNT):
        stop_deadline(core, i, which)
    # To close a descriptor takes it out of the set: no process has a copy of it. The greenlet closes the client's,
    # unless it tries another backend, or a codec has to linger. Until then one that is watched level-triggered would be
    # reported in each turn.
    if session.codec != NULL or outcome >= END_COUNT or not session.flows[CLIENT].watched & EPOLLET:
        watch(core, i, CLIENT, 0)
    for side in range(2):
        session.flows[side].watched = 0
        release_held(&core.pool, &session.flows[side])
    forget_client(core, session.flows[CLIENT].fd, i)
    close(session.flows[UPSTREAM].fd)
    session.with_upstream[0] -= 1
    session.state = S_CLOSED
    session.outcome = outcome
    append_closed(core, i)


cdef inline void cut(Core* core, int32_t i) noexcept nogil:
    """End a session in any state, because the process or the greenlet ends."""
    if core.table[i].state == S_CONNECTING:
        fail_connect(core, i, F_CUT)
    elif core.table[i].state == S_OPEN:
        end_session(core, i, E_SHUTDOWN)


# ---------------------------------------------------------------------------------------------------------------- lists

cdef inline int32_t take_free(Core* core) noexcept nogil:
    """A free entry of the table, -1 if there is none."""
    cdef int32_t i = core.free
    if i >= 0:
        core.free = core.table[i].next
    elif core.used < core.capacity:
        i = core.used
        core.used += 1
    else:
        return -1
    core.count += 1
    return i


cdef inline void free_session(Core* core, int32_t i) noexcept nogil:
    core.table[i].state = S_FREE
    core.table[i].next = core.free
    core.free = i
    core.count -= 1


cdef inline void append_closed(Core* core, int32_t i) noexcept nogil:
    """Evicted sessions go to the front: another connection waits for their places."""
    core.table[i].next = -1
    if core.closed < 0:
        core.closed = i
    elif core.table[i].outcome == E_EVICTED:
        core.table[i].next = core.closed
        core.closed = i
        return
    else:
        core.table[core.closed_last].next = i
    core.closed_last = i


cdef inline int32_t pop_closed(Core* core) noexcept nogil:
    """The session that was closed first, -1 if there is none."""
    cdef int32_t i = core.closed
    if i >= 0:
        core.closed = core.table[i].next
    return i


cdef inline void remove_last_closed(Core* core, int32_t i) noexcept nogil:
    """Remove `i` from the tail: it was closed inside begin_connect, before its greenlet went to sleep."""
    cdef int32_t k = core.closed
    if k == i:
        core.closed = core.closed_last = -1
        return
    while core.table[k].next != i:
        k = core.table[k].next
    core.table[k].next = -1
    core.closed_last = k
