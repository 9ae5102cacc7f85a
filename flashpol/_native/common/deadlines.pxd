# The clock, deadline queues, and one timer for all queues of an epoll set: the fast path's and the pump's.
#
# A queue has one duration, so its order of insertion is its order of expiry: no heap. What waits in it are entries of
# some table, known by their index; each has a Link inside, and the queue knows where in the table the links are.

from libc.stdint cimport int32_t, int64_t

# The place of an entry in a queue. Once it has left, its owner may use `next` for lists of its own.
cdef struct Link:
    int64_t deadline            # ns
    int32_t prev                # neighbours, as indices; -1 ends
    int32_t next

cdef struct Queue:
    char* links                 # the Link of entry 0, inside a table that the owner keeps
    size_t stride               # bytes from one to the next
    int64_t duration            # ns
    int32_t head
    int32_t tail

cdef struct Timer:
    int fd                      # timerfd in the epoll set
    int64_t armed               # to this deadline, 0 when disarmed
