# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: auto_pickle=False, autotestdict=False
"""The pump: moves the bytes of sessions between clients and upstreams, without a Python object for each byte.

A greenlet owns each session. `begin_session` connects in the hub, and the greenlet runs once the session has ended or
has failed. `run_session` is called in a greenlet that has something to wait for first, and sleeps there until then. The
bytes are moved here, in the hub, whenever epoll reports that a side is readable or, after it took no more, writable.

    CONNECTING ──established──► OPEN ──both FINs sent, RST, deadline, cut──► CLOSED ──the greenlet wakes──► FREE
         └──────refused, unreachable, deadline, cut─────────────────────────────▲
                                        (cut: shutdown, eviction, the greenlet is killed)

**Memory.** What is read is sent at once. Only bytes that the other side does not take are held, and nothing more is
read until they are sent: a buffer is in use only while a side is slow. The number of buffers is limited. When none is
left, bytes are peeked (MSG_PEEK) and sent, and only what was taken is read: the kernel holds the rest, and the sender's
window shrinks. So slow readers use a limited amount of memory and lose nothing.

**Ends.** FIN is passed on when all bytes before it have been. When both FINs have been passed on, the session has
ended. RST of one side becomes RST of the other, after the bytes that came before it: Linux still delivers those, and so
does the pump. A side that cannot be written to any more is `write_failed`: it is read to its end, and the end is RST.
When a session is cut, by a deadline or by the end of the process, a side that bytes still waited for gets RST instead
of FIN, so that it does not take the part for the whole.

**Local ports.** Each connection to an upstream has one, and a session whose client closes first leaves it in TIME-WAIT
for 60 s. The pump keeps an account: ports.pxd. No address can take them all; when they are scarce, a new connection
takes over the port that has been in TIME-WAIT longest.

**Codecs.** The client's side of a session may have a codec (TLS). What it sends is decoded before it is sent on, and
what the upstream sends is encoded. Everything else is the same: convert.pxi.

**Edges and levels.** epoll watches a side for input only while the other side takes bytes, and for output only after it
took no more: in the common case the watch never changes. A side is watched edge-triggered, so FIN needs no change
either, until it once sends more than is read in its turn: from then on level-triggered. A read that takes less than it
could is the last one, unless epoll has reported an end (EPOLLRDHUP). A side that is watched for levels, without
anything to wait for, is taken out of the set, because EPOLLHUP and EPOLLERR, which are reported unasked, would be
reported again and again. An RST is noticed at the next read or write of that side. To close a descriptor takes it out
of the set: a worker has no copy of it, since it does not fork.

**Young sessions.** Most short ones end within a second. TCP keepalive, and the client's open-ended TCP_USER_TIMEOUT,
wait for that second (Q_YOUNG), TCP_NODELAY for the second send. While few local ports are in use, those in TIME-WAIT
are left there, so they are not asked for.

**Deadlines.** As in the fast path, each queue has one duration, so no heap is needed: every set of timeouts, which a
Destination names, has queues of its own. A session that moves bytes goes
to the end of the idle queue, but only after 1/16 of idle_timeout in it. The queue's duration is longer by that part. So
a busy session does not pay for it each time, and no session ends too early. A session in which neither side has sent a
byte has a shorter deadline, silent_timeout from its begin.
"""

