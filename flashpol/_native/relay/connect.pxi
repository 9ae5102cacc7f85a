# Connecting to an upstream, and what came of it.

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
    CLIENT, Conversation, Core, Flow, Q_CONNECT, Q_DURATION, Q_IDLE, S_CONNECTING, S_OPEN, UPSTREAM,
)


cdef inline uint8_t failure_of(int error) noexcept nogil:
    # EAGAIN: the queue of a Unix socket is full, which is the application's to empty. Another may have room.
    if error == ECONNREFUSED or error == ENOENT or error == EAGAIN:
        return F_REFUSED
    if error == ETIMEDOUT:
        return F_TIMEOUT
    # EADDRNOTAVAIL: no local port is free.
    if error in (EMFILE, ENFILE, ENOBUFS, ENOMEM, EADDRNOTAVAIL):
        return F_RESOURCES
    return F_UNREACHABLE


cdef inline void established(Core* core, int32_t i) noexcept nogil:
    cdef Conversation* c = &core.table[i]
    cdef int64_t took = core.now - c.began
    wait_no_more(core, i, Q_CONNECT)
    c.state = S_OPEN
    c.began = c.active = core.now
    c.counters.connecting -= 1
    c.counters.open += 1
    c.counters.opened += 1
    c.streak[0] = 0
    c.counters.connect_ns += <uint64_t>took
    count(c.counters.connect_buckets, CONNECT_BOUNDS, CONNECT_BUCKETS - 1, took)
    wait(core, i, Q_IDLE)
    wait(core, i, Q_DURATION)


cdef inline void connected(Core* core, int32_t i) noexcept nogil:
    """The kernel has something to say about a connection under way."""
    cdef int error = 0
    cdef socklen_t size = sizeof(error)
    getsockopt(core.table[i].flows[UPSTREAM].fd, SOL_SOCKET, SO_ERROR, &error, &size)
    if error:
        fail(core, i, failure_of(error))
    else:
        established(core, i)
        move(core, i, CLIENT)


cdef inline void begin(
    Core* core, int32_t i, const sockaddr* to, socklen_t to_size, int keepalive, const char* first, uint32_t first_size,
) noexcept nogil:
    """Connect the conversation that has nothing yet but its client, or `fail` it."""
    cdef Conversation* c = &core.table[i]
    cdef Flow* flow = &c.flows[CLIENT]
    cdef int fd, one = 1
    cdef ssize_t sent = -1
    core.now = c.began = now_ns()
    c.state = S_CONNECTING
    c.counters.connecting += 1
    fd = c.flows[UPSTREAM].fd = socket(to.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if fd < 0:
        fail(core, i, failure_of(errno))
        return
    if to.sa_family != AF_UNIX:
        # A relay that waits for more adds its delay to the sender's own.
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
        if keepalive:
            setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one))
            setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &keepalive, sizeof(keepalive))
    if connect(fd, to, to_size) != 0 and errno != EINPROGRESS:
        fail(core, i, failure_of(errno))
        return
    # On this host the handshake is over by now, and one turn of epoll is saved.
    if first_size:
        sent = send(fd, first, first_size, MSG_NOSIGNAL)
        if sent < 0 and errno != EAGAIN and errno != EINTR:
            fail(core, i, failure_of(errno))
            return
    if sent != <ssize_t>first_size and first_size:
        if not hold_first(flow, first + max(<ssize_t>0, sent), first_size - <uint32_t>max(<ssize_t>0, sent)):
            fail(core, i, F_RESOURCES)
            return
        flow.blocked = True
    if sent > 0:
        c.counters.sent[CLIENT] += <uint64_t>sent
        core.now = now_ns()                     # it took its time, which is counted
        established(core, i)
        observe(core, i)
    else:
        wait(core, i, Q_CONNECT)
        watch(core, i, UPSTREAM, EPOLLOUT)
