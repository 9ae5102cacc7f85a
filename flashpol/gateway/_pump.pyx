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
from libc.errno cimport (
    EADDRNOTAVAIL, EAGAIN, ECONNREFUSED, EINPROGRESS, EINTR, EMFILE, ENFILE, ENOBUFS, ENOENT, ENOMEM, ETIMEDOUT, errno,
)
from libc.stdint cimport uint16_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset
from posix.unistd cimport close

from greenlet import getcurrent

from flashpol._core.deadlines cimport (
    arm, begin_queue, dequeue, enqueue, is_timer, Link, now_ns, open_timer, overdue_in, set_timer,
)

cdef extern from "<sys/socket.h>" nogil:
    struct linger:
        int l_onoff
        int l_linger
    int socket(int domain, int type, int protocol)
    int connect(int fd, const sockaddr* address, socklen_t size)
    ssize_t recv(int fd, void* data, size_t size, int flags)
    ssize_t send(int fd, const void* data, size_t size, int flags)
    int shutdown(int fd, int how)
    int getsockopt(int fd, int level, int name, void* value, socklen_t* size)
    int setsockopt(int fd, int level, int name, const void* value, socklen_t size)
    int SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC, MSG_NOSIGNAL, MSG_PEEK, SHUT_WR
    int SOL_SOCKET, SO_ERROR, SO_LINGER, SO_KEEPALIVE
    int AF_INET, AF_INET6, AF_UNIX

cdef extern from "<netinet/in.h>" nogil:
    int IPPROTO_TCP
    uint16_t htons(uint16_t number)
    struct in_addr:
        pass
    struct in6_addr:
        pass
    struct sockaddr_in:
        unsigned short sin_family
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        unsigned short sin6_family
        uint16_t sin6_port
        in6_addr sin6_addr
        uint32_t sin6_scope_id

cdef extern from "<netinet/tcp.h>" nogil:
    int TCP_NODELAY, TCP_KEEPIDLE

cdef extern from "<arpa/inet.h>" nogil:
    int inet_pton(int family, const char* text, void* address)

cdef extern from "<sys/un.h>" nogil:
    struct sockaddr_un:
        unsigned short sun_family
        char sun_path[108]

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event* event)
    int epoll_wait(int epoll, epoll_event* events, int size, int timeout)
    int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL, EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP

cdef enum:
    CHUNK = 32768               # one read; 16 and 64 KB cost more in single runs, see docs/performance.md
    READS = 4                   # of one direction in a row, before others get their turn
    EVENTS = 64                 # taken at a time
    ROUNDS = 8                  # of EVENTS in one wake-up; then greenlets get their turn
    COLLECT = 256               # overdue ones of each queue in one wake-up
    KEPT = 16                   # buffers that are kept for the next who is slow; more are given back

# Upper bounds in ns. Connecting: 50 µs on the same host, a round trip to another, 1 s and 3 s when a SYN was lost.
cdef int64_t[CONNECT_BUCKETS - 1] CONNECT_BOUNDS = [
    10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000,
    50_000_000, 100_000_000, 250_000_000, 500_000_000, 1_000_000_000, 2_500_000_000, 5_000_000_000,
]
# Conversations: from a request and its answer to a game that goes on for a day.
cdef int64_t[DURATION_BUCKETS - 1] DURATION_BOUNDS = [
    10_000_000, 100_000_000, 1_000_000_000, 10_000_000_000, 60_000_000_000, 300_000_000_000, 900_000_000_000,
    3_600_000_000_000, 14_400_000_000_000, 43_200_000_000_000, 86_400_000_000_000,
]

CONNECT_SECONDS = tuple([bound / 1e9 for bound in CONNECT_BOUNDS])
DURATION_SECONDS = tuple([bound / 1e9 for bound in DURATION_BOUNDS])
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


# ---------------------------------------------------------------------------------------------------------- the buffers

cdef char* make(Pool* pool) noexcept nogil:
    """A buffer, or NULL: there are as many as there may be, or there is no memory."""
    cdef char* buffer = pool.free
    if buffer != NULL:
        pool.free = (<char**>buffer)[0]
        pool.idle -= 1
    elif pool.made < pool.most:
        buffer = <char*>malloc(CHUNK)
        if buffer != NULL:
            pool.made += 1
    return buffer


cdef void give_back(Pool* pool, char* buffer) noexcept nogil:
    if pool.spare == NULL:
        pool.spare = buffer
    elif pool.idle < KEPT:
        (<char**>buffer)[0] = pool.free
        pool.free = buffer
        pool.idle += 1
    else:
        free(buffer)
        pool.made -= 1


