# The turns of handshakes: a limited number of their steps in one wake-up, so that policies never wait long for them.
#
# A step costs as much as a hundred replies. Those that wait for one take turns: handshakes that have begun, and hellos.
# Each listener has a line of hellos. Turns go round the listeners, and every other one is for the address with the
# fewest hellos. So neither a flood of them, nor handshakes that go on in small steps, nor another listener keep a
# client from its turn. When the oldest hello of a line has waited long, more come than can be served: then the newest
# has its turn, as its client has most time left, and the oldest end at their deadline. Otherwise each would be served
# just before its client gives up.
#
# With its first step a handshake takes a place in a share. At the limit, one that waits for its client gives way; where
# none does, the hello waits.

from libc.errno cimport EAGAIN, errno
from libc.stdint cimport int32_t, int64_t, uint32_t

from flashpol._native.accept.state cimport Core, Listener, R_MAX_HANDSHAKES, Record, S_QUEUED, TurnLine
from flashpol._native.account.places cimport (
    AccountCore, HANDSHAKES, K_HANDSHAKE, K_QUEUED, MAX_LOOKED_AT, QUEUED, Ranking,
)
from flashpol._native.codecs.codec cimport Codec, CODEC_PLAIN, CODEC_REPLY, CodecLink, Output
from flashpol._native.common.system cimport MSG_PEEK, recv

cdef enum:                      # the lines that a codec can be in
    TURNS = 0
    PLACED = 1

cdef enum:
    STEPS = 4                   # in one wake-up
    STEPS_NS = 500_000          # no further step is begun after so long
    OVERLOAD_NS = 500_000_000   # a hello that waits for longer shows that more come than can be served
    # So long a handshake may take before it gives way at the limit, however often its client has sent a part. 1,000
    # places are enough for 5,000 handshakes a second then, more than a CPU can do.
    PATIENCE_NS = 200_000_000
    RETRY_NS = 20_000_000       # until a place is looked for again, where none is given back


# --------------------------------------------------------------------------------------------------------------- lines

cdef inline CodecLink* link_at(const Core* core, int which, int fd) noexcept nogil:
    """A connection without a codec has a place for its head."""
    cdef Codec* codec = codec_of(core, fd)
    return &core.heads[fd].link if codec == NULL else &codec.links[which]


cdef inline bint waits_for_turn(const Core* core, int fd) noexcept nogil:
    cdef const Codec* codec = codec_of(core, fd)
    return codec != NULL and codec.in_turns


cdef inline void join(Core* core, TurnLine* line, int which, int fd) noexcept nogil:
    cdef CodecLink* link = link_at(core, which, fd)
    link.since = now_ns()
    link.before = line.last
    link.after = -1
    if line.last < 0:
        line.first = fd
    else:
        link_at(core, which, line.last).after = fd
    line.last = fd


cdef inline void leave(Core* core, TurnLine* line, int which, int fd) noexcept nogil:
    cdef const CodecLink* link = link_at(core, which, fd)
    if link.before < 0:
        line.first = link.after
    else:
        link_at(core, which, link.before).after = link.after
    if link.after < 0:
        line.last = link.before
    else:
        link_at(core, which, link.after).before = link.before


cdef void join_turns(Core* core, int fd) noexcept nogil:
    """A step of this handshake is due."""
    cdef Record* record = &core.records[fd]
    if record.state == S_QUEUED:
        return
    enter(core, fd, S_QUEUED)
    codec_of(core, fd).in_turns = True
    if record.has_place:
        join(core, &core.begun, TURNS, fd)
    else:
        join(core, &core.listeners[record.listener].hellos, TURNS, fd)
        core.hellos += 1
    fire_timer(&core.poller)


cdef void leave_turns(Core* core, int fd) noexcept nogil:
    cdef Record* record = &core.records[fd]
    codec_of(core, fd).in_turns = False
    if record.has_place:
        leave(core, &core.begun, TURNS, fd)
    else:
        leave(core, &core.listeners[record.listener].hellos, TURNS, fd)
        core.hellos -= 1


# -------------------------------------------------------------------------------------------------------------- places

cdef void leave_handshakes(Core* core, int fd) noexcept nogil:
    """Give its place back, if it has one."""
    cdef Record* record = &core.records[fd]
    cdef Listener* listener = core.listeners[record.listener]
    if record.has_place:
        leave(core, &core.placed, PLACED, fd)
        record.has_place = False
        listener.counters.handshaking -= 1
        give_back(&core.account.handshakes, &listener.handshakes)
        if core.hellos:
            fire_timer(&core.poller)


cdef inline bint helps(const Core* core, int fd, const Listener* listener) noexcept nogil:
    """Whether `listener` may take the place of this handshake."""
    cdef const Listener* owner = core.listeners[core.records[fd].listener]
    return owner == listener or owner.handshakes.used > owner.handshakes.reserve


