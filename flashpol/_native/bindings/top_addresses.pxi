# TopAddresses: the table of refused addresses for tests and tools.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from flashpol._native.accept.address_limits cimport AddressTable
from flashpol._native.accept.ip_ranges cimport Address
from flashpol._native.accept.top_addresses cimport TopTable
from flashpol._native.common.system cimport (
    AF_INET, AF_INET6, htobe32, htobe64, sockaddr_in, sockaddr_in6,
)


cdef class TopAddresses:
    def count(self, const unsigned char[::1] addresses not None):
        cdef Py_ssize_t i
        cdef sockaddr_in6 peer
        if addresses.shape[0] % 16:
            raise ValueError("addresses are 16 bytes each")
        peer.sin6_family = <uint16_t>AF_INET6
        for i in range(0, addresses.shape[0], 16):
            memcpy(&peer.sin6_addr, &addresses[i], 16)
            count_address(&self.table, address_of(&peer))

    def take(self):
        taken = top_of(&self.table, NULL)
        memset(&self.table, 0, sizeof(TopTable))
        return taken


cdef tuple top_of(const TopTable* table, const AddressTable* limits):
    """(total, [(address, count, error), …]), the surest count first."""
    cdef int i
    order = sorted([(<int64_t>(table.entries[i].error - table.entries[i].count), i) for i in range(table.size)])
    return table.total, [
        (limited_text(table.entries[i].address, limits), table.entries[i].count, table.entries[i].error)
        for _, i in order
    ]


cdef str limited_text(Address address, const AddressTable* limits):
    """An address as text, with the length of its prefix if the limits count prefixes."""
    cdef sockaddr_in6 peer
    cdef uint32_t v4
    cdef uint64_t half
    cdef int bits
    memset(&peer, 0, sizeof(peer))
    if address.is_v4:
        peer.sin6_family = <uint16_t>AF_INET
        v4 = htobe32(<uint32_t>(address.high >> 32))
        memcpy(&(<sockaddr_in*>&peer).sin_addr, &v4, 4)
    else:
        peer.sin6_family = <uint16_t>AF_INET6
        half = htobe64(address.high)
        memcpy(&peer.sin6_addr, &half, 8)
        half = htobe64(address.low)
        memcpy(<char*>&peer.sin6_addr + 8, &half, 8)
    text, _ = text_of(&peer)
    if limits == NULL:
        return text
    bits = prefix_bits(limits.mask_v4) if address.is_v4 else prefix_bits(limits.mask_v6[0]) + prefix_bits(
        limits.mask_v6[1])
    return text if bits == (32 if address.is_v4 else 128) else f"{text}/{bits}"


cdef int prefix_bits(uint64_t mask):
    return bin(mask).count("1")
