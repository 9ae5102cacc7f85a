# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: auto_pickle=False, autotestdict=False
"""The pump: moves the bytes of conversations between clients and upstreams, without a Python object for each byte.

A greenlet owns each conversation. It calls `converse`, which connects, and sleeps there until everything is over; the
bytes are moved here, in the hub, whenever epoll reports that a side is readable or, after it took no more, writable.

    CONNECTING ──established──► OPEN ──both FINs passed on, RST, deadline, cut──► OVER ──its greenlet wakes──► FREE
         └──────refused, unreachable, deadline, cut─────────────────────────────────▲

**Memory.** What is read is sent at once. Only what the other side does not take is held, and nothing more is read from
the one before it is taken: a buffer is in use only while somebody is slow. There are so many buffers and no more. When
they are out, bytes are looked at (MSG_PEEK), sent, and only what was taken is read: the kernel holds the rest, where it
is the sender's window that shrinks. So slow readers pin a bounded amount of memory and lose nothing.

**Ends.** FIN is passed on once all that came before it has been. When both have, it is over. RST of one side becomes
RST of the other, after what it had sent before: Linux still hands that over, and so do we. A side that can only be read
any more, because writing to it failed, is `broken`: it is read to its end, and the end is RST. When a conversation is
cut, by a deadline or by the end of the process, a side that bytes still waited for gets RST instead of FIN, so that it
does not take the part for the whole.

**Level-triggered.** epoll is asked for input of a side only while the other takes bytes, for output only after it took
no more: in the common case nothing is ever changed. A side that nothing is asked of is not in the set, or EPOLLHUP and
EPOLLERR, which come unasked, would come for ever: an RST is noticed when it is that side's turn to be read or written.

**Deadlines.** As in the fast path: each queue has one duration, so there is no heap. A conversation that moves bytes
goes to the end of the idle queue, but only when it stood there for a sixteenth of the duration, which the queue has in
addition: a busy one need not pay for it each time, and none ends too early.
"""

from cpython.exc cimport PyErr_SetFromErrno
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from posix.unistd cimport close

from flashpol._native.common.system cimport (
    AF_INET, AF_INET6, AF_UNIX, EPOLL_CLOEXEC, epoll_create1, htons, inet_pton, sockaddr, sockaddr_in, sockaddr_in6,
    sockaddr_un,
)
from flashpol._native.relay.counters cimport (
    CONNECT_BOUNDS, CONNECT_BUCKETS, Counters, DURATION_BOUNDS, DURATION_BUCKETS, END_COUNT, F_RESOURCES, OUTCOME_COUNT,
)
from flashpol._native.relay.state cimport CLIENT, Conversation, Core, Q_CONNECT, Q_DURATION, Q_IDLE, QUEUE_COUNT, S_OVER

from greenlet import getcurrent

include "_native/common/deadlines.pxi"
include "_native/relay/counters.pxi"
include "_native/relay/buffers.pxi"
include "_native/relay/readiness.pxi"
include "_native/relay/close.pxi"
include "_native/relay/transfer.pxi"
include "_native/relay/connect.pxi"
include "_native/relay/dispatch.pxi"

CONNECT_SECONDS = tuple([bound / 1e9 for bound in CONNECT_BOUNDS[:CONNECT_BUCKETS - 1]])
DURATION_SECONDS = tuple([bound / 1e9 for bound in DURATION_BOUNDS[:DURATION_BUCKETS - 1]])
ENDS = ("client", "upstream", "client_reset", "upstream_reset", "idle", "duration", "shutdown")
FAILURES = ("refused", "unreachable", "timeout", "resources", "cut", "unresolved", "rate")
BLOCK_SIZE = (sizeof(Counters) + 63) // 64 * 64     # whole cache lines: no two writers share one

cdef Counters SAMPLE
LAYOUT = {                                          # field: (offset in bytes, number of 64-bit words)
    "opened": (<char*>&SAMPLE.opened - <char*>&SAMPLE, 1),
    "ends": (<char*>&SAMPLE.ends - <char*>&SAMPLE, END_COUNT),
    "failures": (<char*>&SAMPLE.failures - <char*>&SAMPLE, OUTCOME_COUNT - END_COUNT),
    "sent": (<char*>&SAMPLE.sent - <char*>&SAMPLE, 2),
    "connect_ns": (<char*>&SAMPLE.connect_ns - <char*>&SAMPLE, 1),
    "connect_buckets": (<char*>&SAMPLE.connect_buckets - <char*>&SAMPLE, CONNECT_BUCKETS),
    "duration_ns": (<char*>&SAMPLE.duration_ns - <char*>&SAMPLE, 1),
    "duration_buckets": (<char*>&SAMPLE.duration_buckets - <char*>&SAMPLE, DURATION_BUCKETS),
    "open": (<char*>&SAMPLE.open - <char*>&SAMPLE, 1),
    "connecting": (<char*>&SAMPLE.connecting - <char*>&SAMPLE, 1),
}
cdef tuple OUTCOMES = (*ENDS, *FAILURES)


