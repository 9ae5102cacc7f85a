from cpython.exc cimport PyErr_SetFromErrno
from libc.errno cimport EAGAIN, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy
from posix.unistd cimport close

from flashpol._native.accept.ip_ranges cimport MAPPED
from flashpol._native.accept.match cimport SEEN_BYTES, Signature, SIGNATURES
from flashpol._native.accept.proxy cimport ProxyParser
from flashpol._native.accept.state cimport (
    Core, H_NONE, Handed, Listener, O_RELAYED, O_TIMEOUT, Q_FIRST, Q_GRACE, Q_LINGER, Q_REQUEST, QUEUE_COUNT,
    R_CAPACITY, R_SHUTDOWN, READ_BYTES, Reason, Record, S_FREE, S_LINGER, S_SESSION, S_SLOW_REPLY, Sample, SAMPLE_COUNT,
)
from flashpol._native.common.system cimport (
    AF_INET, AF_INET6, EPOLL_CLOEXEC, epoll_create1, getpeername, getsockname, inet_ntop, ntohs, sockaddr_in,
    sockaddr_in6, socklen_t,
)


cdef class ConnectionTable:
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
            self.core.headers = <ProxyParser*>calloc(self.core.capacity, sizeof(ProxyParser))
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
