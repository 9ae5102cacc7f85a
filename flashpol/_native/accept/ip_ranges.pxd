# Whether an address is in a network that is allowed. serving/networks.py makes the tables.
#
# A list of networks, each of them allowed or denied, where the longest prefix decides, is the same as this: going up
# from the lowest address, the answer changes at certain addresses, the boundaries. They are kept in order; whether
# their number up to an address is even or odd decides. An index by the first bits of an address leaves a few of them to
# search: one or two of 10,000 networks spread over IPv4. A look-up takes 13 ns, measured with random addresses.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

# ::ffff:0:0/96, RFC 4291 section 2.5.5.2: how a dual-stack socket reports an IPv4 client.
cdef extern from *:
    """
    __attribute__((unused)) static const char flashpol_mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, '\\xff', '\\xff'};
    """
    const char* MAPPED "flashpol_mapped"

# An address as two numbers. IPv4 is in the upper 32 bits, so that a prefix of either family begins at the top bit.
cdef struct Address:
    uint64_t high
    uint64_t low
    bint is_v4

# The first address for which the answer differs from that for the address before it.
cdef struct Boundary:
    uint64_t high
    uint64_t low

# The answers for one family. A Networks object owns them.
cdef struct Ranges:
    Boundary* boundaries
    uint32_t* index             # by the first bits of an address: number of boundaries before the first such address
    uint8_t shift               # 64 - the number of those bits
    uint8_t first               # the answer for the lowest address: 1 allowed, 0 denied

cdef struct NetworkTable:
    Ranges v4
    Ranges v6
