# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: auto_pickle=False, autotestdict=False
"""The fast path: accept, match, reply, park and count, without a Python object for each connection.

A connection is a `Record`, an entry of a table indexed by its file descriptor. Its states:

    FRESH ──match──────────────► reply ──all sent, nothing unread──► closed
      │ more                       │ ├──something unread, or may come──► LINGER ──FIN, bound, deadline──► closed
      ▼                            │ └──kernel took a part──► CONVERSATION (a greenlet) ──► LINGER
    REQUEST ──match──► reply       │
      │ │ └──22 bytes──► GRACE ──terminator, FIN or silence──► reply
      │ └──other──► refused ──http: 400, then LINGER; else closed
      └──deadline, FIN, RST──► closed

FRESH is the moment after accept4. REQUEST, GRACE and LINGER are parked: in the epoll set and in the deadline queue of
that name. A deadline is set when a record enters its queue and never moved by what the client sends, so drip-feeding
gains nothing. A connection ends as exactly one of reply, refused, timeout and reset, which `Counters` adds up.

LINGER exists because closing a socket with unread input makes Linux send RST, which can destroy a reply under way: the
reply is sent and the sending side shut down, then input is discarded until the client closes, up to a bound.

Silverlight's request has no terminator: on a listener that is not `terminated`, the 22 bytes are the match and GRACE is
never entered. A NUL that somebody sends all the same is input that may still come, so every reply there lingers.

The access log samples a share of the connections when they are accepted: those carry the number of a `Sample`, which
holds the client's address until the outcome is known and a hook has been told. The others cost one comparison.

What the diagram leaves out: a first byte that could begin several protocols ("P": POST, PUT, PRI) stays in REQUEST with
its bytes in `Record.seen` until the sniffing table can name it.
"""

import enum

from cpython.exc cimport PyErr_SetFromErrno
from libc.errno cimport (
    EAGAIN, ECONNABORTED, EHOSTDOWN, EHOSTUNREACH, EINTR, ENETDOWN, ENETUNREACH, ENOPROTOOPT, EOPNOTSUPP, EPERM, EPROTO,
    errno,
)
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset
from posix.unistd cimport close
from posix.time cimport clock_gettime, itimerspec, timespec, CLOCK_MONOTONIC

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    int accept4(int fd, void* address, socklen_t* size, int flags)
    ssize_t recv(int fd, void* data, size_t size, int flags)
    ssize_t send(int fd, const void* data, size_t size, int flags)
    int shutdown(int fd, int how)
    int getsockopt(int fd, int level, int name, void* value, socklen_t* size)
    int SOCK_NONBLOCK, SOCK_CLOEXEC, MSG_NOSIGNAL, MSG_MORE, SHUT_WR

cdef extern from "<netinet/tcp.h>" nogil:
    struct tcp_info:
        uint32_t tcpi_unacked
        uint32_t tcpi_sacked
    int TCP_INFO

cdef extern from "<netinet/in.h>" nogil:
    int IPPROTO_TCP
    uint16_t ntohs(uint16_t number)

cdef extern from "<arpa/inet.h>" nogil:
    int AF_INET, AF_INET6, INET6_ADDRSTRLEN
    const char* inet_ntop(int family, const void* address, char* text, socklen_t size)

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        int fd
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event* event)
    int epoll_wait(int epoll, epoll_event* events, int size, int timeout)
    int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLLIN

cdef extern from "<sys/timerfd.h>" nogil:
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int fd, int flags, itimerspec* new, itimerspec* old)
    int TFD_NONBLOCK, TFD_CLOEXEC, TFD_TIMER_ABSTIME

cdef enum:
    READ_BYTES = 4096           # one read; a request is 23 bytes, an HTTP request of a browser about 1,000
    HANDFUL = 32                # accepted at a time
    BURST = 64                  # connections answered in one wake-up: about 0.3 ms; then greenlets get their turn
    EVENTS = 64                 # ready records taken at a time
    # Ready records, and overdue ones of each queue, handled in one wake-up for each listener: more than BURST and a
    # HANDFUL, so that accepting cannot outrun them.
    COLLECT = 128
    SAMPLE_WINDOW = 10          # seconds, for SAMPLE_BURST
    MAX_RECORDS = 1 << 20       # where RLIMIT_NOFILE is unlimited: 48 MB of address space, touched as it is used

cdef char* REQUEST_TEXT = b"<policy-file-request/>"

cdef const char* MAPPED = b"\0\0\0\0\0\0\0\0\0\0\xff\xff"     # ::ffff:0:0/96, RFC 4291 section 2.5.5.2

