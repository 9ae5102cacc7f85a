# An epoll set with one timer in it, which serves all deadline queues of the owner.
#
# The epoll descriptor is readable whenever a watched descriptor is ready or a deadline has passed, so the event loop of
# the program needs to watch this one descriptor only.

from libc.stdint cimport int64_t

cdef struct Timer:
    int fd                      # a timerfd in the epoll set
    int64_t armed               # the deadline that it is set to, ns; 0: disarmed

cdef struct Poller:
    bint is_opened              # 0, as in zeroed memory: the descriptors below are not ours
    int epoll                   # -1: it could not be opened; the same for timer.fd
    Timer timer
