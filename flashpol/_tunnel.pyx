# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: auto_pickle=False, autotestdict=False
"""Tunnel sessions: RTMP in the bodies of HTTP requests (RTMPT).

The fast path has the connections and reads HTTP; it gives complete requests to the Gate (codecs/gate.pxd). Here are the
sessions, by their ids: what is next in the order of its number, and what the client gets. The pump has the connection
to the upstream: a session is one of its sessions, whose client is no socket (relay/tunnel.pxi).

**Ids** have 16 digits of base 62: the host, the worker's incarnation (2), and 77 random bits. A request for a session
of another worker goes to it by a line, which the parent gave to both, and its reply comes back.

**Nothing is held here that the kernel can hold.** What the upstream sends is read when a request asks for it. What a
request brings is sent at once; only what the upstream does not take waits, up to `rtmpt_buffer`.

**Repetition.** The last two replies are kept, for a client that lost one and asks once more: with two connections it
may lose the reply to a request when that to the next one has come.
"""

from cython cimport no_gc_clear
from cpython.exc cimport PyErr_SetFromErrno
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset
from posix.unistd cimport close

from flashpol._fastpath cimport Account
from flashpol._native.codecs.codec cimport CodecType, TunnelType
from flashpol._native.codecs.gate cimport Gate
from flashpol._native.common.deadlines cimport Queue
from flashpol._native.relay.counters cimport (
    E_CLIENT, E_CLIENT_RESET, E_CRASHED, E_DURATION, E_EVICTED, E_GHOST, E_IDLE, E_PING, E_PROTOCOL, E_SHUTDOWN,
    E_SILENT, E_UPSTREAM, E_UPSTREAM_RESET, END_COUNT,
)
from flashpol._native.tunnel.state cimport (
    Forwarded, Line, LINE_COUNT, Q_GAP, Q_GHOST, Q_HOLD, QUEUE_COUNT, Timeouts, TIMEOUTS_COUNT, TunnelCore,
    TunnelCounters, TunnelSession,
)

# Filled in when the module is imported.
cdef TunnelType CLIENT_SIDE
cdef CodecType TUNNEL


cdef inline TunnelCore* core_of(Gate* gate) noexcept nogil:
    return <TunnelCore*>gate.sessions


include "_native/common/deadlines.pxi"
include "_native/common/poller.pxi"
include "_native/bindings/tables.pxi"

include "_native/tunnel/sessions.pxi"
include "_native/tunnel/window.pxi"
include "_native/tunnel/lines.pxi"
include "_native/tunnel/requests.pxi"
include "_native/tunnel/invariants.pxi"

CLIENT_SIDE.peek = peek_at
CLIENT_SIDE.consume = consume
CLIENT_SIDE.room = room_of
CLIENT_SIDE.deliver = deliver
TUNNEL.tunnel = &CLIENT_SIDE
TUNNEL.work = open_session
TUNNEL.finish = finish_session
TUNNEL.release = release_session

INCARNATIONS = BASE * BASE
BLOCK_SIZE = (sizeof(TunnelCounters) + 63) // 64 * 64       # whole cache lines: no two writers share one
# As in _pump.pyx, whose sessions these are.
cdef tuple OUTCOMES = numbered(END_COUNT, {
    E_CLIENT: "client",
    E_UPSTREAM: "upstream",
    E_CLIENT_RESET: "client_reset",
    E_UPSTREAM_RESET: "upstream_reset",
    E_IDLE: "idle",
    E_DURATION: "duration",
    E_SHUTDOWN: "shutdown",
    E_SILENT: "silent",
    E_EVICTED: "evicted",
    E_PROTOCOL: "protocol",
    E_PING: "ping",
    E_GHOST: "ghost",
    E_CRASHED: "crashed",
})
ENDS = OUTCOMES