cdef bytes HTTP_BODY = b"This port answers socket policy requests (<policy-file-request/>), not HTTP.\n"
cdef bytes HTTP_BYTES = b"".join([
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n",
    b"Content-Length: %d\r\n\r\n" % len(HTTP_BODY), HTTP_BODY,
])
cdef const char* HTTP_ANSWER = HTTP_BYTES       # borrowed from HTTP_BYTES, which lives as long as the module
cdef size_t HTTP_ANSWER_SIZE = len(HTTP_BYTES)

# Upper bounds of request_duration_seconds in ns. A reply that did not wait takes 5 to 30 µs; 150 ms is the terminator's
# grace; 3 s is when Flash Player gives up.
cdef int64_t[BUCKET_COUNT - 1] BOUNDS = [
    10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000,
    50_000_000, 100_000_000, 250_000_000, 500_000_000, 1_000_000_000, 2_500_000_000, 5_000_000_000,
]

BUCKETS = tuple([bound / 1e9 for bound in BOUNDS])
REASONS = ("http", "tls", "other", "capacity", "shutdown", "crashed")
OUTCOMES = (*REASONS, "timeout", "reset", "reply")
BLOCK_SIZE = (sizeof(Counters) + 63) // 64 * 64     # whole cache lines: no two writers share one

cdef Counters SAMPLE
LAYOUT = {                                          # field: (offset in bytes, number of 64-bit words)
    "accepted": (<char*>&SAMPLE.accepted - <char*>&SAMPLE, 1),
    "refused": (<char*>&SAMPLE.refused - <char*>&SAMPLE, REASON_COUNT),
    "timeouts": (<char*>&SAMPLE.timeouts - <char*>&SAMPLE, 1),
    "resets": (<char*>&SAMPLE.resets - <char*>&SAMPLE, 1),
    "reply_bytes": (<char*>&SAMPLE.reply_bytes - <char*>&SAMPLE, 1),
    "accept_errors": (<char*>&SAMPLE.accept_errors - <char*>&SAMPLE, 1),
    "duration_ns": (<char*>&SAMPLE.duration_ns - <char*>&SAMPLE, 1),
    "buckets": (<char*>&SAMPLE.buckets - <char*>&SAMPLE, BUCKET_COUNT),
    "open": (<char*>&SAMPLE.open - <char*>&SAMPLE, 1),
    "parked": (<char*>&SAMPLE.parked - <char*>&SAMPLE, 1),
    "conversations": (<char*>&SAMPLE.conversations - <char*>&SAMPLE, 1),
}


class Verdict(enum.IntEnum):
    MORE = A_MORE
    MATCH = A_MATCH
    OTHER = A_OTHER


cdef tuple VERDICTS = (Verdict.MORE, Verdict.MATCH, Verdict.OTHER)


# ------------------------------------------------------------------------------------------------------- recognisers

cdef Answer match_feed(uint8_t* matched, const char* data, size_t size, size_t* used, bint terminated) noexcept nogil:
    """Continue at `matched` bytes of the request; `used` becomes the bytes of `data` that belong to it.

    Not `terminated`: the request ends with its 22nd byte, and whatever follows is none of it.
    """
    cdef size_t wanted = REQUEST_BYTES - matched[0]
    cdef size_t n = wanted if size > wanted else size
    if memcmp(data, REQUEST_TEXT + matched[0], n) != 0:
        used[0] = 0
        return A_OTHER
    matched[0] += <uint8_t>n
    used[0] = n
    if not terminated:
        return A_MATCH if matched[0] == REQUEST_BYTES else A_MORE
    if size == n:
        return A_MORE
    if data[n] == 0 or data[n] == b"\n":
        used[0] = n + 1
        return A_MATCH
    if data[n] == b"\r":
        used[0] = n + 2 if size > n + 1 and data[n + 1] == b"\n" else n + 1
        return A_MATCH
    return A_OTHER


cdef Answer sniff(Core* core, const char* data, size_t size, Reason* reason) noexcept nogil:
    """Name what begins with `data`: A_MATCH sets `reason`, A_MORE wants more bytes, A_OTHER is in no row."""
    cdef int i
    cdef bint undecided = False
    cdef Signature* row
    for i in range(core.signature_count):
        row = &core.signatures[i]
        if memcmp(data, row.prefix, min(size, <size_t>row.size)) == 0:
            if size >= row.size:
                reason[0] = <Reason>row.reason
                return A_MATCH
            undecided = True
    return A_MORE if undecided else A_OTHER


# ------------------------------------------------------------------------------------------------ clock and deadlines

