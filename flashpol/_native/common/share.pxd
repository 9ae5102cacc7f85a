# A share: a number of places that several members take from, so that none of them can use up the places of the others.
#
# Each member has a reserve, which only it can take. What the reserves leave is common: first come, first served. So a
# member finds `reserve` places whatever the others do, and a single busy one can take all but their reserves.

from libc.stdint cimport int64_t

cdef struct Share:
    int64_t limit               # places of all members together
    int64_t reserved            # sum of the members' reserves
    int64_t common_used         # taken by members that have used up their reserve

cdef struct Member:
    int64_t used
    int64_t reserve