cdef void hold_scratch(Pool* pool, Flow* flow, uint32_t begin, uint32_t end) noexcept nogil:
    """What stands in the scratch buffer waits there. The caller has seen that there is a spare one."""
    flow.held = pool.scratch
    flow.pooled = True
    flow.begin = begin
    flow.end = end
    pool.scratch = pool.spare
    pool.spare = make(pool)


cdef void release(Pool* pool, Flow* flow) noexcept nogil:
    if flow.held != NULL:
        if flow.pooled:
            give_back(pool, flow.held)
        else:
            free(flow.held)
        flow.held = NULL


# ------------------------------------------------------------------------------------------------ -------- deadlines

cdef inline void wait(Core* core, int32_t i, int which) noexcept nogil:
    """Unless that queue's duration is for ever."""
    if core.queues[which].duration:
        enqueue(&core.queues[which], &core.table[i].links[which], i, core.now)


cdef inline void wait_no_more(Core* core, int32_t i, int which) noexcept nogil:
    cdef Link* link = &core.table[i].links[which]
    if link.deadline:
        dequeue(&core.queues[which], link)
        link.deadline = 0


cdef inline void touch(Core* core, int32_t i) noexcept nogil:
    """Bytes have moved."""
    cdef Conversation* c = &core.table[i]
    if core.now - c.active > core.queues[Q_IDLE].duration // 17:
        wait_no_more(core, i, Q_IDLE)
        wait(core, i, Q_IDLE)
        c.active = core.now


# ----------------------------------------------------------------------------------------------------- watch and count

cdef void watch(Core* core, int32_t i, int side, uint32_t wanted) noexcept nogil:
    """Have epoll watch this side for `wanted`."""
    cdef Flow* flow = &core.table[i].flows[side]
    cdef epoll_event event
    if flow.watched == wanted:
        return
    # close() would take it out of the set, unless a fork of the embedding program holds a copy.
    event.events = wanted
    event.data.u64 = <uint64_t>i * 2 + <uint64_t>side
    if epoll_ctl(core.epoll, operation(flow.watched, wanted), flow.fd, &event) == 0:
        flow.watched = wanted
    # Else the kernel has no room to watch it (max_user_watches, ENOMEM): a deadline ends it.


cdef inline int operation(uint32_t now, uint32_t wanted) noexcept nogil:
    if now == 0:
        return EPOLL_CTL_ADD
    return EPOLL_CTL_MOD if wanted else EPOLL_CTL_DEL


cdef inline bint readable(Conversation* c, int side) noexcept nogil:
    """It makes sense to read from this side."""
    return not (c.flows[side].ended or c.flows[side].blocked or c.flows[1 - side].broken)


cdef void observe(Core* core, int32_t i) noexcept nogil:
    cdef Conversation* c = &core.table[i]
    cdef int side
    cdef uint32_t wanted
    for side in range(2):
        wanted = EPOLLIN if readable(c, side) else 0
        if c.flows[1 - side].blocked and not c.flows[side].broken:
            wanted |= EPOLLOUT
        watch(core, i, side, wanted)


cdef inline void count(uint64_t* buckets, const int64_t* bounds, int finite, int64_t value) noexcept nogil:
    cdef int b = 0
    while b < finite and value > bounds[b]:
        b += 1
    buckets[b] += 1


# ----------------------------------------------------------------------------------------------------------- the end

cdef void be_reset(int fd) noexcept nogil:
    """When it is closed, it sends RST."""
    cdef linger now
    now.l_onoff = 1
    now.l_linger = 0
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now))


cdef void finish(Core* core, int32_t i, uint8_t outcome) noexcept nogil:
    """It is over. The upstream's descriptor is closed; the client's is its greenlet's to close, or to try again."""
    cdef Conversation* c = &core.table[i]
    cdef int side, which
    cdef int64_t duration
    for which in range(QUEUE_COUNT):
        wait_no_more(core, i, which)
    for side in range(2):
        watch(core, i, side, 0)
    if c.state == S_CONNECTING:
        c.counters.connecting -= 1
        c.counters.failures[outcome - END_COUNT] += 1
        if outcome != F_RESOURCES and outcome != F_CUT:
            c.streak[0] += 1
    else:
        duration = core.now - c.began
        c.counters.open -= 1
        c.counters.ends[outcome] += 1
        c.counters.duration_ns += <uint64_t>duration
        count(c.counters.duration_buckets, DURATION_BOUNDS, DURATION_BUCKETS - 1, duration)
        if outcome == E_CLIENT_RESET or c.flows[CLIENT].blocked:
            be_reset(c.flows[UPSTREAM].fd)
        if outcome == E_UPSTREAM_RESET or c.flows[UPSTREAM].blocked:
            be_reset(c.flows[CLIENT].fd)
    for side in range(2):
        release(&core.pool, &c.flows[side])
    close(c.flows[UPSTREAM].fd)
    c.state = S_OVER
    c.outcome = outcome
    c.next = -1
    if core.over < 0:
        core.over = i
    else:
        core.table[core.over_last].next = i
    core.over_last = i