cdef inline int64_t now_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return t.tv_sec * <int64_t>1_000_000_000 + t.tv_nsec


cdef void enqueue(Core* core, int fd, uint8_t which) noexcept nogil:
    cdef Queue* queue = &core.queues[which]
    cdef Record* record = &core.records[fd]
    record.queue = which
    record.deadline = now_ns() + queue.duration
    record.next = -1
    record.prev = queue.tail
    if queue.tail < 0:
        queue.head = fd
    else:
        core.records[queue.tail].next = fd
    queue.tail = fd


cdef void dequeue(Core* core, int fd) noexcept nogil:
    cdef Record* record = &core.records[fd]
    cdef Queue* queue
    if record.queue == Q_NONE:
        return
    queue = &core.queues[record.queue]
    if record.prev < 0:
        queue.head = record.next
    else:
        core.records[record.prev].next = record.next
    if record.next < 0:
        queue.tail = record.prev
    else:
        core.records[record.next].prev = record.prev
    record.queue = Q_NONE


cdef void arm(Core* core) noexcept nogil:
    """See that the timer fires no later than the earliest deadline. A setting left behind costs one idle wake-up."""
    cdef int i
    cdef int64_t earliest = 0, deadline
    cdef itimerspec at
    for i in range(QUEUE_COUNT):
        if core.queues[i].head >= 0:
            deadline = core.records[core.queues[i].head].deadline
            if earliest == 0 or deadline < earliest:
                earliest = deadline
    if earliest == 0 or (core.armed != 0 and core.armed <= earliest):
        return
    memset(&at, 0, sizeof(at))
    at.it_value.tv_sec = earliest // 1_000_000_000
    at.it_value.tv_nsec = earliest % 1_000_000_000
    timerfd_settime(core.timer, TFD_TIMER_ABSTIME, &at, NULL)
    core.armed = earliest


# ---------------------------------------------------------------------------------------------------------- access log

cdef bint chosen(Core* core) noexcept nogil:
    """The dice are thrown. Clients cannot gain by guessing them, so xorshift32 (Marsaglia 2003) will do."""
    core.random ^= core.random << 13
    core.random ^= core.random >> 17
    core.random ^= core.random << 5
    return core.random <= core.share


cdef uint16_t sample(Core* core, uint16_t listener, sockaddr_in6* peer, int64_t now) noexcept nogil:
    """Remember a connection until its outcome is `told`. 0: more were sampled lately than the log is to hold."""
    cdef uint16_t number = core.spare
    if now >= core.window:
        core.window = now + SAMPLE_WINDOW * <int64_t>1_000_000_000
        core.window_left = SAMPLE_BURST
    if core.window_left == 0 or number == 0:
        core.left_out += 1
        return 0
    core.window_left -= 1
    core.spare = core.samples[number].next
    core.samples[number].listener = listener
    core.samples[number].peer = peer[0]
    return number


cdef void told(Core* core, uint16_t number, uint8_t outcome, int64_t duration, uint32_t sent) noexcept nogil:
    """Queue a sample for the hook."""
    cdef Sample* entry = &core.samples[number]
    entry.outcome = outcome
    entry.duration = duration
    entry.sent = sent
    entry.next = 0
    if core.told_next == 0:
        core.told_next = number
    else:
        core.samples[core.told_last].next = number
    core.told_last = number


cdef inline void decided(Core* core, int fd, uint8_t outcome) noexcept nogil:
    """The outcome of this connection has been counted."""
    cdef Record* record = &core.records[fd]
    if record.sample != 0:
        told(core, record.sample, outcome, now_ns() - record.accepted_at, record.progress)
        record.sample = 0


# ------------------------------------------------------------------------------------------------------ park and end

cdef void park(Core* core, int fd, uint8_t state, uint8_t queue) noexcept nogil:
    """Enter `state` and the deadline queue `queue`; watch for input."""
    cdef Record* record = &core.records[fd]
    cdef Listener* listener = core.listeners[record.listener]
    cdef epoll_event event
    if not record.watched:
        event.events = EPOLLIN
        event.data.fd = fd
        if epoll_ctl(core.epoll, EPOLL_CTL_ADD, fd, &event) != 0:
            # The kernel has no room to watch it (max_user_watches, ENOMEM): only the deadline ends it now.
            listener.counters.accept_errors += 1
        else:
            record.watched = True
    if record.queue == Q_NONE:
        listener.counters.parked += 1
    else:
        dequeue(core, fd)
    record.state = state
    enqueue(core, fd, queue)


