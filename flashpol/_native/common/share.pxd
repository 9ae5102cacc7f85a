# A limited number of places that several members share, so that none can take the places of all.
#
# Each member has a reserve that no other member can take. What is left of the places is common: first come, first
# served. A member takes from its reserve first, and gives back to the common places first.

from libc.stdint cimport int32_t

cdef struct Share:
    int32_t limit               # places of all members together
    int32_t reserved            # of these, the sum of the members' reserves
    int32_t common_used         # places taken by members that have used up their reserve
    int32_t used                # places taken

cdef struct Member:
    int32_t used
    int32_t reserve

# A place that was taken, or none: `member` is NULL.
cdef struct HeldPlace:
    Share* share
    Member* member
