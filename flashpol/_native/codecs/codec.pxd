# A codec stands between a client's socket and the bytes of its connection: TLS, WebSocket frames. It has no socket and
# does no I/O: it turns wire bytes into plain ones and plain bytes into wire ones.
#
# The fast path and the pump own recv and send; they call a codec through the table of functions below. An extension of
# its own makes the codecs of one kind (`_tls`), so that a machine without its library builds everything else.
#
# Until a codec is `established`, input is work: `decode` keeps it and asks for a turn (CODEC_WORK), since one step of a
# handshake costs as much as a hundred replies. The fast path gives turns in `work`, a limited number in one wake-up.
# A WebSocket codec is established when the pump has reached the upstream: then `work` writes the 101.
#
# A codec may lie on another one, its `below`: WebSocket on TLS. What the lower one makes of the socket's bytes is the
# wire of the upper one, which owns it. Callers know the upper one only.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

cdef enum:
    CODEC_READ = 16384          # wire bytes that one decode takes at most, if they are TLS
    # Room for what it makes of them: a record that began earlier may be completed as well. Without TLS one decode takes
    # as many bytes, as frames become no longer: half the system calls of a large message, and a fifth less CPU for it.
    CODEC_PLAIN = 32768
    CODEC_GROWTH = 1024         # by so much encode may make 32 KB longer; also room for what a codec replies by itself
    # Room for what the codec sends by itself: certificates of a long chain, an alert.
    CODEC_REPLY = 65536
    CODEC_HEADROOM = 16         # bytes in front of `plain` that encode may write to

cdef enum CodecResult:
    CODEC_OK = 0                # all input was taken
    CODEC_WORK                  # the same, and `work` is due: a step of the handshake, or the rest of the input
    CODEC_END                   # the peer has said that it will send no more; what came before was decoded
    CODEC_ERROR                 # the peer broke the protocol, see `failure`; `reply` may hold what it is told

cdef enum CodecEnd:             # why nothing more is sent
    CE_DONE = 0                 # all was sent
    CE_FAILED                   # the upstream reset the connection
    CE_IDLE                     # a deadline has come
    CE_STOP                     # the server ends
    CE_REPLACED                 # it is replaced by another: a reload
    CE_EVICTED                  # the place is needed
    CE_PING                     # the client did not reply to a ping
    CE_GHOST                    # the client of a tunnel session has sent no request for long

cdef enum TlsVersion:           # bindings/names.pxi has the names
    VERSION_TLS_1_0 = 0
    VERSION_TLS_1_1
    VERSION_TLS_1_2
    VERSION_TLS_1_3
    VERSION_COUNT

# Bytes that a codec writes: `size` of `room` are in use.
cdef struct Output:
    char* data
    uint32_t size
    uint32_t room

# The client's side of a tunnel session, which is no socket but the bodies of requests and of their replies.
cdef struct TunnelType:
    # What the client has sent and `consume` has not taken, `size` bytes; 0: nothing now.
    const char* (*peek)(Codec* codec, uint32_t* size) noexcept nogil
    void (*consume)(Codec* codec, uint32_t size) noexcept nogil
    # So many bytes the client takes now; 0 until it asks.
    uint32_t (*room)(Codec* codec) noexcept nogil
    # Bytes for it. more: others follow at once, else the reply is complete.
    void (*deliver)(Codec* codec, const char* data, uint32_t size, bint more) noexcept nogil

