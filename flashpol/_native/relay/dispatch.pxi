# What is ready or overdue, a bounded amount of it in one wake-up.

from libc.stdint cimport int32_t, uint32_t

from flashpol._native.common.system cimport epoll_event, epoll_wait, EPOLLIN, EPOLLOUT
from flashpol._native.relay.counters cimport E_DURATION, E_IDLE, F_TIMEOUT
from flashpol._native.relay.state cimport Conversation, Core, Q_CONNECT, Q_IDLE, QUEUE_COUNT, S_CONNECTING, S_OPEN

cdef enum:
    EVENTS = 64                 # taken at a time
    ROUNDS = 8                  # of EVENTS in one wake-up; then greenlets get their turn
    COLLECT = 256               # overdue ones of each queue in one wake-up


cdef inline void act(Core* core, int32_t i, int side, uint32_t events) noexcept nogil:
    cdef Conversation* c = &core.table[i]
    if c.state == S_CONNECTING:
        connected(core, i)
    elif c.state == S_OPEN:
        touch(core, i)
        # HUP and ERR are learnt by reading or writing, whichever it is the turn of.
        if events & ~<uint32_t>EPOLLIN and c.flows[1 - side].blocked:
            move(core, i, 1 - side)
        if events & ~<uint32_t>EPOLLOUT and c.state == S_OPEN and readable(c, side):
            move(core, i, side)
    if c.state == S_OPEN:
        observe(core, i)


cdef inline void expire(Core* core) noexcept nogil:
    cdef int which
    cdef int32_t i
    for which in range(QUEUE_COUNT):
        for _ in range(COLLECT):
            i = overdue_in(&core.queues[which], core.now)
            if i < 0:
                break
            if which == Q_CONNECT:
                fail(core, i, F_TIMEOUT)
            else:
                finish(core, i, E_IDLE if which == Q_IDLE else E_DURATION)
    # What is still overdue re-arms the timer at a time that has passed: it fires in the next round of the loop.
    set_timer(&core.timer, 0)


cdef inline void collect(Core* core) noexcept nogil:
    """Handle ready conversations, then overdue ones, a bounded number of each."""
    cdef epoll_event[EVENTS] events
    cdef int k, n
    cdef bint fired = False
    for _ in range(ROUNDS):
        n = epoll_wait(core.epoll, events, EVENTS, 0)
        core.now = now_ns()
        for k in range(n):
            if is_timer(&events[k]):
                fired = True
            else:
                act(core, <int32_t>(events[k].data.u64 >> 1), <int>(events[k].data.u64 & 1), events[k].events)
        if n < EVENTS:
            break
    if fired:
        expire(core)
    arm(&core.timer, core.queues, QUEUE_COUNT)