cdef void unpark(Core* core, int fd) noexcept nogil:
    cdef Record* record = &core.records[fd]
    if record.queue != Q_NONE:
        dequeue(core, fd)
        core.listeners[record.listener].counters.parked -= 1
    if record.watched:
        # close() would do, unless a fork of the embedding program holds a copy: then the event would come for ever.
        epoll_ctl(core.epoll, EPOLL_CTL_DEL, fd, NULL)
        record.watched = False


cdef void end(Core* core, int fd) noexcept nogil:
    cdef Record* record = &core.records[fd]
    unpark(core, fd)
    record.state = S_FREE
    core.listeners[record.listener].counters.open -= 1
    close(fd)


cdef void linger(Core* core, int fd) noexcept nogil:
    shutdown(fd, SHUT_WR)
    core.records[fd].progress = 0
    park(core, fd, S_LINGER, Q_LINGER)


cdef void lost(Core* core, int fd) noexcept nogil:
    """The client closed or reset the connection before it had its reply."""
    core.listeners[core.records[fd].listener].counters.resets += 1
    decided(core, fd, O_RESET)
    end(core, fd)


# ---------------------------------------------------------------------------------------------------- reply and refuse

cdef void count_reply(Listener* listener, int64_t duration) noexcept nogil:
    cdef int i = 0
    while i < BUCKET_COUNT - 1 and duration > BOUNDS[i]:
        i += 1
    listener.counters.reply_bytes += listener.reply_size
    listener.counters.duration_ns += <uint64_t>duration
    listener.counters.buckets[i] += 1


cdef bint send_reply(Core* core, int fd) noexcept nogil:
    """Send what is left of the reply. True: all is with the kernel, and counted. False: it takes no more now."""
    cdef Record* record = &core.records[fd]
    cdef Listener* listener = core.listeners[record.listener]
    cdef ssize_t n
    while record.progress < listener.reply_size:
        # MSG_MORE holds the segment back for the FIN that shutdown or close is about to add: one segment, one wake-up
        # of the client, a fifth less CPU than two.
        n = send(fd, listener.reply + record.progress, listener.reply_size - record.progress, MSG_NOSIGNAL | MSG_MORE)
        if n < 0:
            if errno == EINTR:
                continue
            return False
        record.progress += <uint32_t>n
    count_reply(listener, now_ns() - record.accepted_at)
    decided(core, fd, O_REPLY)
    return True


cdef void reply(Core* core, int fd, bint clean) noexcept nogil:
    """Answer. `clean`: all input was read and no more is due, so the close will not turn into RST."""
    cdef Record* record = &core.records[fd]
    record.progress = 0
    if send_reply(core, fd):
        if clean:
            # The reply is on its way; a close that finds input now would send RST after it. The look costs 0.2 µs.
            shutdown(fd, SHUT_WR)
            if recv(fd, core.buffer, READ_BYTES, 0) > 0:
                linger(core, fd)
            else:
                end(core, fd)
        else:
            linger(core, fd)
    elif errno == EAGAIN:
        unpark(core, fd)
        record.state = S_CONVERSATION
        record.next = core.handoff
        core.handoff = fd
        core.listeners[record.listener].counters.conversations += 1
    else:
        lost(core, fd)


cdef void count_refused(Listener* listener, Reason reason) noexcept nogil:
    listener.counters.refused[<int>reason] += 1


cdef void refuse(Core* core, int fd, Reason reason) noexcept nogil:
    count_refused(core.listeners[core.records[fd].listener], reason)
    decided(core, fd, reason)
    if reason == R_HTTP and send(fd, HTTP_ANSWER, HTTP_ANSWER_SIZE, MSG_NOSIGNAL | MSG_MORE) > 0:
        linger(core, fd)
    else:
        end(core, fd)


cdef void stranger(Core* core, int fd, const char* data, size_t size) noexcept nogil:
    """Input that is not a policy request: refuse it by name, or keep its first bytes until it has one."""
    cdef Record* record = &core.records[fd]
    cdef Reason reason = R_OTHER
    cdef size_t n
    if record.matched == 0:
        n = min(size, <size_t>(SEEN_BYTES - record.seen_size))
        memcpy(record.seen + record.seen_size, data, n)
        record.seen_size += <uint8_t>n
        if sniff(core, record.seen, record.seen_size, &reason) == A_MORE:
            if record.queue == Q_NONE:
                park(core, fd, S_REQUEST, Q_REQUEST)
            return
    refuse(core, fd, reason)


# ------------------------------------------------------------------------------------------------------------- advance

cdef void discard(Core* core, int fd, ssize_t size) noexcept nogil:
    cdef Record* record = &core.records[fd]
    record.progress += <uint32_t>size
    if record.progress > core.linger_bytes:
        end(core, fd)


