# What must hold between two calls of the pump, for tests.
#
#   state        deadlines               watched                        counted
#   FREE         none                    nothing                        in the list of free sessions
#   CONNECTING   Q_CONNECT               the upstream, for output       connecting
#   OPEN         Q_IDLE, Q_DURATION;     what the flags of both         open
#                Q_SILENT until a side   flows ask for
#                has sent a byte;
#                Q_YOUNG, which is not
#                checked; with
#                a codec that can ping
#                Q_PING, from its own
#                end on Q_CLOSING; of a
#                tunnel Q_CLOSING once
#                its client's FIN is sent
#   CLOSED       none                    nothing                        in the list of closed sessions
#
# The timer fires no later than the earliest deadline. A client's descriptor leads to its session while that is
# CONNECTING or OPEN. A local port is counted for one route, for one address and in one block: that of a session while
# it is CONNECTING or OPEN, and one in TIME-WAIT as long as that lasts.

from libc.stdint cimport int32_t, int64_t, uint32_t

from flashpol._native.common.deadlines cimport Queue
from flashpol._native.common.system cimport EPOLLET, EPOLLIN, EPOLLOUT
from flashpol._native.relay.buffers cimport KEPT
from flashpol._native.relay.ports cimport PortHolder, LEFT_COUNT, LEFT_SLACK, LeftPort, Route
from flashpol._native.relay.state cimport (
    CLIENT, Core, Flow, Pool, Q_CLOSING, Q_CONNECT, Q_PING, Q_SILENT, Q_YOUNG, QUEUE_COUNT, S_CLOSED, S_CONNECTING,
    S_FREE, S_OPEN, Session, UPSTREAM,
)


cdef bint has_deadline(const Core* core, const Session* session, int which) noexcept nogil:
    if queue_of(core, session, which).duration == 0:
        return False
    if which == Q_YOUNG:
        return session.state == S_OPEN and session.links[Q_YOUNG].deadline != 0
    if which == Q_SILENT and not is_silent(session):
        return False
    if which == Q_PING or which == Q_CLOSING:
        # The codec of a session that has ended may be freed. While bytes before our Close are held, it is not sent.
        if session.state == S_OPEN and is_tunnel(session.codec):
            return which == Q_CLOSING and session.flows[CLIENT].fin_sent
        return (session.state == S_OPEN and closes_by_message(session.codec)
                and session.codec.finished == (which == Q_CLOSING)
                and (which == Q_PING or session.flows[UPSTREAM].held == NULL or session.links[which].deadline != 0))
    return session.state == (S_CONNECTING if which == Q_CONNECT else S_OPEN)


cdef const char* find_flow_violation(const Session* session, int side) noexcept nogil:
    cdef const Flow* flow = &session.flows[side]
    cdef uint32_t wanted = 0
    if session.state == S_OPEN:
        wanted = wanted_events(session, side)
    elif session.state == S_CONNECTING and side == UPSTREAM:
        wanted = EPOLLOUT
    if flow.watched & EPOLLET:
        if wanted != EPOLLIN and not is_stale(flow, wanted):
            return b"epoll watches a side that its session waits for no input of"
        if wanted and not flow.drained:
            return b"a side that was not read to its end is watched for what comes next only"
    elif flow.watched != wanted:
        return b"epoll watches a side for other events than its session can act on"
    if flow.held != NULL:
        if session.state == S_FREE or session.state == S_CLOSED:
            return b"a session that has ended holds a buffer"
        if not flow.blocked or flow.begin >= flow.end:
            return b"a flow holds bytes and is not blocked by them"
    # Where ends are messages, the client gets FIN once both sides have sent theirs.
    if flow.fin_sent and not flow.fin_received and session.state == S_OPEN and (
            side == CLIENT or session.codec == NULL or not (session.codec.ended and session.codec.finished)):
        return b"a FIN was sent that was not received"
    return NULL