cdef struct CodecType:
    bint is_tls
    const TunnelType* tunnel    # NULL: the codec has a wire; else it has only this, work, finish and release
    # Take all of `size` wire bytes, at most CODEC_READ, without TLS CODEC_PLAIN. `plain` has CODEC_PLAIN bytes of room,
    # `reply` CODEC_REPLY.
    CodecResult (*decode)(Codec* codec, const char* wire, uint32_t size, Output* plain, Output* reply) noexcept nogil
    # The step that decode asked for.
    CodecResult (*work)(Codec* codec, Output* plain, Output* reply) noexcept nogil
    # Append to `wire`, which has size + CODEC_GROWTH bytes of room. False: there is no memory, or the codec has failed.
    # It may write to the CODEC_HEADROOM bytes in front of `plain`, unless it lies on a socket alone.
    bint (*encode)(Codec* codec, const char* plain, uint32_t size, Output* wire) noexcept nogil
    # Append to `wire` what says that nothing more will be sent. Once.
    void (*finish)(Codec* codec, CodecEnd why, Output* wire) noexcept nogil
    # Append to `wire` what asks whether the client is still there; NULL: the protocol has no such thing, and its end is
    # that of its TCP connection. Where it has, its end is a message of each side.
    void (*ping)(Codec* codec, Output* wire) noexcept nogil
    # Append to `wire` what was kept while the client took nothing.
    void (*resume)(Codec* codec, Output* wire) noexcept nogil
    # The name that the client asked for, NULL if it named none; only between handshake and shrink.
    const char* (*server_name)(Codec* codec) noexcept nogil
    # Free what only further calls of the others would need: none follows but release.
    void (*shrink)(Codec* codec) noexcept nogil
    void (*release)(Codec* codec) noexcept nogil

# A place in a line of connections.
cdef struct CodecLink:
    int32_t before              # neighbours, -1: none
    int32_t after
    int64_t since               # ns, CLOCK_MONOTONIC: when it joined

# The begin of every codec; what follows is its own.
cdef struct Codec:
    const CodecType* type
    Codec* below                # NULL: its wire is the socket
    uint8_t established         # the handshake is complete
    uint8_t finished            # `finish` was called
    uint8_t ended               # CODEC_END was returned
    uint8_t truncated           # the peer closed its side without saying so
    uint8_t has_work            # CODEC_WORK was returned; or it is to be established
    uint8_t blocked             # the client takes nothing more at present; its user says so
    uint8_t outcome             # as what the session ended, once the pump has ended it
    uint8_t lingers             # the connection is to be closed as after a reply; its user says so
    uint8_t version             # a TlsVersion, once established
    const char* cipher          # name of the suite, once established; constant
    uint8_t resumed             # the handshake took up an earlier session
    uint8_t unknown_name        # the client asked for a name that no certificate has
    uint8_t failure             # why it failed, a HandshakeFailure; HF_NONE: the client left
    uint8_t has_begun           # it had a turn
    uint8_t in_turns            # the connection waits for a turn
    CodecLink links[2]          # in that line, and in that of all that have a place among the handshakes
    char* unsent                # encoded bytes of a slow reply that the kernel has not taken; NULL: none
    uint32_t unsent_begin
    uint32_t unsent_end

cdef enum HandshakeFailure:     # bindings/names.pxi has the names
    HF_VERSION = 0              # the client's versions are all too old, or too new
    HF_CIPHER                   # no cipher suite in common
    HF_OLD_CLIENT               # no cipher suite in common, and the client offers only those with CBC, as AIR does
    HF_ALPN                     # no application protocol in common
    HF_NAME                     # tls_strict_sni, and no certificate has the name
    HF_CERTIFICATE              # the client does not accept the certificate: it sent an alert that says so
    HF_ALERT                    # the client sent another alert
    HF_MALFORMED                # what it sent is no TLS
    HF_FLOOD                    # too many messages, or records without application data
    HF_CLOSED                   # the client closed the connection
    HF_TIMEOUT                  # not complete within tls_handshake_timeout
    HF_CAPACITY                 # evicted, or no memory was left
    FAILURE_COUNT
    HF_NONE = FAILURE_COUNT

# Makes codecs for the connections of a listener. Owned by a Python object of the extension, a subclass of
# _fastpath.CodecFactory.
cdef struct Factory:
    Codec* (*begin)(Factory* factory) noexcept nogil        # NULL: there is no memory
    void* context
