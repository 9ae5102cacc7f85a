# Connections with a codec: TLS begins, what is read is decoded, and what is sent is encoded.
#
# A codec belongs to its connection until that is closed or lingers. While its handshake is not complete, and until the
# client has sent its request, it has a place in the share of handshakes: its memory is that of 250 parked connections.

from libc.errno cimport EAGAIN, ECONNRESET, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from flashpol._native.accept.state cimport (
    BOUNDS, BUCKET_COUNT, Core, Counters, Listener, R_CAPACITY, R_TLS_HANDSHAKE, READ_BYTES, Record, S_HANDSHAKE,
    S_HELLO, S_QUEUED, W_INPUT,
)
from flashpol._native.codecs.codec cimport (
    CE_DONE, Codec, CODEC_END, CODEC_ERROR, CODEC_OK, CODEC_PLAIN, CODEC_REPLY, CODEC_WORK, CodecResult, HF_CLOSED,
    HF_NONE, Output,
)
from flashpol._native.common.system cimport (
    IPPROTO_TCP, MSG_MORE, MSG_NOSIGNAL, recv, send, set_errno, setsockopt, TCP_QUICKACK,
)

cdef enum:
    TLS_RECORD = 0x16           # the first byte of a handshake's record
    PIECE = 16384               # bytes of a reply that are encoded at a time: a slow one keeps so much


cdef inline Codec* codec_of(const Core* core, int fd) noexcept nogil:
    return core.account.codecs[fd]


cdef inline bint in_handshake(const Record* record) noexcept nogil:
    return record.state == S_HELLO or record.state == S_QUEUED or record.state == S_HANDSHAKE


cdef inline bint may_begin_tls(const Core* core, const Record* record) noexcept nogil:
    return core.listeners[record.listener].factory != NULL and not record.has_codec


cdef inline bint is_relayed(const Core* core, const Record* record, uint8_t protocol) noexcept nogil:
    """Whether this protocol is relayed."""
    cdef const Listener* listener = core.listeners[record.listener]
    return (listener.relayed >> protocol & 1) != 0 and (record.has_codec or not listener.tls_only)


# -------------------------------------------------------------------------------------------------------- begin and end

cdef void begin_codec(Core* core, int fd, size_t seen, const char* data, size_t size) noexcept nogil:
    """The first bytes, `seen` of the record and `data`, begin TLS."""
    cdef Record* record = &core.records[fd]
    cdef Listener* listener = core.listeners[record.listener]
    cdef Codec* codec = listener.factory.begin(listener.factory)
    cdef CodecResult result = CODEC_OK
    cdef Output reply
    if codec == NULL:
        refuse(core, fd, R_CAPACITY)
        return
    reply.data, reply.size, reply.room = core.encoded, 0, CODEC_REPLY
    core.account.codecs[fd] = codec
    record.has_codec = True
    record.seen_size = 0
    listener.counters.tls += 1
    if seen:
        result = codec.type.decode(codec, record.seen, <uint32_t>seen, NULL, &reply)
    if result != CODEC_ERROR and size:
        result = codec.type.decode(codec, data, <uint32_t>size, NULL, &reply)
    after_decode(core, fd, result, NULL, &reply)


cdef inline void acknowledge(int fd) noexcept nogil:
    """Acknowledge now what was read. In TLS 1.3 without tickets nothing is sent after a handshake that could carry the
    acknowledgement, and a client with Nagle's algorithm keeps its request until it comes: 40 ms."""
    cdef int one = 1
    setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof(one))


cdef void count_handshake(Core* core, int fd) noexcept nogil:
    cdef const Codec* codec = codec_of(core, fd)
    cdef Counters* counters = core.listeners[core.records[fd].listener].counters
    cdef int64_t duration = now_ns() - core.records[fd].accepted_at
    cdef int i = 0
    while i < BUCKET_COUNT - 1 and duration > BOUNDS[i]:
        i += 1
    counters.handshake_ns += <uint64_t>duration
    counters.handshake_buckets[i] += 1
    counters.handshakes[codec.version] += 1
    counters.resumed += codec.resumed
    counters.unknown_names += codec.unknown_name