cdef void request(Core* core, int fd, size_t size) noexcept nogil:
    """`size` bytes of input stand in the buffer of a connection that has no reply yet."""
    cdef Record* record = &core.records[fd]
    cdef size_t used = 0
    cdef Answer answer = A_OTHER
    if record.seen_size == 0:
        answer = match_feed(&record.matched, core.buffer, size, &used, core.listeners[record.listener].terminated)
    if answer == A_MATCH:
        reply(core, fd, used == size and size < READ_BYTES and core.buffer[size - 1] == 0)
    elif answer == A_OTHER:
        stranger(core, fd, core.buffer, size)
    elif record.matched == REQUEST_BYTES:
        park(core, fd, S_GRACE, Q_GRACE)
    elif record.queue == Q_NONE:
        park(core, fd, S_REQUEST, Q_REQUEST)


cdef void advance(Core* core, int fd) noexcept nogil:
    """Read once and do what follows. Level-triggered: what is not read now is reported again."""
    cdef Record* record = &core.records[fd]
    cdef ssize_t n = recv(fd, core.buffer, READ_BYTES, 0)
    if n > 0:
        if record.state == S_LINGER:
            discard(core, fd, n)
        else:
            request(core, fd, <size_t>n)
    elif n == 0:
        if record.state == S_LINGER:
            end(core, fd)
        elif record.matched == REQUEST_BYTES:
            reply(core, fd, True)
        elif record.seen_size:
            refuse(core, fd, R_OTHER)
        else:
            lost(core, fd)
    elif errno == EAGAIN or errno == EINTR:
        pass
    elif record.state == S_LINGER:
        end(core, fd)
    else:
        lost(core, fd)


cdef void overdue(Core* core, int fd) noexcept nogil:
    cdef Record* record = &core.records[fd]
    if record.state == S_GRACE:
        reply(core, fd, False)
    elif record.state == S_LINGER:
        end(core, fd)
    else:
        core.listeners[record.listener].counters.timeouts += 1
        decided(core, fd, O_TIMEOUT)
        end(core, fd)


cdef void collect(Core* core) noexcept nogil:
    """Handle ready records, then overdue ones, a bounded number of each."""
    cdef epoll_event[EVENTS] events
    cdef int i, fd, n, left
    cdef int bound = COLLECT * max(1, <int>core.listener_count)
    cdef int64_t now
    cdef bint fired = False
    left = bound
    while left > 0:
        n = epoll_wait(core.epoll, events, EVENTS, 0)
        for i in range(n):
            if events[i].data.fd == core.timer:
                fired = True
            elif core.records[events[i].data.fd].watched:
                advance(core, events[i].data.fd)
        if n < EVENTS:
            break
        left -= n
    if fired:
        now = now_ns()
        for i in range(QUEUE_COUNT):
            for _ in range(bound):
                fd = core.queues[i].head
                if fd < 0 or core.records[fd].deadline > now:
                    break
                overdue(core, fd)
        # What is still overdue re-arms the timer at a time that has passed: it fires in the next round of the loop.
        core.armed = 0
        disarm(core)
    arm(core)


cdef void disarm(Core* core) noexcept nogil:
    cdef itimerspec never
    memset(&never, 0, sizeof(never))
    timerfd_settime(core.timer, 0, &never, NULL)


cdef int waiting(int fd) noexcept nogil:
    """Length of the accept queue (Linux: TCP_INFO of a listening socket has it in tcpi_unacked)."""
    cdef tcp_info info
    cdef socklen_t size = <socklen_t>(<char*>&info.tcpi_sacked - <char*>&info)
    if getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0:
        return HANDFUL
    return <int>info.tcpi_unacked


