# Connecting to an upstream, and how that ends.

from libc.errno cimport (
    EACCES, EADDRINUSE, EADDRNOTAVAIL, EAGAIN, ECONNREFUSED, EINPROGRESS, EINTR, EINVAL, EMFILE, ENFILE, ENOBUFS,
    ENOENT, ENOMEM, EPERM, errno, ETIMEDOUT,
)
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from posix.unistd cimport close

from flashpol._native.common.system cimport (
    AF_INET, AF_UNIX, bind, connect, EPOLLOUT, getsockopt, htons, IP_BIND_ADDRESS_NO_PORT, IP_TRANSPARENT, IPPROTO_IP,
    IPPROTO_IPV6, IPPROTO_TCP, IPV6_TRANSPARENT, MSG_NOSIGNAL, send, setsockopt, SO_ERROR, SO_KEEPALIVE, SO_REUSEADDR,
    SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, sockaddr, sockaddr_in6, socket, socklen_t, SOL_SOCKET, TCP_KEEPIDLE,
)
from flashpol._native.relay.counters cimport (
    CONNECT_BOUNDS, CONNECT_BUCKETS, F_PORTS, F_REFUSED, F_RESOURCES, F_TIMEOUT, F_UNREACHABLE,
)
from flashpol._native.relay.ports cimport CHOSEN_TRIES, LEFT_TRIES, Ports, Route, Target
from flashpol._native.relay.state cimport (
    CLIENT, Core, Flow, Q_CONNECT, Q_DURATION, Q_IDLE, Q_PING, Q_SILENT, Q_YOUNG, S_CONNECTING, S_OPEN, Session,
    UPSTREAM,
)

cdef enum:
    YOUNG_MS = 1000             # how long a session is in Q_YOUNG
    LEAST_USER_TIMEOUT = 4 * YOUNG_MS       # of a session that can wait for so long


cdef inline uint8_t failure_of(int error) noexcept nogil:
    # EAGAIN: the accept queue of a Unix socket is full. The application has to empty it; another backend may have room.
    if error == ECONNREFUSED or error == ENOENT or error == EAGAIN:
        return F_REFUSED
    if error == ETIMEDOUT:
        return F_TIMEOUT
    if is_port_taken(error):
        return F_PORTS
    if error in (EMFILE, ENFILE, ENOBUFS, ENOMEM):
        return F_RESOURCES
    return F_UNREACHABLE


cdef inline void set_lasting_options(Session* session) noexcept nogil:
    """What a session needs that is no longer young: most are over before, and save the system calls."""
    cdef int one = 1, keepalive = session.keepalive
    cdef int fd = session.flows[UPSTREAM].fd
    if session.user_timeout:
        # The listening socket's: with keepalive it would end a session whose peer misses one probe, and without it one
        # whose client pauses.
        set_user_timeout(session.flows[CLIENT].fd, 0)
    if keepalive:
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one))
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &keepalive, sizeof(keepalive))


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
    session.counters.connect_ns += <uint64_t>took
    count_bucket(session.counters.connect_buckets, CONNECT_BOUNDS, CONNECT_BUCKETS - 1, took)
    start_deadline(core, i, Q_IDLE)
    start_deadline(core, i, Q_DURATION)
    if 0 < session.user_timeout < LEAST_USER_TIMEOUT:
        set_lasting_options(session)
    elif session.user_timeout or session.keepalive:
        start_deadline(core, i, Q_YOUNG)
    if is_silent(session):
        start_deadline(core, i, Q_SILENT)
    if closes_by_message(session.codec):
        start_deadline(core, i, Q_PING)
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


cdef inline bint is_port_taken(int error) noexcept nogil:
    """By another socket, or in a TIME-WAIT that cannot be taken over."""
    return error == EADDRINUSE or error == EADDRNOTAVAIL


cdef inline int make_transparent(int fd, const sockaddr_in6* local) noexcept nogil:
    """Let a socket be bound to an address that this host does not have. 0, or an errno: EPERM without CAP_NET_RAW."""
    cdef int one = 1, failed
    if local.sin6_family == AF_INET:
        failed = setsockopt(fd, IPPROTO_IP, IP_TRANSPARENT, &one, sizeof(one))
    else:
        failed = setsockopt(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, &one, sizeof(one))
    return errno if failed else 0


cdef inline int connect_from(
    Session* session, const Target* to, const sockaddr_in6* local, bint transparent,
) noexcept nogil:
    """Begin to connect. 0, or an errno; then the session has no descriptor for the upstream.

    local: an address, and a port unless that is 0. NULL: the kernel chooses both. transparent: it is the client's.
    What else a connection needs is set when it is known to last, or before the second send (`send_bytes`).
    """
    cdef int one = 1, error = 0
    cdef int fd = socket(to.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if fd < 0:
        return errno
    if to.address.ss_family != AF_UNIX:
        # Later another connection can take its port over.
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one))
    if local != NULL:
        if local.sin6_port == 0:
            # Else bind() would choose a port that no connection to any destination has.
            setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one))
        if transparent:
            error = make_transparent(fd, local)
        if error == 0 and bind(fd, <const sockaddr*>local, to.size) != 0:
            error = errno
    if error == 0 and connect(fd, <const sockaddr*>&to.address, to.size) != 0 and errno != EINPROGRESS:
        error = errno
    if error:
        close(fd)
        return error
    session.flows[UPSTREAM].fd = fd
    return 0