cdef dict layout_of_counters():
    cdef TunnelCounters block
    cdef char* begin = <char*>&block
    return laid_out(sizeof(TunnelCounters), [
        ("sessions", <char*>&block.sessions - begin, sizeof(block.sessions)),
        ("ends", <char*>&block.ends - begin, sizeof(block.ends)),
        ("unknown", <char*>&block.unknown - begin, sizeof(block.unknown)),
        ("reordered", <char*>&block.reordered - begin, sizeof(block.reordered)),
        ("gaps", <char*>&block.gaps - begin, sizeof(block.gaps)),
        ("repeated", <char*>&block.repeated - begin, sizeof(block.repeated)),
        ("refused", <char*>&block.refused - begin, sizeof(block.refused)),
        ("forwarded", <char*>&block.forwarded - begin, sizeof(block.forwarded)),
        ("forward_failures", <char*>&block.forward_failures - begin, sizeof(block.forward_failures)),
        ("polls", <char*>&block.polls - begin, sizeof(block.polls)),
        ("open", <char*>&block.open - begin, sizeof(block.open)),
        ("held", <char*>&block.held - begin, sizeof(block.held)),
        ("buffered", <char*>&block.buffered - begin, sizeof(block.buffered)),
    ])


LAYOUT = layout_of_counters()
cdef enum:
    LISTENERS = 1024                # as many as the fast path has
    FLOOR_NS = 20_000_000           # the shortest time a poll is held: rtmpdump polls again at once


