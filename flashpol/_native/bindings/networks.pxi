from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from flashpol._native.accept.ip_ranges cimport Ranges, Turn
from flashpol._native.common.system cimport AF_INET6, sockaddr_in6


cdef class Networks:
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
