# What was read and not yet taken: a bounded number of buffers for all conversations.


cdef enum:
    CHUNK = 32768               # one read; 16 and 64 KB cost more in single runs, see docs/performance.md
    KEPT = 16                   # buffers that are kept for the next who is slow; more are given back
