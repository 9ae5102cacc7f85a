# Sessions whose client has a codec: what it sends is decoded, what the upstream sends is encoded.
#
# The codec changes bytes between recv and send, and nothing else: what a side does not take is held, as wire bytes for
# the client and as plain ones for the upstream. Bytes that are decoded cannot be put back, so such a session is not
# read from while no buffer is left to hold them: it is `starved` until one is returned.

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int32_t, uint32_t
from libc.stdlib cimport realloc
from libc.string cimport memcpy, memmove

from flashpol._native.codecs.codec cimport (
    Codec, CODEC_END, CODEC_ERROR, CODEC_GROWTH, CODEC_PLAIN, CODEC_READ, CODEC_REPLY, CodecResult, Output,
)
from flashpol._native.common.system cimport MSG_NOSIGNAL, recv, send
from flashpol._native.relay.buffers cimport CHUNK
from flashpol._native.relay.state cimport CLIENT, Core, Flow, Pool, S_OPEN, Session, UPSTREAM


cdef bint append_held(Flow* flow, const char* data, uint32_t size) noexcept nogil:
    """Add bytes behind those that are held. False: there is no room."""
    cdef char* larger
    if flow.pooled:
        memmove(flow.held, flow.held + flow.begin, flow.end - flow.begin)
        flow.end -= flow.begin
        flow.begin = 0
        if flow.end + size > CHUNK:
            return False
    else:
        larger = <char*>realloc(flow.held, flow.end + size)
        if larger == NULL:
            return False
        flow.held = larger
    memcpy(flow.held + flow.end, data, size)
    flow.end += size
    return True


cdef bint send_own(Core* core, Session* session, const Output* output) noexcept nogil:
    """Send the client what its codec has written by itself, behind what is held for it. False: it cannot be."""
    cdef Flow* flow = &session.flows[UPSTREAM]
    cdef ssize_t n
    if output.size == 0 or session.flows[CLIENT].write_failed:
        return True
    if flow.held != NULL:
        return append_held(flow, output.data, output.size)
    n = send(session.flows[CLIENT].fd, output.data, output.size, MSG_NOSIGNAL)
    if n < 0 and errno != EAGAIN and errno != EINTR:
        return False
    n = max(<ssize_t>0, n)
    session.counters.sent[UPSTREAM] += <uint64_t>n
    if n == <ssize_t>output.size:
        return True
    if not hold_first(flow, output.data + n, output.size - <uint32_t>n):
        return False
    flow.blocked = True
    return True


cdef Read read_and_decode(Core* core, Session* session) noexcept nogil:
    """Read once from the client, and send what it means."""
    cdef Flow* flow = &session.flows[CLIENT]
    cdef Codec* codec = session.codec
    cdef Output plain, reply
    cdef CodecResult result
    cdef uint32_t taken = 0
    cdef ssize_t n = recv(flow.fd, core.wire, CODEC_READ, 0)
    if n == 0:
        codec.truncated = not codec.ended
        return READ_FIN
    if n < 0:
        return READ_ENOUGH if errno == EAGAIN or errno == EINTR else READ_ERROR
    plain.data, plain.size, plain.room = core.pool.scratch, 0, CODEC_PLAIN
    reply.data, reply.size, reply.room = core.reply, 0, CODEC_REPLY
    result = codec.type.decode(codec, core.wire, <uint32_t>n, &plain, &reply)
    if not send_own(core, session, &reply):
        return READ_ERROR
    if plain.size:
        if not flow.spoke:
            on_spoke(core, session, CLIENT)
        if send_bytes(core, session, CLIENT, plain.data, plain.size, &taken) and flow.blocked:
            hold_scratch(&core.pool, flow, taken, plain.size)
    if result == CODEC_ERROR:
        return READ_ERROR
    if result == CODEC_END:
        return READ_FIN
    return READ_MORE if n == CODEC_READ and not flow.blocked else READ_ENOUGH


cdef Read read_and_encode(Core* core, Session* session) noexcept nogil:
    """Read once from the upstream, and send it encoded."""
    cdef Flow* flow = &session.flows[UPSTREAM]
    cdef Output wire
    cdef uint32_t taken = 0
    cdef ssize_t n = recv(flow.fd, core.wire, CHUNK - CODEC_GROWTH, 0)
    if n == 0:
        return READ_FIN
    if n < 0:
        return READ_ENOUGH if errno == EAGAIN or errno == EINTR else READ_ERROR
    if not flow.spoke:
        on_spoke(core, session, UPSTREAM)
    wire.data, wire.size, wire.room = core.pool.scratch, 0, CHUNK
    if not session.codec.type.encode(session.codec, core.wire, <uint32_t>n, &wire):
        session.flows[CLIENT].write_failed = True
        return READ_ENOUGH
    if send_bytes(core, session, UPSTREAM, wire.data, wire.size, &taken) and flow.blocked:
        hold_scratch(&core.pool, flow, taken, wire.size)
    return READ_MORE if n == CHUNK - CODEC_GROWTH and not flow.blocked else READ_ENOUGH


cdef inline Read read_and_convert(Core* core, Session* session, int side) noexcept nogil:
    if core.pool.spare == NULL:
        session.flows[side].starved = True
        core.starved += 1
        return READ_ENOUGH
    return read_and_decode(core, session) if side == CLIENT else read_and_encode(core, session)


cdef void encode_finish(Core* core, Session* session, Output* wire) noexcept nogil:
    """What says that nothing follows, unless the codec has said so."""
    wire.data, wire.size, wire.room = core.reply, 0, CODEC_REPLY
    if not session.codec.finished:
        session.codec.type.finish(session.codec, wire)


cdef bint finish_side(Core* core, Session* session) noexcept nogil:
    """The upstream has sent FIN: say so to the client, in its codec. False: not all of that is sent."""
    cdef Output wire
    if session.codec == NULL:
        return True
    encode_finish(core, session, &wire)
    if not send_own(core, session, &wire):
        return True                                 # the next write fails too
    return session.flows[UPSTREAM].held == NULL


cdef void send_finish(Core* core, Session* session) noexcept nogil:
    """The session ends: say so to the client, if the kernel takes it at once."""
    cdef Output wire
    encode_finish(core, session, &wire)
    if wire.size:
        send(session.flows[CLIENT].fd, wire.data, wire.size, MSG_NOSIGNAL)


cdef void feed_starved(Core* core) noexcept nogil:
    """A buffer is free again: let as many starved sessions read as there are, beginning after those that read last."""
    cdef const Pool* pool = &core.pool
    cdef int32_t i, left = <int32_t>(pool.max_made - pool.made + pool.idle) + 1
    cdef int side
    for _ in range(core.used):
        if left <= 0 or core.starved == 0:
            break
        i = core.fed % core.used
        core.fed = i + 1
        for side in range(2):
            if core.table[i].state == S_OPEN and core.table[i].flows[side].starved:
                core.table[i].flows[side].starved = False
                core.starved -= 1
                left -= 1
                update_interest(core, i)
