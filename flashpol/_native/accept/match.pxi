# The recogniser of the request, and the one that names other protocols by their first bytes.

from libc.stdint cimport uint8_t
from libc.string cimport memcmp

from flashpol._native.accept.match cimport REQUEST_BYTES, Signature, Signatures
from flashpol._native.common.verdict cimport MatchVerdict, V_MATCH, V_MORE, V_OTHER


cdef inline MatchVerdict match_feed(
    uint8_t* matched, const char* data, size_t size, size_t* used, bint terminated,
) noexcept nogil:
    """Continue after `matched` bytes of the request; `used` becomes the number of bytes of `data` that belong to it.

    Not `terminated`: the request ends with its 22nd byte, and what follows does not belong to it.
    """
    cdef size_t wanted = REQUEST_BYTES - matched[0]
    cdef size_t n = wanted if size > wanted else size
    if memcmp(data, <const char*>b"<policy-file-request/>" + matched[0], n) != 0:
        used[0] = 0
        return V_OTHER
    matched[0] += <uint8_t>n
    used[0] = n
    if not terminated:
        return V_MATCH if matched[0] == REQUEST_BYTES else V_MORE
    if size == n:
        return V_MORE
    if data[n] == 0 or data[n] == b"\n":
        used[0] = n + 1
        return V_MATCH
    if data[n] == b"\r":
        used[0] = n + 2 if size > n + 1 and data[n + 1] == b"\n" else n + 1
        return V_MATCH
    return V_OTHER


cdef inline MatchVerdict sniff(const Signatures* known, const char* data, size_t size, uint8_t* name) noexcept nogil:
    """Name the protocol that begins with `data`. V_MATCH sets `name`; V_OTHER: no row of the table matches."""
    cdef int i
    cdef bint undecided = False
    cdef const Signature* row
    for i in range(known.count):
        row = &known.rows[i]
        if memcmp(data, row.prefix, min(size, <size_t>row.size)) == 0:
            if size >= row.size:
                name[0] = row.name
                return V_MATCH
            undecided = True
    return V_MORE if undecided else V_OTHER
