# Opening and closing an epoll set with its timer; arming the timer to the earliest deadline.

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, itimerspec
from posix.unistd cimport close

from flashpol._native.common.deadlines cimport Queue
from flashpol._native.common.poller cimport Poller
from flashpol._native.common.system cimport (
    EPOLL_CLOEXEC, epoll_create1, epoll_ctl, EPOLL_CTL_ADD, epoll_event, EPOLLIN, TFD_CLOEXEC, TFD_NONBLOCK,
    TFD_TIMER_ABSTIME, timerfd_create, timerfd_settime,
)


cdef inline bint open_poller(Poller* poller) noexcept nogil:
    """False: the kernel gave no descriptor, and errno says why. close_poller closes what is open."""
    cdef epoll_event event
    poller.timer.fd = -1
    poller.epoll = epoll_create1(EPOLL_CLOEXEC)
    poller.is_opened = True
    if poller.epoll < 0:
        return False
    poller.timer.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
    event.events = EPOLLIN
    event.data.u64 = ~<uint64_t>0
    return poller.timer.fd >= 0 and epoll_ctl(poller.epoll, EPOLL_CTL_ADD, poller.timer.fd, &event) == 0


cdef inline void close_poller(Poller* poller) noexcept nogil:
    """Close what open_poller opened. Nothing happens if it was never called."""
    if not poller.is_opened:
        return
    if poller.timer.fd >= 0:
        close(poller.timer.fd)
    if poller.epoll >= 0:
        close(poller.epoll)
    poller.is_opened = False


cdef inline bint is_timer(const epoll_event* event) noexcept nogil:
    return event.data.u64 == ~<uint64_t>0


cdef inline void set_timer(Poller* poller, int64_t deadline) noexcept nogil:
    """0 disarms the timer. A deadline that has passed fires it at once."""
    cdef itimerspec at
    memset(&at, 0, sizeof(at))
    at.it_value.tv_sec = deadline // 1_000_000_000
    at.it_value.tv_nsec = deadline % 1_000_000_000
    timerfd_settime(poller.timer.fd, TFD_TIMER_ABSTIME, &at, NULL)
    poller.timer.armed = deadline


cdef inline void fire_timer(Poller* poller) noexcept nogil:
    """Make the timer fire at once."""
    if poller.timer.armed != 1:
        set_timer(poller, 1)


cdef inline void arm_timer_at(Poller* poller, int64_t deadline) noexcept nogil:
    """Make the timer fire no later than `deadline`, 0: there is none.

    An earlier setting stays as it is: it costs one wake-up without work, setting it again costs a system call.
    """
    if deadline != 0 and (poller.timer.armed == 0 or poller.timer.armed > deadline):
        set_timer(poller, deadline)


cdef inline void arm_timer(Poller* poller, const Queue* queues, int count) noexcept nogil:
    """Make the timer fire no later than the earliest deadline of these queues."""
    cdef int i
    cdef int64_t earliest = 0, deadline
    for i in range(count):
        if queues[i].head >= 0:
            deadline = link_of(&queues[i], queues[i].head).deadline
            if earliest == 0 or deadline < earliest:
                earliest = deadline
    arm_timer_at(poller, earliest)
