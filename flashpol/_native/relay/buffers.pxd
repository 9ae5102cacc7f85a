# Sizes of the buffers for bytes that were read and not yet taken: a limited number for all sessions.

cdef enum:
    CHUNK = 32768               # one read; 16 and 64 KB cost more in single runs, see docs/performance.md
    KEPT = 16                   # free buffers that are kept for the next slow side; more are given back to malloc
