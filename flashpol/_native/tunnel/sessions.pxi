# The table of tunnel sessions: ids, the begin and the end of a session.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from flashpol._native.codecs.codec cimport Codec, CODEC_OK, CodecEnd, CodecResult, Output
from flashpol._native.codecs.gate cimport Gate
from flashpol._native.common.deadlines cimport Queue
from flashpol._native.http.tunnel_path cimport ID_BYTES, TK_NONE
from flashpol._native.relay.counters cimport E_SHUTDOWN
from flashpol._native.tunnel.state cimport (
    Early, Kept, KEPT, Origin, Piece, Q_GHOST, QUEUE_COUNT, T_FREE, T_OPEN, T_OPENING, T_OVER, TunnelCore,
    TunnelCounters, TunnelSession, WINDOW,
)

cdef extern from "<sys/random.h>" nogil:
    ssize_t getrandom(void* to, size_t size, unsigned int flags)

cdef enum:
    BASE = 62
    RANDOM_AT = 3               # where the random part of an id begins
    TICK_NS = 4_000_000


# ------------------------------------------------------------------------------------------------------------------ ids

cdef inline char digit(uint32_t value) noexcept nogil:
    if value < 10:
        return <char>(<char>b"0" + value)
    return <char>((<char>b"A" - 10 if value < 36 else <char>b"a" - 36) + value)


cdef inline int value_of(char text) noexcept nogil:
    """-1: no digit."""
    if b"0" <= text <= b"9":
        return text - <char>b"0"
    if b"A" <= text <= b"Z":
        return text - <char>b"A" + 10
    return text - <char>b"a" + 36 if b"a" <= text <= b"z" else -1


