# Which conversations are free, and which are over and wait for their greenlets.

from libc.stdint cimport int32_t

from flashpol._native.relay.state cimport Core, S_FREE


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
