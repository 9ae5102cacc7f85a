# The recogniser of a PROXY header. proxy.pxd explains it.

from libc.stdint cimport uint8_t, uint16_t
from libc.string cimport memchr, memcmp, memcpy, memset

from flashpol._native.accept.proxy cimport (
    FIXED_BYTES, FOUR_BYTES, LINE_BYTES, ProxyParser, REST_BYTES, SIGNATURE, SIX_BYTES, UNIX_BYTES, ZERO,
)
from flashpol._native.common.system cimport AF_INET, AF_INET6, htons, inet_pton, sockaddr_in, sockaddr_in6
from flashpol._native.common.verdict cimport MatchVerdict, V_MATCH, V_MORE, V_OTHER


cdef inline void proxy_begin(ProxyParser* header) noexcept nogil:
    """Prepare for the first byte. `source` stays as it is."""
    header.rest = header.skipped = 0
    header.size = 0
    header.proxied = header.oversized = False


cdef inline MatchVerdict proxy_feed(ProxyParser* header, const char* data, size_t size, size_t* used) noexcept nogil:
    """Continue with `data`; `used` becomes the number of its bytes that belong to the header."""
    cdef MatchVerdict verdict = V_MORE
    cdef size_t n
    used[0] = 0
    while used[0] < size and verdict == V_MORE:
        if header.size >= FIXED_BYTES and header.kept[0] == SIGNATURE[0]:
            # After the fixed part of version 2: keep what may be addresses, skip the rest.
            n = min(size - used[0], <size_t>(header.rest - header.skipped))
            if header.size < FIXED_BYTES + SIX_BYTES:
                n = min(n, <size_t>(FIXED_BYTES + SIX_BYTES - header.size))
                memcpy(header.kept + header.size, data + used[0], n)
                header.size += <uint8_t>n
            header.skipped += <uint16_t>n
            used[0] += n
            if header.skipped == header.rest:
                finish_binary(header)
                verdict = V_MATCH
        else:
            header.kept[header.size] = data[used[0]]
            header.size += 1
            used[0] += 1
            verdict = feed_binary(header) if header.kept[0] == SIGNATURE[0] else feed_line(header)
    return verdict


# ------------------------------------------------------------------------------------------- version 1, section 2.1

cdef inline MatchVerdict feed_line(ProxyParser* header) noexcept nogil:
    """Judge the line after one more byte."""
    cdef uint8_t size = header.size
    if size <= 6:
        return V_MORE if header.kept[size - 1] == (<const char*>b"PROXY ")[size - 1] else V_OTHER
    if header.kept[size - 1] == b"\n":
        return finish_line(header) if header.kept[size - 2] == b"\r" else V_OTHER
    if size == LINE_BYTES:
        header.oversized = True
        return V_OTHER
    return V_MORE


cdef inline MatchVerdict finish_line(ProxyParser* header) noexcept nogil:
    cdef char* word = header.kept + 6
    cdef char* end = header.kept + header.size - 2      # at CR LF
    cdef char* next
    cdef int family, i
    cdef uint16_t port = 0, other_port = 0
    cdef sockaddr_in6[2] ends
    end[0] = 0
    # "the receiver must ignore anything presented before the CRLF"
    if memcmp(word, <const char*>b"UNKNOWN", 7) == 0 and (word + 7 == end or word[7] == b" "):
        return V_MATCH
    if memchr(word, 0, <size_t>(end - word)) != NULL:
        return V_OTHER
    if memcmp(word, <const char*>b"TCP4 ", 5) == 0:
        family = AF_INET
    elif memcmp(word, <const char*>b"TCP6 ", 5) == 0:
        family = AF_INET6
    else:
        return V_OTHER
    memset(ends, 0, sizeof(ends))
    word += 5
    for i in range(2):
        next = <char*>memchr(word, b" ", <size_t>(end - word))
        if next == NULL:
            return V_OTHER
        next[0] = 0
        if inet_pton(family, word, address_in(&ends[i], family)) != 1:
            return V_OTHER
        word = next + 1
    next = <char*>memchr(word, b" ", <size_t>(end - word))
    if next == NULL or not read_port(word, next, &port) or not read_port(next + 1, end, &other_port):
        return V_OTHER
    ends[0].sin6_port = htons(port)
    ends[1].sin6_port = htons(other_port)
    ends[0].sin6_family = ends[1].sin6_family = <uint16_t>family
    header.source = ends[0]
    header.destination = ends[1]
    header.proxied = True
    return V_MATCH


