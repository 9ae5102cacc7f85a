# AddressLimits: checks the shared memory and the limits, and admits addresses for tests and tools as accept does.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from flashpol._native.accept.address_limits cimport (
    A_ADMITTED, AddressTable, AddressVerdict, MAX_COUNT, SECOND, TABLE_HEAD_BYTES, WAYS,
)
from flashpol._native.common.system cimport AF_INET6, sockaddr_in6


cdef class AddressLimits:
    def __cinit__(self, unsigned char[::1] memory not None, *, int worker, int workers, size_t sets,
                  bytes key not None,
                  int max_connections=0, int max_worker_connections=0, int max_address_connections=0,
                  int max_address_rate=0, int max_address_sessions=0, int ipv4_prefix=32, int ipv6_prefix=64,
                  Networks exempt=None):
        cdef AddressTable* table = &self.table
        cdef size_t stride
        if not 0 <= worker < workers or not 0 <= ipv4_prefix <= 32 or not 0 <= ipv6_prefix <= 128 or len(key) != 16:
            raise ValueError("worker is one of the workers, key 16 bytes, prefixes at most 32 and 128 bits")
        if min(max_connections, max_worker_connections, max_address_connections, max_address_rate,
               max_address_sessions) < 0:
            raise ValueError("limits are numbers from 0")
        if max(max_address_connections, max_address_rate, max_address_sessions) >= MAX_COUNT:
            raise ValueError(f"of one address less than {MAX_COUNT} can be counted")
        stride = <size_t>memory.shape[0] // <size_t>workers
        if (stride * <size_t>workers != <size_t>memory.shape[0] or stride % TABLE_HEAD_BYTES
                or sets == 0 or sets & (sets - 1)
                or sets > stride // ADDRESS_TABLE_SET or TABLE_HEAD_BYTES + sets * ADDRESS_TABLE_SET > stride
                or <size_t>&memory[0] % TABLE_HEAD_BYTES):
            raise ValueError("memory is ADDRESS_TABLE_HEAD and a power of two of ADDRESS_TABLE_SET for each worker")
        self.memory = memory
        self._exempt = exempt
        table.exempt = NULL if exempt is None else &exempt.table
        table.set_mask = sets - 1
        table.memory = <char*>&memory[0]
        table.stride = stride
        table.workers = workers
        table.worker = worker
        table.own = table_of(table, worker)
        memcpy(table.key, <const char*>key, 16)
        table.mask_v4 = mask_of(ipv4_prefix)
        table.mask_v6[0] = mask_of(min(ipv6_prefix, 64))
        table.mask_v6[1] = mask_of(max(ipv6_prefix - 64, 0))
        table.max_connections = max_connections
        table.max_worker_connections = max_worker_connections
        table.max_address_connections = max_address_connections
        table.max_address_rate = max_address_rate
        table.max_address_sessions = max_address_sessions
        table.local_sessions = max_address_sessions // workers
        table.local_connections = max_address_connections // workers
        table.local_rate = max_address_rate * <int64_t>SECOND // workers

    def admit(self, const unsigned char[::1] address not None, int64_t now):
        cdef sockaddr_in6 peer
        cdef uint32_t slot = 0
        cdef AddressVerdict verdict
        if address.shape[0] != 16:
            raise ValueError("an address is 16 bytes")
        peer.sin6_family = <uint16_t>AF_INET6
        memcpy(&peer.sin6_addr, &address[0], 16)
        verdict = admit_address(&self.table, address_of(&peer), now, &slot)
        return ADDRESS_VERDICTS[<int>verdict], slot if verdict == A_ADMITTED else 0

    def release(self, uint32_t slot):
        if not 0 < slot <= (self.table.set_mask + 1) * WAYS or slot_at(&self.table, slot).open == 0:
            raise ValueError(f"slot {slot} has no connection")
        release_slot(&self.table, slot, False)

    @property
    def held(self):
        return self.table.own.held

    @property
    def tracked(self):
        cdef uint64_t i
        cdef int64_t count = 0
        for i in range(1, (self.table.set_mask + 1) * WAYS + 1):
            count += slot_at(&self.table, <uint32_t>i).open + slot_at(&self.table, <uint32_t>i).sessions
        return count


cdef uint64_t mask_of(int prefix) noexcept:
    """The first `prefix` bits of 64."""
    return ~<uint64_t>0 << (64 - prefix) if prefix else 0
