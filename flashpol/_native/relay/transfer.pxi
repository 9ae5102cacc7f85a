# The only reader and writer of bytes: read, send at once, keep only what was not taken; then FIN and RST.

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from flashpol._native.common.system cimport MSG_NOSIGNAL, MSG_PEEK, recv, send, SHUT_WR, shutdown
from flashpol._native.relay.buffers cimport CHUNK
from flashpol._native.relay.counters cimport E_CLIENT_RESET, E_UPSTREAM_RESET, END_COUNT
from flashpol._native.relay.state cimport CLIENT, Conversation, Core, Flow, Pool, UPSTREAM

cdef enum:
    READS = 4                   # of one direction in a row, before others get their turn


cdef inline bint put(
    Core* core, Conversation* c, int side, const char* data, uint32_t size, uint32_t* taken,
) noexcept nogil:
    """Send what `side` sent to the other; `taken` bytes of it. False: nothing can be sent there any more."""
    cdef Flow* to = &c.flows[1 - side]
    cdef ssize_t n
    taken[0] = 0
    n = send(to.fd, data, size, MSG_NOSIGNAL)
    while n < 0 and errno == EINTR:
        n = send(to.fd, data, size, MSG_NOSIGNAL)
    if n >= 0:
        taken[0] = <uint32_t>n
        c.counters.sent[side] += <uint64_t>n
        if side == UPSTREAM:
            c.sent += <uint64_t>n
    elif errno != EAGAIN:
        to.broken = True
        c.flows[side].blocked = False
        release(&core.pool, &c.flows[side])
        return False
    c.flows[side].blocked = taken[0] < size
    return True


cdef inline int get(Core* core, Conversation* c, int side) noexcept nogil:
    """Read once, and send that. 1: there may be more; 0: there is not, or it would not be taken; -1: FIN; -2: error."""
    cdef Flow* flow = &c.flows[side]
    cdef Pool* pool = &core.pool
    cdef bint peek = pool.spare == NULL
    cdef uint32_t taken = 0
    cdef ssize_t n = recv(flow.fd, pool.scratch, CHUNK, MSG_PEEK if peek else 0)
    if n <= 0:
        if n == 0:
            return -1
        return 0 if errno == EAGAIN or errno == EINTR else -2
    if not put(core, c, side, pool.scratch, <uint32_t>n, &taken):
        return 0
    if peek:
        if taken:
            recv(flow.fd, pool.scratch, taken, 0)
    elif flow.blocked:
        hold_scratch(pool, flow, taken, <uint32_t>n)
    return n == CHUNK and not flow.blocked


cdef inline bint flush(Core* core, Conversation* c, int side) noexcept nogil:
    """Send what is held. True: nothing is any more, and more can be read."""
    cdef Flow* flow = &c.flows[side]
    cdef uint32_t taken = 0
    if flow.held != NULL:
        if not put(core, c, side, flow.held + flow.begin, flow.end - flow.begin, &taken):
            return False
        flow.begin += taken
        if flow.blocked:
            return False
        release(&core.pool, flow)
    flow.blocked = False
    return True


cdef inline void move(Core* core, int32_t i, int side) noexcept nogil:
    """Move what `side` sends, as far as the other takes it and others can wait, and do what follows."""
    cdef Conversation* c = &core.table[i]
    cdef Flow* flow = &c.flows[side]
    cdef int got = 1
    if flush(core, c, side) and readable(c, side):
        for _ in range(READS):
            got = get(core, c, side)
            if got <= 0:
                break
        if got == -1:
            flow.ended = True
            if c.first_fin == END_COUNT:
                c.first_fin = <uint8_t>side
    if got == -2 or (flow.broken and (flow.ended or c.flows[1 - side].broken)):
        # Reset by this side: it has said all that it will.
        finish(core, i, E_CLIENT_RESET if side == CLIENT else E_UPSTREAM_RESET)
    elif c.flows[1 - side].broken and c.flows[1 - side].ended:
        # Reset by the other, which had said everything before.
        finish(core, i, E_UPSTREAM_RESET if side == CLIENT else E_CLIENT_RESET)
    elif flow.ended and flow.held == NULL and not flow.passed:
        flow.passed = True
        if c.flows[1 - side].passed:
            finish(core, i, c.first_fin)
        else:
            shutdown(c.flows[1 - side].fd, SHUT_WR)
