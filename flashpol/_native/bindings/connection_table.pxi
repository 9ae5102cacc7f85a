# ConnectionTable: owns the Core, and calls the hooks of Python for what C cannot finish.

from cpython.exc cimport PyErr_SetFromErrno
from libc.errno cimport EAGAIN, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset
from posix.fcntl cimport F_DUPFD_CLOEXEC, fcntl
from posix.unistd cimport close

from flashpol._native.accept.ip_ranges cimport MAPPED
from flashpol._native.accept.match cimport SEEN_BYTES, Signature, SIGNATURES
from flashpol._native.accept.proxy cimport ProxyParser
from flashpol._native.accept.state cimport (
    Carrier, Core, G_SESSIONS, Guesses, H_NONE, H_READ, HR_BODY, HR_BUSY, HR_COUNT, HR_METHOD, HR_TIMEOUT, HttpReply,
    Listener, O_RELAYED, O_SERVED, O_TIMEOUT, P_RTMPT, P_WEBSOCKET, PartialHead, PENDING_OPEN, PENDING_REQUEST,
    PendingSession, Q_FIRST_BYTE, Q_GRACE, Q_HANDSHAKE, Q_KEEP, Q_LINGER, Q_REQUEST, Q_UNREAD, QUEUE_COUNT,
    R_CAPACITY, R_HTTP, R_MAX_ADDRESS_CONNECTIONS, R_MAX_CONNECTIONS, R_NONE, R_SHUTDOWN, READ_BYTES, Reason,
    REASON_COUNT, Record, S_BEHIND, S_DECISION, S_EXCHANGE, S_FREE, S_KEEP, S_LINGER, S_SESSION, S_SLOW_REPLY,
    S_UNREAD, Sample, SAMPLE_COUNT, TurnLine,
)
from flashpol._native.accept.top_addresses cimport TopTable
from flashpol._native.codecs.codec cimport Codec, CODEC_PLAIN, CODEC_REPLY
from flashpol._native.account.places cimport K_NONE
from flashpol._native.common.deadlines cimport Queue
from flashpol._native.http.head cimport HEAD_BYTES
from flashpol._native.common.system cimport (
    AF_INET, AF_INET6, getpeername, getsockname, inet_ntop, inet_pton, ntohs, sockaddr_in, sockaddr_in6, socklen_t,
)

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int value, int flags)
    int EFD_CLOEXEC

cdef bytes HTTP_BODY = b"This port answers socket policy requests (<policy-file-request/>), not HTTP.\n"
cdef bytes HTTP_REPLY = b"".join([
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n",
    b"Content-Length: %d\r\n\r\n" % len(HTTP_BODY), HTTP_BODY,
])


HTTP_STATUSES = numbered(HR_COUNT, HEAD_STATUSES | {
    HR_TIMEOUT: 408, HR_BUSY: 503, HR_METHOD: 405, HR_BODY: 413,
})


cdef class PreparedCodec:
    def __dealloc__(self):
        if self.codec != NULL:
            self.codec.type.release(self.codec)


