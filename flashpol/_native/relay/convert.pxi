# Sessions whose client has a codec: what it sends is decoded, what the upstream sends is encoded.
#
# The codec changes bytes between recv and send, and nothing else: what a side does not take is held, as wire bytes for
# the client and as plain ones for the upstream. Bytes that are decoded cannot be put back. So when no buffer is left to
# hold them, little is read, and what the other side does not take is held outside the pool.
#
# The same bytes can cost a hundred times as much, in records of one byte. So the clock is read after each of them, and
# once the time of a wake-up is over, the sessions that are still to be handled in it get little.

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.stdlib cimport realloc
from libc.string cimport memcpy, memmove

from flashpol._native.codecs.codec cimport (
    CE_DONE, CE_EVICTED, CE_FAILED, CE_GHOST, CE_IDLE, CE_PING, Codec, CODEC_END, CODEC_ERROR, CODEC_GROWTH,
    CODEC_PLAIN, CODEC_READ, CODEC_REPLY, CodecEnd, CodecResult, Output,
)
from flashpol._native.common.system cimport MSG_NOSIGNAL, recv, send, SHUT_WR, shutdown
from flashpol._native.relay.buffers cimport CHUNK
from flashpol._native.relay.counters cimport (
    E_CLIENT, E_CLIENT_RESET, E_EVICTED, E_GHOST, E_PING, E_SHUTDOWN, E_UPSTREAM, E_UPSTREAM_RESET,
)
from flashpol._native.relay.state cimport CLIENT, Core, Flow, Q_CLOSING, Q_PING, Session, UPSTREAM


cdef enum:
    SMALL_READ = 1024           # bytes, where there is no buffer or no time for more
    # Ticks of Q_PING since the client was last heard of; the first ends an interval in which it was.
    TICKS_ASKED = 2             # at this one it gets a ping
    TICKS_LOST = 4              # and at this one it is gone


cdef bint append_held(Flow* flow, const char* data, uint32_t size) noexcept nogil:
    """Add bytes behind those that are held. False: there is no room."""
    cdef char* larger
    if flow.end - flow.begin + size > CHUNK:
        return False
    if flow.pooled:
        memmove(flow.held, flow.held + flow.begin, flow.end - flow.begin)
        flow.end -= flow.begin
        flow.begin = 0
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


cdef inline void note_blocked(Session* session) noexcept nogil:
    """Tell the codec whether the client takes what it writes by itself."""
    session.codec.blocked = session.flows[UPSTREAM].held != NULL


cdef bint keep(Core* core, Flow* flow, const Output* output, uint32_t taken) noexcept nogil:
    """Hold what is in the scratch buffer and was not taken. False: there is no memory."""
    if core.pool.spare != NULL:
        hold_scratch(&core.pool, flow, taken, output.size)
        return True
    return hold_first(flow, output.data + taken, output.size - taken)


cdef uint32_t readable_now(const Core* core, uint32_t most) noexcept nogil:
    return most if core.pool.spare != NULL and core.bytes_left > 0 else <uint32_t>SMALL_READ


cdef void charge(Core* core, uint32_t size) noexcept nogil:
    """This wake-up has read and converted so many bytes."""
    core.bytes_left -= size
    if core.bytes_left > 0 and now_ns() >= core.wake_end:
        core.bytes_left = 0


