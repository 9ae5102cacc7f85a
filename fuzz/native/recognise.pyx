# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The recognisers of flashpol/_native/accept under names that C can call. Never imported: clang compiles its C."""

from libc.stdint cimport uint8_t

from flashpol._native.accept.match cimport Signatures
from flashpol._native.accept.proxy cimport ProxyParser
from flashpol._native.common.system cimport sockaddr_in6

include "flashpol/_native/accept/match.pxi"
include "flashpol/_native/accept/proxy.pxi"


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
