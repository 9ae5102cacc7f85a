from flashpol._native.accept.match cimport A_MATCH, A_MORE, A_OTHER, REQUEST_BYTES

class Verdict(enum.IntEnum):
    MORE = A_MORE
    MATCH = A_MATCH
    OTHER = A_OTHER


cdef tuple VERDICTS = (Verdict.MORE, Verdict.MATCH, Verdict.OTHER)


cdef class RequestMatcher:
    def __cinit__(self, *, bint terminated=True):
        self._terminated = terminated

    def feed(self, const unsigned char[::1] data not None):
        cdef size_t used = 0
        if data.shape[0] == 0:
            return VERDICTS[<int>self._answer]
        if self._answer == A_MORE:
            self._answer = match_feed(
                &self._matched, <const char*>&data[0], <size_t>data.shape[0], &used, self._terminated
            )
            # Nothing of a stream that turns out to be something else belongs to a request.
            self.consumed = 0 if self._answer == A_OTHER else self.consumed + <Py_ssize_t>used
            self._after_cr = (self._answer == A_MATCH and used == <size_t>data.shape[0]
                              and data[data.shape[0] - 1] == b"\r")
        elif self._after_cr:
            self._after_cr = False
            if data[0] == b"\n":
                self.consumed += 1
        return VERDICTS[<int>self._answer]

    @property
    def unterminated(self):
        return self._answer == A_MORE and self._matched == REQUEST_BYTES


cdef class ProxyHeader:
    def __cinit__(self):
        proxy_begin(&self._header)

    def feed(self, const unsigned char[::1] data not None):
        cdef size_t used = 0
        if self._answer == A_MORE and data.shape[0] > 0:
            self._answer = proxy_feed(&self._header, <const char*>&data[0], <size_t>data.shape[0], &used)
            self.consumed = 0 if self._answer == A_OTHER else self.consumed + <Py_ssize_t>used
        return VERDICTS[<int>self._answer]

    @property
    def oversized(self):
        return self._header.oversized

    @property
    def source(self):
        return text_of(&self._header.source) if self._header.proxied else None