from cython cimport no_gc_clear
from cpython.exc cimport PyErr_SetFromErrno
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from flashpol._native.codecs.codec cimport CE_REPLACED, CE_STOP, CODEC_HEADROOM, CODEC_REPLY
from flashpol._native.common.deadlines cimport Queue
from flashpol._native.common.sanitizer cimport leave_stack
from flashpol._native.common.system cimport (
    AF_INET, AF_INET6, AF_UNIX, htons, inet_pton, sockaddr_in, sockaddr_in6, sockaddr_un, socklen_t,
)
from flashpol._native.relay.buffers cimport CHUNK
from flashpol._native.relay.counters cimport (
    CONNECT_BOUNDS, CONNECT_BUCKETS, Counters, DURATION_BOUNDS, DURATION_BUCKETS, E_CLIENT, E_CLIENT_RESET, E_CRASHED,
    E_DURATION, E_EVICTED, E_GHOST, E_IDLE, E_PING, E_PROTOCOL, E_SHUTDOWN, E_SILENT, E_UPSTREAM, E_UPSTREAM_RESET,
    END_COUNT, F_CONNECTING, F_CUT, F_PORTS, F_RATE, F_REFUSED, F_RESOURCES, F_TIMEOUT, F_UNREACHABLE, F_UNRESOLVED,
    OUTCOME_COUNT,
)
from flashpol._native.relay.ports cimport Target
from flashpol._native.relay.state cimport (
    CLIENT, Core, Q_CLOSING, Q_CONNECT, Q_DURATION, Q_IDLE, Q_PING, Q_SILENT, Q_YOUNG, QUEUE_COUNT, S_CLOSED, Session,
    TIMEOUTS_COUNT,
)

from flashpol._fastpath cimport Account

from greenlet import getcurrent, greenlet

include "_native/common/deadlines.pxi"
include "_native/common/poller.pxi"
include "_native/common/share.pxi"

include "_native/account/ranking.pxi"
include "_native/account/places.pxi"

include "_native/codecs/codec.pxi"

include "_native/relay/counters.pxi"
include "_native/relay/buffers.pxi"
include "_native/relay/readiness.pxi"
include "_native/relay/activity.pxi"
include "_native/relay/ports.pxi"
include "_native/relay/close.pxi"
include "_native/relay/convert.pxi"
include "_native/relay/transfer.pxi"
include "_native/relay/tunnel.pxi"
include "_native/relay/connect.pxi"
include "_native/relay/dispatch.pxi"
include "_native/relay/invariants.pxi"

include "_native/bindings/tables.pxi"
include "_native/bindings/share.pxi"

# Enum Outcome has its names here and nowhere else.
cdef tuple OUTCOMES = numbered(OUTCOME_COUNT, {
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
    F_REFUSED: "refused",
    F_UNREACHABLE: "unreachable",
    F_TIMEOUT: "timeout",
    F_RESOURCES: "resources",
    F_CUT: "cut",
    F_PORTS: "ports",
    F_UNRESOLVED: "unresolved",
    F_RATE: "rate",
    F_CONNECTING: "connecting",
})
ENDS = OUTCOMES[:END_COUNT]
FAILURES = OUTCOMES[END_COUNT:]

CONNECT_SECONDS = tuple([bound / 1e9 for bound in CONNECT_BOUNDS[:CONNECT_BUCKETS - 1]])
DURATION_SECONDS = tuple([bound / 1e9 for bound in DURATION_BOUNDS[:DURATION_BUCKETS - 1]])
BLOCK_SIZE = (sizeof(Counters) + 63) // 64 * 64     # whole cache lines: no two writers share one


cdef dict layout_of_counters():
    cdef Counters block
    cdef char* begin = <char*>&block
    return laid_out(sizeof(Counters), [
        ("opened", <char*>&block.opened - begin, sizeof(block.opened)),
        ("ends", <char*>&block.ends - begin, sizeof(block.ends)),
        ("failures", <char*>&block.failures - begin, sizeof(block.failures)),
        ("sent", <char*>&block.sent - begin, sizeof(block.sent)),
        ("connect_ns", <char*>&block.connect_ns - begin, sizeof(block.connect_ns)),
        ("connect_buckets", <char*>&block.connect_buckets - begin, sizeof(block.connect_buckets)),
        ("duration_ns", <char*>&block.duration_ns - begin, sizeof(block.duration_ns)),
        ("duration_buckets", <char*>&block.duration_buckets - begin, sizeof(block.duration_buckets)),
        ("open", <char*>&block.open - begin, sizeof(block.open)),
        ("connecting", <char*>&block.connecting - begin, sizeof(block.connecting)),
        ("ports", <char*>&block.ports - begin, sizeof(block.ports)),
        ("max_ports", <char*>&block.max_ports - begin, sizeof(block.max_ports)),
    ])


