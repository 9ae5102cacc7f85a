# The requests of a session: in the order of their numbers, whatever order they come in and on whatever connections.
#
# At most one request asks for what the upstream sends. The next one to be carried out answers it first, so replies have
# the order of their requests. A /send is answered at once, a poll when something comes or rtmpt_hold is over.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcpy

from flashpol._native.account.places cimport AccountCore
from flashpol._native.codecs.codec cimport Codec
from flashpol._native.http.tunnel_path cimport NO_NUMBER, TK_CLOSE, TK_IDLE, TK_NONE, TK_SEND
from flashpol._native.tunnel.state cimport (
    Early, Kept, KEPT, LEAST_SHARE, MAX_REPLY, Origin, Piece, Q_GAP, Q_HOLD, SHARES, T_OPEN, T_OVER, TunnelCore,
    TunnelSession, WINDOW,
)

cdef enum:
    EMPTIES = 10                # replies without data at each interval, as of Red5

cdef extern from *:
    """
    static const char flashpol_intervals[] = {0x01, 0x03, 0x05, 0x09, 0x11, 0x21};
    """
    const char* INTERVALS "flashpol_intervals"
    int INTERVAL_COUNT "(int)sizeof(flashpol_intervals)"

cdef Origin NOWHERE = Origin(-1, -1, 0, 0)


# --------------------------------------------------------------------------------------------------------------- memory