cdef const char* find_session_violation(Core* core, const Session* session) noexcept nogil:
    cdef int which, side
    cdef const char* wrong
    for which in range(QUEUE_COUNT):
        if (session.links[which].deadline != 0) != has_deadline(core, session, which):
            return b"a session has a deadline that is not one of its state, or lacks one"
    for side in range(2):
        wrong = find_flow_violation(session, side)
        if wrong != NULL:
            return wrong
    return NULL


cdef bint has_port(const Session* session) noexcept nogil:
    return (session.state == S_CONNECTING or session.state == S_OPEN) and session.route >= 0


cdef const char* find_left_violation(Core* core, int32_t number, const Queue* queue, int32_t counted) noexcept nogil:
    """Check one queue of ports in TIME-WAIT, of this route."""
    cdef int32_t i = queue.head, before = -1, length = 0
    cdef const LeftPort* left
    if i >= 0 and not 0 < core.poller.timer.armed <= link_of(queue, i).deadline + LEFT_SLACK:
        return b"the timer fires too late for a port in TIME-WAIT"
    while i >= 0:
        left = &core.ports.left[i]
        if left.route != number or left.link.prev != before or length > LEFT_COUNT:
            return b"a queue of ports in TIME-WAIT is out of order"
        if (left.holder >= 0) != (queue == &core.ports.routes[number].blocked):
            return b"a port in TIME-WAIT counts for the wrong address"
        length += 1
        before = i
        i = left.link.next
    if length != counted or queue.tail != before:
        return b"ports in TIME-WAIT are not counted"
    return NULL


cdef const char* find_holder_violation(Core* core) noexcept nogil:
    """Compare the number of ports of each address with its sessions and what they left."""
    cdef int32_t number, i, expected
    cdef const PortHolder* holder
    for number in range(core.ports.holders_used):
        holder = &core.ports.holders[number]
        expected = 0
        for i in range(core.used):
            expected += has_port(&core.table[i]) and core.table[i].holder == number
        for i in range(core.ports.left_used):
            expected += core.ports.left[i].route >= 0 and core.ports.left[i].holder == number
        if holder.count != expected:
            return b"an address has another number of ports than is counted"
        if holder.count and find_port_holder(core.ports, holder.route, holder.address) != number:
            return b"an address that has ports cannot be found"
    return NULL


cdef const char* find_port_violation(Core* core) noexcept nogil:
    cdef int32_t number, i, used
    cdef const Route* route
    cdef const char* wrong
    for number in range(core.ports.route_count):
        route = &core.ports.routes[number]
        used = 0
        for i in range(core.used):
            used += has_port(&core.table[i]) and core.table[i].route == number
        if route.used != used or in_use_of(route) > core.ports.limit + LEFT_COUNT:
            return b"the ports of a route are not those of its sessions"
        wrong = find_left_violation(core, number, &route.reusable, route.reusable_count)
        if wrong == NULL:
            wrong = find_left_violation(core, number, &route.blocked, route.blocked_count)
        if wrong != NULL:
            return wrong
    return find_holder_violation(core)


cdef const char* find_client_violation(Core* core) noexcept nogil:
    """Compare the index of the clients' descriptors with the sessions."""
    cdef int32_t i, indexed = 0, expected = 0
    cdef int fd
    for i in range(core.used):
        if core.table[i].state == S_CONNECTING or core.table[i].state == S_OPEN:
            expected += 1
            if session_of(core, core.table[i].flows[CLIENT].fd) != i:
                return b"a client's descriptor does not lead to its session"
    for fd in range(core.clients_size):
        indexed += core.clients[fd] >= 0
    if indexed != expected:
        return b"a descriptor leads to a session that has ended"
    return NULL