cdef inline int connect_by_kernel(Session* session, const Target* to, const Route* route) noexcept nogil:
    """Begin to connect from a port that the kernel chooses, as `connect_from` does."""
    return connect_from(session, to, &route.source if route.source.sin6_family else NULL, False)


cdef inline int connect_by_route(Core* core, Session* session, const Target* to, int32_t number) noexcept nogil:
    """Begin to connect from a port of this route, as `connect_from` does. When ports are scarce, take over one that was
    left in TIME-WAIT, or choose one; the kernel would search long."""
    cdef Ports* ports = core.ports
    cdef Route* route = &ports.routes[number]
    cdef sockaddr_in6 local
    cdef bint scarce = is_scarce(ports, route)
    cdef int left_tries = LEFT_TRIES, chosen_tries = CHOSEN_TRIES if ports.chosen_count else 0
    cdef int error = EADDRNOTAVAIL if scarce else connect_by_kernel(session, to, route)
    while left_tries and is_port_taken(error) and take_left(core, route, &local):
        left_tries -= 1
        error = connect_from(session, to, &local, False)
    while chosen_tries and is_port_taken(error):
        chosen_tries -= 1
        memcpy(&local, &route.source, sizeof(local))
        local.sin6_family = to.address.ss_family
        local.sin6_port = htons(ports.chosen[route.chosen % ports.chosen_count])
        route.chosen += 1
        error = connect_from(session, to, &local, False)
    if scarce and is_port_taken(error):
        error = connect_by_kernel(session, to, route)
    return error


cdef inline int connect_as_client(
    Core* core, Session* session, const Target* to, const sockaddr_in6* client,
) noexcept nogil:
    """Begin to connect from the client's address, as `connect_from` does.

    The account has no route for it: each client has all ports of its own address, and a route for each would be memory
    that clients use up. The next one in turn is the one that was chosen longest ago. If a session has left it in
    TIME-WAIT, bind() lets this one take it over; the kernel's own choice would search among them for milliseconds.
    """
    cdef Ports* ports = core.ports
    cdef sockaddr_in6 local
    cdef int tries = CHOSEN_TRIES if ports.chosen_count else 1
    cdef int error = EADDRNOTAVAIL
    memcpy(&local, client, sizeof(local))
    while tries and is_port_taken(error):
        tries -= 1
        if ports.chosen_count:
            local.sin6_port = htons(ports.chosen[ports.turn % ports.chosen_count])
            ports.turn += 1
        error = connect_from(session, to, &local, True)
    # The kernel takes no connection from this address, such as one with a loopback address to another host. That is no
    # fault of the backend.
    return EADDRNOTAVAIL if error in (EINVAL, EPERM, EACCES) else error


cdef inline int open_connection(
    Core* core, Session* session, const Target* to, const sockaddr_in6* client,
) noexcept nogil:
    """Begin to connect, by the next route that has a port for the client's address. 0, or an errno."""
    cdef int k, error
    cdef int32_t number
    if client != NULL:
        return connect_as_client(core, session, to, client)
    if to.route_count == 0:
        return connect_from(session, to, NULL, False)
    for k in range(to.route_count):
        number = to.routes[(to.turn + <uint32_t>k) % <uint32_t>to.route_count]
        if take_port(core, session, number):
            error = connect_by_route(core, session, to, number)
            if not is_port_taken(error):
                return error
            return_port(core, session)
    return EADDRNOTAVAIL


cdef inline void begin_connect(
    Core* core, int32_t i, const Target* to, const sockaddr_in6* client, const char* first, uint32_t first_size,
) noexcept nogil:
    """Connect a session that has nothing yet but its client. After a failure it is closed, else connecting or open.

    client: the address to connect from, of the family of `to`; NULL: one of this host.
    """
    cdef Session* session = &core.table[i]
    cdef Flow* flow = &session.flows[CLIENT]
    cdef int error, fd
    cdef ssize_t sent = -1
    core.now = session.began = now_ns()
    session.state = S_CONNECTING
    session.counters.connecting += 1
    session.flows[UPSTREAM].fd = -1
    error = open_connection(core, session, to, client)
    if error:
        fail_connect(core, i, failure_of(error))
        return
    fd = session.flows[UPSTREAM].fd
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
        if flow.fin_received or (session.codec != NULL and session.codec.has_work):
            transfer(core, i, CLIENT)
        if session.state == S_OPEN:
            update_interest(core, i)
    else:
        start_deadline(core, i, Q_CONNECT)
        watch(core, i, UPSTREAM, EPOLLOUT)
