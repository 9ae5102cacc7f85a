# RequestHead: the recogniser of http/head.pxi for Python.

from flashpol._native.common.verdict cimport V_MATCH, V_MORE
from flashpol._native.http.head cimport (
    HE_CODING, HE_EXPECTATION, HE_FIELDS, HE_LENGTH_REQUIRED, HE_MALFORMED, HE_NONE, HE_TARGET, HE_VERSION, HEAD_BYTES,
    Span,
)

cdef dict HEAD_STATUSES = {
    HE_NONE: None, HE_MALFORMED: 400, HE_TARGET: 414, HE_FIELDS: 431, HE_VERSION: 505, HE_LENGTH_REQUIRED: 411,
    HE_CODING: 501, HE_EXPECTATION: 417,
}


cdef class RequestHead:
    def __cinit__(self):
        head_begin(&self._parser)
        self._data = b""

    @staticmethod
    def parse(data not None):
        cdef RequestHead head = RequestHead.__new__(RequestHead)
        if type(data) is bytes:
            head._data = <bytes>data        # not copied
            head._continue()
        else:
            head.feed(data)
        if head._verdict != V_MATCH:
            raise ValueError("not the whole head of a request")
        return head

    def feed(self, const unsigned char[::1] data not None):
        cdef Py_ssize_t n
        if self._verdict == V_MORE and data.shape[0] > 0:
            n = min(data.shape[0], HEAD_BYTES + 1 - len(self._data))      # one more: head_feed refuses it
            self._data += (<const char*>&data[0])[:n]
            self._continue()
        return VERDICTS[<int>self._verdict]

    cdef void _continue(self) noexcept:
        self._verdict = head_feed(&self._parser, <const char*>self._data, <size_t>len(self._data))

    cdef bytes _bytes_of(self, Span span):
        return self._data[span.begin:span.begin + span.size]

    @property
    def consumed(self):
        return self._parser.size if self._verdict == V_MATCH else 0 if self._parser.error else len(self._data)

    @property
    def status(self):
        return HEAD_STATUSES[self._parser.error]

    @property
    def method(self):
        return self._bytes_of(self._parser.method)

    @property
    def target(self):
        return self._bytes_of(self._parser.target)

    @property
    def path(self):
        cdef size_t size
        cdef const char* path = head_path(&self._parser, <const char*>self._data, &size)
        return path[:size]

    @property
    def minor(self):
        return self._parser.minor

    @property
    def fields(self):
        cdef int i
        return [
            (self._bytes_of(self._parser.fields[i].name), self._bytes_of(self._parser.fields[i].value))
            for i in range(self._parser.field_count)
        ]

    def find(self, bytes name not None):
        cdef int i = head_find(&self._parser, <const char*>self._data, <const char*>name, <size_t>len(name))
        return None if i < 0 else self._bytes_of(self._parser.fields[i].value)

    def count(self, bytes name not None):
        return head_count(&self._parser, <const char*>self._data, <const char*>name, <size_t>len(name))

    @property
    def body_size(self):
        return self._parser.body_size

    @property
    def expects_continue(self):
        return bool(self._parser.expects)