LAYOUT = layout_of_counters()


cdef int write_ip(void* storage, bytes host, uint16_t port, uint32_t scope, socklen_t* size) except -1:
    """Write a sockaddr_in or a sockaddr_in6 into zeroed memory, which has room for either."""
    cdef sockaddr_in* v4 = <sockaddr_in*>storage
    cdef sockaddr_in6* v6 = <sockaddr_in6*>storage
    host = host.partition(b"%")[0]
    if inet_pton(AF_INET, host, &v4.sin_addr) == 1:
        v4.sin_family = AF_INET
        v4.sin_port = htons(port)
        size[0] = sizeof(sockaddr_in)
        return 0
    memset(storage, 0, sizeof(sockaddr_in6))
    if inet_pton(AF_INET6, host, &v6.sin6_addr) != 1:
        raise ValueError(f"{host!r} is not an IP address")
    v6.sin6_family = AF_INET6
    v6.sin6_port = htons(port)
    v6.sin6_scope_id = scope
    size[0] = sizeof(sockaddr_in6)
    return 0


cdef class PortAccount:
    def __cinit__(self, int32_t limit, int32_t sessions, double time_wait, const uint16_t[::1] chosen):
        self.blocks = {}
        self.ports.time_wait = <int64_t>(time_wait * 1e9)
        if not init_ports(&self.ports, limit, sessions):
            raise MemoryError
        if chosen is not None and chosen.shape[0]:
            self.ports.chosen = <uint16_t*>malloc(<size_t>chosen.nbytes)
            if self.ports.chosen == NULL:
                raise MemoryError
            memcpy(self.ports.chosen, &chosen[0], <size_t>chosen.nbytes)
            self.ports.chosen_count = <uint32_t>chosen.shape[0]

    def __dealloc__(self):
        free_ports(&self.ports)


