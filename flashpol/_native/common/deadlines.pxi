# The clock, and the operations on a deadline queue. deadlines.pxd explains the queue.

from libc.stdint cimport int32_t, int64_t
from posix.time cimport clock_gettime, CLOCK_MONOTONIC, timespec

from flashpol._native.common.deadlines cimport Link, Queue


cdef inline int64_t now_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return t.tv_sec * <int64_t>1_000_000_000 + t.tv_nsec


cdef inline void init_queue(Queue* queue, Link* links, size_t stride, int64_t duration) noexcept nogil:
    queue.links = <char*>links
    queue.stride = stride
    queue.duration = duration
    queue.head = queue.tail = -1


cdef inline Link* link_of(const Queue* queue, int32_t i) noexcept nogil:
    return <Link*>(queue.links + <size_t>i * queue.stride)


cdef inline void enqueue(Queue* queue, Link* link, int32_t i, int64_t now) noexcept nogil:
    """Append entry `i`, whose Link is `link`."""
    link.deadline = now + queue.duration
    link.next = -1
    link.prev = queue.tail
    if queue.tail < 0:
        queue.head = i
    else:
        link_of(queue, queue.tail).next = i
    queue.tail = i


cdef inline void dequeue(Queue* queue, const Link* link) noexcept nogil:
    if link.prev < 0:
        queue.head = link.next
    else:
        link_of(queue, link.prev).next = link.next
    if link.next < 0:
        queue.tail = link.prev
    else:
        link_of(queue, link.next).prev = link.prev


cdef inline int32_t first_overdue(const Queue* queue, int64_t now) noexcept nogil:
    """The entry with the earliest deadline if that has passed, else -1."""
    return queue.head if queue.head >= 0 and link_of(queue, queue.head).deadline <= now else -1
