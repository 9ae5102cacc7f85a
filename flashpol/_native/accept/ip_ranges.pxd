# Where an address is: in a network that is allowed, or in one that is denied. serving/networks.py makes the tables.
#
# A list of networks, each allowed or denied, longest prefix first, comes down to this: going up from the lowest
# address, the answer changes at certain addresses. Those are kept, sorted; whether their number up to an address is
# even or odd is the answer. An index by the first bits of an address leaves a few of them to search: of 10,000 networks
# spread over IPv4 one or two. That takes 13 ns, measured with random addresses.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from flashpol._native.common.system cimport AF_INET, be32toh, be64toh, sockaddr_in, sockaddr_in6

# ::ffff:0:0/96, RFC 4291 section 2.5.5.2: how an IPv4 client comes to a dual-stack socket.
cdef extern from *:
    """
    static const char flashpol_mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, '\\xff', '\\xff'};
    """
    const char* MAPPED "flashpol_mapped"

# An address as two numbers. IPv4 stands in the upper 32 bits, so that prefixes of both are counted from the same end.
cdef struct Address:
    uint64_t high
    uint64_t low
    bint four

cdef struct Turn:               # the first address with another answer than the one before it
    uint64_t high
    uint64_t low

# The answers for one family. Owned by a Networks object.
cdef struct Ranges:
    Turn* turns
    uint32_t* index             # by the first bits: how many turns lie before the addresses that begin with them
    uint8_t shift               # 64 - the number of those bits
    uint8_t first               # the answer for the lowest address: 1 allowed, 0 denied

cdef struct NetworkTable:
    Ranges four
    Ranges six


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
