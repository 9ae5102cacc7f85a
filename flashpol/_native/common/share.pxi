# Taking a place of a share, and giving it back. share.pxd explains the rule.

from libc.stdint cimport int64_t

from flashpol._native.common.share cimport Member, Share


cdef inline bint has_room(const Share* share, const Member* member) noexcept nogil:
    return member.used < member.reserve or share.common_used < share.limit - share.reserved


cdef inline void take_from(Share* share, Member* member) noexcept nogil:
    share.common_used += member.used >= member.reserve
    member.used += 1


cdef inline void give_back(Share* share, Member* member) noexcept nogil:
    member.used -= 1
    share.common_used -= member.used >= member.reserve


cdef inline void set_reserve(Share* share, Member* member, int64_t reserve) noexcept nogil:
    """Change the reserve of a member that has taken nothing yet."""
    share.reserved += reserve - member.reserve
    member.reserve = reserve
