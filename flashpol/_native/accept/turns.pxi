# The turns of handshakes: a limited number of their steps in one wake-up, so that policies never wait long for them.
#
# A step costs as much as a hundred replies. Those that wait for one take turns: one that has begun, the oldest of those
# that have not, and the oldest of the address with the fewest of them. So neither a flood of hellos from one address
# nor handshakes that go on in small steps keep others from their turns. With its first step a handshake takes a place
# in a share; at the limit, one that waits for its client gives way, or the newcomer waits. Overdue ones are closed
# before their turn.

from libc.errno cimport EAGAIN, errno
from libc.stdint cimport int32_t, int64_t, uint32_t

from flashpol._native.accept.state cimport (
    Core, Listener, QUEUE_COUNT, R_MAX_HANDSHAKES, Record, S_FREE, S_QUEUED, TurnLine,
)
from flashpol._native.account.places cimport AccountCore, HANDSHAKES, K_HANDSHAKE, K_QUEUED, MAX_LOOKED_AT, QUEUED
from flashpol._native.codecs.codec cimport Codec, CODEC_PLAIN, CODEC_REPLY, HF_CAPACITY, Output
from flashpol._native.common.system cimport MSG_PEEK, recv

cdef enum:
    BEGUN = 0                   # Core.turns: those that have a place
    FRESH = 1                   # and those that have none yet
    STEPS = 4                   # in one wake-up
    STEPS_NS = 500_000          # no further step is begun after so long
    PATIENCE_NS = 1_000_000_000     # so long a handshake may wait for its client before it gives way at the limit
    RETRY_NS = 100_000_000      # until a place is looked for again, where none is given back


cdef inline TurnLine* turns_of(Core* core, int fd) noexcept nogil:
    return &core.turns[BEGUN if core.records[fd].has_place else FRESH]


cdef void join_turns(Core* core, int fd) noexcept nogil:
    """A step of this handshake is due."""
    cdef TurnLine* line = turns_of(core, fd)
    cdef Codec* codec = codec_of(core, fd)
    if core.records[fd].state == S_QUEUED:
        return
    enter(core, fd, S_QUEUED)
    codec.in_turns = True
    codec.before = line.last
    codec.after = -1
    if line.last < 0:
        line.first = fd
    else:
        codec_of(core, line.last).after = fd
    line.last = fd
    fire_timer(&core.poller)


cdef void leave_turns(Core* core, int fd) noexcept nogil:
    cdef TurnLine* line = turns_of(core, fd)
    cdef Codec* codec = codec_of(core, fd)
    codec.in_turns = False
    if codec.before < 0:
        line.first = codec.after
    else:
        codec_of(core, codec.before).after = codec.after
    if codec.after < 0:
        line.last = codec.before
    else:
        codec_of(core, codec.after).before = codec.before


cdef void leave_handshakes(Core* core, int fd) noexcept nogil:
    """Give its place back, if it has one."""
    cdef Record* record = &core.records[fd]
    cdef Listener* listener = core.listeners[record.listener]
    if record.has_place:
        record.has_place = False
        listener.counters.handshaking -= 1
        give_back(&core.account.handshakes, &listener.handshakes)
        if core.turns[FRESH].first >= 0:
            fire_timer(&core.poller)


cdef int64_t waited(const Core* core, int fd, int64_t now) noexcept nogil:
    """ns since the deadline of its state was set."""
    cdef const Record* record = &core.records[fd]
    cdef uint8_t queue = core.states[record.state].queue
    return now - record.link.deadline + queue_of(core, record, queue).duration


cdef int handshake_that_gives_way(Core* core, int fd) noexcept nogil:
    """The handshake whose place the connection `fd` may take, -1: none.

    Of the address with the most of them the one that has had its place for longest, if that address has at least two
    more than the newcomer's, or if it has waited for its client too long.
    """
    cdef AccountCore* account = core.account
    cdef Listener* listener = core.listeners[core.records[fd].listener]
    cdef int32_t slot = heaviest(&account.rankings[HANDSHAKES])
    cdef int32_t own = account.rankings[HANDSHAKES].holders[core.records[fd].slot].weight
    cdef int64_t now = now_ns()
    cdef Listener* owner
    cdef int at
    for _ in range(MAX_LOOKED_AT):
        if slot < 0:
            return -1
        at = line_of(account, <uint32_t>slot, K_HANDSHAKE).head - 1
        owner = core.listeners[core.records[at].listener]
        if ((owner == listener or owner.handshakes.used > owner.handshakes.reserve)
                and core.records[at].state != S_QUEUED
                and (account.rankings[HANDSHAKES].holders[slot].weight > own + 1
                     or waited(core, at, now) > PATIENCE_NS)):
            return at
        slot = next_heaviest(&account.rankings[HANDSHAKES], slot)
    return -1


cdef bint take_handshake_place(Core* core, int fd) noexcept nogil:
    """False: the connection has to wait for one."""
    cdef Record* record = &core.records[fd]
    cdef Listener* listener = core.listeners[record.listener]
    cdef int at
    if not has_room(&core.account.handshakes, &listener.handshakes):
        at = handshake_that_gives_way(core, fd)
        if at < 0:
            return False
        codec_of(core, at).failure = HF_CAPACITY
        refuse(core, at, R_MAX_HANDSHAKES)
    if not take(&core.account.handshakes, &listener.handshakes):
        return False
    record.has_place = True
    listener.counters.handshaking += 1
    return True


cdef int next_turn(Core* core) noexcept nogil:
    """The connection whose turn it is, in no line any more and with a place; -1: none can go on."""
    cdef int fd = -1
    cdef int32_t slot
    core.turn += 1
    if core.turns[BEGUN].first >= 0 and (core.turn % 3 != 0 or core.turns[FRESH].first < 0):
        fd = core.turns[BEGUN].first
        leave_turns(core, fd)
        return fd
    if core.turns[FRESH].first >= 0:
        fd = core.turns[FRESH].first
        slot = lightest(&core.account.rankings[QUEUED])
        if core.turn & 1 and slot >= 0:
            fd = line_of(core.account, <uint32_t>slot, K_QUEUED).head - 1
        leave_turns(core, fd)
        if take_handshake_place(core, fd):
            return fd
        rejoin_turns(core, fd)
    if core.turns[BEGUN].first >= 0:
        fd = core.turns[BEGUN].first
        leave_turns(core, fd)
        return fd
    return -1


cdef void rejoin_turns(Core* core, int fd) noexcept nogil:
    """At the front: it found no place."""
    cdef TurnLine* line = &core.turns[FRESH]
    cdef Codec* codec = codec_of(core, fd)
    codec.in_turns = True
    codec.before = -1
    codec.after = line.first
    if line.first < 0:
        line.last = fd
    else:
        codec_of(core, line.first).before = fd
    line.first = fd


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
    cdef int fd, left = STEPS
    cdef int64_t end
    if core.turns[BEGUN].first < 0 and core.turns[FRESH].first < 0:
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
    if core.turns[BEGUN].first >= 0 or (core.turns[FRESH].first >= 0 and left < STEPS):
        fire_timer(&core.poller)
    elif core.turns[FRESH].first >= 0:
        arm_timer_at(&core.poller, now_ns() + RETRY_NS)