cdef inline void cut(Core* core, int32_t i) noexcept nogil:
    finish(core, i, F_CUT if core.table[i].state == S_CONNECTING else E_SHUTDOWN)


# ---------------------------------------------------------------------------------------------------------- the bytes

cdef bint put(Core* core, Conversation* c, int side, const char* data, uint32_t size, uint32_t* taken) noexcept nogil:
    """Send what `side` sent to the other; `taken` bytes of it. False: nothing can be sent there any more."""
    cdef Flow* to = &c.flows[1 - side]
    cdef ssize_t n
    taken[0] = 0
    n = send(to.fd, data, size, MSG_NOSIGNAL)
    while n < 0 and errno == EINTR:
        n = send(to.fd, data, size, MSG_NOSIGNAL)
    if n >= 0:
        taken[0] = <uint32_t>n
        c.counters.sent[side] += <uint64_t>n
        if side == UPSTREAM:
            c.sent += <uint64_t>n
    elif errno != EAGAIN:
        to.broken = True
        c.flows[side].blocked = False
        release(&core.pool, &c.flows[side])
        return False
    c.flows[side].blocked = taken[0] < size
    return True


cdef int get(Core* core, Conversation* c, int side) noexcept nogil:
    """Read once, and send that. 1: there may be more; 0: there is not, or it would not be taken; -1: FIN; -2: error."""
    cdef Flow* flow = &c.flows[side]
    cdef Pool* pool = &core.pool
    cdef bint peek = pool.spare == NULL
    cdef uint32_t taken = 0
    cdef ssize_t n = recv(flow.fd, pool.scratch, CHUNK, MSG_PEEK if peek else 0)
    if n <= 0:
        if n == 0:
            return -1
        return 0 if errno == EAGAIN or errno == EINTR else -2
    if not put(core, c, side, pool.scratch, <uint32_t>n, &taken):
        return 0
    if peek:
        if taken:
            recv(flow.fd, pool.scratch, taken, 0)
    elif flow.blocked:
        hold_scratch(pool, flow, taken, <uint32_t>n)
    return n == CHUNK and not flow.blocked


cdef bint flush(Core* core, Conversation* c, int side) noexcept nogil:
    """Send what is held. True: nothing is any more, and more can be read."""
    cdef Flow* flow = &c.flows[side]
    cdef uint32_t taken = 0
    if flow.held != NULL:
        if not put(core, c, side, flow.held + flow.begin, flow.end - flow.begin, &taken):
            return False
        flow.begin += taken
        if flow.blocked:
            return False
        release(&core.pool, flow)
    flow.blocked = False
    return True


cdef void move(Core* core, int32_t i, int side) noexcept nogil:
    """Move what `side` sends, as far as the other takes it and others can wait, and do what follows."""
    cdef Conversation* c = &core.table[i]
    cdef Flow* flow = &c.flows[side]
    cdef int got = 1
    if flush(core, c, side) and readable(c, side):
        for _ in range(READS):
            got = get(core, c, side)
            if got <= 0:
                break
        if got == -1:
            flow.ended = True
            if c.first_fin == END_COUNT:
                c.first_fin = <uint8_t>side
    if got == -2 or (flow.broken and (flow.ended or c.flows[1 - side].broken)):
        # Reset by this side: it has said all that it will.
        finish(core, i, E_CLIENT_RESET if side == CLIENT else E_UPSTREAM_RESET)
    elif c.flows[1 - side].broken and c.flows[1 - side].ended:
        # Reset by the other, which had said everything before.
        finish(core, i, E_UPSTREAM_RESET if side == CLIENT else E_CLIENT_RESET)
    elif flow.ended and flow.held == NULL and not flow.passed:
        flow.passed = True
        if c.flows[1 - side].passed:
            finish(core, i, c.first_fin)
        else:
            shutdown(c.flows[1 - side].fd, SHUT_WR)


# ------------------------------------------------------------------------------------------------------------- connect