cdef Read read_and_decode(Core* core, Session* session) noexcept nogil:
    """Read once from the client, and send what it means."""
    cdef Flow* flow = &session.flows[CLIENT]
    cdef Codec* codec = session.codec
    cdef Output plain, reply
    cdef CodecResult result
    cdef uint32_t taken = 0
    cdef uint32_t size = readable_now(core, CODEC_READ if tls_of(codec) != NULL else CODEC_PLAIN)
    cdef ssize_t n = 0
    cdef bint had_work = codec.has_work
    if not had_work:
        n = recv(flow.fd, core.wire, size, 0)
        if n == 0:
            note_fin(codec)
            return READ_FIN
        if n < 0:
            return READ_ENOUGH if errno == EAGAIN or errno == EINTR else READ_ERROR
    session.ticks = 0
    plain.data, plain.size, plain.room = core.pool.scratch, 0, CODEC_PLAIN
    reply.data, reply.size, reply.room = core.reply, 0, CODEC_REPLY
    note_blocked(session)
    if had_work:
        result = codec.type.work(codec, &plain, &reply)
    else:
        result = codec.type.decode(codec, core.wire, <uint32_t>n, &plain, &reply)
    charge(core, max(<uint32_t>n, plain.size))
    if not send_own(core, session, &reply):
        return READ_ERROR
    if plain.size:
        restart_idle(core, <int32_t>(session - core.table))
        if not flow.spoke:
            on_spoke(core, session, CLIENT)
        if send_bytes(core, session, CLIENT, plain.data, plain.size, &taken) and flow.blocked:
            if not keep(core, flow, &plain, taken):
                return READ_ERROR
    if result == CODEC_ERROR:
        return READ_BROKEN
    if result == CODEC_END:
        return READ_FIN
    return READ_MORE if (had_work or n == <ssize_t>size) and not flow.blocked else READ_ENOUGH


cdef Read read_and_encode(Core* core, Session* session) noexcept nogil:
    """Read once from the upstream, and send it encoded."""
    cdef Flow* flow = &session.flows[UPSTREAM]
    cdef Output wire
    cdef uint32_t taken = 0
    cdef uint32_t size = readable_now(core, CHUNK - CODEC_GROWTH)
    cdef ssize_t n = recv(flow.fd, core.wire, size, 0)
    if n == 0:
        return READ_FIN
    if n < 0:
        return READ_ENOUGH if errno == EAGAIN or errno == EINTR else READ_ERROR
    restart_idle(core, <int32_t>(session - core.table))
    if not flow.spoke:
        on_spoke(core, session, UPSTREAM)
    session.told = True
    wire.data, wire.size, wire.room = core.pool.scratch, 0, CHUNK
    if not session.codec.type.encode(session.codec, core.wire, <uint32_t>n, &wire):
        session.flows[CLIENT].write_failed = True
        return READ_ENOUGH
    charge(core, <uint32_t>n)
    if wire.size and send_bytes(core, session, UPSTREAM, wire.data, wire.size, &taken) and flow.blocked:
        if not keep(core, flow, &wire, taken):
            return READ_ERROR
    return READ_MORE if n == <ssize_t>size and not flow.blocked else READ_ENOUGH


cdef inline Read read_and_convert(Core* core, Session* session, int side) noexcept nogil:
    if is_tunnel(session.codec):
        return read_from_tunnel(core, session) if side == CLIENT else read_for_tunnel(core, session)
    return read_and_decode(core, session) if side == CLIENT else read_and_encode(core, session)


cdef void encode_finish(Core* core, Session* session, CodecEnd why, Output* wire) noexcept nogil:
    """What says that nothing follows, unless the codec has said so."""
    wire.data, wire.size, wire.room = core.reply, 0, CODEC_REPLY
    if not session.codec.finished:
        session.codec.type.finish(session.codec, why, wire)


cdef bint finish_side(Core* core, Session* session) noexcept nogil:
    """The upstream has sent FIN: say so to the client, in its codec. False: not all of that is sent."""
    cdef Output wire
    if session.codec == NULL:
        return True
    encode_finish(core, session, CE_DONE, &wire)
    if not send_own(core, session, &wire):
        return True                                 # the next write fails too
    return session.flows[UPSTREAM].held == NULL


cdef void send_finish(Core* core, Session* session, CodecEnd why) noexcept nogil:
    """The session ends: say so to the client, if the kernel takes it at once."""
    cdef Output wire
    encode_finish(core, session, why, &wire)
    if wire.size:
        send(session.flows[CLIENT].fd, wire.data, wire.size, MSG_NOSIGNAL)


