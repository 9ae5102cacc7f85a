# What a session waits for: the events that epoll is asked to report, and its deadlines.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from flashpol._native.common.deadlines cimport Link, Queue
from flashpol._native.common.system cimport (
    epoll_ctl, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLET, epoll_event, EPOLLIN, EPOLLOUT, EPOLLPRI,
    EPOLLRDHUP,
)
from flashpol._native.relay.state cimport CLIENT, Core, Flow, Q_IDLE, QUEUE_COUNT, Session


# --------------------------------------------------------------------------------------------------------------- events

cdef inline bint can_read(const Session* session, int side) noexcept nogil:
    """Reading from this side makes sense now."""
    cdef const Flow* flow = &session.flows[side]
    return not (flow.fin_received or flow.blocked or session.flows[1 - side].write_failed)


cdef inline uint32_t wanted_events(const Session* session, int side) noexcept nogil:
    """The events of an open session that can be acted on, and no others."""
    cdef uint32_t events = EPOLLIN if can_read(session, side) else 0
    if side == CLIENT and is_tunnel(session.codec):
        return 0
    if session.flows[1 - side].blocked and not session.flows[side].write_failed:
        events |= EPOLLOUT
    return events


cdef inline int epoll_operation(uint32_t watched, uint32_t wanted) noexcept nogil:
    if watched == 0:
        return EPOLL_CTL_ADD
    return EPOLL_CTL_MOD if wanted else EPOLL_CTL_DEL


cdef inline void watch(Core* core, int32_t i, int side, uint32_t wanted) noexcept nogil:
    """Have epoll watch this side for the events `wanted`; 0 takes it out of the set."""
    cdef Flow* flow = &core.table[i].flows[side]
    cdef epoll_event event
    if flow.watched == wanted:
        return
    event.events = wanted
    event.data.u64 = <uint64_t>i * 2 + <uint64_t>side
    if epoll_ctl(core.poller.epoll, epoll_operation(flow.watched, wanted), flow.fd, &event) == 0:
        flow.watched = wanted
    # Otherwise the kernel cannot watch it (max_user_watches, ENOMEM): a deadline ends the session.


cdef inline bint is_stale(const Flow* flow, uint32_t wanted) noexcept nogil:
    """This side has sent FIN, so it is not reported again, unless it sends RST."""
    return wanted == 0 and flow.watched & EPOLLET and flow.fin_received


cdef inline void update_interest(Core* core, int32_t i) noexcept nogil:
    """A side is watched edge-triggered, until it sends more than is read at once: then it needs no system call when it
    ends. When a descriptor is added, or what it is watched for modified, epoll looks whether it is ready now."""
    cdef int side
    cdef uint32_t wanted
    cdef Flow* flow
    for side in range(2):
        flow = &core.table[i].flows[side]
        wanted = wanted_events(&core.table[i], side)
        if flow.watched & EPOLLET:
            if is_stale(flow, wanted) or (wanted == EPOLLIN and flow.drained):
                continue
            flow.level = True
        elif wanted == EPOLLIN != flow.watched and not flow.level and core.table[i].codec == NULL:
            flow.drained = True
            # EPOLLPRI: a read ends before urgent data, whatever comes behind it.
            wanted |= EPOLLET | EPOLLRDHUP | EPOLLPRI
        watch(core, i, side, wanted)


cdef inline void note_report(Flow* flow, uint32_t events) noexcept nogil:
    """epoll has reported this side. A read that takes less than it could has not seen a FIN behind the bytes."""
    flow.drained = False
    if events & ~<uint32_t>(EPOLLIN | EPOLLOUT):
        flow.ending = True


cdef inline bint forget_stale(Core* core, int32_t i, int side) noexcept nogil:
    """This side was reported. True: there is nothing to do with it, and it will not be reported again."""
    cdef Session* session = &core.table[i]
    if not is_stale(&session.flows[side], wanted_events(session, side)):
        return False
    watch(core, i, side, 0)
    return True


# ------------------------------------------------------------------------------------------------------------ deadlines

cdef inline Queue* queue_of(const Core* core, const Session* session, int which) noexcept nogil:
    return &core.queues[session.timeouts * QUEUE_COUNT + which]


cdef inline int64_t earlier(int64_t one, int64_t other) noexcept nogil:
    """Of two deadlines; 0 is none."""
    return min(one, other) if one and other else max(one, other)


cdef inline void note_deadline(Core* core, int64_t deadline) noexcept nogil:
    """`arm_deadlines` is to make the timer fire no later than that."""
    core.due = earlier(core.due, deadline)


cdef inline void start_deadline(Core* core, int32_t i, int which) noexcept nogil:
    """Enter a deadline queue, unless its deadline never comes."""
    cdef Session* session = &core.table[i]
    cdef Queue* queue = queue_of(core, session, which)
    cdef Link* link = &session.links[which]
    cdef bint first = queue.head < 0
    if queue.duration:
        enqueue(queue, link, i, core.now)
        if first:
            note_deadline(core, link.deadline)


cdef inline void stop_deadline(Core* core, int32_t i, int which) noexcept nogil:
    cdef Session* session = &core.table[i]
    cdef Link* link = &session.links[which]
    if link.deadline:
        dequeue(queue_of(core, session, which), link)
        link.deadline = 0


cdef inline void arm_deadlines(Core* core) noexcept nogil:
    """Make the timer fire no later than the earliest deadline.

    Only an empty queue can get an earlier one, so the others are not looked at, however many sets of timeouts there
    are. When the timer has fired, end_overdue looks at all.
    """
    arm_timer_at(&core.poller, core.due)
    core.due = 0


cdef inline void restart_idle(Core* core, int32_t i) noexcept nogil:
    """Restart the idle deadline after traffic, at most once in 1/16 of idle_timeout, 1/17 of the queue's duration."""
    cdef Session* session = &core.table[i]
    if core.now - session.active > queue_of(core, session, Q_IDLE).duration // 17:
        stop_deadline(core, i, Q_IDLE)
        start_deadline(core, i, Q_IDLE)
        session.active = core.now