@no_gc_clear
cdef class Destination:
    def __cinit__(self, address not None, unsigned char[::1] block not None, *, int keepalive=0, uint16_t timeouts=0,
                  double user_timeout=0.0, sources=()):
        cdef Target* target = &self.target
        if block.shape[0] < <Py_ssize_t>sizeof(Counters) or <size_t>&block[0] % sizeof(uint64_t) != 0:
            raise ValueError(f"a counter block is {sizeof(Counters)} bytes, aligned to {sizeof(uint64_t)}")
        self.address = address
        self._block = block
        self._counters = <Counters*>&block[0]
        if not 0 <= keepalive <= 32767:
            raise ValueError("keepalive is 0 to 32767 seconds")
        target.keepalive = 0 if isinstance(address, str) else <uint16_t>keepalive
        target.timeouts = timeouts
        target.user_timeout = <uint32_t>(user_timeout * 1e3)
        if isinstance(address, str):
            self._set_path(address.encode())
        else:
            write_ip(
                &target.address, address[0].encode(), address[1], address[3] if len(address) == 4 else 0, &target.size,
            )
            self._set_sources(tuple(sources))

    def __dealloc__(self):
        self._leave_routes()
        free(self.target.sources)
        free(self.target.routes)

    cdef int _set_path(self, bytes path) except -1:
        cdef sockaddr_un* local = <sockaddr_un*>&self.target.address
        if not 0 < len(path) < <Py_ssize_t>sizeof(local.sun_path) or b"\0" in path:
            raise ValueError(f"{path!r}: a Unix socket's path is 1 to {sizeof(local.sun_path) - 1} bytes")
        local.sun_family = AF_UNIX
        memcpy(local.sun_path, <const char*>path, len(path))
        self.target.size = sizeof(sockaddr_un)
        return 0

    cdef int _set_sources(self, tuple sources) except -1:
        """Those of the address's family."""
        cdef Target* target = &self.target
        cdef socklen_t size
        target.sources = <sockaddr_in6*>calloc(max(len(sources), 1), sizeof(sockaddr_in6))
        target.routes = <int32_t*>calloc(max(len(sources), 1), sizeof(int32_t))
        if target.sources == NULL or target.routes == NULL:
            raise MemoryError
        for source in sources:
            memset(&target.sources[target.source_count], 0, sizeof(sockaddr_in6))
            write_ip(&target.sources[target.source_count], source.encode(), 0, 0, &size)
            target.source_count += target.sources[target.source_count].sin6_family == target.address.ss_family
        return 0

    cdef int _use_routes(self, PortAccount account) except -1:
        """Find the routes in the account of a pump, at the first session."""
        cdef Target* target = &self.target
        cdef sockaddr_in6 none
        cdef int32_t number
        cdef int k
        self._leave_routes()
        memset(&none, 0, sizeof(none))
        self._account = account
        account.blocks[<size_t>self._counters] = self._block
        for k in range(max(target.source_count, 1)):
            number = use_route(
                &account.ports, <sockaddr_in6*>&target.address, &target.sources[k] if target.source_count else &none,
            )
            if number < 0:
                raise MemoryError
            target.routes[k] = number
            target.route_count += 1
            self._counters.max_ports += account.ports.limit
        return 0

    cdef void _leave_routes(self) noexcept:
        cdef int k
        for k in range(self.target.route_count):
            self._account.ports.routes[self.target.routes[k]].users -= 1
            self._counters.max_ports -= self._account.ports.limit
        self.target.route_count = 0

    @property
    def ports(self):
        cdef Target* target = &self.target
        cdef int k
        cdef int32_t used = 0
        for k in range(target.route_count):
            used += in_use_of(&self._account.ports.routes[target.routes[k]])
        return used, self._account.ports.limit * target.route_count if target.route_count else 0

    def exceeds_ports(self, double share):
        cdef Target* target = &self.target
        cdef int64_t used = 0
        cdef int k
        for k in range(target.route_count):
            used += in_use_of(&self._account.ports.routes[target.routes[k]])
        return used > share * target.route_count * self._account.ports.limit if used else False

    def count_failure(self, str why not None):
        self._counters.failures[<int>FAILURES.index(why)] += 1


