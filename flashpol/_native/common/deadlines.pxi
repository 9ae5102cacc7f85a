from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memset
from posix.time cimport clock_gettime, CLOCK_MONOTONIC, itimerspec, timespec

from flashpol._native.common.deadlines cimport Link, Queue, Timer
from flashpol._native.common.system cimport (
    epoll_ctl, EPOLL_CTL_ADD, epoll_event, EPOLLIN, TFD_CLOEXEC, TFD_NONBLOCK, TFD_TIMER_ABSTIME, timerfd_create,
    timerfd_settime,
)


cdef inline int64_t now_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return t.tv_sec * <int64_t>1_000_000_000 + t.tv_nsec


cdef inline void begin_queue(Queue* queue, Link* links, size_t stride, int64_t duration) noexcept nogil:
    queue.links = <char*>links
    queue.stride = stride
    queue.duration = duration
    queue.head = queue.tail = -1


cdef inline Link* link_of(const Queue* queue, int32_t i) noexcept nogil:
    return <Link*>(queue.links + <size_t>i * queue.stride)


cdef inline void enqueue(Queue* queue, Link* link, int32_t i, int64_t now) noexcept nogil:
    """`link` is that of entry `i`."""
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


cdef inline int32_t overdue_in(const Queue* queue, int64_t now) noexcept nogil:
    """The entry that has been overdue for longest, -1 if none is."""
    return queue.head if queue.head >= 0 and link_of(queue, queue.head).deadline <= now else -1


cdef inline bint open_timer(Timer* timer, int epoll) noexcept nogil:
    """Put a new timerfd into the epoll set. False: errno says why not; one that is open is the caller's to close."""
    cdef epoll_event event
    timer.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
    event.events = EPOLLIN
    event.data.u64 = ~<uint64_t>0
    return timer.fd >= 0 and epoll_ctl(epoll, EPOLL_CTL_ADD, timer.fd, &event) == 0


cdef inline bint is_timer(const epoll_event* event) noexcept nogil:
    return event.data.u64 == ~<uint64_t>0


cdef inline void set_timer(Timer* timer, int64_t deadline) noexcept nogil:
    """0 disarms it; what has passed fires at once."""
    cdef itimerspec at
    memset(&at, 0, sizeof(at))
    at.it_value.tv_sec = deadline // 1_000_000_000
    at.it_value.tv_nsec = deadline % 1_000_000_000
    timerfd_settime(timer.fd, TFD_TIMER_ABSTIME, &at, NULL)
    timer.armed = deadline


cdef inline void arm(Timer* timer, const Queue* queues, int count) noexcept nogil:
    """See that it fires no later than the earliest deadline. A setting left behind costs one idle wake-up."""
    cdef int i
    cdef int64_t earliest = 0, deadline
    for i in range(count):
        if queues[i].head >= 0:
            deadline = link_of(&queues[i], queues[i].head).deadline
            if earliest == 0 or deadline < earliest:
                earliest = deadline
    if earliest != 0 and (timer.armed == 0 or timer.armed > earliest):
        set_timer(timer, earliest)
