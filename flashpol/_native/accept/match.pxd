# Recognisers: bytes in, verdict out. They have no socket, no clock and no allocation.

from libc.stdint cimport uint8_t

from flashpol._native.common.verdict cimport MatchVerdict, V_MATCH, V_MORE, V_OTHER

cdef enum:
    REQUEST_BYTES = 22          # <policy-file-request/> without its terminator
    SEEN_BYTES = 8              # room for the longest signature
    SIGNATURES = 32             # room in the table of signatures

# A protocol that is known by its first bytes; `name` is the caller's number for it.
cdef struct Signature:
    char prefix[SEEN_BYTES]
    uint8_t size
    uint8_t name

cdef struct Signatures:
    Signature rows[SIGNATURES]
    uint8_t count