@no_gc_clear
cdef class Tunnels(TunnelGate):
    def __cinit__(self, *, Account account not None, str host not None, int incarnation, int32_t capacity,
                  int64_t max_bytes=1 << 28):
        cdef TunnelCore* core = &self.core
        cdef size_t fd
        cdef int32_t k
        if len(host) != 1 or value_of(<char>ord(host)) < 0:
            raise ValueError("host is one character of 0-9A-Za-z")
        if not 0 <= incarnation < <int>INCARNATIONS:
            raise ValueError(f"incarnation is 0 to {INCARNATIONS - 1}")
        if not 0 <= capacity <= 1 << 24:
            raise ValueError("capacity is 0 to 2^24 sessions")
        self._account = account
        self._blocks = []
        core.account = &account.core
        core.gate = &self.gate
        core.host = <char>ord(host)
        core.incarnation = <uint16_t>incarnation
        core.capacity = capacity
        core.max_bytes = max_bytes
        core.free = core.resumed = -1
        core.hash_mask = 1
        while core.hash_mask < <uint32_t>capacity:
            core.hash_mask = core.hash_mask * 2 + 1
        # The kernel gives pages as they are used.
        core.table = <TunnelSession*>calloc(max(capacity, 1), sizeof(TunnelSession))
        core.queues = <Queue*>calloc(TIMEOUTS_COUNT * QUEUE_COUNT, sizeof(Queue))
        core.timeouts = <Timeouts*>calloc(TIMEOUTS_COUNT, sizeof(Timeouts))
        core.listener_sets = <uint16_t*>calloc(LISTENERS, sizeof(uint16_t))
        core.listener_counters = <TunnelCounters**>calloc(LISTENERS, sizeof(TunnelCounters*))
        core.hashed = <int32_t*>malloc((<size_t>core.hash_mask + 1) * sizeof(int32_t))
        core.waiting = <int32_t*>malloc(account.core.capacity * sizeof(int32_t))
        core.forwarded = <Forwarded*>calloc(account.core.capacity, sizeof(Forwarded))
        core.lines = <Line*>calloc(LINE_COUNT, sizeof(Line))
        if (core.table == NULL or core.queues == NULL or core.timeouts == NULL or core.listener_sets == NULL
                or core.listener_counters == NULL or core.hashed == NULL or core.waiting == NULL
                or core.forwarded == NULL or core.lines == NULL):
            raise MemoryError
        memset(core.hashed, 0xFF, (<size_t>core.hash_mask + 1) * sizeof(int32_t))
        for fd in range(account.core.capacity):
            core.waiting[fd] = core.forwarded[fd].line = -1
        for k in range(LINE_COUNT):
            core.lines[k].fd = -1
        self.gate.sessions = core
        self.gate.account = core.account
        self.gate.request = take_request
        self.gate.forget = forget_request
        self.gate.hurry = hurry_request
        self.gate.begin = begin_session
        if not open_poller(&core.poller):
            PyErr_SetFromErrno(OSError)

    def __dealloc__(self):
        cdef TunnelCore* core = &self.core
        cdef int32_t k
        close_poller(&core.poller)
        if core.lines != NULL:
            for k in range(LINE_COUNT):
                if core.lines[k].fd >= 0:
                    close(core.lines[k].fd)
                free(core.lines[k].input)
                free(core.lines[k].output)
        free(core.table)
        free(core.queues)
        free(core.timeouts)
        free(core.listener_sets)
        free(core.listener_counters)
        free(core.hashed)
        free(core.waiting)
        free(core.forwarded)
        free(core.lines)

    def add_timeouts(self, *, double hold, double gap, double session_timeout, uint32_t buffer):
        cdef TunnelCore* core = &self.core
        cdef int first = core.timeouts_count * QUEUE_COUNT
        cdef double[QUEUE_COUNT] durations
        cdef int i
        if core.timeouts_count == TIMEOUTS_COUNT:
            raise ValueError(f"at most {TIMEOUTS_COUNT} sets of timeouts")
        durations[<int>Q_HOLD] = max(hold, FLOOR_NS / 1e9)
        durations[<int>Q_GAP] = gap
        durations[<int>Q_GHOST] = session_timeout * 17 / 16
        for i in range(QUEUE_COUNT):
            init_queue(&core.queues[first + i], &core.table[0].links[i], sizeof(TunnelSession),
                       <int64_t>(durations[i] * 1e9))
        core.timeouts[core.timeouts_count].buffer = buffer
        core.timeouts_count += 1
        return core.timeouts_count - 1

    def add_listener(self, int number, unsigned char[::1] block not None, *, int timeouts):
        cdef TunnelCounters* counters
        if block.shape[0] < <Py_ssize_t>sizeof(TunnelCounters) or <size_t>&block[0] % sizeof(uint64_t) != 0:
            raise ValueError(f"a counter block is {sizeof(TunnelCounters)} bytes, aligned to {sizeof(uint64_t)}")
        if not 0 <= number < LISTENERS or not 0 <= timeouts < self.core.timeouts_count:
            raise ValueError("number is that of a listener, timeouts one that add_timeouts has returned")
        counters = <TunnelCounters*>&block[0]
        counters.open = counters.held = counters.buffered = 0
        self._blocks.append(block)
        self.core.listener_counters[number] = counters
        self.core.listener_sets[number] = <uint16_t>timeouts

    def add_line(self, int incarnation, int fd):
        if not 0 <= incarnation < <int>INCARNATIONS or incarnation == self.core.incarnation:
            raise ValueError("a line leads to another worker")
        if not open_line(&self.core, incarnation, fd):
            PyErr_SetFromErrno(OSError)

    @property
    def lines(self):
        return [k for k in range(LINE_COUNT) if self.core.lines[k].fd >= 0]

    @property
    def open(self):
        return self.core.count

    @property
    def bytes(self):
        return self.core.bytes

    def refuse(self, int fd, int status):
        cdef TunnelSession* session
        if not 0 <= fd < <int>self.core.account.capacity or self.core.account.codecs[fd] == NULL or (
                self.core.account.codecs[fd].type != &TUNNEL):
            raise ValueError(f"fd {fd} is not a tunnel session")
        session = <TunnelSession*>self.core.account.codecs[fd]
        if session.opener.fd >= 0:
            reply_to(&self.core, &session.opener, status, NULL, 0)

    def fileno(self):
        return self.core.poller.epoll

    def ready(self):
        with nogil:
            dispatch(&self.core)

    def wake(self):
        set_timer(&self.core.poller, 1)

    def check(self):
        cdef const char* violation
        with nogil:
            violation = find_violation(&self.core)
        if violation != NULL:
            raise AssertionError(violation.decode("ascii"))
        return self.core.count