cdef CodecEnd finish_of(const Core* core, uint8_t end) noexcept nogil:
    """What the client is told of the end of its session."""
    if end == E_CLIENT or end == E_UPSTREAM:
        return CE_DONE
    if end == E_UPSTREAM_RESET:
        return CE_FAILED
    if end == E_EVICTED:
        return CE_EVICTED
    if end == E_PING:
        return CE_PING
    if end == E_GHOST:
        return CE_GHOST
    return core.stop_as if end == E_SHUTDOWN else CE_IDLE


cdef void end_codec(Core* core, Session* session, uint8_t end) noexcept nogil:
    """The session ends. Where the protocol has a message for that, the client gets it also after a reset of the
    upstream, and then has time to read it."""
    cdef Codec* codec = session.codec
    cdef bint by_message = closes_by_message(codec)
    cdef bint reset = end == E_CLIENT_RESET or (end == E_UPSTREAM_RESET and not by_message)
    cdef bint blocked = session.flows[UPSTREAM].blocked
    codec.outcome = end
    if is_tunnel(codec):
        if not codec.finished:
            codec.type.finish(codec, finish_of(core, end), NULL)
        return
    if not reset and not blocked:
        send_finish(core, session, finish_of(core, end))
    codec.finished = True                               # else RST follows
    if by_message and end == E_CLIENT_RESET:
        codec.truncated = not codec.ended
    codec.lingers = by_message and not (reset or blocked or codec.truncated or end == E_EVICTED or end == E_PING)


cdef void resume_codec(Core* core, Session* session) noexcept nogil:
    """The client takes bytes again: send what was kept for it."""
    cdef Output wire
    if session.codec.type.resume == NULL:
        return
    wire.data, wire.size, wire.room = core.reply, 0, CODEC_REPLY
    session.codec.type.resume(session.codec, &wire)
    send_own(core, session, &wire)


cdef void on_tick(Core* core, int32_t i) noexcept nogil:
    """Half of websocket_ping has passed. If nothing was heard of the client in it, or nothing was sent to it, for which
    proxies look, it gets a ping. If it then says nothing for all of websocket_ping, the session ends."""
    cdef Session* session = &core.table[i]
    cdef bint asked
    cdef Output wire
    stop_deadline(core, i, Q_PING)
    if session.flows[UPSTREAM].held != NULL or not can_read(session, CLIENT):
        session.ticks = 0                               # one of the sides is slow: a ping or its reply may be under way
    elif session.ticks + 1 >= TICKS_LOST:
        end_session(core, i, E_PING)
        return
    else:
        session.ticks += 1
        asked = session.ticks == TICKS_ASKED or not session.told
        if asked:
            wire.data, wire.size, wire.room = core.reply, 0, CODEC_REPLY
            session.codec.type.ping(session.codec, &wire)
            send_own(core, session, &wire)
        session.told = asked
    start_deadline(core, i, Q_PING)


cdef void pass_closing(Core* core, int32_t i) noexcept nogil:
    """Where ends are messages: once ours is sent, the rest has until Q_CLOSING. Once both are, the client gets FIN, and
    what the upstream still says is dropped. A slow client first gets all that came before, for which idle_timeout is
    the limit."""
    cdef Session* session = &core.table[i]
    cdef Flow* flow = &session.flows[UPSTREAM]
    if not session.codec.finished:
        return
    stop_deadline(core, i, Q_PING)
    if session.links[Q_CLOSING].deadline == 0 and flow.held == NULL:
        start_deadline(core, i, Q_CLOSING)
    if session.codec.ended and not flow.fin_sent and flow.held == NULL:
        flow.fin_sent = True
        shutdown(session.flows[CLIENT].fd, SHUT_WR)