cdef class Pump:
    def __cinit__(self, *, sleep, on_error, int32_t capacity, parent=None, uint32_t buffers=512, Account account=None,
                  int32_t local_ports=1 << 16, const uint16_t[::1] chosen_ports=None, double time_wait=60.0):
        cdef Core* core = &self.core
        if not 0 <= capacity <= 1 << 24:
            raise ValueError("capacity is 0 to 2^24 sessions")
        core.free = core.closed = core.closed_last = -1
        core.capacity = capacity
        core.pool.max_made = buffers + 1
        core.pool.scratch = take_buffer(&core.pool)
        core.pool.spare = take_buffer(&core.pool)
        core.table = <Session*>calloc(max(capacity, 1), sizeof(Session))
        # The kernel gives pages as they are used.
        core.queues = <Queue*>calloc(TIMEOUTS_COUNT * QUEUE_COUNT, sizeof(Queue))
        core.wire = <char*>malloc(CODEC_HEADROOM + CHUNK)
        if core.wire != NULL:
            core.wire += CODEC_HEADROOM
        core.stop_as = CE_STOP
        core.reply = <char*>malloc(CODEC_REPLY)
        if (core.table == NULL or core.queues == NULL or core.pool.scratch == NULL or core.wire == NULL
                or core.reply == NULL):
            raise MemoryError
        self._ports = PortAccount(local_ports, capacity, time_wait, chosen_ports)
        core.ports = &self._ports.ports
        self._sleep = sleep
        self._parent = getcurrent() if parent is None else parent      # a hub that does not run yet is false
        self._on_error = on_error
        self._account = account
        if account is not None:
            core.account = &account.core
            account.core.end_session = end_session_of
            account.core.wake_session = wake_session_of
            account.core.lose_session = lose_session_of
            account.core.relay = core
        if not open_poller(&core.poller):
            PyErr_SetFromErrno(OSError)

    def __dealloc__(self):
        close_poller(&self.core.poller)
        self._drop_owners()
        free(self.core.table)
        free(self.core.queues)
        free(self.core.clients)
        if self.core.wire != NULL:
            free(self.core.wire - CODEC_HEADROOM)
        free(self.core.reply)
        free_pool(&self.core.pool)

    def add_timeouts(self, *, double connect_timeout, double idle_timeout, double max_duration, double silent_timeout,
                     double websocket_ping=0.0, double linger_timeout=1.0):
        cdef Core* core = &self.core
        if core.timeouts_count == TIMEOUTS_COUNT:
            raise ValueError(f"a pump has at most {TIMEOUTS_COUNT} sets of timeouts")
        self._init_queue(Q_CONNECT, connect_timeout)
        self._init_queue(Q_SILENT, silent_timeout)
        self._init_queue(Q_IDLE, idle_timeout * 17 / 16)
        self._init_queue(Q_DURATION, max_duration)
        # Two of them make the silence after which the client is asked.
        self._init_queue(Q_PING, websocket_ping / 2)
        self._init_queue(Q_CLOSING, linger_timeout)
        self._init_queue(Q_YOUNG, YOUNG_MS / 1e3)
        core.timeouts_count += 1
        return core.timeouts_count - 1

    cdef int _init_queue(self, int which, double duration) except -1:
        """A queue of the set that is added."""
        cdef Core* core = &self.core
        init_queue(
            &core.queues[core.timeouts_count * QUEUE_COUNT + which], &core.table[0].links[which], sizeof(Session),
            <int64_t>(duration * 1e9),
        )
        return 0

    def fileno(self):
        return self.core.poller.epoll

    @property
    def open(self):
        return self.core.count

    @property
    def buffers_held(self):
        return in_use(&self.core.pool)

    cdef void _drop_owners(self) noexcept:
        """Those that have not run. A greenlet that sleeps in run_session keeps the pump."""
        cdef int32_t i
        for i in range(self.core.used if self.core.table != NULL else 0):
            if self.core.table[i].waits:
                Py_DECREF(<object>self.core.table[i].owner)

    cdef int32_t _begin(self, int fd, Destination to, bytes first, Py_ssize_t header_size, Place place,
                        uint64_t address, str client_address) except -2:
        """Begin a session without an owner. -1: there is no room for it, which is counted."""
        cdef Core* core = &self.core
        cdef Session* session
        cdef sockaddr_in6 client
        cdef socklen_t client_size
        cdef int32_t i
        if to.target.timeouts >= core.timeouts_count:
            raise ValueError(f"the pump has no set of timeouts {to.target.timeouts}")
        if fd < 0:
            raise ValueError(f"fd {fd} is not a descriptor")
        if client_address is not None:
            memset(&client, 0, sizeof(client))
            write_ip(&client, client_address.encode(), 0, 0, &client_size)
            if client.sin6_family != to.target.address.ss_family:
                raise ValueError(f"{client_address} is of another family than {to.address}")
        elif to._account is not self._ports and to.target.address.ss_family != AF_UNIX:
            to._use_routes(self._ports)
        i = take_free(core)
        if i < 0 or not index_client(core, fd, i):
            if i >= 0:
                free_session(core, i)
            to._counters.failures[F_RESOURCES - END_COUNT] += 1
            return -1
        session = &core.table[i]
        memset(session, 0, sizeof(Session))
        session.flows[CLIENT].fd = fd
        session.timeouts = to.target.timeouts
        session.user_timeout = to.target.user_timeout
        session.keepalive = to.target.keepalive
        session.no_delay = to.target.address.ss_family == AF_UNIX
        session.address = address
        session.route = -1
        session.first_fin = END_COUNT
        session.counters = to._counters
        session.failures_in_row = &to.failures
        session.with_upstream = &to.open
        to.open += 1
        if self._account is not None and <size_t>fd < self._account.core.capacity:
            session.codec = self._account.core.codecs[fd]
            if session.codec != NULL and session.codec.ended:
                session.flows[CLIENT].fin_received = True
                session.first_fin = CLIENT
        session.place = NULL if place is None else &place.held
        if header_size < len(first) or closes_by_message(session.codec):
            on_spoke(core, session, CLIENT)             # the request was a message of the client
        to.target.turn += 1
        begin_connect(
            core, i, &to.target, NULL if client_address is None else &client, first, <uint32_t>len(first),
        )
        arm_deadlines(core)
        return i

    def begin_session(self, int fd, Destination to not None, bytes first not None, end not None,
                      Py_ssize_t header_size=0, Place place=None, uint64_t address=0):
        owner = greenlet(end, self._parent)
        cdef int32_t i = self._begin(fd, to, first, header_size, place, address, None)
        if i < 0:
            return False
        Py_INCREF(owner)
        self.core.table[i].owner = <PyObject*>owner
        self.core.table[i].waits = True
        if self.core.closed >= 0:
            fire_timer(&self.core.poller)
        return True

    def run_session(self, int fd, Destination to not None, bytes first not None, *, Py_ssize_t header_size=0,
                    Place place=None, uint64_t address=0, str client_address=None):
        cdef Core* core = &self.core
        cdef Session* session
        cdef int32_t i = self._begin(fd, to, first, header_size, place, address, client_address)
        if i < 0:
            return OUTCOMES[F_RESOURCES], 0
        session = &core.table[i]
        owner = getcurrent()
        Py_INCREF(owner)
        session.owner = <PyObject*>owner
        try:
            if session.state == S_CLOSED:
                remove_last_closed(core, i)
            else:
                while session.state != S_CLOSED:
                    self._sleep()
        except BaseException:
            # The greenlet is killed. `ready` frees the record.
            core.now = now_ns()
            cut(core, i)
            session.owner = NULL
            fire_timer(&core.poller)
            raise
        finally:
            Py_DECREF(owner)
        outcome = OUTCOMES[session.outcome], session.sent
        free_session(core, i)
        return outcome

    def ready(self):
        with nogil:
            dispatch(&self.core)
        self._wake(self.core.count if self._cut else MAX_WOKEN)
        if self.core.closed >= 0:
            fire_timer(&self.core.poller)

    cdef int _wake(self, int32_t left) except -1:
        """Switch to the greenlets of all sessions that were evicted, and of so many others that have closed."""
        cdef Core* core = &self.core
        cdef Session* session
        cdef uint8_t outcome
        cdef uint64_t sent
        cdef int32_t i
        while core.closed >= 0:
            if core.table[core.closed].outcome != E_EVICTED:
                if left == 0:
                    break
                left -= 1
            i = pop_closed(core)
            session = &core.table[i]
            if session.owner == NULL:
                free_session(core, i)
                continue
            leave_stack()  # of `_fastpath.Guarded` and of what called it
            try:
                if session.waits:
                    outcome, sent = session.outcome, session.sent
                    owner = <object>session.owner
                    Py_DECREF(owner)
                    session.waits = False
                    free_session(core, i)
                    owner.switch(OUTCOMES[outcome], sent)
                    owner = None
                else:
                    (<object>session.owner).switch()
            except BaseException as error:
                try:
                    self._on_error(error)
                except BaseException:
                    pass
        return 0

    def wake(self):
        set_timer(&self.core.poller, 1)

    def cut_all(self, *, bint replaced=False):
        cdef Core* core = &self.core
        cdef int32_t i
        self._cut = True
        core.stop_as = CE_REPLACED if replaced else CE_STOP
        core.now = now_ns()
        for i in range(core.used):
            cut(core, i)
        fire_timer(&core.poller)

    def cut_by_client(self, int fd):
        return cut_by_client(&self.core, fd)

    def check(self):
        cdef const char* violation
        with nogil:
            violation = find_violation(&self.core)
        if violation != NULL:
            raise AssertionError(violation.decode("ascii"))
        return self.core.count