cdef class ConnectionTable:
    def __cinit__(self, *, Account account not None, on_slow_reply, on_error, signatures=(), on_access=None,
                  double access_log=0.0, on_session=None, on_request=None, on_open=None, http_replies=None,
                  int64_t max_body_bytes=1 << 26):
        cdef Core* core = &self.core
        if not 0.0 <= access_log <= 1.0:
            raise ValueError("access_log is a share of the connections, 0 to 1")
        core.pending_slow_replies = -1
        self._no_client = -1
        core.begun = core.placed = TurnLine(-1, -1)
        core.until_check = CHECK_EVERY - 1
        core.has_close_range = True
        core.http_reply = HTTP_REPLY
        core.http_reply_size = <size_t>len(HTTP_REPLY)
        self._acceptors = []
        self._codec_owners = set()
        self._account = account
        core.account = &account.core
        core.address_table = NULL if account.address_limits is None else &account.address_limits.table
        core.capacity = account.core.capacity
        self._on_slow_reply = on_slow_reply
        self._on_error = on_error
        self._on_session = on_session
        self._on_request = on_request
        self._on_open = on_open
        core.serving = -1
        core.max_body_bytes = max_body_bytes
        self._set_http_replies(http_replies or {})
        for prefix, reason in signatures:
            self._add_signature(prefix, REASONS.index(reason))
        core.records = <Record*>calloc(core.capacity, sizeof(Record))
        core.buffer = <char*>malloc(CODEC_PLAIN)
        core.wire = <char*>malloc(READ_BYTES)
        core.encoded = <char*>malloc(CODEC_REPLY)
        core.whole = <char*>malloc(HEAD_BYTES + CODEC_PLAIN)
        if core.records == NULL or core.buffer == NULL or core.wire == NULL or core.encoded == NULL or (
                core.whole == NULL):
            raise MemoryError
        init_states(core.states)
        if access_log > 0:
            self._on_access = on_access
            self._init_samples(access_log)
        if not open_poller(&core.poller):
            PyErr_SetFromErrno(OSError)

    def __dealloc__(self):
        close_poller(&self.core.poller)
        self._drop_pending_sessions()
        free(self.core.queues)
        free(self.core.samples)
        free(self.core.headers)
        free(self.core.heads)
        free(self.core.carriers)
        free(self.core.guesses)
        free(self.core.outgoing)
        if self._no_client > 0:                         # 0: __cinit__ has not begun
            close(self._no_client)
        free(self.core.whole)
        free(self.core.records)
        free(self.core.buffer)
        free(self.core.wire)
        free(self.core.encoded)

    def add_timeouts(self, *, double request_timeout, double terminator_grace, double linger_timeout,
                     double first_byte_timeout=1.0, double tls_handshake_timeout=5.0, double http_idle_timeout=30.0):
        cdef Core* core = &self.core
        cdef double[QUEUE_COUNT] durations
        cdef size_t size = sizeof(Queue) * QUEUE_COUNT * <size_t>(core.timeouts_count + 1)
        cdef Queue* queues = <Queue*>realloc(core.queues, size)
        cdef int i, first = core.timeouts_count * QUEUE_COUNT
        if queues == NULL:
            raise MemoryError
        core.queues = queues
        durations[<int>Q_GRACE] = terminator_grace
        durations[<int>Q_LINGER] = durations[<int>Q_UNREAD] = linger_timeout
        durations[<int>Q_FIRST_BYTE] = first_byte_timeout
        durations[<int>Q_REQUEST] = request_timeout
        durations[<int>Q_HANDSHAKE] = tls_handshake_timeout
        durations[<int>Q_KEEP] = http_idle_timeout
        for i in range(QUEUE_COUNT):
            init_queue(&queues[first + i], &core.records[0].link, sizeof(Record), <int64_t>(durations[i] * 1e9))
        core.timeouts_count += 1
        return core.timeouts_count - 1

    cdef int _init_samples(self, double share) except -1:
        cdef Core* core = &self.core
        core.sample_all = share == 1.0
        # One for each connection there can be, and for those that have ended and are logged next. The kernel gives
        # pages as they are used.
        core.sample_count = SAMPLE_COUNT + (<uint32_t>core.capacity if core.sample_all else 0)
        core.samples = <Sample*>calloc(core.sample_count, sizeof(Sample))
        if core.samples == NULL:
            raise MemoryError
        core.used_samples = 1
        core.sample_rate = <uint32_t>(share * 0xFFFFFFFF)
        core.random = <uint32_t>now_ns() | 1
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

    cdef int _set_http_replies(self, dict replies) except -1:
        """By status; those that are missing are empty: the connection is closed."""
        cdef bytes reply
        self._http_replies = [replies.get(status, b"") for status in HTTP_STATUSES]
        for number, reply in enumerate(self._http_replies):
            self.core.http_replies[<int>number] = HttpReply(<const char*>reply, <size_t>len(reply))
        return 0

    cdef int _expect_heads(self) except -1:
        """Allocate a pointer for the head of each connection there can be."""
        if self.core.heads == NULL:
            self.core.heads = <PartialHead**>calloc(self.core.capacity, sizeof(PartialHead*))
            if self.core.heads == NULL:
                raise MemoryError
        return 0

    def set_tunnels(self, TunnelGate tunnels not None):
        cdef Core* core = &self.core
        if core.gate != NULL or tunnels.gate.core != NULL:
            raise ValueError("a table has one TunnelGate, and this one is another's")
        if tunnels.gate.account != core.account:
            raise ValueError("the tunnels have another Account")
        self._expect_heads()
        self._expect_headers()
        core.carriers = <Carrier**>calloc(core.capacity, sizeof(Carrier*))
        core.outgoing = <char*>malloc(REPLY_HEAD + MAX_REPLY + 1)
        if core.address_table != NULL:
            # The kernel gives pages as they are used.
            core.guesses = <Guesses*>calloc(core.account.slots, sizeof(Guesses))
        if core.carriers == NULL or core.outgoing == NULL or (
                core.address_table != NULL and core.guesses == NULL):
            raise MemoryError
        self._no_client = eventfd(0, EFD_CLOEXEC)
        if self._no_client < 0:
            PyErr_SetFromErrno(OSError)
        self._tunnels = tunnels
        tunnels.gate.core = core
        tunnels.gate.reply = reply_to_request
        tunnels.gate.is_there = is_client_there
        core.gate = &tunnels.gate

    cdef int _expect_headers(self) except -1:
        """Allocate a PROXY header for each connection there can be."""
        if self.core.headers == NULL:
            self.core.headers = <ProxyParser*>calloc(self.core.capacity, sizeof(ProxyParser))
            if self.core.headers == NULL:
                raise MemoryError
        return 0

    def fileno(self):
        return self.core.poller.epoll

    @property
    def open(self):
        return sum([self.core.listeners[i].counters.open for i in range(self.core.listener_count)])

    @property
    def sessions(self):
        return sum([self.core.listeners[i].counters.by_state[<int>G_SESSIONS] for i in range(self.core.listener_count)])

    @property
    def idle(self):
        cdef size_t fd
        cdef int count = 0
        if self.core.carriers != NULL:
            for fd in range(self.core.capacity):
                count += self.core.records[fd].state == S_KEEP
        return count

    def ready(self):
        with nogil:
            dispatch(&self.core)
        if needs_hooks(&self.core):
            self._call_hooks()

    def wake(self):
        set_timer(&self.core.poller, 1)

    # ---------------------------------------------------------------------------------------------------------- hooks

    cdef int _call_hooks(self) except -1:
        """The hooks are code of others: an exception of theirs is reported and ends here.

        So does one of what is done for them: without memory even the arguments cannot be made. The connection is then
        refused in C, which needs none.
        """
        # Whatever gives way for a session may get a slow reply.
        while self.core.pending_slow_replies >= 0 or self.core.pending_sessions != NULL:
            self._start_slow_replies()
            self._start_sessions()
        self._log_samples()
        return 0

    cdef int _start_slow_replies(self) except -1:
        cdef int fd
        while self.core.pending_slow_replies >= 0:
            fd = self.core.pending_slow_replies
            self.core.pending_slow_replies = self.core.records[fd].link.next
            try:
                self._on_slow_reply(fd, self.core.records[fd].listener)
            except BaseException as error:
                # The hook may have closed the connection before it raised.
                if self.core.records[fd].state == S_SLOW_REPLY:
                    refuse(&self.core, fd, R_CAPACITY)
                self._report(error)
        return 0

    cdef int _start_sessions(self) except -1:
        cdef Core* core = &self.core
        cdef PendingSession* session
        cdef Record* record
        while core.pending_sessions != NULL:
            session = core.pending_sessions
            core.pending_sessions = session.next
            record = &core.records[session.fd]
            try:
                if session.what == PENDING_OPEN:
                    self._on_open(session.fd, session.data[:session.size], record.listener)
                    if record.state == S_DECISION:
                        raise RuntimeError("the hook has not decided about a request")
                elif session.what == PENDING_REQUEST:
                    self._on_request(session.fd, session.data[:session.size], record.listener)
                    if record.state == S_DECISION:
                        raise RuntimeError("the hook has not decided about a request")
                elif self._has_second_file():
                    self._on_session(session.fd, session.data[:session.size], record.listener)
                else:
                    refuse(core, session.fd, R_CAPACITY)
            except BaseException as error:
                if record.state == S_SESSION or record.state == S_DECISION:
                    refuse(core, session.fd, R_CAPACITY)
                self._report(error)
            finally:
                free(session)
        return 0

    cdef bint _has_second_file(self) noexcept:
        """Whether a session has a descriptor for the upstream; a connection may have to give way for it.

        This is no part of `begin_session`, which may be at work on a connection that gives way itself.
        """
        cdef bint found = True
        if exceeds_files(self.core.account):
            found = make_room(&self.core, R_CAPACITY)
            arm_timer(&self.core.poller, self.core.queues, self.core.timeouts_count * QUEUE_COUNT)
        return found

    cdef int _log_samples(self) except -1:
        cdef Core* core = &self.core
        cdef Sample sample
        cdef uint32_t number
        while core.done_samples != 0:
            number = core.done_samples
            sample = core.samples[number]
            core.done_samples = sample.next
            core.samples[number].next = core.free_samples
            core.free_samples = number
            try:
                left_out, core.left_out = core.left_out, 0
                host, port = text_of(&sample.peer)
                self._on_access(sample.listener, host, port, OUTCOMES[sample.outcome], sample.duration / 1e9,
                                sample.sent, left_out,
                                None if sample.protocol == PROTOCOL_COUNT else PROTOCOLS[sample.protocol],
                                bool(sample.tls))
            except BaseException as error:
                self._report(error)
        return 0

    cdef int _report(self, error) except -1:
        try:
            self._on_error(error)
        except BaseException:
            pass
        return 0

    cdef void _drop_pending_sessions(self) noexcept:
        cdef PendingSession* session
        while self.core.pending_sessions != NULL:
            session = self.core.pending_sessions
            self.core.pending_sessions = session.next
            free(session)

    # --------------------------------------------------------------------------------- connections that greenlets have

    cdef Record* _of_greenlet(self, int fd) except NULL:
        """The record of a slow reply, a session, or a request. Raises ValueError for any other descriptor."""
        if not 0 <= fd < <int>self.core.capacity or (
                self.core.records[fd].state not in (S_SLOW_REPLY, S_SESSION, S_DECISION)):
            raise ValueError(f"fd {fd} is not a slow reply, a session or a request")
        return &self.core.records[fd]

    cdef Record* _of_request(self, int fd) except NULL:
        """The record of a request that a hook decides about."""
        if not 0 <= fd < <int>self.core.capacity or self.core.records[fd].state != S_DECISION:
            raise ValueError(f"fd {fd} is not a request")
        return &self.core.records[fd]

    def protocol(self, int fd):
        cdef Record* record = self._of_greenlet(fd)
        if record.state != S_SESSION:
            raise ValueError(f"fd {fd} is not a session")
        return PROTOCOLS[record.protocol]

    # ------------------------------------------------------------------------------------------------------- requests

    def carries(self, int fd):
        return bool(self._of_request(fd).has_carrier)

    def begin_session(self, int fd):
        cdef Core* core = &self.core
        cdef Reason reason
        self._of_request(fd)
        reason = judge_session(core, fd, False, False)
        if reason == R_NONE and not self._has_second_file():
            reason = R_CAPACITY
        if reason == R_NONE:
            if core.records[fd].has_carrier:
                drop_carrier(core, fd)                  # a proxy has sent another client's request on it
            enter_session(core, fd, R_HTTP, False)
            return None
        return REASONS[reason]

    def wrap(self, int fd, PreparedCodec prepared not None):
        cdef Record* record = self._of_greenlet(fd)
        if prepared.codec == NULL or record.state != S_SESSION:
            raise ValueError("a codec is for one session, once")
        record.protocol = P_WEBSOCKET
        prepared.codec.below = self.core.account.codecs[fd]
        self.core.account.codecs[fd] = prepared.codec
        record.has_codec = True
        prepared.codec = NULL
        self._codec_owners.add(prepared.owner)

    def reply_http(self, int fd, bytes reply not None, str outcome not None):
        cdef Core* core = &self.core
        cdef Record* record = self._of_greenlet(fd)
        cdef Listener* listener = core.listeners[record.listener]
        cdef Reason reason
        if record.has_carrier:
            carrier_of(core, fd).served |= outcome == "served"
            count_carrier(core, fd, R_HTTP if outcome == "served" else <Reason><int>REASONS.index(outcome))
        elif outcome == "served":
            listener.counters.served += 1
            record.progress = <uint32_t>len(reply)
            record_outcome(core, fd, O_SERVED)
        else:
            reason = <Reason><int>REASONS.index(outcome)
            count_refused(core, listener, fd, reason, header_source(core, fd))
            record_outcome(core, fd, reason)
        end_http(core, fd, <const char*>reply, <size_t>len(reply))
        arm_timer(&core.poller, core.queues, core.timeouts_count * QUEUE_COUNT)
        self._log_samples()

    def set_client(self, int fd, str ip not None):
        cdef Core* core = &self.core
        cdef Record* record = self._of_request(fd)
        cdef Listener* listener = core.listeners[record.listener]
        cdef ProxyParser* header
        cdef sockaddr_in6 source
        cdef uint32_t slot = 0
        cdef Reason reason
        read_address(&source, ip)
        if core.headers == NULL:
            self._expect_headers()
        reason = admit_client(core, listener, &source, now_ns(), &slot)
        if reason == R_MAX_ADDRESS_CONNECTIONS and slot:
            reason = make_room_of_address(core, &slot)
        header = &core.headers[fd]
        if record.header_state == H_NONE:
            proxy_begin(header)
            record.header_state = H_READ
        header.source = source
        if record.sample != 0:
            core.samples[record.sample].peer = source
        if reason != R_NONE:
            return REASONS[reason]
        if core.address_table != NULL:
            release_slot(core.address_table, record.slot, False)
        record.slot = slot
        set_kind(core.account, fd, slot, K_NONE)
        return None

    def open_tunnel(self, int fd, str ip=None):
        cdef Core* core = &self.core
        cdef Record* record = self._of_request(fd)
        cdef Listener* listener = core.listeners[record.listener]
        cdef sockaddr_in6 source, own
        cdef socklen_t size = sizeof(own)
        cdef uint32_t slot = 0
        cdef int64_t now = now_ns()
        cdef Reason reason
        cdef Codec* codec
        cdef int session
        if not record.has_carrier:
            raise ValueError(f"fd {fd} does not ask for a tunnel session")
        if ip is not None:
            read_address(&source, ip)
        elif record.header_state != H_NONE:
            source = core.headers[fd].source
        elif getpeername(fd, &source, &size) != 0:
            return REASONS[<int>R_CAPACITY]             # the client has reset the connection
        size = sizeof(own)
        memset(&own, 0, sizeof(own))
        if record.header_state != H_NONE and core.headers[fd].proxied:
            own = core.headers[fd].destination
        else:
            getsockname(fd, &own, &size)
        reason = admit_client(core, listener, &source, now, &slot)
        if reason == R_MAX_ADDRESS_CONNECTIONS and slot:
            reason = make_room_of_address(core, &slot)
        elif reason != R_NONE:
            slot = 0                                    # it is not counted there
        if reason == R_NONE and not has_files(core.account) and not make_room(core, R_CAPACITY):
            reason = R_CAPACITY
        if reason == R_NONE and core.address_table != NULL and not has_place(core) and (
                not make_room(core, R_MAX_CONNECTIONS)):
            reason = R_MAX_CONNECTIONS
        session = fcntl(self._no_client, F_DUPFD_CLOEXEC, 0) if reason == R_NONE else -1
        if reason == R_NONE and not 0 <= session < <int>core.capacity:
            reason = R_CAPACITY
        if reason != R_NONE:
            if slot:
                release_slot(core.address_table, slot, False)
            if session >= 0:
                close(session)
            return REASONS[<int>reason]
        begin_connection(core, listener, session, now, 0, slot)
        proxy_begin(&core.headers[session])
        core.headers[session].source = source
        core.headers[session].destination = own
        core.headers[session].proxied = True
        core.records[session].header_state = H_READ
        reason = judge_session(core, session, True, False)      # as long as nothing of the client has come
        if reason == R_NONE and not self._has_second_file():
            reason = R_CAPACITY
        codec = core.gate.begin(core.gate, session, fd, listener.index) if reason == R_NONE else NULL
        if codec == NULL:
            close_connection(core, session)             # it is counted for the connection of the request
            return REASONS[<int>(R_CAPACITY if reason == R_NONE else reason)]
        listener.counters.accepted += 1
        if core.samples != NULL and should_sample(core):
            core.records[session].sample = begin_sample(core, listener.index, &source, now)
        core.account.codecs[session] = codec
        core.records[session].has_codec = True
        enter_session(core, session, P_RTMPT, False)
        enter(core, fd, S_BEHIND if carrier_of(core, fd).rest_size else S_EXCHANGE)
        # Of connections that have given way.
        arm_timer(&core.poller, core.queues, core.timeouts_count * QUEUE_COUNT)
        return session

    def refuse_open(self, int fd, int status, str reason not None):
        self._of_request(fd)
        if not self.core.records[fd].has_carrier:
            raise ValueError(f"fd {fd} does not ask for a tunnel session")
        carrier_of(&self.core, fd).reason = <uint8_t><int>REASONS.index(reason)
        reply_to_request(&self.core, fd, status, NULL, 0)
        arm_timer(&self.core.poller, self.core.queues, self.core.timeouts_count * QUEUE_COUNT)
        self._log_samples()

    def send_more(self, int fd):
        cdef Core* core = &self.core
        cdef Record* record = self._of_greenlet(fd)
        if record.state != S_SLOW_REPLY:
            raise ValueError(f"fd {fd} is not a slow reply")
        with nogil:
            if send_reply(core, fd):
                linger(core, fd)
                arm_timer(&core.poller, core.queues, core.timeouts_count * QUEUE_COUNT)
            elif errno != EAGAIN:
                on_client_gone(core, fd)
        self._log_samples()
        return record.state != S_SLOW_REPLY

    def close_relayed(self, int fd, uint64_t sent):
        cdef Record* record = self._of_greenlet(fd)
        cdef Codec* codec = self.core.account.codecs[fd]
        if record.state != S_SESSION:
            raise ValueError(f"fd {fd} is not a session")
        self.core.listeners[record.listener].counters.relayed[record.protocol] += 1
        record.progress = <uint32_t>min(sent, <uint64_t>0xFFFFFFFF)
        record_outcome(&self.core, fd, O_RELAYED)
        if codec != NULL and codec.lingers:
            linger(&self.core, fd)
            arm_timer(&self.core.poller, self.core.queues, self.core.timeouts_count * QUEUE_COUNT)
        else:
            close_connection(&self.core, fd)
        self._log_samples()

    def close_as(self, int fd, str outcome not None):
        cdef Record* record = self._of_greenlet(fd)
        cdef Listener* listener = self.core.listeners[record.listener]
        cdef Reason reason
        if outcome == "timeout":
            listener.counters.timeouts += 1
            record_outcome(&self.core, fd, O_TIMEOUT)
        else:
            reason = <Reason><int>REASONS.index(outcome)
            count_refused(&self.core, listener, fd, reason, header_source(&self.core, fd))
            record_outcome(&self.core, fd, reason)
        close_connection(&self.core, fd)
        self._log_samples()

    def client(self, int fd):
        cdef sockaddr_in6 peer
        cdef socklen_t size = sizeof(peer)
        if not 0 <= fd < <int>self.core.capacity or self.core.records[fd].state == S_FREE:
            raise ValueError(f"fd {fd} is not a connection")
        if self.core.records[fd].header_state != H_NONE:
            return text_of(&self.core.headers[fd].source)
        if getpeername(fd, &peer, &size) != 0:
            PyErr_SetFromErrno(OSError)
        return text_of(&peer)

    def address_key(self, int fd):
        cdef Record* record = self._of_greenlet(fd)
        if record.slot == 0 or not has_usual_prefixes(self.core.address_table):
            return 0
        return tag_at(self.core.address_table, record.slot)

    def endpoints(self, int fd):
        cdef sockaddr_in6 own
        cdef socklen_t size = sizeof(own)
        self._of_greenlet(fd)
        try:
            client = self.client(fd)
        except OSError:
            return None, None
        if self.core.records[fd].header_state != H_NONE and self.core.headers[fd].proxied:
            return client, text_of(&self.core.headers[fd].destination)
        if getsockname(fd, &own, &size) != 0:
            return None, None
        return client, text_of(&own)

    def tls_facts(self, int fd):
        cdef Codec* codec
        cdef const char* name
        self._of_greenlet(fd)
        codec = tls_of(self.core.account.codecs[fd])
        if codec == NULL or not codec.established:
            return None
        name = codec.type.server_name(codec)
        return TLS_VERSIONS[codec.version], codec.cipher.decode("ascii"), b"" if name == NULL else <bytes>name

    # ------------------------------------------------------------------------------------------------ for log lines

    def refusals(self):
        cdef int i, reason
        if self.core.refused_tables == 0:
            return []
        return [
            (i, REASONS[reason]) for i in range(self.core.listener_count) for reason in range(<int>REASON_COUNT)
            if self.core.listeners[i].refused[reason] != NULL
        ]

    def take_refusals(self, int listener, str reason not None):
        cdef TopTable* table
        cdef int number = REASONS.index(reason)
        if not 0 <= listener < self.core.listener_count:
            raise ValueError(f"there is no listener {listener}")
        table = self.core.listeners[listener].refused[number]
        if table == NULL:
            return 0, []
        taken = top_of(table, self.core.address_table)
        self.core.listeners[listener].refused[number] = NULL
        self.core.refused_tables -= 1
        free(table)
        return taken

    def take_left_out(self):
        left_out, self.core.left_out = self.core.left_out, 0
        return left_out

    # ------------------------------------------------------------------------------------------------ all connections

    def drain(self):
        self.core.draining = True

    def evict(self):
        cdef bint evicted
        with nogil:
            evicted = make_room(&self.core, R_CAPACITY)
            arm_timer(&self.core.poller, self.core.queues, self.core.timeouts_count * QUEUE_COUNT)
        if needs_hooks(&self.core):
            self._call_hooks()
        return evicted

    def close_all(self):
        cdef size_t fd
        cdef int closed = 0
        cdef Record* record
        self.core.account.end_session = NULL
        for fd in range(self.core.capacity):
            record = &self.core.records[fd]
            if record.state == S_FREE:
                continue
            if record.has_carrier:
                count_carrier(&self.core, <int>fd, R_SHUTDOWN)
            elif record.state not in (S_LINGER, S_UNREAD):
                count_refused(&self.core, self.core.listeners[record.listener], <int>fd, R_SHUTDOWN, NULL)
                record_outcome(&self.core, <int>fd, R_SHUTDOWN)
            close_connection(&self.core, <int>fd)
            closed += 1
        self.core.pending_slow_replies = -1
        self._drop_pending_sessions()
        self._log_samples()
        return closed

    def check(self):
        cdef int64_t live
        cdef const char* violation
        with nogil:
            violation = find_violation(&self.core, &live)
        if violation != NULL:
            raise AssertionError(violation.decode("ascii"))
        return live


