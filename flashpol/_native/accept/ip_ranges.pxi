# Looking up an address in a table of networks. ip_ranges.pxd explains the table.

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from flashpol._native.accept.ip_ranges cimport Address, Boundary, MAPPED, NetworkTable, Ranges
from flashpol._native.common.system cimport AF_INET, be32toh, be64toh, sockaddr_in, sockaddr_in6


cdef inline Address address_of(const sockaddr_in6* peer) noexcept nogil:
    """The address of either family. An IPv4 client of a dual-stack socket has its IPv4 address."""
    cdef Address address
    cdef uint32_t number
    address.low = 0
    address.is_v4 = True
    if peer.sin6_family == AF_INET:
        memcpy(&number, &(<const sockaddr_in*>peer).sin_addr, 4)
    elif memcmp(peer.sin6_addr.s6_addr, MAPPED, 12) == 0:
        memcpy(&number, peer.sin6_addr.s6_addr + 12, 4)
    else:
        memcpy(&address.high, peer.sin6_addr.s6_addr, 8)
        memcpy(&address.low, peer.sin6_addr.s6_addr + 8, 8)
        address.high = be64toh(address.high)
        address.low = be64toh(address.low)
        address.is_v4 = False
        return address
    address.high = <uint64_t>be32toh(number) << 32
    return address


cdef inline bint allowed(const NetworkTable* table, Address address) noexcept nogil:
    cdef const Ranges* ranges = &table.v4 if address.is_v4 else &table.v6
    cdef const Boundary* boundary
    cdef size_t prefix = <size_t>(address.high >> ranges.shift)
    cdef uint32_t first = ranges.index[prefix], last = ranges.index[prefix + 1], middle
    while first < last:
        middle = first + (last - first) // 2
        boundary = &ranges.boundaries[middle]
        if boundary.high < address.high or (boundary.high == address.high and boundary.low <= address.low):
            first = middle + 1
        else:
            last = middle
    return ranges.first ^ (first & 1)
