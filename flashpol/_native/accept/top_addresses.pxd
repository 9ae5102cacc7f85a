# Which client addresses a limit refuses most, for the line in the log. The address table cannot say it: it has hashes.
#
# The space-saving algorithm (Metwally, Agrawal and El Abbadi 2005): an address without an entry takes the one with the
# lowest count, and that count becomes its error. So the counts add up to all that was counted, `count - error` is never
# too high, and an address with more than a TOP_COUNT-th of all has an entry. It costs a look at TOP_COUNT entries for
# each refused connection, and nothing for the others.

from libc.stdint cimport uint64_t

from flashpol._native.accept.ip_ranges cimport Address

cdef enum:
    TOP_COUNT = 16

cdef struct TopAddress:
    Address address
    uint64_t count
    uint64_t error              # `count` is too high by this at most

# Of one listener and one limit.
cdef struct TopTable:
    uint64_t total              # also those whose address was unknown
    TopAddress entries[TOP_COUNT]
    int size                    # entries in use