cdef inline bint needs_hooks(const Core* core) noexcept nogil:
    return core.pending_slow_replies >= 0 or core.pending_sessions != NULL or core.done_samples != 0


cdef int read_address(sockaddr_in6* address, str ip) except -1:
    """An IP address without a port, for the source of a request."""
    cdef sockaddr_in* v4 = <sockaddr_in*>address
    cdef bytes text = ip.encode("ascii")
    memset(address, 0, sizeof(sockaddr_in6))
    if inet_pton(AF_INET, <const char*>text, &v4.sin_addr) == 1:
        v4.sin_family = AF_INET
    elif inet_pton(AF_INET6, <const char*>text, &address.sin6_addr) == 1:
        address.sin6_family = AF_INET6
    else:
        raise ValueError(f"{ip!r} is not an IP address")
    return 0


cdef tuple text_of(sockaddr_in6* peer):
    """(IP, port). An IPv4 client of a dual-stack socket has its IPv4 address."""
    cdef char[64] text                  # INET6_ADDRSTRLEN is 46
    cdef const sockaddr_in* v4 = <const sockaddr_in*>peer
    cdef const uint8_t* octets = peer.sin6_addr.s6_addr
    if peer.sin6_family == AF_INET:
        inet_ntop(AF_INET, &v4.sin_addr, text, sizeof(text))
    elif memcmp(octets, MAPPED, 12) == 0:
        inet_ntop(AF_INET, octets + 12, text, sizeof(text))
    else:
        inet_ntop(AF_INET6, octets, text, sizeof(text))
    # Both families have the port at the same offset.
    return (<bytes>text).decode("ascii"), ntohs(peer.sin6_port)
