# Handles what is ready or overdue, a limited amount of it in one wake-up.
#
# Until a wake-up returns, the event loop accepts no connection and replies to no policy request. What is left over
# keeps the epoll descriptor readable, so the loop comes back after one round. All events that epoll_wait has returned
# are handled: it returns next those that it has not returned for longest, so each session has its turn.

from libc.stdint cimport int32_t, int64_t, uint32_t

from flashpol._native.common.deadlines cimport Queue
from flashpol._native.common.system cimport epoll_event, epoll_wait, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from flashpol._native.relay.counters cimport E_CLIENT, E_DURATION, E_IDLE, E_SILENT, E_UPSTREAM, F_TIMEOUT
from flashpol._native.relay.state cimport (
    CLIENT, Core, Q_CLOSING, Q_CONNECT, Q_IDLE, Q_PING, Q_SILENT, Q_YOUNG, QUEUE_COUNT, S_CONNECTING, S_OPEN, Session,
)

cdef enum:
    EVENTS = 32                 # taken at a time; each may move READS times CHUNK
    WAKE_NS = 500_000           # no more events are taken after so long, or after so many bytes
    WAKE_BYTES = 524288
    MAX_OVERDUE = 64            # sessions that one wake-up ends because of a deadline
    MAX_WOKEN = 32              # greenlets of ended sessions that one wake-up switches to, each for about 15 µs


cdef inline void on_ready(Core* core, int32_t i, int side, uint32_t events) noexcept nogil:
    cdef Session* session = &core.table[i]
    if session.state == S_CONNECTING:
        on_connected(core, i)
    elif session.state == S_OPEN and not forget_stale(core, i, side):
        note_report(&session.flows[side], events)
        if session.codec == NULL or events & ~<uint32_t>EPOLLIN:
            restart_idle(core, i)                       # a codec may move none of the application's bytes
        # HUP and ERR have no branch of their own: the next read or write of that side reports them.
        if events & ~<uint32_t>(EPOLLIN | EPOLLRDHUP) and session.flows[1 - side].blocked:
            transfer(core, i, 1 - side)
        if events & ~<uint32_t>EPOLLOUT and session.state == S_OPEN and can_read(session, side):
            transfer(core, i, side)
    if session.state == S_OPEN:
        update_interest(core, i)


cdef inline void on_deadline(Core* core, int32_t i, int which) noexcept nogil:
    if which == Q_CONNECT:
        fail_connect(core, i, F_TIMEOUT)
    elif which == Q_SILENT:
        end_session(core, i, E_SILENT)
    elif which == Q_YOUNG:
        stop_deadline(core, i, Q_YOUNG)
        set_lasting_options(&core.table[i])
    elif which == Q_PING:
        on_tick(core, i)
        if core.table[i].state == S_OPEN:
            update_interest(core, i)
    elif which == Q_CLOSING and core.table[i].flows[CLIENT].held != NULL:
        # The client has said all; the upstream takes its time, for which idle_timeout is the limit.
        stop_deadline(core, i, Q_CLOSING)
        start_deadline(core, i, Q_CLOSING)
    elif which == Q_CLOSING:
        end_session(core, i, E_CLIENT if core.table[i].first_fin == CLIENT else E_UPSTREAM)
    else:
        end_session(core, i, E_IDLE if which == Q_IDLE else E_DURATION)


cdef inline void end_overdue(Core* core) noexcept nogil:
    """The timer has fired: end what is overdue, and set it to the next deadline."""
    cdef int32_t i, left = MAX_OVERDUE
    cdef int number
    cdef int64_t earliest = forget_all_expired(core)
    cdef Queue* queue
    for number in range(core.timeouts_count * QUEUE_COUNT):
        queue = &core.queues[number]
        i = first_overdue(queue, core.now)
        while i >= 0 and left:
            left -= 1
            on_deadline(core, i, number % QUEUE_COUNT)
            i = first_overdue(queue, core.now)
        if queue.head >= 0:
            earliest = earlier(earliest, link_of(queue, queue.head).deadline)
    # Sessions that are still overdue set it to a time that has passed: it fires in the loop's next round. Those that
    # ended may have left ports.
    set_timer(&core.poller, earlier(earliest, core.due))
    core.due = 0


cdef inline void dispatch(Core* core) noexcept nogil:
    cdef epoll_event[EVENTS] events
    cdef int k, n
    cdef bint fired = False
    core.now = now_ns()
    core.wake_end = core.now + WAKE_NS
    core.bytes_left = WAKE_BYTES
    while True:
        n = epoll_wait(core.poller.epoll, events, EVENTS, 0)
        for k in range(n):
            if is_timer(&events[k]):
                fired = True
            else:
                on_ready(core, <int32_t>(events[k].data.u64 >> 1), <int>(events[k].data.u64 & 1), events[k].events)
        core.now = now_ns()
        if n < EVENTS or core.bytes_left <= 0 or core.now >= core.wake_end:
            break
    if fired:
        end_overdue(core)
    arm_deadlines(core)
