# What the fast path and the tunnel sessions of a worker know of each other. The fast path has the connections and reads
# HTTP; `_tunnel` has the sessions. Both are C, in extensions of their own.
#
# A request is given to `request` when its body is complete. Its reply comes by `reply`, at once or later, exactly once,
# unless the connection ends before: then `forget` says so.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from flashpol._native.codecs.codec cimport Codec

cdef struct Gate:
    # Of the sessions.
    void* sessions              # NULL: there are none, and none of these functions
    const void* account         # the AccountCore by whose capacity there is memory for each connection
    void (*request)(
        Gate* gate, int fd, uint16_t listener, uint8_t kind, const char* id, int64_t number, const char* body,
        uint32_t size) noexcept nogil
    # The connection of a request that has no reply yet has ended.
    void (*forget)(Gate* gate, int fd) noexcept nogil
    # Its client has sent more, or FIN: a poll is held no longer.
    void (*hurry)(Gate* gate, int fd) noexcept nogil
    # A session, whose record is at `fd`, for the request to open it on the connection `opener`. NULL: there is no room.
    Codec* (*begin)(Gate* gate, int fd, int opener, uint16_t listener) noexcept nogil
    # Of the fast path.
    void* core
    void (*reply)(void* core, int fd, int status, const char* body, uint32_t size) noexcept nogil
    # Whether the client of a request that has no reply yet is connected: it has sent neither FIN nor RST.
    bint (*is_there)(int fd) noexcept nogil
