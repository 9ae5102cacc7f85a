# Gate: what the fast path calls. A request is this worker's, another worker's, or for a session that there is not.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t

from flashpol._native.codecs.gate cimport Gate
from flashpol._native.http.tunnel_path cimport TK_NONE
from flashpol._native.tunnel.state cimport (
    Origin, Q_GAP, Q_GHOST, Q_HOLD, QUEUE_COUNT, T_OPEN, TunnelCore, TunnelSession, WINDOW,
)

cdef enum:
    MAX_OVERDUE = 256           # sessions of each queue that one wake-up handles


cdef inline int incarnation_of(const char* id) noexcept nogil:
    """-1: it is none."""
    cdef int high = value_of(id[1]), low = value_of(id[2])
    return high * BASE + low if high >= 0 and low >= 0 else -1


cdef void take_request(
    Gate* gate, int fd, uint16_t listener, uint8_t kind, const char* id, int64_t number, const char* body,
    uint32_t size,
) noexcept nogil:
    """Gate.request."""
    cdef TunnelCore* core = core_of(gate)
    cdef TunnelSession* session
    cdef Origin origin = Origin(fd, -1, 0, 0)
    # Whatever host it names: that may have changed by a reload.
    cdef int incarnation = incarnation_of(id) if id != NULL else -1
    core.now = now_ns()
    if core.listener_counters[listener] == NULL:
        reply_to(core, &origin, 404, NULL, 0)
        return
    if incarnation >= 0 and incarnation != core.incarnation and forward(
            core, incarnation, fd, listener, kind, id, number, body, size):
        return
    session = find_session(core, id) if incarnation == core.incarnation else NULL
    if session == NULL or session.state != T_OPEN:
        core.listener_counters[listener].unknown += 1
        reply_to(core, &origin, 404, NULL, 0)
    else:
        on_request(session, &origin, kind, number, body, size)


cdef void forget_request(Gate* gate, int fd) noexcept nogil:
    """Gate.forget."""
    cdef TunnelCore* core = core_of(gate)
    cdef int32_t i = core.waiting[fd]
    if i >= 0:
        core.waiting[fd] = -1
        forget_origin(&core.table[i], fd, -1, 0, 0)
    elif core.forwarded[fd].line >= 0:
        cancel_forwarded(core, fd)


cdef void hurry_request(Gate* gate, int fd) noexcept nogil:
    """Gate.hurry."""
    cdef TunnelCore* core = core_of(gate)
    if core.waiting[fd] >= 0:
        core.now = now_ns()
        hurry_origin(&core.table[core.waiting[fd]], fd, -1, 0, 0)
    elif core.forwarded[fd].line >= 0:
        hurry_forwarded(core, fd)


# ------------------------------------------------------------------------------------------------------------- wake-ups

cdef void join_resumed(TunnelSession* session) noexcept nogil:
    """Go on with what waits in its window, in the next wake-up."""
    if not session.resumes:
        session.resumes = True
        session.resumed_next = session.core.resumed
        session.core.resumed = number_of(session)
        fire_timer(&session.core.poller)


cdef void leave_resumed(TunnelSession* session) noexcept nogil:
    cdef int32_t* at = &session.core.resumed
    while at[0] != number_of(session):
        at = &session.core.table[at[0]].resumed_next
    at[0] = session.resumed_next
    session.resumes = False


cdef inline bint is_client_there(const TunnelSession* session, const Origin* origin) noexcept nogil:
    """Of a client of another worker it is not known: that its session is gone does it less harm than a ghost does."""
    return origin.fd >= 0 and session.core.gate.is_there(origin.fd)


cdef bint is_awaited(const TunnelSession* session) noexcept nogil:
    """A client waits for the reply to one of its requests."""
    cdef int k
    for k in range(WINDOW):
        if session.early[k].kind != TK_NONE and (
                is_client_there(session, &session.early[k].origin)
                or is_client_there(session, &session.early[k].other)):
            return True
    return session.kind != TK_NONE and is_client_there(session, &session.asking)


cdef void on_deadline(TunnelSession* session, int which) noexcept nogil:
    if which == Q_HOLD:
        answer(session)
    elif which == Q_GAP:
        stop(session, Q_GAP)
        pass_gap(session)
    elif is_awaited(session):
        # Its client is there, and can send nothing: it waits for a slow upstream.
        stop(session, Q_GHOST)
        start(session, Q_GHOST)
        session.heard = session.core.now
    else:
        stop(session, Q_GHOST)
        session.core.account.lose_session(session.core.account.relay, session.fd)
        end_requests(session)


cdef void run_deadlines(TunnelCore* core) noexcept nogil:
    cdef int32_t i
    cdef int number, left
    cdef TunnelSession* session
    core.now = now_ns()
    while core.resumed >= 0:
        session = &core.table[core.resumed]
        leave_resumed(session)
        carry_out_early(session)
    for number in range(core.timeouts_count * QUEUE_COUNT):
        left = MAX_OVERDUE
        i = first_overdue(&core.queues[number], core.now)
        while i >= 0 and left:
            left -= 1
            on_deadline(&core.table[i], number % QUEUE_COUNT)
            i = first_overdue(&core.queues[number], core.now)
    set_timer(&core.poller, 0)
    for number in range(core.timeouts_count * QUEUE_COUNT):
        if core.queues[number].head >= 0:
            arm(core, link_of(&core.queues[number], core.queues[number].head).deadline)
    if core.resumed >= 0:
        fire_timer(&core.poller)


cdef void dispatch(TunnelCore* core) noexcept nogil:
    cdef epoll_event[EVENTS] events
    cdef int k
    cdef int n = epoll_wait(core.poller.epoll, events, EVENTS, 0)
    core.now = now_ns()
    for k in range(n):
        if is_timer(&events[k]):
            run_deadlines(core)
        else:
            on_line_ready(core, <int32_t>events[k].data.u64, events[k].events)