cdef const char* find_queue_violation(Core* core, int timeouts, int which) noexcept nogil:
    cdef Queue* queue = &core.queues[timeouts * QUEUE_COUNT + which]
    cdef int32_t i = queue.head, before = -1, length = 0, expected = 0
    cdef int64_t deadline = 0
    cdef Session* session
    if i >= 0 and not 0 < core.poller.timer.armed <= link_of(queue, i).deadline:
        return b"the timer fires after a deadline"
    while i >= 0:
        session = &core.table[i]
        if session.timeouts != timeouts or not has_deadline(core, session, which):
            return b"a session is in a queue that is not one of its state"
        if session.links[which].prev != before or session.links[which].deadline < deadline:
            return b"a queue is out of order"
        if length > core.used:
            return b"a queue is a ring"
        length += 1
        deadline = session.links[which].deadline
        before = i
        i = session.links[which].next
    if queue.tail != before:
        return b"a queue does not end at its tail"
    for i in range(core.used):
        expected += core.table[i].timeouts == timeouts and has_deadline(core, &core.table[i], which)
    if length != expected:
        return b"a session is not in the queue of its state"
    return NULL


cdef const char* find_list_violation(Core* core, int32_t i, int state) noexcept nogil:
    """Check the list that begins at `i` and must have all sessions of that state."""
    cdef int32_t length = 0, expected = 0, k
    while i >= 0:
        if core.table[i].state != state or length > core.used:
            return b"a list of free or closed sessions has another session in it"
        length += 1
        i = core.table[i].next
    for k in range(core.used):
        expected += core.table[k].state == state
    if length != expected:
        return b"a free or closed session is not in its list"
    return NULL


cdef const char* find_pool_violation(Core* core) noexcept nogil:
    cdef Pool* pool = &core.pool
    cdef char* buffer = pool.free
    cdef uint32_t idle = 0, held = 0
    cdef int32_t i
    cdef int side
    while buffer != NULL and idle <= pool.idle:
        idle += 1
        buffer = (<char**>buffer)[0]
    if idle != pool.idle or idle > KEPT:
        return b"the list of free buffers is not as long as counted"
    for i in range(core.used):
        for side in range(2):
            if core.table[i].flows[side].held != NULL and core.table[i].flows[side].pooled:
                held += 1
    if pool.made > pool.max_made or held != in_use(pool):
        return b"a buffer is lost"
    return NULL


cdef const char* find_gauge_violation(Core* core, const Session* session) noexcept nogil:
    """Compare the gauges of this session's block with all sessions that are counted there."""
    cdef int64_t open = 0, connecting = 0, ports = 0
    cdef int32_t i
    for i in range(core.used):
        if core.table[i].counters == session.counters:
            open += core.table[i].state == S_OPEN
            connecting += core.table[i].state == S_CONNECTING
            ports += has_port(&core.table[i])
    for i in range(core.ports.left_used):
        ports += core.ports.left[i].route >= 0 and core.ports.left[i].counters == session.counters
    if open != session.counters.open or connecting != session.counters.connecting or ports != session.counters.ports:
        return b"the gauges differ from the sessions"
    return NULL


cdef const char* find_violation(Core* core) noexcept nogil:
    """What is wrong, NULL if nothing."""
    cdef int32_t i, in_table = 0
    cdef int timeouts, which
    cdef const char* wrong
    cdef Session* session
    for i in range(core.used):
        session = &core.table[i]
        if session.state > S_CLOSED:
            return b"a session has no state"
        in_table += session.state != S_FREE
        wrong = find_session_violation(core, session)
        if wrong == NULL and (session.state == S_OPEN or session.state == S_CONNECTING):
            wrong = find_gauge_violation(core, session)
        if wrong != NULL:
            return wrong
    if in_table != core.count:
        return b"the number of sessions differs from the table"
    for timeouts in range(core.timeouts_count):
        for which in range(QUEUE_COUNT):
            wrong = find_queue_violation(core, timeouts, which)
            if wrong != NULL:
                return wrong
    wrong = find_list_violation(core, core.free, S_FREE)
    if wrong == NULL:
        wrong = find_list_violation(core, core.closed, S_CLOSED)
    if wrong == NULL:
        wrong = find_pool_violation(core)
    if wrong == NULL:
        wrong = find_client_violation(core)
    if wrong == NULL:
        wrong = find_port_violation(core)
    return wrong
