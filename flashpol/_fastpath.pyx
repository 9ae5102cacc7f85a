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

On a shared port there is another end, instead of refused and of the deadline, which is first_byte_timeout there:

    REQUEST ──other, deadline──► RELAYED (a greenlet, with all bytes that were read) ──► closed

FRESH is the moment after accept4. REQUEST, GRACE and LINGER are parked: in the epoll set and in the deadline queue of
that name. A deadline is set when a record enters its queue and never moved by what the client sends, so drip-feeding
gains nothing. A connection ends as exactly one of reply, refused, relayed, timeout and reset; `Counters` adds them up.
On a shared port a request that is under way at the deadline has request_timeout in addition, once.

LINGER exists because closing a socket with unread input makes Linux send RST, which can destroy a reply under way: the
reply is sent and the sending side shut down, then input is discarded until the client closes, up to a bound.

Silverlight's request has no terminator: on a listener that is not `terminated`, the 22 bytes are the match and GRACE is
never entered. A NUL that somebody sends all the same is input that may still come, so every reply there lingers.

The access log samples a share of the connections when they are accepted: those carry the number of a `Sample`, which
holds the client's address until the outcome is known and a hook has been told. The others cost one comparison.

Who connects is judged before anything else: at accept, or, where clients come through proxies, once a PROXY header has
said who it is. That one is read in FRESH and REQUEST, before the request and under the same deadline. Whoever is
refused for being too many, too fast or from elsewhere is closed at once. Where it is the total that is full, or there
are no descriptors, who waits without a request gives way (`evict_oldest`). On a shared port the client's silence, of
first_byte_timeout, begins with the header, for which the proxy has request_timeout.