cdef inline void* address_in(sockaddr_in6* at, int family) noexcept nogil:
    if family == AF_INET:
        return &(<sockaddr_in*>at).sin_addr
    return &at.sin6_addr


cdef inline bint read_port(const char* at, const char* end, uint16_t* port) noexcept nogil:
    """Decimal, without leading zeros. False: this is no port."""
    cdef int number = 0
    if at == end or end - at > 5 or (at[0] == ZERO and end - at > 1):
        return False
    while at != end:
        if not ZERO <= at[0] <= ZERO + 9:
            return False
        number = 10 * number + at[0] - ZERO
        at += 1
    port[0] = <uint16_t>number
    return number <= 65535


# ------------------------------------------------------------------------------------------- version 2, section 2.2

cdef inline MatchVerdict feed_binary(ProxyParser* header) noexcept nogil:
    """Judge the fixed part after one more byte."""
    cdef uint8_t size = header.size
    cdef uint8_t byte = <uint8_t>header.kept[size - 1]
    if size <= 12:
        return V_MORE if header.kept[size - 1] == SIGNATURE[size - 1] else V_OTHER
    if size == 13:
        return V_MORE if byte == 0x20 or byte == 0x21 else V_OTHER     # version 2: LOCAL, PROXY
    if size == 14:
        # LOCAL: "discard the protocol block including the family which is ignored".
        return V_MORE if is_local(header) or (byte >> 4 <= 3 and byte & 15 <= 2) else V_OTHER
    if size == 15:
        return V_MORE
    header.rest = <uint16_t>(<uint8_t>header.kept[14] << 8 | byte)
    if header.rest > REST_BYTES:
        header.oversized = True
        return V_OTHER
    if not is_local(header) and header.rest < address_bytes(header):
        return V_OTHER
    return V_MORE if header.rest else V_MATCH


cdef inline bint is_local(const ProxyParser* header) noexcept nogil:
    return header.kept[12] == 0x20


cdef inline uint16_t address_bytes(const ProxyParser* header) noexcept nogil:
    cdef uint8_t family = <uint8_t>header.kept[13] >> 4
    if family == 1:
        return FOUR_BYTES
    if family == 2:
        return SIX_BYTES
    return UNIX_BYTES if family == 3 else 0


cdef inline void finish_binary(ProxyParser* header) noexcept nogil:
    cdef const char* addresses = header.kept + FIXED_BYTES
    cdef sockaddr_in* source = <sockaddr_in*>&header.source
    cdef sockaddr_in* destination = <sockaddr_in*>&header.destination
    if is_local(header):
        return
    if header.kept[13] == 0x11:                 # TCP over IPv4: two addresses, two ports
        source.sin_family = destination.sin_family = <uint16_t>AF_INET
        memcpy(&source.sin_addr, addresses, 4)
        memcpy(&destination.sin_addr, addresses + 4, 4)
        memcpy(&source.sin_port, addresses + 8, 2)
        memcpy(&destination.sin_port, addresses + 10, 2)
    elif header.kept[13] == 0x21:
        header.source.sin6_family = header.destination.sin6_family = <uint16_t>AF_INET6
        memcpy(&header.source.sin6_addr, addresses, 16)
        memcpy(&header.destination.sin6_addr, addresses + 16, 16)
        memcpy(&header.source.sin6_port, addresses + 32, 2)
        memcpy(&header.destination.sin6_port, addresses + 34, 2)
    else:
        return
    header.proxied = True