cdef inline void count_handshake_failure(Counters* counters, const Codec* codec) noexcept nogil:
    counters.handshake_failures[HF_CLOSED if codec.failure == HF_NONE else codec.failure] += 1


cdef void drop_codec(Core* core, int fd) noexcept nogil:
    """The connection is closed, or sends and reads nothing more that is encoded."""
    cdef Record* record = &core.records[fd]
    cdef Codec* codec = codec_of(core, fd)
    cdef const Codec* tls = tls_of(codec)
    cdef Counters* counters = core.listeners[record.listener].counters
    cdef Output out
    if bottom_of(codec).established and not codec.finished and codec.unsent == NULL:
        out.data, out.size, out.room = core.encoded, 0, CODEC_REPLY
        codec.type.finish(codec, CE_DONE, &out)
        send(fd, out.data, out.size, MSG_NOSIGNAL | MSG_MORE)
    if tls != NULL:
        counters.tls -= 1
        counters.truncated += tls.truncated
        if not tls.established:
            counters.unknown_names += tls.unknown_name
            count_handshake_failure(counters, tls)
    if codec.in_turns:
        leave_turns(core, fd)
    leave_handshakes(core, fd)
    free(codec.unsent)
    codec.type.release(codec)
    core.account.codecs[fd] = NULL
    record.has_codec = False


# ---------------------------------------------------------------------------------------------------------------- input

cdef void on_encoded_input(Core* core, int fd) noexcept nogil:
    """Read once, and decode."""
    cdef Codec* codec = codec_of(core, fd)
    cdef Output plain, reply
    # A request needs no more; 16 KB of small records would cost 0.4 ms, and many clients can send them at a time.
    cdef ssize_t n = recv(fd, core.wire, READ_BYTES, 0)
    if n > 0:
        plain.data, plain.size, plain.room = core.buffer, 0, CODEC_PLAIN
        reply.data, reply.size, reply.room = core.encoded, 0, CODEC_REPLY
        after_decode(core, fd, codec.type.decode(codec, core.wire, <uint32_t>n, &plain, &reply), &plain, &reply)
    elif n < 0 and (errno == EAGAIN or errno == EINTR):
        pass
    elif n == 0 and codec.established:
        note_fin(codec)
        on_fin(core, fd)
    else:
        on_client_gone(core, fd)


cdef void after_decode(
    Core* core, int fd, CodecResult result, const Output* plain, const Output* reply,
) noexcept nogil:
    """Act on what a codec has made of its input. plain: NULL if there can be none."""
    cdef Record* record = &core.records[fd]
    cdef Codec* codec = codec_of(core, fd)
    if reply.size and result != CODEC_ERROR:
        # It is the first that is sent, so the kernel takes all of it, unless its memory for TCP is used up.
        if send(fd, reply.data, reply.size, MSG_NOSIGNAL) != <ssize_t>reply.size:
            if codec.established and in_handshake(record):
                count_handshake(core, fd)           # it left before it had its tickets
            on_client_gone(core, fd)
            return
    if result == CODEC_ERROR:
        on_codec_failed(core, fd, reply)
    elif result == CODEC_WORK:
        join_turns(core, fd)
    elif not codec.established:
        if not in_handshake(record):
            enter(core, fd, S_HELLO)
        elif record.state == S_QUEUED:
            enter(core, fd, S_HANDSHAKE)
    else:
        if in_handshake(record):
            count_handshake(core, fd)
            if not reply.size and (plain == NULL or not plain.size):
                acknowledge(fd)
            record.matched = 0
            enter(core, fd, waiting_state(core, fd))
        if plain != NULL and plain.size:
            on_request_bytes(core, fd, plain.size)
        # Unless that has ended the connection, or handed it over, or a reply is being sent.
        if result == CODEC_END and record.has_codec and core.states[record.state].watched == W_INPUT:
            on_fin(core, fd)


