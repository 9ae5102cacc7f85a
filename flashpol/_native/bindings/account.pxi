# Account: owns the places of a process.

from libc.stdint cimport int64_t, uint32_t

from flashpol._native.accept.address_limits cimport WAYS
from flashpol._native.account.places cimport Places

cdef enum:
    MAX_RECORDS = 1 << 20       # where RLIMIT_NOFILE is unlimited: 72 MB of address space, touched as it is used


cdef class Account:
    def __cinit__(self, *, size_t capacity, AddressLimits address_limits=None, int64_t max_sessions=MAX_RECORDS,
                  int64_t max_silent_sessions=MAX_RECORDS, int64_t max_slow_replies=MAX_RECORDS,
                  int64_t max_leaving=0):
        cdef uint32_t slots = 1
        if min(max_sessions, max_silent_sessions, max_slow_replies, max_leaving) < 0:
            raise ValueError("limits are numbers from 0")
        self.address_limits = address_limits
        if address_limits is not None:
            slots += <uint32_t>((address_limits.table.set_mask + 1) * WAYS)
        self.places.sessions.limit = max_sessions
        self.places.max_silent_sessions = max_silent_sessions
        self.places.slow_replies.limit = max_slow_replies
        self.places.max_leaving = max_leaving
        if not open_places(&self.places, min(capacity, <size_t>MAX_RECORDS), slots):
            raise MemoryError

    def __dealloc__(self):
        close_places(&self.places)

    @property
    def max_sessions(self):
        return self.places.sessions.limit

    @property
    def max_slow_replies(self):
        return self.places.slow_replies.limit

    @property
    def max_leaving(self):
        return self.places.max_leaving
