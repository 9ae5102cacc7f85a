# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The recognisers of flashpol/_native under names that C can call. Never imported: clang compiles its C."""

from libc.stdint cimport int64_t, uint8_t

from flashpol._native.accept.match cimport Signatures
from flashpol._native.accept.proxy cimport ProxyParser
from flashpol._native.common.system cimport sockaddr_in6
from flashpol._native.http.head cimport HeadParser, Span

include "flashpol/_native/accept/match.pxi"
include "flashpol/_native/accept/proxy.pxi"
include "flashpol/_native/http/head.pxi"


cdef public int fuzz_match(
    uint8_t* matched, const char* data, size_t size, size_t* used, bint terminated,
) noexcept nogil:
    return <int>match_feed(matched, data, size, used, terminated)


cdef public int fuzz_sniff(const void* known, const char* data, size_t size, uint8_t* name) noexcept nogil:
    return <int>sniff(<const Signatures*>known, data, size, name)


# A header is opaque to C. The caller allocates `fuzz_proxy_bytes` of zeroed memory.

cdef public size_t fuzz_proxy_bytes() noexcept nogil:
    return sizeof(ProxyParser)


cdef public void fuzz_proxy_begin(void* header) noexcept nogil:
    proxy_begin(<ProxyParser*>header)


cdef public int fuzz_proxy_feed(void* header, const char* data, size_t size, size_t* used) noexcept nogil:
    return <int>proxy_feed(<ProxyParser*>header, data, size, used)


cdef public int fuzz_proxy_source(void* header, sockaddr_in6* source, bint* oversized) noexcept nogil:
    """The address in the header, and whether there is one."""
    source[0] = (<ProxyParser*>header).source
    oversized[0] = (<ProxyParser*>header).oversized
    return (<ProxyParser*>header).proxied


# The same for the head of a request of HTTP.

cdef public size_t fuzz_head_bytes() noexcept nogil:
    return sizeof(HeadParser)


cdef public void fuzz_head_begin(void* head) noexcept nogil:
    head_begin(<HeadParser*>head)


cdef public int fuzz_head_feed(void* head, const char* data, size_t size) noexcept nogil:
    return <int>head_feed(<HeadParser*>head, data, size)


cdef public size_t fuzz_head_said(void* head, int64_t* body_size, int* error, int* fields) noexcept nogil:
    """Bytes of the head, and what else it says."""
    cdef HeadParser* parser = <HeadParser*>head
    body_size[0] = parser.body_size
    error[0] = parser.error
    fields[0] = parser.field_count
    return parser.size


cdef public size_t fuzz_head_span(void* head, int number, size_t* size) noexcept nogil:
    """Begin and size of a part: method, target, path, then names and values of the fields."""
    cdef HeadParser* parser = <HeadParser*>head
    cdef Span span = parser.method
    if number == 1:
        span = parser.target
    elif number == 2:
        span = parser.path
    elif number > 2:
        span = parser.fields[(number - 3) >> 1].name if number & 1 else parser.fields[(number - 3) >> 1].value
    size[0] = span.size
    return span.begin
