# Where an address is: in a network that is allowed, or in one that is denied. serving/networks.py makes the tables.
#
# A list of networks, each allowed or denied, longest prefix first, comes down to this: going up from the lowest
# address, the answer changes at certain addresses. Those are kept, sorted; whether their number up to an address is
# even or odd is the answer. An index by the first bits of an address leaves a few of them to search: of 10,000 networks
# spread over IPv4 one or two. That takes 13 ns, measured with random addresses.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

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
