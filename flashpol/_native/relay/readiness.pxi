# What epoll is asked to report of a conversation: only what it can act on.

from libc.stdint cimport int32_t, uint32_t, uint64_t

from flashpol._native.common.deadlines cimport Link
from flashpol._native.common.system cimport (
    epoll_ctl, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, epoll_event, EPOLLIN, EPOLLOUT,
)
from flashpol._native.relay.state cimport Conversation, Core, Flow, Q_IDLE


cdef inline int operation(uint32_t now, uint32_t wanted) noexcept nogil:
    if now == 0:
        return EPOLL_CTL_ADD
    return EPOLL_CTL_MOD if wanted else EPOLL_CTL_DEL


cdef inline void watch(Core* core, int32_t i, int side, uint32_t wanted) noexcept nogil:
    """Have epoll watch this side for `wanted`."""
    cdef Flow* flow = &core.table[i].flows[side]
    cdef epoll_event event
    if flow.watched == wanted:
        return
    # close() would take it out of the set, unless a fork of the embedding program holds a copy.
    event.events = wanted
    event.data.u64 = <uint64_t>i * 2 + <uint64_t>side
    if epoll_ctl(core.epoll, operation(flow.watched, wanted), flow.fd, &event) == 0:
        flow.watched = wanted
    # Else the kernel has no room to watch it (max_user_watches, ENOMEM): a deadline ends it.


cdef inline bint readable(Conversation* c, int side) noexcept nogil:
    """It makes sense to read from this side."""
    return not (c.flows[side].ended or c.flows[side].blocked or c.flows[1 - side].broken)


cdef inline void observe(Core* core, int32_t i) noexcept nogil:
    cdef Conversation* c = &core.table[i]
    cdef int side
    cdef uint32_t wanted
    for side in range(2):
        wanted = EPOLLIN if readable(c, side) else 0
        if c.flows[1 - side].blocked and not c.flows[side].broken:
            wanted |= EPOLLOUT
        watch(core, i, side, wanted)


cdef inline void wait(Core* core, int32_t i, int which) noexcept nogil:
    """Unless that queue's deadline never comes."""
    if core.queues[which].duration:
        enqueue(&core.queues[which], &core.table[i].links[which], i, core.now)


cdef inline void wait_no_more(Core* core, int32_t i, int which) noexcept nogil:
    cdef Link* link = &core.table[i].links[which]
    if link.deadline:
        dequeue(&core.queues[which], link)
        link.deadline = 0


cdef inline void touch(Core* core, int32_t i) noexcept nogil:
    """Bytes have moved."""
    cdef Conversation* c = &core.table[i]
    if core.now - c.active > core.queues[Q_IDLE].duration // 17:
        wait_no_more(core, i, Q_IDLE)
        wait(core, i, Q_IDLE)
        c.active = core.now