cdef bint draw_id(TunnelCore* core, char* id) noexcept nogil:
    """False: the kernel has no random bytes."""
    cdef int k = RANDOM_AT
    cdef uint8_t byte
    id[0] = core.host
    id[1], id[2] = digit(core.incarnation // BASE), digit(core.incarnation % BASE)
    while k < ID_BYTES:
        if core.random_left == 0:
            if getrandom(core.random, sizeof(core.random), 0) != sizeof(core.random):
                return False
            core.random_left = sizeof(core.random)
        core.random_left -= 1
        byte = <uint8_t>core.random[core.random_left]
        if byte < 4 * BASE:                             # else some digits would be more frequent
            id[k] = digit(byte % BASE)
            k += 1
    return True


cdef inline int32_t* chain_of(const TunnelCore* core, const char* id) noexcept nogil:
    """The random part is the hash: only a client that guesses could aim at a chain, and ids are not its choice."""
    cdef uint64_t word
    memcpy(&word, id + RANDOM_AT, sizeof(word))
    word ^= word >> 29
    word *= <uint64_t>0x9E3779B97F4A7C15
    return &core.hashed[<uint32_t>(word >> 32) & core.hash_mask]


cdef TunnelSession* find_session(const TunnelCore* core, const char* id) noexcept nogil:
    """NULL: there is none of this id."""
    cdef int32_t i = chain_of(core, id)[0]
    while i >= 0 and memcmp(core.table[i].id, id, ID_BYTES) != 0:
        i = core.table[i].chain
    return &core.table[i] if i >= 0 else NULL


cdef inline int32_t number_of(const TunnelSession* session) noexcept nogil:
    return <int32_t>(session - session.core.table)


cdef void forget_id(TunnelSession* session) noexcept nogil:
    cdef int32_t* at = chain_of(session.core, session.id)
    while at[0] != number_of(session):
        at = &session.core.table[at[0]].chain
    at[0] = session.chain


# ------------------------------------------------------------------------------------------------------------ deadlines

cdef inline Queue* queue_of(const TunnelSession* session, int which) noexcept nogil:
    return &session.core.queues[session.set_of_timeouts * QUEUE_COUNT + which]


cdef inline void arm(TunnelCore* core, int64_t deadline) noexcept nogil:
    """Make the timer fire no later than at the next whole tick after a deadline: so one wake-up answers many polls."""
    arm_timer_at(&core.poller, (deadline // TICK_NS + 1) * TICK_NS)


cdef inline void start(TunnelSession* session, int which) noexcept nogil:
    cdef Queue* queue = queue_of(session, which)
    if session.links[which].deadline == 0:
        enqueue(queue, &session.links[which], number_of(session), session.core.now)
        arm(session.core, session.links[which].deadline)


cdef inline void stop(TunnelSession* session, int which) noexcept nogil:
    if session.links[which].deadline:
        dequeue(queue_of(session, which), &session.links[which])
        session.links[which].deadline = 0


cdef inline void touch(TunnelSession* session) noexcept nogil:
    """Its client has sent a request. The deadline moves at most once in 1/16 of its time, which is added to it."""
    if session.core.now - session.heard > queue_of(session, Q_GHOST).duration // 17:
        stop(session, Q_GHOST)
        start(session, Q_GHOST)
        session.heard = session.core.now


# --------------------------------------------------------------------------------------------------------------- memory

cdef inline void* take_bytes(TunnelCore* core, TunnelCounters* counters, size_t size) noexcept nogil:
    cdef void* bytes = malloc(size)
    if bytes != NULL:
        core.bytes += size
        counters.buffered += <int64_t>size
    return bytes


cdef inline void give_bytes(TunnelCore* core, TunnelCounters* counters, void* bytes, size_t size) noexcept nogil:
    if bytes != NULL:
        core.bytes -= size
        counters.buffered -= <int64_t>size
        free(bytes)


cdef inline void drop_kept(TunnelSession* session, int k) noexcept nogil:
    give_bytes(session.core, session.counters, session.kept[k].data, session.kept[k].size)
    session.kept[k] = Kept(-1, NULL, 0, 0)


cdef inline void drop_reply(TunnelSession* session) noexcept nogil:
    give_bytes(session.core, session.counters, session.reply, session.reply_size)
    session.reply = NULL
    session.reply_size = 0


cdef void drop_piece(TunnelSession* session) noexcept nogil:
    cdef Piece* piece = session.first
    session.first = piece.next
    if session.first == NULL:
        session.last_piece = NULL
    give_bytes(session.core, session.counters, piece, sizeof(Piece) + piece.end)


# -------------------------------------------------------------------------------------------------------- begin and end

cdef Codec* begin_session(Gate* gate, int fd, int opener, uint16_t listener) noexcept nogil:
    """Gate.begin."""
    cdef TunnelCore* core = core_of(gate)
    cdef TunnelSession* session
    cdef int32_t i = core.free
    cdef int k
    if core.listener_counters[listener] == NULL:
        return NULL
    if i >= 0:
        core.free = core.table[i].next
    elif core.used < core.capacity:
        i = core.used
        core.used += 1
    else:
        return NULL
    session = &core.table[i]
    memset(session, 0, sizeof(TunnelSession))
    session.core = core
    if not draw_id(core, session.id):
        session.next = core.free
        core.free = i
        return NULL
    core.count += 1
    core.now = now_ns()
    session.codec.type = &TUNNEL
    session.codec.has_work = True
    session.fd = fd
    session.state = T_OPENING
    session.set_of_timeouts = core.listener_sets[listener]
    session.counters = core.listener_counters[listener]
    session.codec.outcome = E_SHUTDOWN                  # unless the pump ends it
    session.expected = session.unanswered = -1
    for k in range(KEPT):
        session.kept[k].number = -1
    session.asking = NOWHERE
    session.opener = Origin(opener, -1, 0, 0)
    core.waiting[opener] = i
    session.chain = chain_of(core, session.id)[0]
    chain_of(core, session.id)[0] = i
    return &session.codec


cdef CodecResult open_session(Codec* codec, Output* plain, Output* reply) noexcept nogil:
    """CodecType.work: the upstream has accepted the session."""
    cdef TunnelSession* session = <TunnelSession*>codec
    cdef char[ID_BYTES + 1] id
    cdef bint left = session.opener.fd < 0
    codec.has_work = False
    codec.established = True
    session.core.now = session.heard = now_ns()
    session.state = T_OPEN
    session.counters.sessions += 1
    session.counters.open += 1
    memcpy(id, session.id, ID_BYTES)
    id[ID_BYTES] = b"\n"
    reply_to(session.core, &session.opener, 200, id, ID_BYTES + 1)
    if left:
        codec.ended = True                              # no client knows its id
        end_requests(session)
    else:
        start(session, Q_GHOST)
    return CODEC_OK


cdef void end_requests(TunnelSession* session) noexcept nogil:
    """The session is over: its id is forgotten, and what waits gets 404."""
    cdef TunnelCore* core = session.core
    cdef Early* early
    cdef int k
    if session.state == T_OVER:
        return
    forget_id(session)
    session.counters.open -= session.state == T_OPEN
    session.state = T_OVER
    if session.kind != TK_NONE:
        leave_asking(session)                           # before its deadline is gone
    if session.opener.fd >= 0:
        reply_to(core, &session.opener, 503, NULL, 0)
    reply_to(core, &session.asking, 404, NULL, 0)
    for k in range(WINDOW):
        early = &session.early[k]
        if early.kind != TK_NONE:
            reply_to(core, &early.origin, 404, NULL, 0)
            reply_to(core, &early.other, 404, NULL, 0)
            drop_early(session, early)
    for k in range(QUEUE_COUNT):
        stop(session, k)


cdef void finish_session(Codec* codec, CodecEnd why, Output* wire) noexcept nogil:
    """CodecType.finish: the upstream has ended the session (CE_DONE), or the pump has (then `outcome` says why)."""
    cdef TunnelSession* session = <TunnelSession*>codec
    codec.finished = codec.ended = True
    session.core.now = now_ns()
    end_requests(session)


cdef void release_session(Codec* codec) noexcept nogil:
    """CodecType.release: the record is closed."""
    cdef TunnelSession* session = <TunnelSession*>codec
    cdef TunnelCore* core = session.core
    cdef int k
    if session.codec.established:
        session.counters.ends[codec.outcome] += 1
    end_requests(session)
    if session.resumes:
        leave_resumed(session)
    for k in range(KEPT):
        drop_kept(session, k)
    drop_reply(session)
    while session.first != NULL:
        drop_piece(session)
    session.state = T_FREE
    session.next = core.free
    core.free = number_of(session)
    core.count -= 1
