# Histograms in the block of counters.

from libc.stdint cimport int64_t, uint64_t


cdef inline void count_bucket(uint64_t* buckets, const int64_t* bounds, int finite, int64_t value) noexcept nogil:
    cdef int b = 0
    while b < finite and value > bounds[b]:
        b += 1
    buckets[b] += 1
