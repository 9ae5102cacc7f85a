# Account: owns the places of a process.

from libc.stdint cimport int32_t, int64_t, uint32_t

from flashpol._native.accept.address_limits cimport WAYS
from flashpol._native.account.places cimport AccountCore

cdef enum:
    MAX_RECORDS = 1 << 20       # where RLIMIT_NOFILE is unlimited: 112 MB of address space, touched as it is used


cdef class Account:
    def __cinit__(self, *, size_t capacity, AddressLimits address_limits=None, int64_t max_sessions=MAX_RECORDS,
                  int64_t max_slow_replies=MAX_RECORDS, int64_t max_handshakes=MAX_RECORDS, int64_t max_leaving=0,
                  int64_t max_files=0):
        cdef uint32_t slots = 1
        if max(max_sessions, max_slow_replies, max_handshakes) > MAX_RECORDS:
            raise ValueError("at most 2^20 sessions, slow replies and handshakes")
        if min(max_sessions, max_slow_replies, max_handshakes, max_leaving, max_files) < 0:
            raise ValueError("limits are numbers from 0")
        self.address_limits = address_limits
        if address_limits is not None:
            slots += <uint32_t>((address_limits.table.set_mask + 1) * WAYS)
        self.core.sessions.limit = <int32_t>max_sessions
        self.core.slow_replies.limit = <int32_t>max_slow_replies
        self.core.handshakes.limit = <int32_t>max_handshakes
        self.core.max_leaving = max_leaving
        self.core.max_files = max_files
        if not open_places(&self.core, min(capacity, <size_t>MAX_RECORDS), slots):
            raise MemoryError

    def __dealloc__(self):
        close_places(&self.core)

    @property
    def max_sessions(self):
        return self.core.sessions.limit

    @property
    def max_leaving(self):
        return self.core.max_leaving

    @property
    def holder_count(self):
        return self.core.last_holder
