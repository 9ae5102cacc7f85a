# read_tunnel_path: pure.

from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memchr, memcmp, memcpy

from flashpol._native.http.tunnel_path cimport (
    BAD_NUMBER, ID_BYTES, NO_NUMBER, TK_CLOSE, TK_IDENT, TK_IDLE, TK_NONE, TK_OPEN, TK_SEND, TunnelPath,
)

cdef enum:
    NUMBER_DIGITS = 18          # fits in int64_t


cdef inline bint begins_with(const char* path, size_t size, const char* word, size_t length) noexcept nogil:
    """The path is this word, or has a slash behind it."""
    return size >= length and memcmp(path, word, length) == 0 and (size == length or path[length] == b"/")


cdef inline int64_t read_number(const char* text, size_t size) noexcept nogil:
    cdef int64_t number = 0
    cdef size_t k
    if not 1 <= size <= NUMBER_DIGITS:
        return BAD_NUMBER
    for k in range(size):
        if not b"0" <= text[k] <= b"9":
            return BAD_NUMBER
        number = number * 10 + (text[k] - <char>b"0")
    return number


cdef inline void read_id_and_number(TunnelPath* out, const char* text, size_t size) noexcept nogil:
    """What stands behind the verb: /ID/NUMBER, /ID, or nothing."""
    cdef const char* slash
    if size == 0:
        return
    text += 1
    size -= 1
    slash = <const char*>memchr(text, b"/", size)
    if slash != NULL:
        out.number = read_number(slash + 1, size - <size_t>(slash - text) - 1)
        size = <size_t>(slash - text)
    if size == ID_BYTES:
        memcpy(out.id, text, ID_BYTES)
        out.id_size = ID_BYTES


cdef void read_tunnel_path(const char* path, size_t size, TunnelPath* out) noexcept nogil:
    """Fill `out` from a path without its query."""
    out.kind, out.id_size, out.number = TK_NONE, 0, NO_NUMBER
    if begins_with(path, size, b"/send", 5):
        out.kind = TK_SEND
        read_id_and_number(out, path + 5, size - 5)
    elif begins_with(path, size, b"/idle", 5):
        out.kind = TK_IDLE
        read_id_and_number(out, path + 5, size - 5)
    elif begins_with(path, size, b"/close", 6):
        out.kind = TK_CLOSE
        read_id_and_number(out, path + 6, size - 6)
    elif begins_with(path, size, b"/open", 5):
        out.kind = TK_OPEN
    elif begins_with(path, size, b"/fcs", 4):
        out.kind = TK_IDENT
