from libc.stdint cimport uint8_t
from libc.string cimport memcmp

from flashpol._native.accept.match cimport A_MATCH, A_MORE, A_OTHER, Answer, REQUEST_BYTES, Signature, Signatures


cdef inline Answer match_feed(
    uint8_t* matched, const char* data, size_t size, size_t* used, bint terminated,
) noexcept nogil:
    """Continue at `matched` bytes of the request; `used` becomes the bytes of `data` that belong to it.

    Not `terminated`: the request ends with its 22nd byte, and whatever follows is none of it.
    """
    cdef size_t wanted = REQUEST_BYTES - matched[0]
    cdef size_t n = wanted if size > wanted else size
    if memcmp(data, <const char*>b"<policy-file-request/>" + matched[0], n) != 0:
        used[0] = 0
        return A_OTHER
    matched[0] += <uint8_t>n
    used[0] = n
    if not terminated:
        return A_MATCH if matched[0] == REQUEST_BYTES else A_MORE
    if size == n:
        return A_MORE
    if data[n] == 0 or data[n] == b"\n":
        used[0] = n + 1
        return A_MATCH
    if data[n] == b"\r":
        used[0] = n + 2 if size > n + 1 and data[n + 1] == b"\n" else n + 1
        return A_MATCH
    return A_OTHER


cdef inline Answer sniff(const Signatures* known, const char* data, size_t size, uint8_t* name) noexcept nogil:
    """Name what begins with `data`: A_MATCH sets `name`, A_MORE wants more bytes, A_OTHER is in no row."""
    cdef int i
    cdef bint undecided = False
    cdef const Signature* row
    for i in range(known.count):
        row = &known.rows[i]
        if memcmp(data, row.prefix, min(size, <size_t>row.size)) == 0:
            if size >= row.size:
                name[0] = row.name
                return A_MATCH
            undecided = True
    return A_MORE if undecided else A_OTHER