cdef inline int64_t share_of(const TunnelCore* core) noexcept nogil:
    """Bytes that a session may hold now. As with sessions (accept/eviction.pxi) the more there are that hold as much as
    they can, the smaller it is, so memory is never used up, and no session needs another's."""
    return max(<int64_t>LEAST_SHARE, (core.max_bytes - core.bytes) // SHARES)


# -------------------------------------------------------------------------------------------------------------- replies

cdef void reply_to(TunnelCore* core, Origin* origin, int status, const char* body, uint32_t size) noexcept nogil:
    """Reply to a request, whose origin is none from now on."""
    cdef Origin to = origin[0]
    origin[0] = NOWHERE
    if to.fd >= 0:
        core.waiting[to.fd] = -1
        core.gate.reply(core.gate.core, to.fd, status, body, size)
    elif to.line >= 0:
        send_reply_by_line(core, &to, status, body, size)


cdef inline void leave_asking(TunnelSession* session) noexcept nogil:
    """The request that asks gets its reply, or is gone."""
    session.counters.held -= session.links[Q_HOLD].deadline != 0
    stop(session, Q_HOLD)
    session.kind = TK_NONE


cdef void answer(TunnelSession* session) noexcept nogil:
    """Reply to the request that asks, with what has come for it, and keep the reply."""
    cdef Kept* kept = &session.kept[0]
    cdef int k
    if session.kind == TK_NONE:
        return
    leave_asking(session)
    for k in range(KEPT - 1, 0, -1):
        drop_kept(session, k)
        if session.core.bytes <= session.core.max_bytes // 2:
            session.kept[k] = session.kept[k - 1]
            session.kept[k - 1] = Kept(-1, NULL, 0, 0)
    drop_kept(session, 0)
    kept.number = session.expected - 1
    if session.reply != NULL:
        session.empties = 0
        kept.data, kept.size = session.reply, session.reply_size
        session.reply = NULL
        session.reply_size = 0
    else:
        kept.interval = INTERVALS[min(<int>(session.empties // EMPTIES), INTERVAL_COUNT - 1)]
        session.empties += 1
    send_kept(session, kept, &session.asking)


cdef void send_kept(TunnelSession* session, const Kept* kept, Origin* origin) noexcept nogil:
    if kept.data != NULL:
        reply_to(session.core, origin, 200, kept.data, kept.size)
    else:
        reply_to(session.core, origin, 200, &kept.interval, 1)


cdef const Kept* kept_reply(const TunnelSession* session, int64_t number) noexcept nogil:
    """The reply to this request, NULL if it is not kept."""
    cdef int k
    for k in range(KEPT):
        if session.kept[k].number == number:
            return &session.kept[k]
    return NULL


cdef inline bint leads_nowhere(const TunnelCore* core, const Origin* origin) noexcept nogil:
    """The client has left, or the line has ended."""
    return origin.fd < 0 and (origin.line < 0 or core.lines[origin.line].fd < 0)


cdef inline void await_reply(TunnelSession* session, Origin* place, const Origin* origin) noexcept nogil:
    """A request has no reply yet."""
    place[0] = NOWHERE if leads_nowhere(session.core, origin) else origin[0]
    if place.fd >= 0:
        session.core.waiting[place.fd] = number_of(session)


# -------------------------------------------------------------------------------------------------- what the pump calls

cdef const char* peek_at(Codec* codec, uint32_t* size) noexcept nogil:
    cdef TunnelSession* session = <TunnelSession*>codec
    if session.first != NULL:
        size[0] = session.first.end - session.first.begin
        return session.first.data + session.first.begin
    size[0] = session.direct_size
    return session.direct


cdef void consume(Codec* codec, uint32_t size) noexcept nogil:
    cdef TunnelSession* session = <TunnelSession*>codec
    if session.first == NULL:
        session.direct += size
        session.direct_size -= size
        return
    session.first.begin += size
    session.waiting -= size
    if session.first.begin == session.first.end:
        drop_piece(session)
    if session.early_count and session.waiting == 0:
        join_resumed(session)                           # what waits in the window may wait for this


cdef uint32_t room_of(Codec* codec) noexcept nogil:
    cdef TunnelSession* session = <TunnelSession*>codec
    cdef uint32_t most
    if session.state == T_OVER:
        return MAX_REPLY                                # it is dropped
    most = <uint32_t>min(<int64_t>MAX_REPLY, share_of(session.core))
    return max(most, session.reply_size) - max(session.reply_size, <uint32_t>1) if session.kind != TK_NONE else 0


cdef bint append_reply(TunnelSession* session, const char* data, uint32_t size) noexcept nogil:
    """False: there is no memory."""
    cdef uint32_t room = max(session.reply_size, <uint32_t>1) + size
    cdef char* larger = <char*>take_bytes(session.core, session.counters, room)
    if larger == NULL:
        return False
    larger[0] = INTERVALS[0]
    if session.reply_size:
        memcpy(larger, session.reply, session.reply_size)
    memcpy(larger + room - size, data, size)
    drop_reply(session)
    session.reply, session.reply_size = larger, room
    return True


cdef void deliver(Codec* codec, const char* data, uint32_t size, bint more) noexcept nogil:
    cdef TunnelSession* session = <TunnelSession*>codec
    if session.state == T_OVER:
        return
    if size and not append_reply(session, data, size):
        codec.ended = True                              # bytes are lost: the session cannot go on
        end_requests(session)
    elif not more:
        answer(session)


# ------------------------------------------------------------------------------------------------------------- requests

cdef inline bint is_slow(const TunnelSession* session) noexcept nogil:
    """The upstream has not taken what earlier requests brought."""
    return session.waiting >= session.core.timeouts[session.set_of_timeouts].buffer


cdef bint keep_direct(TunnelSession* session) noexcept nogil:
    """The upstream has not taken all of a body: keep the rest. False: there is no memory."""
    cdef Piece* piece
    if session.direct_size == 0:
        return True
    if session.waiting + <int64_t>session.direct_size > share_of(session.core):
        return False
    piece = <Piece*>take_bytes(session.core, session.counters, sizeof(Piece) + session.direct_size)
    if piece == NULL:
        return False
    memcpy(piece.data, session.direct, session.direct_size)
    piece.next, piece.begin, piece.end = NULL, 0, session.direct_size
    if session.last_piece != NULL:
        session.last_piece.next = piece
    else:
        session.first = piece
    session.last_piece = piece
    session.waiting += session.direct_size
    return True


cdef void wake(TunnelSession* session) noexcept nogil:
    """Have the pump move what there is."""
    cdef AccountCore* account = session.core.account
    if account.wake_session != NULL:
        account.wake_session(account.relay, session.fd)


cdef void close_by_client(TunnelSession* session, Origin* origin) noexcept nogil:
    """What came before is sent on, then FIN. What waits for earlier requests that never came is not sent."""
    answer(session)
    session.codec.ended = True
    end_requests(session)
    reply_to(session.core, origin, 200, b"\0", 1)
    wake(session)


cdef void carry_out(
    TunnelSession* session, Origin* origin, uint8_t kind, int64_t number, const char* body, uint32_t size,
) noexcept nogil:
    """It is the next one."""
    cdef TunnelCore* core = session.core
    cdef bint lost
    answer(session)
    session.expected = number + 1
    session.unanswered = -1
    if kind == TK_CLOSE:
        close_by_client(session, origin)
        return
    session.counters.polls += kind == TK_IDLE
    if kind == TK_SEND:
        session.direct, session.direct_size = body, size
    ask(session, origin, kind, number)
    wake(session)
    lost = session.direct_size and session.state != T_OVER and not keep_direct(session)
    session.direct, session.direct_size = NULL, 0
    if lost:
        session.codec.ended = True
        end_requests(session)
        wake(session)                                   # the upstream may stay silent: only this has the pump see it
    settle_asking(session)


cdef void ask(TunnelSession* session, const Origin* origin, uint8_t kind, int64_t number) noexcept nogil:
    """It gets what the upstream sends; if its client has left, that is for the next one."""
    await_reply(session, &session.asking, origin)
    if leads_nowhere(session.core, &session.asking):
        session.unanswered = number
    else:
        session.unanswered = -1
        session.kind = kind


cdef void settle_asking(TunnelSession* session) noexcept nogil:
    """Nothing has come for the request that asks: it is held, or answered without."""
    if session.kind == TK_IDLE and session.state == T_OPEN:
        if session.links[Q_HOLD].deadline == 0:
            session.counters.held += 1
            start(session, Q_HOLD)
    elif session.kind != TK_NONE and session.state == T_OPEN:
        answer(session)


cdef Early* early_of(TunnelSession* session, int64_t number) noexcept nogil:
    """The request of this number that waits; NULL: none."""
    cdef int k
    for k in range(WINDOW):
        if session.early[k].kind != TK_NONE and session.early[k].number == number:
            return &session.early[k]
    return NULL


cdef Early* earliest(TunnelSession* session) noexcept nogil:
    """The one with the lowest number."""
    cdef Early* found = NULL
    cdef int k
    for k in range(WINDOW):
        if session.early[k].kind != TK_NONE and (found == NULL or session.early[k].number < found.number):
            found = &session.early[k]
    return found


cdef void drop_early(TunnelSession* session, Early* early) noexcept nogil:
    session.early_count -= 1
    session.early_bytes -= early.size
    give_bytes(session.core, session.counters, early.body, early.size)
    early.body = NULL
    early.kind = TK_NONE


cdef void keep_early(
    TunnelSession* session, Origin* origin, uint8_t kind, int64_t number, const char* body, uint32_t size,
) noexcept nogil:
    """Keep a request until those before it have come, or the upstream has taken what they brought."""
    cdef TunnelCore* core = session.core
    cdef Early* early = early_of(session, number)
    cdef uint32_t buffer = core.timeouts[session.set_of_timeouts].buffer
    cdef int k = 0
    if early != NULL:
        # It has come on another connection, and either may have broken: a copy that came by a line may be older than
        # one that came before. Both get the reply; of three that are there, the oldest gets 503.
        session.counters.repeated += 1
        if not leads_nowhere(core, &early.origin):
            reply_to(core, &early.other, 503, NULL, 0)
            early.other = early.origin
        await_reply(session, &early.origin, origin)
        return
    if kind != TK_SEND:
        size = 0                                        # its body is of no use
    if session.early_count == WINDOW or (size and session.early_bytes and session.early_bytes + size > buffer) or (
            size and session.early_bytes + <int64_t>size > share_of(core)):
        session.counters.refused += 1
        reply_to(core, origin, 503, NULL, 0)
        return
    while session.early[k].kind != TK_NONE:
        k += 1
    early = &session.early[k]
    early.body = NULL
    if size:
        early.body = <char*>take_bytes(core, session.counters, size)
        if early.body == NULL:
            session.counters.refused += 1
            reply_to(core, origin, 503, NULL, 0)
            return
        memcpy(early.body, body, size)
    early.size = size
    early.kind = kind
    early.hurried = False
    early.number = number
    early.other = NOWHERE
    await_reply(session, &early.origin, origin)
    session.early_count += 1
    session.early_bytes += size


cdef void carry_out_early(TunnelSession* session) noexcept nogil:
    """Carry out what is next now, as long as the upstream takes what it brings."""
    cdef Early* early
    cdef Origin origin, other
    cdef char* body
    cdef uint32_t size
    cdef uint8_t kind
    cdef int64_t number
    cdef bint hurried
    stop(session, Q_GAP)
    while session.state == T_OPEN and session.early_count and not is_slow(session):
        early = early_of(session, session.expected)
        if early == NULL:
            start(session, Q_GAP)
            return
        origin, kind, number, body, size = early.origin, early.kind, early.number, early.body, early.size
        other, hurried = early.other, early.hurried
        early.body = NULL
        early.size = 0
        session.early_bytes -= size
        drop_early(session, early)
        carry_out(session, &origin, kind, number, body, size)
        give_bytes(session.core, session.counters, body, size)
        if not leads_nowhere(session.core, &other):
            answer_once_more(session, &other, kind, number)
        if hurried:
            answer(session)


cdef void answer_once_more(TunnelSession* session, Origin* origin, uint8_t kind, int64_t number) noexcept nogil:
    """Reply to a copy of a request that was carried out: as to that, or nothing if that reply is not kept.

    One that has no reply yet asks again. After the end of the session it gets 404.
    """
    cdef TunnelCore* core = session.core
    if session.state == T_OVER and kind == TK_CLOSE:
        reply_to(core, origin, 200, b"\0", 1)
    elif session.state == T_OVER and kept_reply(session, number) == NULL:
        reply_to(core, origin, 404, NULL, 0)
    elif number == session.expected - 1 and session.kind != TK_NONE:
        # It is held on another connection, which may have broken: both get the same reply, so none is lost.
        answer(session)
        send_kept(session, &session.kept[0], origin)
    elif number == session.unanswered:
        ask(session, origin, kind, number)
        wake(session)
        settle_asking(session)
    elif kept_reply(session, number) != NULL:
        send_kept(session, kept_reply(session, number), origin)
    else:
        reply_to(core, origin, 200, INTERVALS, 1)


cdef void pass_gap(TunnelSession* session) noexcept nogil:
    """Go on with the earliest request that has come."""
    cdef Early* early = earliest(session)
    if early != NULL:
        session.counters.gaps += early.number > session.expected
        session.expected = early.number
    carry_out_early(session)


cdef void close_without_number(TunnelSession* session, Origin* origin) noexcept nogil:
    """It comes behind all requests that have come. Nothing is waited for that has not."""
    cdef int64_t latest = -1
    cdef int k
    while session.state == T_OPEN and session.early_count and not is_slow(session):
        pass_gap(session)
    if session.state != T_OPEN:
        reply_to(session.core, origin, 404, NULL, 0)
        return
    if session.early_count == 0:
        close_by_client(session, origin)
        return
    # The upstream has to take what they bring first.
    for k in range(WINDOW):
        if session.early[k].kind != TK_NONE:
            latest = max(latest, session.early[k].number)
    keep_early(session, origin, TK_CLOSE, latest + 1, NULL, 0)


cdef void on_request(
    TunnelSession* session, Origin* origin, uint8_t kind, int64_t number, const char* body, uint32_t size,
) noexcept nogil:
    """A request of an open session."""
    cdef TunnelCore* core = session.core
    touch(session)
    if number == NO_NUMBER:
        if kind == TK_CLOSE:
            close_without_number(session, origin)
        else:
            reply_to(core, origin, 404, NULL, 0)
        return
    if session.expected < 0:
        session.expected = number
    if number > session.expected:
        session.counters.reordered += 1
        keep_early(session, origin, kind, number, body, size)
        if session.early_count and not is_slow(session):
            start(session, Q_GAP)
    elif number == session.expected:
        if is_slow(session) or early_of(session, number) != NULL:
            # It waits for the upstream, or has done so and comes once more: then it is carried out once.
            keep_early(session, origin, kind, number, body, size)
            carry_out_early(session)
            return
        if session.waiting and session.waiting + <int64_t>size > share_of(core):
            session.counters.refused += 1
            reply_to(core, origin, 503, NULL, 0)
            return
        carry_out(session, origin, kind, number, body, size)
        if session.early_count:
            carry_out_early(session)
    else:
        session.counters.repeated += 1
        answer_once_more(session, origin, kind, number)


cdef void forget_origin(TunnelSession* session, int fd, int32_t line, int32_t remote, uint32_t serial) noexcept nogil:
    """The connection of a request of this session has ended, or the line by which it came."""
    cdef int k
    if session.kind != TK_NONE and is_origin(&session.asking, fd, line, remote, serial):
        session.asking = NOWHERE
        leave_asking(session)
        session.unanswered = session.expected - 1       # what comes for it is there for the next request
    if is_origin(&session.opener, fd, line, remote, serial):
        session.opener = NOWHERE
    for k in range(WINDOW):
        if session.early[k].kind != TK_NONE:            # it is carried out, without a reply
            if is_origin(&session.early[k].origin, fd, line, remote, serial):
                session.early[k].origin = NOWHERE
            if is_origin(&session.early[k].other, fd, line, remote, serial):
                session.early[k].other = NOWHERE


cdef void hurry_origin(TunnelSession* session, int fd, int32_t line, int32_t remote, uint32_t serial) noexcept nogil:
    """More has come behind a request of this session, or FIN: as a poll it is held no longer."""
    cdef int k
    if session.kind != TK_NONE and is_origin(&session.asking, fd, line, remote, serial):
        answer(session)
        return
    for k in range(WINDOW):
        if session.early[k].kind != TK_NONE and (
                is_origin(&session.early[k].origin, fd, line, remote, serial)
                or is_origin(&session.early[k].other, fd, line, remote, serial)):
            session.early[k].hurried = True


cdef inline bint is_origin(const Origin* origin, int fd, int32_t line, int32_t remote, uint32_t serial) noexcept nogil:
    """remote: -1 stands for all requests of the line."""
    if fd >= 0:
        return origin.fd == fd
    return origin.line == line and (remote < 0 or (origin.remote == remote and origin.serial == serial))