What the diagram leaves out: a first byte that could begin several protocols ("P": POST, PUT, PRI) stays in REQUEST with
its bytes in `Record.seen` until the sniffing table can name it; on a shared port in the queue of GRACE, for as long.
"""

import enum

from cpython.exc cimport PyErr_SetFromErrno
from libc.errno cimport EAGAIN, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy
from posix.unistd cimport close

from flashpol._native.accept.accept cimport BURST, burst
from flashpol._native.accept.address_limits cimport (
    by_address, CensusView, enter, Entrance, Entry, HEAD_BYTES, leave, MOST, SECOND, table_of, WAYS,
)
from flashpol._native.accept.invariants cimport broken
from flashpol._native.accept.connection cimport collect, count_refused, end, linger, lost, evict_oldest, send_reply
from flashpol._native.common.deadlines cimport arm, begin_queue, now_ns, open_timer
from flashpol._native.accept.match cimport (
    A_MATCH, A_MORE, A_OTHER, Answer, match_feed, REQUEST_BYTES, SEEN_BYTES, Signature, SIGNATURES,
)
from flashpol._native.accept.ip_ranges cimport address_of, allowed, MAPPED, NetworkTable, Ranges, Turn
from flashpol._native.accept.proxy cimport proxy_begin, proxy_feed, ProxyHeader as Header
from flashpol._native.accept.access_log cimport decided
from flashpol._native.accept.state cimport (
    BOUNDS, BUCKET_COUNT, Core, Counters, H_NONE, Handed, Listener, LISTENER_COUNT, O_RELAYED, O_TIMEOUT, P_SILENT,
    PROTOCOL_COUNT, Q_FIRST, Q_GRACE, Q_LINGER, Q_REQUEST, QUEUE_COUNT, R_CAPACITY, R_SHUTDOWN, READ_BYTES, Reason,
    REASON_COUNT, Record, S_SLOW_REPLY, S_FREE, S_LINGER, S_SESSION, Sample, SAMPLE_COUNT,
)
from flashpol._native.common.system cimport (
    AF_INET, AF_INET6, EPOLL_CLOEXEC, epoll_create1, getpeername, getsockname, inet_ntop, ntohs, sockaddr_in,
    sockaddr_in6, socklen_t,
)

cdef enum:
    MAX_RECORDS = 1 << 20       # where RLIMIT_NOFILE is unlimited: 56 MB of address space, touched as it is used
    INDEX_BITS = 16             # of the index of a table of networks at most: 256 KB

cdef bytes HTTP_BODY = b"This port answers socket policy requests (<policy-file-request/>), not HTTP.\n"
cdef bytes HTTP_BYTES = b"".join([
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n",
    b"Content-Length: %d\r\n\r\n" % len(HTTP_BODY), HTTP_BODY,
])

BUCKETS = tuple([bound / 1e9 for bound in BOUNDS[:BUCKET_COUNT - 1]])
REASONS = (
    "http", "tls", "rtmp", "rtmpe", "other", "capacity", "shutdown", "crashed", "upstream", "max_connections",
    "max_address_connections", "max_address_rate", "network", "proxy_untrusted", "proxy_malformed", "proxy_oversized",
    "max_sessions", "max_slow_replies",
)
PROTOCOLS = (*REASONS[:P_SILENT], "silent")
OUTCOMES = (*REASONS, "timeout", "reset", "reply", "relayed")
ADDRESS_TABLE_HEAD = HEAD_BYTES
ADDRESS_TABLE_SET = WAYS * sizeof(Entry)
BLOCK_SIZE = (sizeof(Counters) + 63) // 64 * 64     # whole cache lines: no two writers share one

cdef Counters SAMPLE
LAYOUT = {                                          # field: (offset in bytes, number of 64-bit words)
    "accepted": (<char*>&SAMPLE.accepted - <char*>&SAMPLE, 1),
    "refused": (<char*>&SAMPLE.refused - <char*>&SAMPLE, REASON_COUNT),
    "relayed": (<char*>&SAMPLE.relayed - <char*>&SAMPLE, PROTOCOL_COUNT),
    "timeouts": (<char*>&SAMPLE.timeouts - <char*>&SAMPLE, 1),
    "resets": (<char*>&SAMPLE.resets - <char*>&SAMPLE, 1),
    "reply_bytes": (<char*>&SAMPLE.reply_bytes - <char*>&SAMPLE, 1),
    "accept_errors": (<char*>&SAMPLE.accept_errors - <char*>&SAMPLE, 1),
    "untracked": (<char*>&SAMPLE.untracked - <char*>&SAMPLE, 1),
    "duration_ns": (<char*>&SAMPLE.duration_ns - <char*>&SAMPLE, 1),
    "buckets": (<char*>&SAMPLE.buckets - <char*>&SAMPLE, BUCKET_COUNT),
    "open": (<char*>&SAMPLE.open - <char*>&SAMPLE, 1),
    "parked": (<char*>&SAMPLE.parked - <char*>&SAMPLE, 1),
    "slow_replies": (<char*>&SAMPLE.slow_replies - <char*>&SAMPLE, 1),
    "sessions": (<char*>&SAMPLE.sessions - <char*>&SAMPLE, 1),
}


class Verdict(enum.IntEnum):
    MORE = A_MORE
    MATCH = A_MATCH
    OTHER = A_OTHER


cdef tuple VERDICTS = (Verdict.MORE, Verdict.MATCH, Verdict.OTHER)


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


cdef class ProxyHeader:
    cdef Header _header
    cdef Answer _answer
    cdef readonly Py_ssize_t consumed

    def __cinit__(self):
        proxy_begin(&self._header)

    def feed(self, const unsigned char[::1] data not None):
        cdef size_t used = 0
        if self._answer == A_MORE and data.shape[0] > 0:
            self._answer = proxy_feed(&self._header, <const char*>&data[0], <size_t>data.shape[0], &used)
            self.consumed = 0 if self._answer == A_OTHER else self.consumed + <Py_ssize_t>used
        return VERDICTS[<int>self._answer]

    @property
    def oversized(self):
        return self._header.oversized

    @property
    def source(self):
        return text_of(&self._header.source) if self._header.proxied else None


cdef class Networks:
    cdef NetworkTable table

    def __cinit__(self, four not None, six not None):
        self._fill(&self.table.four, four[0], list(four[1]))
        self._fill(&self.table.six, six[0], list(six[1]))

    def __dealloc__(self):
        free(self.table.four.turns)
        free(self.table.four.index)
        free(self.table.six.turns)
        free(self.table.six.index)

    cdef int _fill(self, Ranges* ranges, bint first, list turns) except -1:
        cdef size_t count = <size_t>len(turns), i = 0, slot, slots
        cdef int bits = max(1, min(len(turns).bit_length(), INDEX_BITS))
        if turns != sorted(set(turns)) or not all([0 < turn < 1 << 128 for turn in turns]):
            raise ValueError("turns are addresses of 128 bits, ascending")
        ranges.first = first
        ranges.shift = <uint8_t>(64 - bits)
        slots = <size_t>1 << bits
        ranges.turns = <Turn*>malloc(max(<size_t>1, count) * sizeof(Turn))
        ranges.index = <uint32_t*>malloc((slots + 1) * sizeof(uint32_t))
        if ranges.turns == NULL or ranges.index == NULL:
            raise MemoryError
        for turn in turns:
            ranges.turns[i].high = turn >> 64
            ranges.turns[i].low = turn & 0xFFFFFFFFFFFFFFFF
            i += 1
        i = 0
        for slot in range(slots + 1):
            # Behind the last slot are no addresses: it would begin at 1 << 64.
            while i < count and (slot == slots or ranges.turns[i].high < <uint64_t>slot << ranges.shift):
                i += 1
            ranges.index[slot] = <uint32_t>i
        return 0

    def allow(self, const unsigned char[::1] addresses not None):
        cdef Py_ssize_t i, count = 0
        cdef sockaddr_in6 peer
        if addresses.shape[0] % 16:
            raise ValueError("addresses are 16 bytes each")
        peer.sin6_family = <uint16_t>AF_INET6
        for i in range(0, addresses.shape[0], 16):
            memcpy(&peer.sin6_addr, &addresses[i], 16)
            count += allowed(&self.table, address_of(&peer))
        return count


cdef class AddressLimits:
    cdef CensusView view
    cdef unsigned char[::1] memory

    def __cinit__(self, unsigned char[::1] memory not None, *, int slot, int workers, bytes key not None,
                  int max_connections=0, int max_worker_connections=0, int max_address_connections=0, int max_address_rate=0,
                  int ipv4_prefix=32, int ipv6_prefix=64):
        cdef CensusView* view = &self.view
        cdef size_t stride, sets
        if not 0 <= slot < workers or not 0 <= ipv4_prefix <= 32 or not 0 <= ipv6_prefix <= 128 or len(key) != 16:
            raise ValueError("slot is one of the workers, key 16 bytes, prefixes at most 32 and 128 bits")
        if min(max_connections, max_worker_connections, max_address_connections, max_address_rate) < 0:
            raise ValueError("limits are numbers from 0")
        if max(max_address_connections, max_address_rate) >= MOST:
            raise ValueError(f"of one address less than {MOST} can be counted")
        stride = <size_t>memory.shape[0] // <size_t>workers
        sets = (stride - min(stride, <size_t>HEAD_BYTES)) // ADDRESS_TABLE_SET
        whole = stride * <size_t>workers == <size_t>memory.shape[0] and ADDRESS_TABLE_HEAD + sets * ADDRESS_TABLE_SET == stride
        if not whole or sets == 0 or sets & (sets - 1) or <size_t>&memory[0] % HEAD_BYTES:
            raise ValueError("a address_limits is ADDRESS_TABLE_HEAD bytes and a power of two of ADDRESS_TABLE_SET for each worker")
        self.memory = memory
        view.set_mask = sets - 1
        view.memory = <char*>&memory[0]
        view.stride = stride
        view.workers = workers
        view.slot = slot
        view.own = table_of(view, slot)
        memcpy(view.key, <const char*>key, 16)
        view.mask4 = mask_of(ipv4_prefix)
        view.mask6[0] = mask_of(min(ipv6_prefix, 64))
        view.mask6[1] = mask_of(max(ipv6_prefix - 64, 0))
        view.max_connections = max_connections
        view.max_worker_connections = max_worker_connections
        view.max_address_connections = max_address_connections
        view.max_address_rate = max_address_rate
        view.share_of_address = max_address_connections // workers
        view.share_of_rate = max_address_rate * <int64_t>SECOND // workers

    def enter(self, const unsigned char[::1] address not None, int64_t now):
        cdef sockaddr_in6 peer
        cdef uint32_t place = 0
        cdef Entrance entrance
        if address.shape[0] != 16:
            raise ValueError("an address is 16 bytes")
        peer.sin6_family = <uint16_t>AF_INET6
        memcpy(&peer.sin6_addr, &address[0], 16)
        entrance = enter(&self.view, address_of(&peer), now, &place)
        return ENTRANCES[<int>entrance], place

    def leave(self, uint32_t place):
        if not 0 < place <= (self.view.set_mask + 1) * WAYS or self.view.own.entries[place - 1].open == 0:
            raise ValueError(f"nobody is at {place}")
        leave(&self.view, place)

    @property
    def held(self):
        return self.view.own.held

    @property
    def tracked(self):
        cdef uint64_t i
        cdef int64_t count = 0
        for i in range((self.view.set_mask + 1) * WAYS):
            count += self.view.own.entries[i].open
        return count


cdef tuple ENTRANCES = ("admitted", "max_address_connections", "max_address_rate", "untracked")      # Entrance


cdef uint64_t mask_of(int prefix):
    """The first bits of 64."""
    return ~<uint64_t>0 << (64 - prefix) if prefix else 0


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


cdef class ConnectionTable:
    cdef Core core
    cdef object _on_slow_reply
    cdef object _on_error
    cdef object _on_access
    cdef AddressLimits _address_limits
    cdef object _on_session
    cdef list _acceptors            # keeps alive what core.listeners points to

    def __cinit__(self, *, on_slow_reply, on_error, signatures=(), size_t capacity,
                  double request_timeout, double terminator_grace, double linger_timeout, uint32_t linger_bytes,
                  on_access=None, double access_log=0.0, AddressLimits address_limits=None, on_session=None,
                  double first_byte_timeout=1.0):
        cdef Core* core = &self.core
        if not 0.0 <= access_log <= 1.0:
            raise ValueError("access_log is a share of the connections, 0 to 1")
        core.epoll = core.timer.fd = -1
        core.handoff = -1
        core.linger_bytes = linger_bytes
        core.http_answer = HTTP_BYTES
        core.http_answer_size = <size_t>len(HTTP_BYTES)
        self._acceptors = []
        self._address_limits = address_limits
        core.address_limits = NULL if address_limits is None else &address_limits.view
        core.capacity = min(capacity, <size_t>MAX_RECORDS)
        self._on_slow_reply = on_slow_reply
        self._on_error = on_error
        self._on_session = on_session
        for prefix, reason in signatures:
            self._add_signature(prefix, REASONS.index(reason))
        core.records = <Record*>calloc(core.capacity, sizeof(Record))
        core.buffer = <char*>malloc(READ_BYTES)
        if core.records == NULL or core.buffer == NULL:
            raise MemoryError
        self._begin_queue(Q_GRACE, terminator_grace)
        self._begin_queue(Q_LINGER, linger_timeout)
        self._begin_queue(Q_FIRST, first_byte_timeout)
        self._begin_queue(Q_REQUEST, request_timeout)
        if access_log > 0:
            self._on_access = on_access
            self._sample(access_log)
        core.epoll = epoll_create1(EPOLL_CLOEXEC)
        if core.epoll < 0:
            PyErr_SetFromErrno(OSError)
        if not open_timer(&core.timer, core.epoll):
            PyErr_SetFromErrno(OSError)

    def __dealloc__(self):
        # No buffer: __cinit__ did not come as far as to open anything. Arguments of a wrong type end it before its
        # first line, and then epoll and timer are 0: somebody else's descriptor.
        if self.core.buffer != NULL:
            if self.core.timer.fd >= 0:
                close(self.core.timer.fd)
            if self.core.epoll >= 0:
                close(self.core.epoll)
        self._forget_handed()
        free(self.core.samples)
        free(self.core.headers)
        free(self.core.records)
        free(self.core.buffer)

    cdef int _begin_queue(self, int which, double duration) except -1:
        begin_queue(&self.core.queues[which], &self.core.records[0].link, sizeof(Record), <int64_t>(duration * 1e9))
        return 0

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
                host, port = text_of(&entry.peer)
                self._on_access(entry.listener, host, port, OUTCOMES[entry.outcome], entry.duration / 1e9, entry.sent,
                                left_out)
            except BaseException as error:
                self._report(error)
        return 0

    cdef int _add_signature(self, bytes prefix, int reason) except -1:
        cdef Signature* row = &self.core.signatures.rows[self.core.signatures.count]
        if self.core.signatures.count == SIGNATURES or not 1 <= len(prefix) <= SEEN_BYTES:
            raise ValueError(f"at most {SIGNATURES} signatures of 1 to {SEEN_BYTES} bytes")
        memcpy(row.prefix, <const char*>prefix, len(prefix))
        row.size = <uint8_t>len(prefix)
        row.name = <uint8_t>reason
        self.core.signatures.count += 1
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
        if self.core.handed != NULL:
            self._relay()
        if self.core.told_next != 0:
            self._tell()
        return 0

    cdef int _hand_off(self) except -1:
        """Give each waiting fd to its greenlet. The hooks are somebody else's code: what they raise ends here."""
        cdef int fd
        while self.core.handoff >= 0:
            fd = self.core.handoff
            self.core.handoff = self.core.records[fd].link.next
            try:
                self._on_slow_reply(fd)
            except BaseException as error:
                # The hook may have ended the conversation before it raised.
                if self.core.records[fd].state == S_SLOW_REPLY:
                    self.close_as(fd, "capacity")
                self._report(error)
        return 0

    cdef int _relay(self) except -1:
        """The same for what is to be relayed."""
        cdef Handed* handed
        cdef Record* record
        while self.core.handed != NULL:
            handed = self.core.handed
            self.core.handed = handed.next
            fd, data = handed.fd, handed.data[:handed.size]
            free(handed)
            record = &self.core.records[<int>fd]
            try:
                self._on_session(fd, data, record.listener)
            except BaseException as error:
                if record.state == S_SESSION:
                    self.close_as(fd, "capacity")
                self._report(error)
        return 0

    cdef void _forget_handed(self) noexcept:
        cdef Handed* handed
        while self.core.handed != NULL:
            handed = self.core.handed
            self.core.handed = handed.next
            free(handed)

    cdef int _report(self, error) except -1:
        try:
            self._on_error(error)
        except BaseException:
            pass
        return 0

    cdef Record* _conversation(self, int fd) except NULL:
        if not 0 <= fd < <int>self.core.capacity or self.core.records[fd].state not in (S_SLOW_REPLY, S_SESSION):
            raise ValueError(f"fd {fd} is not a conversation")
        return &self.core.records[fd]

    def endpoints(self, int fd):
        cdef sockaddr_in6 own
        cdef socklen_t size = sizeof(own)
        self._conversation(fd)
        try:
            client = self.client(fd)
        except OSError:
            return None, None
        if self.core.records[fd].heading != H_NONE and self.core.headers[fd].proxied:
            return client, text_of(&self.core.headers[fd].destination)
        if getsockname(fd, &own, &size) != 0:
            return None, None
        return client, text_of(&own)

    def close_relayed(self, int fd, uint64_t sent):
        cdef Record* record = self._conversation(fd)
        cdef Listener* listener = self.core.listeners[record.listener]
        listener.counters.relayed[record.protocol] += 1
        listener.counters.sessions -= 1
        record.progress = <uint32_t>min(sent, <uint64_t>0xFFFFFFFF)
        decided(&self.core, fd, O_RELAYED)
        end(&self.core, fd)
        self._tell()

    def send_more(self, int fd):
        cdef Record* record = self._conversation(fd)
        if record.state != S_SLOW_REPLY:
            raise ValueError(f"fd {fd} has no reply to finish")
        cdef Core* core = &self.core
        with nogil:
            if send_reply(core, fd):
                core.listeners[record.listener].counters.slow_replies -= 1
                linger(core, fd)
                arm(&core.timer, core.queues, QUEUE_COUNT)
            elif errno != EAGAIN:
                core.listeners[record.listener].counters.slow_replies -= 1
                lost(core, fd)
        self._tell()
        return record.state != S_SLOW_REPLY

    def close_as(self, int fd, str outcome not None):
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
        uncount(listener, record)
        end(&self.core, fd)
        self._tell()

    def client(self, int fd):
        cdef sockaddr_in6 peer
        cdef socklen_t size = sizeof(peer)
        if not 0 <= fd < <int>self.core.capacity or self.core.records[fd].state == S_FREE:
            raise ValueError(f"fd {fd} is not a connection")
        if self.core.records[fd].heading != H_NONE:
            return text_of(&self.core.headers[fd].source)
        if getpeername(fd, &peer, &size) != 0:
            PyErr_SetFromErrno(OSError)
        return text_of(&peer)

    cdef int _expect_headers(self) except -1:
        """Room for a PROXY header of each connection."""
        if self.core.headers == NULL:
            self.core.headers = <Header*>calloc(self.core.capacity, sizeof(Header))
            if self.core.headers == NULL:
                raise MemoryError
        return 0

    def evict_oldest(self):
        cdef bint made
        with nogil:
            made = evict_oldest(&self.core, R_CAPACITY)
        self._call_hooks()
        return made

    def close_all(self):
        cdef size_t fd
        cdef int closed = 0
        cdef Record* record
        for fd in range(self.core.capacity):
            record = &self.core.records[fd]
            if record.state == S_FREE:
                continue
            if record.state in (S_SLOW_REPLY, S_SESSION):
                uncount(self.core.listeners[record.listener], record)
            if record.state != S_LINGER:
                count_refused(self.core.listeners[record.listener], R_SHUTDOWN)
                decided(&self.core, <int>fd, R_SHUTDOWN)
            end(&self.core, <int>fd)
            closed += 1
        self.core.handoff = -1
        self._forget_handed()
        self._tell()
        return closed

    def check(self):
        cdef int64_t live
        cdef const char* wrong
        with nogil:
            wrong = broken(&self.core, &live)
        if wrong != NULL:
            raise AssertionError(wrong.decode("ascii"))
        return live


