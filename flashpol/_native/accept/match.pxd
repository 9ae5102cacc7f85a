# Recognisers: bytes in, verdict out. No socket, no clock, no allocation.

from libc.stdint cimport uint8_t

cdef enum:
    REQUEST_BYTES = 22          # <policy-file-request/> without its terminator
    SEEN_BYTES = 8              # enough for the longest signature in the sniffing table
    SIGNATURES = 32             # room in that table

cdef enum Answer:               # of a recogniser
    A_MORE = 0
    A_MATCH = 1
    A_OTHER = 2

# A protocol known by its first bytes; `name` is the caller's number for it.
cdef struct Signature:
    char prefix[SEEN_BYTES]
    uint8_t size
    uint8_t name

cdef struct Signatures:
    Signature rows[SIGNATURES]
    uint8_t count
