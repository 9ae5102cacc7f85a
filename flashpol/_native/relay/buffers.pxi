# The pool of buffers, and what a flow holds in one.

from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from flashpol._native.relay.buffers cimport CHUNK, KEPT
from flashpol._native.relay.state cimport Flow, Pool


cdef inline char* take_buffer(Pool* pool) noexcept nogil:
    """A buffer. NULL: the limit is reached, or there is no memory."""
    cdef char* buffer = pool.free
    if buffer != NULL:
        pool.free = (<char**>buffer)[0]
        pool.idle -= 1
    elif pool.made < pool.max_made:
        buffer = <char*>malloc(CHUNK)
        if buffer != NULL:
            pool.made += 1
    return buffer


cdef inline void return_buffer(Pool* pool, char* buffer) noexcept nogil:
    if pool.spare == NULL:
        pool.spare = buffer
    elif pool.idle < KEPT:
        (<char**>buffer)[0] = pool.free
        pool.free = buffer
        pool.idle += 1
    else:
        free(buffer)
        pool.made -= 1


cdef inline void hold_scratch(Pool* pool, Flow* flow, uint32_t begin, uint32_t end) noexcept nogil:
    """Keep these bytes of the scratch buffer for later. The caller has checked that there is a spare buffer."""
    flow.held = pool.scratch
    flow.pooled = True
    flow.begin = begin
    flow.end = end
    pool.scratch = pool.spare
    pool.spare = take_buffer(pool)


cdef inline bint hold_first(Flow* flow, const char* first, uint32_t size) noexcept nogil:
    """Keep a copy of what the fast path read, outside the pool: once for each session. False: there is no memory."""
    flow.held = <char*>malloc(size)
    if flow.held == NULL:
        return False
    memcpy(flow.held, first, size)
    flow.pooled = False
    flow.begin = 0
    flow.end = size
    return True


cdef inline void release_held(Pool* pool, Flow* flow) noexcept nogil:
    if flow.held != NULL:
        if flow.pooled:
            return_buffer(pool, flow.held)
        else:
            free(flow.held)
        flow.held = NULL


cdef inline uint32_t in_use(const Pool* pool) noexcept nogil:
    """Buffers that flows hold."""
    return pool.made - pool.idle - 1 - (pool.spare != NULL)


cdef inline void free_pool(Pool* pool) noexcept nogil:
    cdef char* buffer
    free(pool.scratch)
    free(pool.spare)
    while pool.free != NULL:
        buffer = pool.free
        pool.free = (<char**>buffer)[0]
        free(buffer)
