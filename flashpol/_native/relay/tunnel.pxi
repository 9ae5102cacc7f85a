# Tunnel sessions: the client's side is no socket. What the client sends is peeked at and consumed, what the upstream
# sends is read when a request asks for it. So the kernel holds what the client has not asked for, and the upstream's
# window shrinks: back-pressure is that of every session.

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int32_t, uint32_t, uint64_t

from flashpol._native.codecs.codec cimport Codec, TunnelType
from flashpol._native.common.system cimport EPOLLIN, recv
from flashpol._native.relay.buffers cimport CHUNK
from flashpol._native.relay.counters cimport E_GHOST
from flashpol._native.relay.state cimport CLIENT, Core, Flow, Q_CLOSING, S_OPEN, Session, UPSTREAM


cdef Read read_from_tunnel(Core* core, Session* session) noexcept nogil:
    """Send what the client has sent."""
    cdef Codec* codec = session.codec
    cdef Flow* flow = &session.flows[CLIENT]
    cdef const char* data
    cdef uint32_t size = 0, taken = 0
    if codec.has_work:
        codec.type.work(codec, NULL, NULL)
    data = codec.type.tunnel.peek(codec, &size)
    if size == 0:
        return READ_FIN if codec.ended else READ_ENOUGH
    restart_idle(core, <int32_t>(session - core.table))
    if not flow.spoke:
        on_spoke(core, session, CLIENT)
    if not send_bytes(core, session, CLIENT, data, size, &taken):
        return READ_ENOUGH
    codec.type.tunnel.consume(codec, taken)
    return READ_ENOUGH if flow.blocked else READ_MORE


cdef inline Read read_of(ssize_t n, int error) noexcept nogil:
    """What a recv has found that returned no byte."""
    if n == 0:
        return READ_FIN
    return READ_ENOUGH if error == EAGAIN or error == EINTR else READ_ERROR


cdef Read read_for_tunnel(Core* core, Session* session) noexcept nogil:
    """Read what a request asks for: up to two chunks for one reply."""
    cdef const TunnelType* tunnel = session.codec.type.tunnel
    cdef Flow* flow = &session.flows[UPSTREAM]
    cdef uint32_t room = tunnel.room(session.codec)
    cdef int error
    cdef bint more
    cdef ssize_t n
    if room == 0:
        flow.blocked = True
        return READ_ENOUGH
    n = recv(flow.fd, core.wire, min(room, <uint32_t>CHUNK), 0)
    if n > 0:
        restart_idle(core, <int32_t>(session - core.table))
        if not flow.spoke:
            on_spoke(core, session, UPSTREAM)
    while n > 0:
        core.bytes_left -= n
        session.counters.sent[UPSTREAM] += <uint64_t>n
        session.sent += <uint64_t>n
        room -= <uint32_t>n
        more = n == CHUNK and room > 0
        tunnel.deliver(session.codec, core.wire, <uint32_t>n, more)
        if not more:
            flow.blocked = tunnel.room(session.codec) == 0
            return READ_ENOUGH if flow.blocked or n < CHUNK else READ_MORE
        n = recv(flow.fd, core.wire, min(room, <uint32_t>CHUNK), 0)
        if n <= 0:
            error = errno                               # to deliver is to send, which has errors of its own
            tunnel.deliver(session.codec, NULL, 0, False)
            flow.blocked = tunnel.room(session.codec) == 0
            return read_of(n, error)
    return read_of(n, errno)


cdef void after_tunnel(Core* core, int32_t i, int side) noexcept nogil:
    """One side of an open tunnel session has been moved: what that means for the other one."""
    cdef Session* session = &core.table[i]
    if side == UPSTREAM:
        # Its FIN ends the client's side as well, once what the client has sent is sent on.
        if session.codec.ended and can_read(session, CLIENT):
            transfer(core, i, CLIENT)
    elif session.flows[CLIENT].fin_sent and session.links[Q_CLOSING].deadline == 0:
        # What the upstream still sends is dropped, for as long as a reply lingers.
        start_deadline(core, i, Q_CLOSING)
        if not session.flows[UPSTREAM].fin_received:
            transfer(core, i, UPSTREAM)


cdef void wake_session_of(void* relay, int fd) noexcept nogil:
    """AccountCore.wake_session: move what there is in both directions, now."""
    cdef Core* core = <Core*>relay
    cdef int32_t i = session_of(core, fd)
    if i < 0 or core.table[i].state != S_OPEN:
        return
    core.now = now_ns()
    core.wake_end = core.now + WAKE_NS
    core.bytes_left = WAKE_BYTES
    transfer(core, i, CLIENT)
    # While epoll watches the upstream for input, there was none; what has come meanwhile is reported next.
    if (core.table[i].state == S_OPEN and not core.table[i].flows[UPSTREAM].fin_received
            and not core.table[i].flows[UPSTREAM].watched & EPOLLIN):
        transfer(core, i, UPSTREAM)
    if core.table[i].state == S_OPEN:
        update_interest(core, i)
    arm_deadlines(core)
    if core.closed >= 0:
        fire_timer(&core.poller)


cdef void lose_session_of(void* relay, int fd) noexcept nogil:
    """AccountCore.lose_session."""
    cdef Core* core = <Core*>relay
    cdef int32_t i = session_of(core, fd)
    if i >= 0 and core.table[i].state == S_OPEN:
        core.now = now_ns()
        end_session(core, i, E_GHOST)
        fire_timer(&core.poller)
