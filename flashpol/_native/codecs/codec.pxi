# What the users of codecs need to know of one that lies on another.

from flashpol._native.codecs.codec cimport Codec


cdef inline Codec* bottom_of(Codec* codec) noexcept nogil:
    """The codec whose wire is the socket."""
    while codec.below != NULL:
        codec = codec.below
    return codec


cdef inline Codec* tls_of(Codec* codec) noexcept nogil:
    """NULL: the connection has no TLS."""
    if codec == NULL:
        return NULL
    codec = bottom_of(codec)
    return codec if codec.type.is_tls else NULL


cdef inline void note_fin(Codec* codec) noexcept nogil:
    """The peer has closed its side of the TCP connection."""
    while codec != NULL:
        codec.truncated = not codec.ended
        codec = codec.below


cdef inline bint closes_by_message(const Codec* codec) noexcept nogil:
    """Each side ends the protocol with a message of its own, after which nothing of the other is of use."""
    return codec != NULL and codec.type.ping != NULL


cdef inline bint is_tunnel(const Codec* codec) noexcept nogil:
    """The client's side of the session is no socket."""
    return codec != NULL and codec.type.tunnel != NULL
