# How a conversation ends, or its connecting fails: counted once, unwatched, given to its greenlet.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from posix.unistd cimport close

from flashpol._native.common.system cimport linger, setsockopt, SO_LINGER, SOL_SOCKET
from flashpol._native.relay.counters cimport (
    DURATION_BOUNDS, DURATION_BUCKETS, E_CLIENT_RESET, E_SHUTDOWN, E_UPSTREAM_RESET, END_COUNT, F_CUT, F_RESOURCES,
)
from flashpol._native.relay.state cimport (
    CLIENT, Conversation, Core, QUEUE_COUNT, S_CONNECTING, S_FREE, S_OPEN, S_OVER, UPSTREAM,
)


cdef inline void be_reset(int fd) noexcept nogil:
    """When it is closed, it sends RST."""
    cdef linger now
    now.l_onoff = 1
    now.l_linger = 0
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now))


cdef inline void fail(Core* core, int32_t i, uint8_t failure) noexcept nogil:
    """The upstream could not be reached."""
    cdef Conversation* c = &core.table[i]
    c.counters.connecting -= 1
    c.counters.failures[failure - END_COUNT] += 1
    if failure != F_RESOURCES and failure != F_CUT:
        c.streak[0] += 1
    leave(core, i, failure)


cdef inline void finish(Core* core, int32_t i, uint8_t end) noexcept nogil:
    cdef Conversation* c = &core.table[i]
    cdef int64_t duration = core.now - c.began
    c.counters.open -= 1
    c.counters.ends[end] += 1
    c.counters.duration_ns += <uint64_t>duration
    count(c.counters.duration_buckets, DURATION_BOUNDS, DURATION_BUCKETS - 1, duration)
    if end == E_CLIENT_RESET or c.flows[CLIENT].blocked:
        be_reset(c.flows[UPSTREAM].fd)
    if end == E_UPSTREAM_RESET or c.flows[UPSTREAM].blocked:
        be_reset(c.flows[CLIENT].fd)
    leave(core, i, end)


cdef inline void leave(Core* core, int32_t i, uint8_t outcome) noexcept nogil:
    """The upstream's descriptor is closed; the client's is its greenlet's to close, or to try again."""
    cdef Conversation* c = &core.table[i]
    cdef int side, which
    for which in range(QUEUE_COUNT):
        wait_no_more(core, i, which)
    for side in range(2):
        watch(core, i, side, 0)
        release(&core.pool, &c.flows[side])
    close(c.flows[UPSTREAM].fd)
    c.state = S_OVER
    c.outcome = outcome
    add_over(core, i)


cdef inline void cut(Core* core, int32_t i) noexcept nogil:
    if core.table[i].state == S_CONNECTING:
        fail(core, i, F_CUT)
    elif core.table[i].state == S_OPEN:
        finish(core, i, E_SHUTDOWN)


cdef inline int32_t take(Core* core) noexcept nogil:
    """A free one, -1 if there is none."""
    cdef int32_t i = core.free
    if i >= 0:
        core.free = core.table[i].next
    elif core.used < core.capacity:
        i = core.used
        core.used += 1
    else:
        return -1
    core.count += 1
    return i


cdef inline void put_back(Core* core, int32_t i) noexcept nogil:
    core.table[i].state = S_FREE
    core.table[i].next = core.free
    core.free = i
    core.count -= 1


cdef inline void add_over(Core* core, int32_t i) noexcept nogil:
    core.table[i].next = -1
    if core.over < 0:
        core.over = i
    else:
        core.table[core.over_last].next = i
    core.over_last = i


cdef inline int32_t take_over(Core* core) noexcept nogil:
    """The one that has been over for longest, -1 if none is."""
    cdef int32_t i = core.over
    if i >= 0:
        core.over = core.table[i].next
    return i


cdef inline void forget_over(Core* core, int32_t i) noexcept nogil:
    """It was over before its greenlet slept, and is the last of those to wake."""
    cdef int32_t k = core.over
    if k == i:
        core.over = core.over_last = -1
        return
    while core.table[k].next != i:
        k = core.table[k].next
    core.table[k].next = -1
    core.over_last = k