cdef int take(Core* core, Listener* listener, int* fds, int limit, int* taken) noexcept nogil:
    """Accept up to `limit` connections into `fds`, their number in `taken`. 0, or the errno that ended accepting."""
    cdef int fd, error
    cdef uint16_t sampled
    cdef bint wanted
    cdef sockaddr_in6 peer
    cdef socklen_t size
    cdef Record* record
    cdef Counters* counters = listener.counters
    taken[0] = 0
    for _ in range(limit):
        # Asked of accept4: getpeername has no answer for a client that has reset the connection meanwhile.
        wanted = core.samples != NULL and chosen(core)
        size = sizeof(peer)
        fd = accept4(listener.fd, &peer if wanted else NULL, &size if wanted else NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if fd < 0:
            error = errno
            if error == EAGAIN:
                return 0
            counters.accept_errors += 1
            if transient(error):
                continue
            return error
        counters.accepted += 1
        sampled = sample(core, listener.index, &peer, now_ns()) if wanted else 0
        if <size_t>fd >= core.capacity:
            count_refused(listener, R_CAPACITY)
            if sampled:
                told(core, sampled, R_CAPACITY, 0, 0)
            close(fd)
            continue
        counters.open += 1
        record = &core.records[fd]
        record.accepted_at = now_ns()
        record.state = S_FRESH
        record.queue = Q_NONE
        record.listener = listener.index
        record.sample = sampled
        record.progress = 0
        record.matched = 0
        record.seen_size = 0
        fds[taken[0]] = fd
        taken[0] += 1
    return 0


cdef int burst(Core* core, Listener* listener, int limit, int* total) noexcept nogil:
    """Accept and advance connections until there are none, or `limit`; their number in `total`. 0, or an errno.

    The kernel is asked how many wait, because an accept4 that finds none has made and thrown away a socket and a file
    first: without it an answer cost 0.83 of the C yardstick's CPU, with it 0.94 (load on the other CPU, one run).
    A handful is accepted before the first of it is read, and those without input are tried again before they are
    parked: most requests arrive in the microseconds after the handshake, and parking costs four system calls.
    """
    cdef int[HANDFUL] fds
    cdef int i, n, error = 0
    total[0] = 0
    while True:
        n = waiting(listener.fd)
        if n == 0 and total[0] > 0:
            break
        # The first time there is one, whatever the kernel says: that is why we were called.
        error = take(core, listener, fds, min(max(n, 1), <int>HANDFUL), &n)
        for i in range(n):
            advance(core, fds[i])
        for i in range(n):
            if core.records[fds[i]].state == S_FRESH:
                advance(core, fds[i])
                if core.records[fds[i]].state == S_FRESH:
                    park(core, fds[i], S_REQUEST, Q_REQUEST)
        total[0] += n
        if n == 0 or error or total[0] >= limit:
            break
    arm(core)
    return error


cdef bint transient(int error) noexcept nogil:
    """accept(2): pending network errors of the new socket are reported here; the next one may be well."""
    return error in (EINTR, ECONNABORTED, EPROTO, ENOPROTOOPT, EHOSTDOWN, EHOSTUNREACH, ENETDOWN, ENETUNREACH,
                     EOPNOTSUPP, EPERM)


# ------------------------------------------------------------------------------------------------- what Python sees

cdef class RequestMatcher:
    cdef uint8_t _matched
    cdef bint _terminated
    cdef Answer _answer
    cdef bint _after_cr             # a LF that comes next belongs to the request
    cdef readonly Py_ssize_t consumed

    def __cinit__(self, *, bint terminated=True):
        self._terminated = terminated

    def feed(self, const unsigned char[::1] data not None):
        cdef size_t used = 0
        if data.shape[0] == 0:
            return VERDICTS[<int>self._answer]
        if self._answer == A_MORE:
            self._answer = match_feed(
                &self._matched, <const char*>&data[0], <size_t>data.shape[0], &used, self._terminated
            )
            # Nothing of a stream that turns out to be something else belongs to a request.
            self.consumed = 0 if self._answer == A_OTHER else self.consumed + <Py_ssize_t>used
            self._after_cr = (self._answer == A_MATCH and used == <size_t>data.shape[0]
                              and data[data.shape[0] - 1] == b"\r")
        elif self._after_cr:
            self._after_cr = False
            if data[0] == b"\n":
                self.consumed += 1
        return VERDICTS[<int>self._answer]

    @property
    def unterminated(self):
        return self._answer == A_MORE and self._matched == REQUEST_BYTES


cdef class PolicyReply:
    cdef readonly bytes data

    def __cinit__(self, bytes data not None):
        if not data:
            raise ValueError("a reply is at least one byte")
        if len(data) >= 1 << 31:
            raise ValueError("a reply is less than 2 GiB")
        self.data = data

    def __len__(self):
        return len(self.data)


cdef class Parker:
    cdef Core core
    cdef object _on_conversation
    cdef object _on_error
    cdef object _on_access
    cdef list _acceptors            # keeps alive what core.listeners points to

    def __cinit__(self, *, on_conversation, on_error, signatures=(), size_t capacity,
                  double request_timeout, double terminator_grace, double linger_timeout, uint32_t linger_bytes,
                  on_access=None, double access_log=0.0):
        cdef epoll_event event
        cdef int i
        cdef Core* core = &self.core
        if not 0.0 <= access_log <= 1.0:
            raise ValueError("access_log is a share of the connections, 0 to 1")
        core.epoll = core.timer = -1
        core.handoff = -1
        core.linger_bytes = linger_bytes
        self._acceptors = []
        core.capacity = min(capacity, <size_t>MAX_RECORDS)
        core.queues[Q_GRACE].duration = <int64_t>(terminator_grace * 1e9)
        core.queues[Q_LINGER].duration = <int64_t>(linger_timeout * 1e9)
        core.queues[Q_REQUEST].duration = <int64_t>(request_timeout * 1e9)
        for i in range(QUEUE_COUNT):
            core.queues[i].head = core.queues[i].tail = -1
        self._on_conversation = on_conversation
        self._on_error = on_error
        for prefix, reason in signatures:
            self._add_signature(prefix, REASONS.index(reason))
        core.records = <Record*>calloc(core.capacity, sizeof(Record))
        core.buffer = <char*>malloc(READ_BYTES)
        if core.records == NULL or core.buffer == NULL:
            raise MemoryError
        if access_log > 0:
            self._on_access = on_access
            self._sample(access_log)
        core.epoll = epoll_create1(EPOLL_CLOEXEC)
        if core.epoll < 0:
            PyErr_SetFromErrno(OSError)
        core.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if core.timer < 0:
            PyErr_SetFromErrno(OSError)
        event.events = EPOLLIN
        event.data.fd = core.timer
        if epoll_ctl(core.epoll, EPOLL_CTL_ADD, core.timer, &event) != 0:
            PyErr_SetFromErrno(OSError)

    def __dealloc__(self):
        # No buffer: __cinit__ did not come as far as to open anything. Arguments of a wrong type end it before its
        # first line, and then epoll and timer are 0: somebody else's descriptor.
        if self.core.buffer != NULL:
            if self.core.timer >= 0:
                close(self.core.timer)
            if self.core.epoll >= 0:
                close(self.core.epoll)
        free(self.core.samples)
        free(self.core.records)
        free(self.core.buffer)

    cdef int _sample(self, double share) except -1:
        cdef Core* core = &self.core
        cdef int i
        core.samples = <Sample*>calloc(SAMPLE_COUNT, sizeof(Sample))
        if core.samples == NULL:
            raise MemoryError
        for i in range(1, SAMPLE_COUNT - 1):
            core.samples[i].next = <uint16_t>(i + 1)
        core.spare = 1
        core.share = <uint32_t>(share * 0xFFFFFFFF)
        core.random = <uint32_t>now_ns() | 1
        return 0

    cdef int _tell(self) except -1:
        """Give the outcomes of sampled connections to the hook."""
        cdef Core* core = &self.core
        cdef Sample entry
        cdef uint16_t number
        while core.told_next != 0:
            number = core.told_next
            entry = core.samples[number]
            core.told_next = entry.next
            core.samples[number].next = core.spare
            core.spare = number
            left_out, core.left_out = core.left_out, 0
            try:
                host, port = address_of(&entry.peer)
                self._on_access(entry.listener, host, port, OUTCOMES[entry.outcome], entry.duration / 1e9, entry.sent,
                                left_out)
            except BaseException as error:
                self._report(error)
        return 0

    cdef int _add_signature(self, bytes prefix, int reason) except -1:
        cdef Signature* row = &self.core.signatures[self.core.signature_count]
        if self.core.signature_count == SIGNATURES or not 1 <= len(prefix) <= SEEN_BYTES:
            raise ValueError(f"at most {SIGNATURES} signatures of 1 to {SEEN_BYTES} bytes")
        memcpy(row.prefix, <const char*>prefix, len(prefix))
        row.size = <uint8_t>len(prefix)
        row.reason = <uint8_t>reason
        self.core.signature_count += 1
        return 0

    def fileno(self):
        return self.core.epoll

    @property
    def open(self):
        return sum([self.core.listeners[i].counters.open for i in range(self.core.listener_count)])

    def ready(self):
        with nogil:
            collect(&self.core)
        self._call_hooks()

    cdef int _call_hooks(self) except -1:
        if self.core.handoff >= 0:
            self._hand_off()
        if self.core.told_next != 0:
            self._tell()
        return 0

    cdef int _hand_off(self) except -1:
        """Give each waiting fd to its greenlet. The hooks are somebody else's code: what they raise ends here."""
        cdef int fd
        while self.core.handoff >= 0:
            fd = self.core.handoff
            self.core.handoff = self.core.records[fd].next
            try:
                self._on_conversation(fd)
            except BaseException as error:
                # The hook may have ended the conversation before it raised.
                if self.core.records[fd].state == S_CONVERSATION:
                    self.abandon(fd, "capacity")
                self._report(error)
        return 0

    cdef int _report(self, error) except -1:
        try:
            self._on_error(error)
        except BaseException:
            pass
        return 0

    cdef Record* _conversation(self, int fd) except NULL:
        if not 0 <= fd < <int>self.core.capacity or self.core.records[fd].state != S_CONVERSATION:
            raise ValueError(f"fd {fd} is not a conversation")
        return &self.core.records[fd]

    def resume(self, int fd):
        cdef Record* record = self._conversation(fd)
        cdef Core* core = &self.core
        with nogil:
            if send_reply(core, fd):
                core.listeners[record.listener].counters.conversations -= 1
                linger(core, fd)
                arm(core)
            elif errno != EAGAIN:
                core.listeners[record.listener].counters.conversations -= 1
                lost(core, fd)
        self._tell()
        return record.state != S_CONVERSATION

    def abandon(self, int fd, str outcome not None):
        cdef Record* record = self._conversation(fd)
        cdef Listener* listener = self.core.listeners[record.listener]
        cdef Reason reason
        if outcome == "timeout":
            listener.counters.timeouts += 1
            decided(&self.core, fd, O_TIMEOUT)
        else:
            reason = <Reason><int>REASONS.index(outcome)
            count_refused(listener, reason)
            decided(&self.core, fd, reason)
        listener.counters.conversations -= 1
        end(&self.core, fd)
        self._tell()

    def close_all(self):
        cdef size_t fd
        cdef int closed = 0
        cdef Record* record
        for fd in range(self.core.capacity):
            record = &self.core.records[fd]
            if record.state == S_FREE:
                continue
            if record.state == S_CONVERSATION:
                self.core.listeners[record.listener].counters.conversations -= 1
            if record.state != S_LINGER:
                count_refused(self.core.listeners[record.listener], R_SHUTDOWN)
                decided(&self.core, <int>fd, R_SHUTDOWN)
            end(&self.core, <int>fd)
            closed += 1
        self.core.handoff = -1
        self._tell()
        return closed


cdef tuple address_of(sockaddr_in6* peer):
    """(IP, port) of a client. One that reached a dual-stack socket by IPv4 has its IPv4 address."""
    cdef char[64] text                  # INET6_ADDRSTRLEN is 46
    cdef sockaddr_in* old = <sockaddr_in*>peer
    cdef const uint8_t* bytes16 = peer.sin6_addr.s6_addr
    if peer.sin6_family == AF_INET:
        inet_ntop(AF_INET, &old.sin_addr, text, sizeof(text))
    elif memcmp(bytes16, MAPPED, 12) == 0:
        inet_ntop(AF_INET, bytes16 + 12, text, sizeof(text))
    else:
        inet_ntop(AF_INET6, bytes16, text, sizeof(text))
    # Both families keep the port at the same place.
    return (<bytes>text).decode("ascii"), ntohs(peer.sin6_port)


cdef class Acceptor:
    cdef Listener listener
    cdef Parker parker
    cdef PolicyReply reply
    cdef unsigned char[::1] block
    cdef object _on_exhausted

    def __cinit__(self, Parker parker not None, int fd, PolicyReply reply not None, unsigned char[::1] block not None,
                  *, on_exhausted, bint terminated=True):
        cdef Core* core = &parker.core
        if block.shape[0] < <Py_ssize_t>sizeof(Counters) or <size_t>&block[0] % sizeof(uint64_t) != 0:
            raise ValueError(f"a counter block is {sizeof(Counters)} bytes, aligned to {sizeof(uint64_t)}")
        if core.listener_count == LISTENER_COUNT:
            raise ValueError(f"at most {LISTENER_COUNT} listeners in one process")
        self.parker = parker
        self.reply = reply
        self.block = block
        self._on_exhausted = on_exhausted
        self.listener.fd = fd
        self.listener.terminated = terminated
        self.listener.reply = <const char*>reply.data
        self.listener.reply_size = <size_t>len(reply.data)
        self.listener.counters = <Counters*>&block[0]
        self.listener.counters.open = 0
        self.listener.counters.parked = 0
        self.listener.counters.conversations = 0
        self.listener.index = core.listener_count
        core.listeners[core.listener_count] = &self.listener
        core.listener_count += 1
        parker._acceptors.append(self)

    def ready(self):
        cdef int error, taken
        with nogil:
            error = burst(&self.parker.core, &self.listener, BURST, &taken)
        self.parker._call_hooks()
        if error:
            try:
                self._on_exhausted(error)
            except BaseException as problem:
                self.parker._report(problem)
        return taken
