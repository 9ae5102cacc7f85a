from libc.stdint cimport uint64_t

from flashpol._native.accept.state cimport Core, Counters, LISTENER_COUNT


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