cdef class Destination:
    def __cinit__(self, address not None, unsigned char[::1] block not None, *, int keepalive=0):
        if block.shape[0] < <Py_ssize_t>sizeof(Counters) or <size_t>&block[0] % sizeof(uint64_t) != 0:
            raise ValueError(f"a counter block is {sizeof(Counters)} bytes, aligned to {sizeof(uint64_t)}")
        self.address = address
        self._block = block
        self._counters = <Counters*>&block[0]
        self._keepalive = keepalive
        memset(&self._storage, 0, sizeof(self._storage))
        if isinstance(address, str):
            self._set_path(address.encode())
        else:
            self._set_ip(address[0].encode(), address[1], address[3] if len(address) == 4 else 0)

    cdef int _set_path(self, bytes path) except -1:
        cdef sockaddr_un* local = <sockaddr_un*>&self._storage
        if not 0 < len(path) < <Py_ssize_t>sizeof(local.sun_path) or b"\0" in path:
            raise ValueError(f"{path!r}: a Unix socket's path is 1 to {sizeof(local.sun_path) - 1} bytes")
        local.sun_family = AF_UNIX
        memcpy(local.sun_path, <const char*>path, len(path))
        self._size = sizeof(sockaddr_un)
        return 0

    cdef int _set_ip(self, bytes host, uint16_t port, uint32_t scope) except -1:
        cdef sockaddr_in* old = <sockaddr_in*>&self._storage
        cdef sockaddr_in6* new = <sockaddr_in6*>&self._storage
        host = host.partition(b"%")[0]
        if inet_pton(AF_INET, host, &old.sin_addr) == 1:
            old.sin_family = AF_INET
            old.sin_port = htons(port)
            self._size = sizeof(sockaddr_in)
        elif inet_pton(AF_INET6, host, &new.sin6_addr) == 1:
            new.sin6_family = AF_INET6
            new.sin6_port = htons(port)
            new.sin6_scope_id = scope
            self._size = sizeof(sockaddr_in6)
        else:
            raise ValueError(f"{host!r} is not an IP address")
        return 0

    def count_failure(self, str why not None):
        self._counters.failures[<int>FAILURES.index(why)] += 1


cdef class Pump:
    def __cinit__(self, *, sleep, on_error, int32_t capacity, double connect_timeout, double idle_timeout,
                  double max_duration, uint32_t buffers=512):
        cdef Core* core = &self.core
        if not 0 <= capacity <= 1 << 24:
            raise ValueError("capacity is 0 to 2^24 conversations")
        core.epoll = core.timer.fd = -1
        core.free = core.over = core.over_last = -1
        core.capacity = capacity
        core.pool.most = buffers + 1
        core.pool.scratch = make(&core.pool)
        core.pool.spare = make(&core.pool)
        core.table = <Conversation*>calloc(max(capacity, 1), sizeof(Conversation))
        if core.table == NULL or core.pool.scratch == NULL:
            raise MemoryError
        self._begin_queue(Q_CONNECT, connect_timeout)
        self._begin_queue(Q_IDLE, idle_timeout * 17 / 16)
        self._begin_queue(Q_DURATION, max_duration)
        self._sleep = sleep
        self._on_error = on_error
        core.epoll = epoll_create1(EPOLL_CLOEXEC)
        if core.epoll < 0:
            PyErr_SetFromErrno(OSError)
        if not open_timer(&core.timer, core.epoll):
            PyErr_SetFromErrno(OSError)

    def __dealloc__(self):
        # No table: __cinit__ did not come as far as to open anything, and 0 is somebody else's descriptor.
        if self.core.table != NULL:
            if self.core.timer.fd >= 0:
                close(self.core.timer.fd)
            if self.core.epoll >= 0:
                close(self.core.epoll)
        free(self.core.table)
        free_pool(&self.core.pool)

    cdef int _begin_queue(self, int which, double duration) except -1:
        cdef Core* core = &self.core
        begin_queue(&core.queues[which], &core.table[0].links[which], sizeof(Conversation), <int64_t>(duration * 1e9))
        return 0

    def fileno(self):
        return self.core.epoll

    @property
    def open(self):
        return self.core.count

    @property
    def buffers_held(self):
        return in_use(&self.core.pool)

    def run_session(self, int fd, Destination to not None, bytes first not None):
        cdef Core* core = &self.core
        cdef Conversation* c
        cdef int32_t i = take(core)
        if i < 0:
            to._counters.failures[F_RESOURCES - END_COUNT] += 1
            return OUTCOMES[F_RESOURCES], 0
        c = &core.table[i]
        memset(c, 0, sizeof(Conversation))
        c.flows[CLIENT].fd = fd
        c.first_fin = END_COUNT
        c.counters = to._counters
        c.streak = &to.failures
        begin(core, i, <const sockaddr*>&to._storage, to._size, to._keepalive, first, <uint32_t>len(first))
        arm(&core.timer, core.queues, QUEUE_COUNT)
        owner = getcurrent()
        Py_INCREF(owner)
        c.owner = <PyObject*>owner
        to.open += 1
        try:
            if c.state == S_OVER:
                forget_over(core, i)
            else:
                while c.state != S_OVER:
                    self._sleep()
        except BaseException:
            # Somebody ends the greenlet: `ready` frees the record.
            core.now = now_ns()
            cut(core, i)
            c.owner = NULL
            set_timer(&core.timer, 1)
            raise
        finally:
            to.open -= 1
            Py_DECREF(owner)
        outcome = OUTCOMES[c.outcome], c.sent
        put_back(core, i)
        return outcome

    def ready(self):
        with nogil:
            collect(&self.core)
        self._wake()

    cdef int _wake(self) except -1:
        cdef Core* core = &self.core
        cdef int32_t i
        while True:
            i = take_over(core)
            if i < 0:
                return 0
            if core.table[i].owner == NULL:
                put_back(core, i)
                continue
            try:
                (<object>core.table[i].owner).switch()
            except BaseException as error:
                try:
                    self._on_error(error)
                except BaseException:
                    pass

    def cut_all(self):
        cdef Core* core = &self.core
        cdef int32_t i
        core.now = now_ns()
        for i in range(core.used):
            cut(core, i)
        set_timer(&core.timer, 1)
