from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from flashpol._native.accept.address_limits cimport CensusView, Entrance, HEAD_BYTES, MOST, SECOND, WAYS
from flashpol._native.common.system cimport AF_INET6, sockaddr_in6


cdef class AddressLimits:
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
