# Deadline queues. Both extensions use them.
#
# Every entry of a queue has the same duration, so the order of insertion is the order of expiry: no heap is needed. The
# entries belong to a table of the owner and are known by their index. Each one has a Link, and the queue knows where in
# the table the links are.

from libc.stdint cimport int32_t, int64_t

# The position of an entry in a queue. While the entry is in no queue, its owner may use `next` for lists of its own.
cdef struct Link:
    int64_t deadline            # ns, CLOCK_MONOTONIC
    int32_t prev                # neighbours, as indices; -1 ends
    int32_t next

cdef struct Queue:
    char* links                 # the Link of entry 0, in a table that the owner keeps
    size_t stride               # bytes from one Link to the next
    int64_t duration            # ns
    int32_t head
    int32_t tail
