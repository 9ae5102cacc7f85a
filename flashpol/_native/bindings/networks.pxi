# Networks: makes the table of ip_ranges.pxd from Python's numbers.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from flashpol._native.accept.ip_ranges cimport Boundary, Ranges
from flashpol._native.common.system cimport AF_INET6, sockaddr_in6

cdef enum:
    INDEX_BITS = 16             # of the index of a table at most: 256 KB


cdef class Networks:
    def __cinit__(self, v4 not None, v6 not None):
        self._fill(&self.table.v4, v4[0], list(v4[1]))
        self._fill(&self.table.v6, v6[0], list(v6[1]))

    def __dealloc__(self):
        free(self.table.v4.boundaries)
        free(self.table.v4.index)
        free(self.table.v6.boundaries)
        free(self.table.v6.index)

    cdef int _fill(self, Ranges* ranges, bint first, list boundaries) except -1:
        cdef size_t count = <size_t>len(boundaries), i = 0, prefix, prefixes
        cdef int bits = max(1, min(len(boundaries).bit_length(), INDEX_BITS))
        if boundaries != sorted(set(boundaries)) or not all([0 < address < 1 << 128 for address in boundaries]):
            raise ValueError("boundaries are addresses of 128 bits, ascending")
        ranges.first = first
        ranges.shift = <uint8_t>(64 - bits)
        prefixes = <size_t>1 << bits
        ranges.boundaries = <Boundary*>malloc(max(<size_t>1, count) * sizeof(Boundary))
        ranges.index = <uint32_t*>malloc((prefixes + 1) * sizeof(uint32_t))
        if ranges.boundaries == NULL or ranges.index == NULL:
            raise MemoryError
        for address in boundaries:
            ranges.boundaries[i].high = address >> 64
            ranges.boundaries[i].low = address & 0xFFFFFFFFFFFFFFFF
            i += 1
        i = 0
        for prefix in range(prefixes + 1):
            # No address follows the last prefix: the next one would begin at 1 << 64.
            while i < count and (prefix == prefixes or ranges.boundaries[i].high < <uint64_t>prefix << ranges.shift):
                i += 1
            ranges.index[prefix] = <uint32_t>i
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