cdef void on_codec_failed(Core* core, int fd, const Output* reply) noexcept nogil:
    """The client broke the protocol, or none of its offers is accepted. It is told by an alert."""
    cdef Listener* listener = core.listeners[core.records[fd].listener]
    cdef const Codec* codec = codec_of(core, fd)
    if codec.failure == HF_CLOSED:
        on_client_gone(core, fd)
        return
    if codec.established:
        count_handshake_failure(listener.counters, codec)       # `drop_codec` counts the others
    count_refused(core, listener, fd, R_TLS_HANDSHAKE, header_source(core, fd))
    record_outcome(core, fd, R_TLS_HANDSHAKE)
    if reply.size and send(fd, reply.data, reply.size, MSG_NOSIGNAL | MSG_MORE) > 0:
        linger(core, fd)
    else:
        close_connection(core, fd)


# --------------------------------------------------------------------------------------------------------------- output

cdef inline int flags_of(const Core* core, int fd) noexcept nogil:
    """FIN follows a reply, but for those of RTMPT: what MSG_MORE held back of them would wait 200 ms."""
    return MSG_NOSIGNAL if core.records[fd].has_carrier else MSG_NOSIGNAL | MSG_MORE


cdef bint send_unsent(Core* core, int fd) noexcept nogil:
    """Send what the kernel did not take before. False: errno says why it does not take the rest."""
    cdef Codec* codec = codec_of(core, fd)
    cdef ssize_t n
    while codec.unsent_begin < codec.unsent_end:
        n = send(fd, codec.unsent + codec.unsent_begin, codec.unsent_end - codec.unsent_begin, flags_of(core, fd))
        if n >= 0:
            codec.unsent_begin += <uint32_t>n
        elif errno != EINTR:
            return False
    free(codec.unsent)
    codec.unsent = NULL
    return True


cdef bint encode_piece(Core* core, int fd, const char* data, uint32_t size, bint last) noexcept nogil:
    """Encode a piece of what is sent to the client, send it, and keep what the kernel does not take. False: it failed.

    last: it ends with what says that nothing follows.
    """
    cdef Codec* codec = codec_of(core, fd)
    cdef Output out
    cdef ssize_t n
    out.data, out.size, out.room = core.encoded, 0, CODEC_REPLY
    if not codec.type.encode(codec, data, size, &out):
        set_errno(ECONNRESET)
        return False
    leave_handshakes(core, fd)                  # a slow reply is its greenlet's, and gives way to none
    if last:
        codec.type.finish(codec, CE_DONE, &out)
    n = send(fd, out.data, out.size, flags_of(core, fd))
    if n == <ssize_t>out.size:
        return True
    if n < 0 and errno != EAGAIN and errno != EINTR:
        return False
    n = max(<ssize_t>0, n)
    codec.unsent_begin, codec.unsent_end = 0, out.size - <uint32_t>n
    codec.unsent = <char*>malloc(codec.unsent_end)
    if codec.unsent == NULL:
        return False
    memcpy(codec.unsent, out.data + n, codec.unsent_end)
    if last:
        codec.type.shrink(codec)
    return True


cdef bint send_encoded_reply(Core* core, int fd) noexcept nogil:
    """As send_reply, for a connection with a codec. `progress` is what has been encoded."""
    cdef Record* record = &core.records[fd]
    cdef Listener* listener = core.listeners[record.listener]
    cdef Codec* codec = codec_of(core, fd)
    cdef uint32_t size
    while codec.unsent != NULL or record.progress < listener.reply_size:
        if codec.unsent != NULL:
            if not send_unsent(core, fd):
                return False
            continue
        size = <uint32_t>min(<size_t>PIECE, listener.reply_size - record.progress)
        if not encode_piece(
                core, fd, listener.reply + record.progress, size, record.progress + size == listener.reply_size):
            return False
        record.progress += size
    count_reply(listener, now_ns() - record.accepted_at)
    record_outcome(core, fd, O_REPLY)
    return True


cdef bint send_last(Core* core, int fd, const char* data, size_t size) noexcept nogil:
    """Send what nothing follows. False: the kernel does not take all of it."""
    cdef Codec* codec = codec_of(core, fd)
    cdef size_t at = 0, piece
    if codec == NULL:
        return send(fd, data, size, MSG_NOSIGNAL | MSG_MORE) == <ssize_t>size
    while at < size and codec.unsent == NULL:
        piece = min(<size_t>PIECE, size - at)
        if not encode_piece(core, fd, data + at, <uint32_t>piece, at + piece == size):
            return False
        at += piece
    return codec.unsent == NULL