cdef int handshake_that_gives_way(Core* core, const Listener* listener, uint32_t slot) noexcept nogil:
    """The handshake whose place a hello of this listener and address may take, -1: none.

    Of the address with the most of them the oldest, if it has at least two more than the newcomer's; or else the oldest
    of all whose address has no fewer, if it is old. One that waits for its turn does not: its client has done its part.
    """
    cdef AccountCore* account = core.account
    cdef const Ranking* ranking = &account.rankings[HANDSHAKES]
    cdef int32_t most = heaviest(ranking), own = ranking.holders[holder_of(account, slot)].weight
    cdef int64_t now
    cdef int at, looked_at = 0
    if most >= 0 and ranking.holders[most].weight > own + 1:
        at = line_of(account, <uint32_t>most, K_HANDSHAKE).head - 1
        while at >= 0 and looked_at < MAX_LOOKED_AT:
            if not waits_for_turn(core, at) and helps(core, at, listener):
                return at
            looked_at += 1
            at = account.entries[at].after - 1
    now = now_ns()
    at = core.placed.first
    looked_at = 0
    while at >= 0 and looked_at < MAX_LOOKED_AT and now - link_at(core, PLACED, at).since > PATIENCE_NS:
        if (not waits_for_turn(core, at) and helps(core, at, listener)
                and ranking.holders[holder_of(account, core.records[at].slot)].weight >= own):
            return at
        looked_at += 1
        at = link_at(core, PLACED, at).after
    return -1


cdef bint reserve_place(Core* core, int fd) noexcept nogil:
    """Take a place from the share; `settle_place` follows. False: there is none."""
    cdef Record* record = &core.records[fd]
    cdef Listener* listener = core.listeners[record.listener]
    cdef int at
    if not has_room(&core.account.handshakes, &listener.handshakes):
        at = handshake_that_gives_way(core, listener, record.slot)
        if at < 0:
            return False
        give_way(core, at, R_MAX_HANDSHAKES)        # however it ends, its place is free
    return take(&core.account.handshakes, &listener.handshakes)


cdef void settle_place(Core* core, int fd) noexcept nogil:
    core.records[fd].has_place = True
    join(core, &core.placed, PLACED, fd)
    core.listeners[core.records[fd].listener].counters.handshaking += 1


cdef bint take_handshake_place(Core* core, int fd) noexcept nogil:
    """False: the connection has to wait for one."""
    if not reserve_place(core, fd):
        return False
    leave_turns(core, fd)
    settle_place(core, fd)
    return True


# --------------------------------------------------------------------------------------------------------------- turns

cdef int hello_of_listener(Core* core, const Listener* listener) noexcept nogil:
    """The hello of a listener whose turn it is: the oldest, or the newest if more come than can be served."""
    if now_ns() - codec_of(core, listener.hellos.first).links[TURNS].since > OVERLOAD_NS:
        return listener.hellos.last
    return listener.hellos.first


cdef int hello_of_lightest(Core* core) noexcept nogil:
    """A hello of the address with the fewest, in the same way; -1 if it gets no place, or all have as many."""
    cdef const Ranking* ranking = &core.account.rankings[QUEUED]
    cdef int32_t holder = lightest(ranking)
    cdef int fd
    if holder < 0 or ranking.holders[holder].weight == ranking.holders[heaviest(ranking)].weight:
        return -1
    fd = line_of(core.account, <uint32_t>holder, K_QUEUED).head - 1
    if now_ns() - codec_of(core, fd).links[TURNS].since > OVERLOAD_NS:
        fd = line_of(core.account, <uint32_t>holder, K_QUEUED).tail - 1
    return fd if take_handshake_place(core, fd) else -1


cdef int next_hello(Core* core) noexcept nogil:
    """A hello that has a place now, -1 if none gets one."""
    cdef int fd = -1, i
    if core.turn & 1:
        fd = hello_of_lightest(core)
    for i in range(core.listener_count):
        if fd >= 0 or core.hellos == 0:
            break
        core.turn_of = <uint16_t>((core.turn_of + 1) % core.listener_count)
        if core.listeners[core.turn_of].hellos.first >= 0:
            fd = hello_of_listener(core, core.listeners[core.turn_of])
            if not take_handshake_place(core, fd):
                fd = -1
    return fd


cdef int next_turn(Core* core) noexcept nogil:
    """The connection whose turn it is, in no line any more and with a place; -1: none can go on."""
    cdef int fd = -1
    core.turn += 1
    if core.hellos and (core.begun.first < 0 or core.turn % 3 == 0):
        fd = next_hello(core)
    if fd < 0 and core.begun.first >= 0:
        fd = core.begun.first
        leave_turns(core, fd)
    return fd


cdef bint has_left(Core* core, int fd) noexcept nogil:
    """The client closed or reset the connection while it waited for its first turn."""
    cdef ssize_t n = recv(fd, core.wire, 1, MSG_PEEK)
    return n == 0 or (n < 0 and errno != EAGAIN)


cdef void take_turn(Core* core, int fd) noexcept nogil:
    cdef Codec* codec = codec_of(core, fd)
    cdef Output plain, reply
    plain.data, plain.size, plain.room = core.buffer, 0, CODEC_PLAIN
    reply.data, reply.size, reply.room = core.encoded, 0, CODEC_REPLY
    if codec.has_begun == 0 and has_left(core, fd):
        on_client_gone(core, fd)
    else:
        codec.has_begun = True
        after_decode(core, fd, codec.type.work(codec, &plain, &reply), &plain, &reply)


cdef void run_turns(Core* core) noexcept nogil:
    """Take a few steps. What is left keeps the timer firing, so the event loop comes back after one round."""
    cdef int fd = -1, left = STEPS
    cdef int64_t end
    if core.begun.first < 0 and core.hellos == 0:
        return
    end = now_ns() + STEPS_NS
    while left > 0:
        fd = next_turn(core)
        if fd < 0:
            break
        take_turn(core, fd)
        left -= 1
        if now_ns() >= end:
            break
    if core.begun.first >= 0 or (core.hellos and fd >= 0):
        fire_timer(&core.poller)
    elif core.hellos:
        arm_timer_at(&core.poller, now_ns() + RETRY_NS)
