# Taking places of a share, and giving them back. share.pxd explains it.

from libc.stdint cimport int32_t

from flashpol._native.common.share cimport HeldPlace, Member, Share


cdef inline int32_t over_reserve(const Member* member) noexcept nogil:
    """How many of the common places it has."""
    return max(0, member.used - member.reserve)


cdef inline void set_reserve(Share* share, Member* member, int32_t reserve) noexcept nogil:
    """Places that it has taken stay taken: all members together may then have more than the limit, until they return
    some."""
    share.reserved += reserve - member.reserve
    share.common_used -= over_reserve(member)
    member.reserve = reserve
    share.common_used += over_reserve(member)


cdef inline bint has_room(const Share* share, const Member* member) noexcept nogil:
    return member.used < member.reserve or share.common_used < share.limit - share.reserved


cdef inline bint take(Share* share, Member* member) noexcept nogil:
    """Take a place. False: the member has its reserve, and no common place is left."""
    if not has_room(share, member):
        return False
    share.common_used += member.used >= member.reserve
    share.used += 1
    member.used += 1
    return True


cdef inline void give_back(Share* share, Member* member) noexcept nogil:
    if member.used > member.reserve:
        share.common_used -= 1
    share.used -= 1
    member.used -= 1


cdef inline void release_place(HeldPlace* place) noexcept nogil:
    """Give it back, unless that was done before. NULL: there is none."""
    if place != NULL and place.member != NULL:
        give_back(place.share, place.member)
        place.member = NULL
