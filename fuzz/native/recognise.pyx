# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The recognisers of flashpol/_core/match.pxd under names that C can call. Never imported: only its C is used."""

from libc.stdint cimport uint8_t

from flashpol._core.match cimport Answer, match_feed, Signatures, sniff


cdef public int fuzz_match(
    uint8_t* matched, const char* data, size_t size, size_t* used, bint terminated,
) noexcept nogil:
    return <int>match_feed(matched, data, size, used, terminated)


cdef public int fuzz_sniff(const void* known, const char* data, size_t size, uint8_t* name) noexcept nogil:
    return <int>sniff(<const Signatures*>known, data, size, name)
