# The clock, the deadline queues and the one timer for all of them.

from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memset
from posix.time cimport clock_gettime, itimerspec, timespec, CLOCK_MONOTONIC

from flashpol._core.state cimport Core, Q_NONE, QUEUE_COUNT, Queue, Record
from flashpol._core.system cimport TFD_TIMER_ABSTIME, timerfd_settime


cdef inline int64_t now_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return t.tv_sec * <int64_t>1_000_000_000 + t.tv_nsec


cdef inline void enqueue(Core* core, int fd, uint8_t which) noexcept nogil:
    cdef Queue* queue = &core.queues[which]
    cdef Record* record = &core.records[fd]
    record.queue = which
    record.deadline = now_ns() + queue.duration
    record.next = -1
    record.prev = queue.tail
    if queue.tail < 0:
        queue.head = fd
    else:
        core.records[queue.tail].next = fd
    queue.tail = fd


cdef inline void dequeue(Core* core, int fd) noexcept nogil:
    cdef Record* record = &core.records[fd]
    cdef Queue* queue
    if record.queue == Q_NONE:
        return
    queue = &core.queues[record.queue]
    if record.prev < 0:
        queue.head = record.next
    else:
        core.records[record.prev].next = record.next
    if record.next < 0:
        queue.tail = record.prev
    else:
        core.records[record.next].prev = record.prev
    record.queue = Q_NONE


cdef inline void arm(Core* core) noexcept nogil:
    """See that the timer fires no later than the earliest deadline. A setting left behind costs one idle wake-up."""
    cdef int i
    cdef int64_t earliest = 0, deadline
    cdef itimerspec at
    for i in range(QUEUE_COUNT):
        if core.queues[i].head >= 0:
            deadline = core.records[core.queues[i].head].deadline
            if earliest == 0 or deadline < earliest:
                earliest = deadline
    if earliest == 0 or (core.armed != 0 and core.armed <= earliest):
        return
    memset(&at, 0, sizeof(at))
    at.it_value.tv_sec = earliest // 1_000_000_000
    at.it_value.tv_nsec = earliest % 1_000_000_000
    timerfd_settime(core.timer, TFD_TIMER_ABSTIME, &at, NULL)
    core.armed = earliest


cdef inline void disarm(Core* core) noexcept nogil:
    cdef itimerspec never
    memset(&never, 0, sizeof(never))
    timerfd_settime(core.timer, 0, &never, NULL)
