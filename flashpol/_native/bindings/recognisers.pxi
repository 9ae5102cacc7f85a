# RequestMatcher and ProxyHeader: the recognisers of match.pxi and proxy.pxi for Python.

from flashpol._native.accept.match cimport REQUEST_BYTES
from flashpol._native.common.verdict cimport V_MATCH, V_MORE, V_OTHER


class Verdict(enum.IntEnum):
    MORE = V_MORE
    MATCH = V_MATCH
    OTHER = V_OTHER


cdef tuple VERDICTS = (Verdict.MORE, Verdict.MATCH, Verdict.OTHER)


cdef class RequestMatcher:
    def __cinit__(self, *, bint terminated=True):
        self._terminated = terminated

    def feed(self, const unsigned char[::1] data not None):
        cdef size_t used = 0
        if data.shape[0] == 0:
            return VERDICTS[<int>self._verdict]
        if self._verdict == V_MORE:
            self._verdict = match_feed(
                &self._matched, <const char*>&data[0], <size_t>data.shape[0], &used, self._terminated
            )
            # A stream that turns out to be something else has no bytes of a request.
            self.consumed = 0 if self._verdict == V_OTHER else self.consumed + <Py_ssize_t>used
            self._after_cr = (self._verdict == V_MATCH and used == <size_t>data.shape[0]
                              and data[data.shape[0] - 1] == b"\r")
        elif self._after_cr:
            self._after_cr = False
            if data[0] == b"\n":
                self.consumed += 1
        return VERDICTS[<int>self._verdict]

    @property
    def unterminated(self):
        return self._verdict == V_MORE and self._matched == REQUEST_BYTES


cdef class ProxyHeader:
    def __cinit__(self):
        proxy_begin(&self._parser)

    def feed(self, const unsigned char[::1] data not None):
        cdef size_t used = 0
        if self._verdict == V_MORE and data.shape[0] > 0:
            self._verdict = proxy_feed(&self._parser, <const char*>&data[0], <size_t>data.shape[0], &used)
            self.consumed = 0 if self._verdict == V_OTHER else self.consumed + <Py_ssize_t>used
        return VERDICTS[<int>self._verdict]

    @property
    def oversized(self):
        return self._parser.oversized

    @property
    def source(self):
        return text_of(&self._parser.source) if self._parser.proxied else None
