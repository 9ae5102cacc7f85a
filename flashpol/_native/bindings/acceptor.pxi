# PolicyReply and Acceptor: a listening socket, what it replies, and where it is counted.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free

from flashpol._native.accept.state cimport (
    Core, Counters, GAUGE_COUNT, Listener, LISTENER_COUNT, QUEUE_COUNT, REASON_COUNT, TurnLine,
)


cdef class CodecFactory:
    pass


cdef class TunnelGate:
    pass


cdef class PolicyReply:
    def __cinit__(self, bytes data not None):
        if not data:
            raise ValueError("a reply is at least one byte")
        if len(data) >= 1 << 31:
            raise ValueError("a reply is less than 2 GiB")
        self.data = data

    def __len__(self):
        return len(self.data)


cdef class Acceptor:
    def __cinit__(self, ConnectionTable connection_table not None, int fd, PolicyReply reply not None,
                  unsigned char[::1] block not None, *, int timeouts, uint32_t linger_bytes, double reply_timeout,
                  on_exhausted, bint terminated=True, Networks networks=None, Networks proxies=None,
                  bint shared=False, protocols=None, CodecFactory codec=None, bint tls_only=False, bint http=False,
                  bint upgrades=False, bint rtmpt=False, int64_t max_body=1 << 20):
        cdef Core* core = &connection_table.core
        cdef Listener* listener = &self.listener
        cdef int gauge
        if block.shape[0] < <Py_ssize_t>sizeof(Counters) or <size_t>&block[0] % sizeof(uint64_t) != 0:
            raise ValueError(f"a counter block is {sizeof(Counters)} bytes, aligned to {sizeof(uint64_t)}")
        if core.listener_count == LISTENER_COUNT:
            raise ValueError(f"at most {LISTENER_COUNT} listeners in one process")
        if not 0 <= timeouts < core.timeouts_count:
            raise ValueError("timeouts is a number that add_timeouts has returned")
        listener.queues = timeouts * QUEUE_COUNT
        listener.linger_bytes = linger_bytes
        listener.unread_timeout = <int64_t>(reply_timeout * 1e9)
        self.fd = fd
        self.connection_table = connection_table
        self.reply = reply
        self.block = block
        self._on_exhausted = on_exhausted
        self._networks = networks
        self._proxies = proxies
        if proxies is not None:
            connection_table._expect_headers()
            listener.proxies = &proxies.table
        if networks is not None:
            listener.networks = &networks.table
        listener.needs_address = networks is not None or proxies is not None or core.address_table != NULL
        self._codec = codec
        if codec is not None:
            listener.factory = &codec.factory
        listener.tls_only = tls_only
        listener.http = http
        if http:
            connection_table._expect_heads()
        if rtmpt and not (http and core.gate != NULL):
            raise ValueError("rtmpt needs http, and set_tunnels")
        listener.hellos = TurnLine(-1, -1)
        listener.terminated = terminated
        listener.rtmpt = rtmpt
        listener.max_body = max_body
        listener.relayed = 0
        if shared:
            for name in PROTOCOLS if protocols is None else protocols:
                listener.relayed |= <uint32_t>1 << <int>PROTOCOLS.index(name)
        listener.has_sessions = shared or upgrades or rtmpt
        listener.reply = <const char*>reply.data
        listener.reply_size = <size_t>len(reply.data)
        listener.counters = <Counters*>&block[0]
        listener.counters.open = 0
        for gauge in range(GAUGE_COUNT):
            listener.counters.by_state[gauge] = 0
        listener.counters.tls = listener.counters.handshaking = 0
        listener.index = core.listener_count
        core.listeners[core.listener_count] = listener
        core.listener_count += 1
        connection_table._acceptors.append(self)
        share_out(core)

    def __dealloc__(self):
        cdef int reason
        for reason in range(<int>REASON_COUNT):
            free(self.listener.refused[reason])

    def ready(self, int fd=-1):
        cdef int error, accepted
        if fd < 0:
            fd = self.fd
        with nogil:
            error = accept_burst(&self.connection_table.core, &self.listener, fd, BURST, &accepted)
        if needs_hooks(&self.connection_table.core):
            self.connection_table._call_hooks()
        if error:
            try:
                self._on_exhausted(error)
            except BaseException as problem:
                self.connection_table._report(problem)
        return accepted