cdef uint8_t failure_of(int error) noexcept nogil:
    # EAGAIN: the queue of a Unix socket is full, which is the application's to empty. Another may have room.
    if error == ECONNREFUSED or error == ENOENT or error == EAGAIN:
        return F_REFUSED
    if error == ETIMEDOUT:
        return F_TIMEOUT
    # EADDRNOTAVAIL: no local port is free.
    if error in (EMFILE, ENFILE, ENOBUFS, ENOMEM, EADDRNOTAVAIL):
        return F_RESOURCES
    return F_UNREACHABLE


cdef void established(Core* core, int32_t i) noexcept nogil:
    cdef Conversation* c = &core.table[i]
    cdef int64_t took = core.now - c.began
    wait_no_more(core, i, Q_CONNECT)
    c.state = S_OPEN
    c.began = c.active = core.now
    c.counters.connecting -= 1
    c.counters.open += 1
    c.counters.opened += 1
    c.streak[0] = 0
    c.counters.connect_ns += <uint64_t>took
    count(c.counters.connect_buckets, CONNECT_BOUNDS, CONNECT_BUCKETS - 1, took)
    wait(core, i, Q_IDLE)
    wait(core, i, Q_DURATION)


cdef void connected(Core* core, int32_t i) noexcept nogil:
    """The kernel has something to say about a connection under way."""
    cdef int error = 0
    cdef socklen_t size = sizeof(error)
    getsockopt(core.table[i].flows[UPSTREAM].fd, SOL_SOCKET, SO_ERROR, &error, &size)
    if error:
        finish(core, i, failure_of(error))
    else:
        established(core, i)
        move(core, i, CLIENT)


cdef bint hold_first(Flow* flow, const char* first, uint32_t size) noexcept nogil:
    flow.held = <char*>malloc(size)
    if flow.held == NULL:
        return False
    memcpy(flow.held, first, size)
    flow.pooled = False
    flow.begin = 0
    flow.end = size
    return True


cdef bint begin(Core* core, int32_t i, const sockaddr* to, socklen_t to_size, int keepalive, const char* first,
                uint32_t first_size) noexcept nogil:
    """Connect the conversation that has nothing yet but its client. False: it is `finish`ed."""
    cdef Conversation* c = &core.table[i]
    cdef Flow* flow = &c.flows[CLIENT]
    cdef int fd, one = 1
    cdef ssize_t sent = -1
    core.now = c.began = now_ns()
    c.state = S_CONNECTING
    c.counters.connecting += 1
    fd = c.flows[UPSTREAM].fd = socket(to.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if fd < 0:
        finish(core, i, failure_of(errno))
        return False
    if to.sa_family != AF_UNIX:
        # A relay that waits for more adds its delay to the sender's own.
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
        if keepalive:
            setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one))
            setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &keepalive, sizeof(keepalive))
    if connect(fd, to, to_size) != 0 and errno != EINPROGRESS:
        finish(core, i, failure_of(errno))
        return False
    # On this host the handshake is over by now, and one turn of epoll is saved.
    if first_size:
        sent = send(fd, first, first_size, MSG_NOSIGNAL)
        if sent < 0 and errno != EAGAIN and errno != EINTR:
            finish(core, i, failure_of(errno))
            return False
    if sent != <ssize_t>first_size and first_size:
        if not hold_first(flow, first + max(<ssize_t>0, sent), first_size - <uint32_t>max(<ssize_t>0, sent)):
            finish(core, i, F_RESOURCES)
            return False
        flow.blocked = True
    if sent > 0:
        c.counters.sent[CLIENT] += <uint64_t>sent
        core.now = now_ns()                     # it took its time, which is counted
        established(core, i)
        observe(core, i)
    else:
        wait(core, i, Q_CONNECT)
        watch(core, i, UPSTREAM, EPOLLOUT)
    return True


# ------------------------------------------------------------------------------------------------------------- collect

cdef void act(Core* core, int32_t i, int side, uint32_t events) noexcept nogil:
    cdef Conversation* c = &core.table[i]
    if c.state == S_CONNECTING:
        connected(core, i)
    elif c.state == S_OPEN:
        touch(core, i)
        # HUP and ERR are learnt by reading or writing, whichever it is the turn of.
        if events & ~<uint32_t>EPOLLIN and c.flows[1 - side].blocked:
            move(core, i, 1 - side)
        if events & ~<uint32_t>EPOLLOUT and c.state == S_OPEN and readable(c, side):
            move(core, i, side)
    if c.state == S_OPEN:
        observe(core, i)


