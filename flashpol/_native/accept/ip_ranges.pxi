from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from flashpol._native.accept.ip_ranges cimport Address, MAPPED, NetworkTable, Ranges, Turn
from flashpol._native.common.system cimport AF_INET, be32toh, be64toh, sockaddr_in, sockaddr_in6


cdef inline Address address_of(const sockaddr_in6* peer) noexcept nogil:
    """Of either family. One that reached a dual-stack socket by IPv4 is its IPv4 address."""
    cdef Address address
    cdef uint32_t number
    address.low = 0
    address.four = True
    if peer.sin6_family == AF_INET:
        memcpy(&number, &(<const sockaddr_in*>peer).sin_addr, 4)
    elif memcmp(peer.sin6_addr.s6_addr, MAPPED, 12) == 0:
        memcpy(&number, peer.sin6_addr.s6_addr + 12, 4)
    else:
        memcpy(&address.high, peer.sin6_addr.s6_addr, 8)
        memcpy(&address.low, peer.sin6_addr.s6_addr + 8, 8)
        address.high = be64toh(address.high)
        address.low = be64toh(address.low)
        address.four = False
        return address
    address.high = <uint64_t>be32toh(number) << 32
    return address


cdef inline bint allowed(const NetworkTable* table, Address address) noexcept nogil:
    cdef const Ranges* ranges = &table.four if address.four else &table.six
    cdef const Turn* turn
    cdef size_t slot = <size_t>(address.high >> ranges.shift)
    cdef uint32_t first = ranges.index[slot], last = ranges.index[slot + 1], middle
    while first < last:
        middle = first + (last - first) // 2
        turn = &ranges.turns[middle]
        if turn.high < address.high or (turn.high == address.high and turn.low <= address.low):
            first = middle + 1
        else:
            last = middle
    return ranges.first ^ (first & 1)
