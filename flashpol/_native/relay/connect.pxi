# Connecting to an upstream, and how that ends.

from libc.errno cimport (
    EADDRNOTAVAIL, EAGAIN, ECONNREFUSED, EINPROGRESS, EINTR, EMFILE, ENFILE, ENOBUFS, ENOENT, ENOMEM, errno, ETIMEDOUT,
)
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from flashpol._native.common.system cimport (
    AF_UNIX, connect, EPOLLOUT, getsockopt, IPPROTO_TCP, MSG_NOSIGNAL, send, setsockopt, SO_ERROR, SO_KEEPALIVE,
    SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, sockaddr, socket, socklen_t, SOL_SOCKET, TCP_KEEPIDLE, TCP_NODELAY,
)
from flashpol._native.relay.counters cimport (
    CONNECT_BOUNDS, CONNECT_BUCKETS, F_REFUSED, F_RESOURCES, F_TIMEOUT, F_UNREACHABLE,
)
from flashpol._native.relay.state cimport (
    CLIENT, Core, Flow, Q_CONNECT, Q_DURATION, Q_IDLE, Q_SILENT, S_CONNECTING, S_OPEN, Session, UPSTREAM,
)


cdef inline uint8_t failure_of(int error) noexcept nogil:
    # EAGAIN: the accept queue of a Unix socket is full. The application has to empty it; another backend may have room.
    if error == ECONNREFUSED or error == ENOENT or error == EAGAIN:
        return F_REFUSED
    if error == ETIMEDOUT:
        return F_TIMEOUT
    # EADDRNOTAVAIL: no local port is free.
    if error in (EMFILE, ENFILE, ENOBUFS, ENOMEM, EADDRNOTAVAIL):
        return F_RESOURCES
    return F_UNREACHABLE


cdef inline void on_established(Core* core, int32_t i) noexcept nogil:
    cdef Session* session = &core.table[i]
    cdef int64_t took = core.now - session.began
    stop_deadline(core, i, Q_CONNECT)
    session.state = S_OPEN
    session.began = session.active = core.now
    session.counters.connecting -= 1
    session.counters.open += 1
    session.counters.opened += 1
    session.failures_in_row[0] = 0
    release_place(session.place)
    if session.user_timeout:
        # The listening socket's: with keepalive it would end a session whose peer misses one probe, and without it one
        # whose client pauses.
        set_user_timeout(session.flows[CLIENT].fd, 0)
    session.counters.connect_ns += <uint64_t>took
    count_bucket(session.counters.connect_buckets, CONNECT_BOUNDS, CONNECT_BUCKETS - 1, took)
    start_deadline(core, i, Q_IDLE)
    start_deadline(core, i, Q_DURATION)
    if is_silent(session):
        start_deadline(core, i, Q_SILENT)
    on_opened(core, session)


cdef inline void on_connected(Core* core, int32_t i) noexcept nogil:
    """epoll reports a connection that was being made: it is established, or has failed."""
    cdef int error = 0
    cdef socklen_t size = sizeof(error)
    getsockopt(core.table[i].flows[UPSTREAM].fd, SOL_SOCKET, SO_ERROR, &error, &size)
    if error:
        fail_connect(core, i, failure_of(error))
    else:
        on_established(core, i)
        transfer(core, i, CLIENT)


cdef inline void begin_connect(
    Core* core, int32_t i, const sockaddr* to, socklen_t to_size, int keepalive, const char* first, uint32_t first_size,
) noexcept nogil:
    """Connect a session that has nothing yet but its client. After a failure it is closed, else connecting or open."""
    cdef Session* session = &core.table[i]
    cdef Flow* flow = &session.flows[CLIENT]
    cdef int fd, one = 1
    cdef ssize_t sent = -1
    core.now = session.began = now_ns()
    session.state = S_CONNECTING
    session.counters.connecting += 1
    fd = session.flows[UPSTREAM].fd = socket(to.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if fd < 0:
        fail_connect(core, i, failure_of(errno))
        return
    if to.sa_family != AF_UNIX:
        # With Nagle's algorithm a relay would add a delay of its own to that of the sender.
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
        if keepalive:
            setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one))
            setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &keepalive, sizeof(keepalive))
    if connect(fd, to, to_size) != 0 and errno != EINPROGRESS:
        fail_connect(core, i, failure_of(errno))
        return
    # On this host the handshake is complete by now, so sending at once saves a turn of epoll.
    if first_size:
        sent = send(fd, first, first_size, MSG_NOSIGNAL)
        if sent < 0 and errno != EAGAIN and errno != EINTR:
            fail_connect(core, i, failure_of(errno))
            return
    if sent != <ssize_t>first_size and first_size:
        if not hold_first(flow, first + max(<ssize_t>0, sent), first_size - <uint32_t>max(<ssize_t>0, sent)):
            fail_connect(core, i, F_RESOURCES)
            return
        flow.blocked = True
    if sent > 0:
        session.counters.sent[CLIENT] += <uint64_t>sent
        core.now = now_ns()                     # connect and send took time, which belongs into the histogram
        on_established(core, i)
        update_interest(core, i)
    else:
        start_deadline(core, i, Q_CONNECT)
        watch(core, i, UPSTREAM, EPOLLOUT)