cdef inline void uncount(Listener* listener, const Record* record) noexcept nogil:
    """A greenlet has a record no more."""
    if record.state == S_SESSION:
        listener.counters.sessions -= 1
    else:
        listener.counters.slow_replies -= 1


cdef tuple text_of(sockaddr_in6* peer):
    """(IP, port) of a client. One that reached a dual-stack socket by IPv4 has its IPv4 address."""
    cdef char[64] text                  # INET6_ADDRSTRLEN is 46
    cdef const sockaddr_in* old = <const sockaddr_in*>peer
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
    cdef int fd
    cdef Listener listener
    cdef ConnectionTable connection_table
    cdef PolicyReply reply
    cdef unsigned char[::1] block
    cdef object _on_exhausted
    cdef Networks _networks
    cdef Networks _proxies

    def __cinit__(self, ConnectionTable connection_table not None, int fd, PolicyReply reply not None, unsigned char[::1] block not None,
                  *, on_exhausted, bint terminated=True, Networks networks=None, Networks proxies=None,
                  bint shared=False):
        cdef Core* core = &connection_table.core
        if block.shape[0] < <Py_ssize_t>sizeof(Counters) or <size_t>&block[0] % sizeof(uint64_t) != 0:
            raise ValueError(f"a counter block is {sizeof(Counters)} bytes, aligned to {sizeof(uint64_t)}")
        if core.listener_count == LISTENER_COUNT:
            raise ValueError(f"at most {LISTENER_COUNT} listeners in one process")
        self.connection_table = connection_table
        self.reply = reply
        self.block = block
        self._on_exhausted = on_exhausted
        self._networks = networks
        self._proxies = proxies
        if proxies is not None:
            connection_table._expect_headers()
            self.listener.proxies = &proxies.table
        if networks is not None:
            self.listener.networks = &networks.table
        self.listener.asks_address = networks is not None or proxies is not None or (
            core.address_limits != NULL and by_address(core.address_limits))
        self.fd = fd
        self.listener.terminated = terminated
        self.listener.shared = shared
        self.listener.reply = <const char*>reply.data
        self.listener.reply_size = <size_t>len(reply.data)
        self.listener.counters = <Counters*>&block[0]
        self.listener.counters.open = 0
        self.listener.counters.parked = 0
        self.listener.counters.slow_replies = 0
        self.listener.counters.sessions = 0
        self.listener.index = core.listener_count
        core.listeners[core.listener_count] = &self.listener
        core.listener_count += 1
        connection_table._acceptors.append(self)

    def ready(self, int fd=-1):
        cdef int error, taken
        if fd < 0:
            fd = self.fd
        with nogil:
            error = burst(&self.connection_table.core, &self.listener, fd, BURST, &taken)
        self.connection_table._call_hooks()
        if error:
            try:
                self._on_exhausted(error)
            except BaseException as problem:
                self.connection_table._report(problem)
        return taken