cdef void expire(Core* core) noexcept nogil:
    cdef int which
    cdef int32_t i
    cdef uint8_t[QUEUE_COUNT] outcomes = [F_TIMEOUT, E_IDLE, E_DURATION]
    for which in range(QUEUE_COUNT):
        for _ in range(COLLECT):
            i = overdue_in(&core.queues[which], core.now)
            if i < 0:
                break
            finish(core, i, outcomes[which])
    # What is still overdue re-arms the timer at a time that has passed: it fires in the next round of the loop.
    set_timer(&core.timer, 0)


cdef void collect(Core* core) noexcept nogil:
    """Handle ready conversations, then overdue ones, a bounded number of each."""
    cdef epoll_event[EVENTS] events
    cdef int k, n
    cdef bint fired = False
    for _ in range(ROUNDS):
        n = epoll_wait(core.epoll, events, EVENTS, 0)
        core.now = now_ns()
        for k in range(n):
            if is_timer(&events[k]):
                fired = True
            else:
                act(core, <int32_t>(events[k].data.u64 >> 1), <int>(events[k].data.u64 & 1), events[k].events)
        if n < EVENTS:
            break
    if fired:
        expire(core)
    arm(&core.timer, core.queues, QUEUE_COUNT)


# ------------------------------------------------------------------------------------------------- what Python sees

cdef tuple OUTCOMES = (*ENDS, *FAILURES)


cdef class Destination:
    cdef sockaddr_storage _storage
    cdef socklen_t _size
    cdef int _keepalive
    cdef unsigned char[::1] _block
    cdef Counters* _counters
    cdef readonly object address
    cdef readonly Py_ssize_t open
    cdef readonly uint32_t failures

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
    cdef Core core
    cdef object _sleep
    cdef object _on_error

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
        cdef char* buffer
        cdef Pool* pool = &self.core.pool
        if self.core.table != NULL:
            if self.core.timer.fd >= 0:
                close(self.core.timer.fd)
            if self.core.epoll >= 0:
                close(self.core.epoll)
        free(self.core.table)
        free(pool.scratch)
        free(pool.spare)
        while pool.free != NULL:
            buffer = pool.free
            pool.free = (<char**>buffer)[0]
            free(buffer)

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
        cdef Pool* pool = &self.core.pool
        return pool.made - pool.idle - 1 - (pool.spare != NULL)

    def converse(self, int fd, Destination to not None, bytes first not None):
        cdef Core* core = &self.core
        cdef Conversation* c
        cdef int32_t i = core.free
        if i >= 0:
            core.free = core.table[i].next
        elif core.used < core.capacity:
            i = core.used
            core.used += 1
        else:
            to._counters.failures[F_RESOURCES - END_COUNT] += 1
            return OUTCOMES[F_RESOURCES], 0
        core.count += 1
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
                self._forget(i)
            else:
                while c.state != S_OVER:
                    self._sleep()
        except BaseException:
            # Somebody ends the greenlet: `ready` frees the record.
            if c.state != S_OVER:
                core.now = now_ns()
                cut(core, i)
            c.owner = NULL
            set_timer(&core.timer, 1)
            raise
        finally:
            to.open -= 1
            Py_DECREF(owner)
        outcome = OUTCOMES[c.outcome], c.sent
        self._free(i)
        return outcome

    cdef int _free(self, int32_t i) except -1:
        cdef Core* core = &self.core
        core.table[i].state = S_FREE
        core.table[i].next = core.free
        core.free = i
        core.count -= 1
        return 0

    cdef int _forget(self, int32_t i) except -1:
        """It was over before its greenlet slept, and is the last in the list of those to wake."""
        cdef Core* core = &self.core
        cdef int32_t k = core.over
        if k == i:
            core.over = core.over_last = -1
            return 0
        while core.table[k].next != i:
            k = core.table[k].next
        core.table[k].next = -1
        core.over_last = k
        return 0

    def ready(self):
        with nogil:
            collect(&self.core)
        self._wake()

    cdef int _wake(self) except -1:
        cdef Core* core = &self.core
        cdef int32_t i
        while core.over >= 0:
            i = core.over
            core.over = core.table[i].next
            if core.table[i].owner == NULL:
                self._free(i)
                continue
            try:
                (<object>core.table[i].owner).switch()
            except BaseException as error:
                try:
                    self._on_error(error)
                except BaseException:
                    pass
        return 0

    def cut_all(self):
        cdef Core* core = &self.core
        cdef int32_t i
        core.now = now_ns()
        for i in range(core.used):
            if core.table[i].state == S_CONNECTING or core.table[i].state == S_OPEN:
                cut(core, i)
        set_timer(&core.timer, 1)
