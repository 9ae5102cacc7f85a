# The bytes of frames: masks, heads, and what text is.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from flashpol._native.websocket.codec cimport BIT_FIN, CC_NORMAL


cdef inline void unmask(char* out, const char* data, uint32_t size, const uint8_t* mask, uint8_t phase) noexcept nogil:
    """Write the payload of a client's frame. `out` may lie in front of `data` in the same buffer."""
    cdef uint8_t[8] key
    cdef uint64_t word, keys
    cdef uint32_t i = 0
    for i in range(8):
        key[i] = mask[(phase + i) & 3]
    memcpy(&keys, key, 8)
    i = 0
    while i + 8 <= size:
        memcpy(&word, data + i, 8)
        word ^= keys
        memcpy(out + i, &word, 8)
        i += 8
    while i < size:
        out[i] = <char>(<uint8_t>data[i] ^ key[i & 7])
        i += 1


cdef inline uint32_t write_head(uint8_t* head, uint8_t opcode, uint32_t size) noexcept nogil:
    """The head of a whole message of ours, at most 10 bytes. Returns its size."""
    head[0] = BIT_FIN | opcode
    if size < 126:
        head[1] = <uint8_t>size
        return 2
    if size < 65536:
        head[1] = 126
        head[2], head[3] = <uint8_t>(size >> 8), <uint8_t>size
        return 4
    head[1] = 127
    head[2] = head[3] = head[4] = head[5] = 0
    head[6], head[7] = <uint8_t>(size >> 24), <uint8_t>(size >> 16)
    head[8], head[9] = <uint8_t>(size >> 8), <uint8_t>size
    return 10


cdef inline uint32_t head_size_of(const uint8_t* head) noexcept nogil:
    """The size of a client's head, by its second byte."""
    cdef uint8_t size = head[1] & 0x7F
    if size < 126:
        return 6
    return 8 if size == 126 else 14


cdef inline bint is_close_code(uint16_t code) noexcept nogil:
    """Codes that a Close may have: RFC 6455 section 7.4 and IANA's registry."""
    return CC_NORMAL <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


cdef enum:                      # states of the decoder of UTF-8; the others say how many bytes must follow
    UTF8_OK = 0
    UTF8_LAST                   # 80..BF
    UTF8_TWO                    # 80..BF, then one
    UTF8_THREE                  # 80..BF, then two
    UTF8_E0                     # A0..BF, then one: no overlong form
    UTF8_ED                     # 80..9F, then one: no surrogate
    UTF8_F0                     # 90..BF, then two
    UTF8_F4                     # 80..8F, then two: no more than U+10FFFF
    UTF8_BAD


cdef inline uint8_t begin_utf8(uint8_t byte) noexcept nogil:
    if byte < 0x80:
        return UTF8_OK
    if byte < 0xC2 or byte > 0xF4:
        return UTF8_BAD
    if byte < 0xE0:
        return UTF8_LAST
    if byte == 0xE0:
        return UTF8_E0
    if byte == 0xED:
        return UTF8_ED
    if byte < 0xF0:
        return UTF8_TWO
    if byte == 0xF0:
        return UTF8_F0
    return UTF8_F4 if byte == 0xF4 else UTF8_THREE


cdef inline uint8_t go_on_utf8(uint8_t state, uint8_t byte) noexcept nogil:
    cdef uint8_t low = 0x80, high = 0xBF
    if state == UTF8_E0:
        low = 0xA0
    elif state == UTF8_ED:
        high = 0x9F
    elif state == UTF8_F0:
        low = 0x90
    elif state == UTF8_F4:
        high = 0x8F
    if byte < low or byte > high:
        return UTF8_BAD
    if state == UTF8_LAST:
        return UTF8_OK
    return UTF8_LAST if state in (UTF8_TWO, UTF8_E0, UTF8_ED) else UTF8_TWO


cdef uint8_t feed_utf8(uint8_t state, const char* data, uint32_t size) noexcept nogil:
    """The state after these bytes; UTF8_BAD: they are not UTF-8 (RFC 3629)."""
    cdef uint32_t i
    for i in range(size):
        state = begin_utf8(<uint8_t>data[i]) if state == UTF8_OK else go_on_utf8(state, <uint8_t>data[i])
        if state == UTF8_BAD:
            break
    return state
