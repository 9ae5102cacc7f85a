# The only reader and writer of bytes: read, send at once, keep only what was not taken; then pass on FIN and RST.

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from flashpol._native.common.system cimport (
    IPPROTO_TCP, MSG_NOSIGNAL, MSG_PEEK, recv, send, setsockopt, SHUT_WR, shutdown, TCP_NODELAY,
)
from flashpol._native.relay.buffers cimport CHUNK
from flashpol._native.relay.counters cimport E_CLIENT_RESET, E_PROTOCOL, E_UPSTREAM_RESET, END_COUNT
from flashpol._native.relay.state cimport CLIENT, Core, Flow, Pool, S_OPEN, Session, UPSTREAM

cdef enum:
    READS = 4                   # of one direction in a row, before other sessions get their turn

cdef enum Read:                 # what came of one read
    READ_MORE = 0               # there may be more
    READ_ENOUGH                 # there is no more, or the other side would not take it
    READ_FIN
    READ_ERROR
    READ_BROKEN                 # the client broke the protocol of its codec


cdef inline bint send_bytes(
    Core* core, Session* session, int side, const char* data, uint32_t size, uint32_t* taken,
) noexcept nogil:
    """Send bytes of `side` to the other side, which takes `taken` of them. False: writing there has failed for good."""
    cdef Flow* to = &session.flows[1 - side]
    cdef ssize_t n
    cdef int one = 1
    taken[0] = 0
    core.bytes_left -= size
    if side == CLIENT and not session.no_delay:
        # With Nagle's algorithm a relay would add a delay of its own to that of the sender, from its second send on.
        setsockopt(to.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
        session.no_delay = True
    n = send(to.fd, data, size, MSG_NOSIGNAL)
    while n < 0 and errno == EINTR:
        n = send(to.fd, data, size, MSG_NOSIGNAL)
    if n >= 0:
        taken[0] = <uint32_t>n
        session.counters.sent[side] += <uint64_t>n
        if side == UPSTREAM:
            session.sent += <uint64_t>n
    elif errno != EAGAIN:
        to.write_failed = True
        session.flows[side].blocked = False
        release_held(&core.pool, &session.flows[side])
        return False
    session.flows[side].blocked = taken[0] < size
    return True


cdef inline Read read_and_send(Core* core, Session* session, int side) noexcept nogil:
    """Read once, and send what was read. Without a spare buffer peek, send, and then read only what was taken."""
    cdef Flow* flow = &session.flows[side]
    cdef Pool* pool = &core.pool
    cdef bint peek = pool.spare == NULL
    cdef uint32_t taken = 0
    cdef ssize_t n
    if session.codec != NULL:
        return read_and_convert(core, session, side)
    n = recv(flow.fd, pool.scratch, CHUNK, MSG_PEEK if peek else 0)
    if n == 0:
        return READ_FIN
    if n < 0:
        flow.drained = errno == EAGAIN
        return READ_ENOUGH if errno == EAGAIN or errno == EINTR else READ_ERROR
    flow.drained = n < CHUNK and not peek and not flow.ending
    if not flow.spoke:
        on_spoke(core, session, side)
    if not send_bytes(core, session, side, pool.scratch, <uint32_t>n, &taken):
        return READ_ENOUGH
    if peek:
        if taken:
            recv(flow.fd, pool.scratch, taken, 0)
    elif flow.blocked:
        hold_scratch(pool, flow, taken, <uint32_t>n)
    return READ_MORE if (n == CHUNK or flow.ending) and not flow.blocked else READ_ENOUGH


cdef inline bint flush_held(Core* core, Session* session, int side) noexcept nogil:
    """Send what is held. True: nothing is held any more, and more can be read."""
    cdef Flow* flow = &session.flows[side]
    cdef uint32_t taken = 0
    if flow.held != NULL:
        if not send_bytes(core, session, side, flow.held + flow.begin, flow.end - flow.begin, &taken):
            return False
        flow.begin += taken
        if flow.blocked:
            return False
        release_held(&core.pool, flow)
        if side == UPSTREAM and session.codec != NULL:
            resume_codec(core, session)
            if flow.held != NULL:
                return False
    flow.blocked = False
    return True


cdef void transfer(Core* core, int32_t i, int side) noexcept nogil:
    """Move what `side` sends, as far as the other side takes it and READS allows, and pass on an end."""
    cdef Session* session = &core.table[i]
    cdef Flow* flow = &session.flows[side]
    cdef Flow* other = &session.flows[1 - side]
    cdef Read result = READ_ENOUGH
    if flush_held(core, session, side) and can_read(session, side):
        for _ in range(READS):
            result = read_and_send(core, session, side)
            if result != READ_MORE or core.bytes_left <= 0:
                break
        if result == READ_FIN:
            flow.fin_received = True
            if session.first_fin == END_COUNT:
                session.first_fin = <uint8_t>side
        if side == CLIENT and session.codec != NULL and (
                session.codec.has_work or (result == READ_MORE and is_tunnel(session.codec))):
            # There may be nothing more to read: the upstream, which can be written to, brings the session back here.
            flow.blocked = True
    if result == READ_BROKEN:
        end_session(core, i, E_PROTOCOL)
    elif result == READ_ERROR or (flow.write_failed and (flow.fin_received or other.write_failed)):
        # This side has reset the connection and will send nothing more.
        end_session(core, i, E_CLIENT_RESET if side == CLIENT else E_UPSTREAM_RESET)
    elif other.write_failed and other.fin_received:
        # The other side has reset it, and everything that it sent before has been passed on.
        end_session(core, i, E_UPSTREAM_RESET if side == CLIENT else E_CLIENT_RESET)
    elif flow.fin_received and flow.held == NULL and (
            flow.fin_sent or side == CLIENT or finish_side(core, session)):
        if other.fin_sent and other.fin_received:
            flow.fin_sent = True
            end_session(core, i, session.first_fin)
        elif not flow.fin_sent:
            flow.fin_sent = True
            shutdown(other.fd, SHUT_WR)
    if session.state == S_OPEN and closes_by_message(session.codec):
        pass_closing(core, i)
    if session.state == S_OPEN and is_tunnel(session.codec):
        after_tunnel(core, i, side)
