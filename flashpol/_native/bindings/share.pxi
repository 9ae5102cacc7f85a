# Places, PlacesMember, Place: a share of places, as Python sees it.

from libc.stdint cimport int32_t

from flashpol._native.common.share cimport HeldPlace, Member, Share


cdef class Places:
    def __cinit__(self, int32_t limit):
        if limit < 0:
            raise ValueError("a number of places is not negative")
        self.share.limit = limit

    @property
    def limit(self):
        return self.share.limit


cdef class PlacesMember:
    def __cinit__(self, Places places not None):
        self._places = places

    @property
    def used(self):
        return self.member.used

    @property
    def reserve(self):
        return self.member.reserve

    @reserve.setter
    def reserve(self, int32_t reserve):
        cdef Share* share = &self._places.share
        if not 0 <= reserve <= share.limit - share.reserved + self.member.reserve:
            raise ValueError(f"the members cannot reserve more than the {share.limit} places that there are")
        set_reserve(share, &self.member, reserve)

    def take(self):
        cdef Place place
        if not take(&self._places.share, &self.member):
            return None
        place = Place()
        place._member = self
        place.held.share = &self._places.share
        place.held.member = &self.member
        return place


cdef class Place:
    def release(self):
        release_place(&self.held)
