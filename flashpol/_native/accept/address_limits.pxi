from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from flashpol._native.accept.address_limits cimport (
    CensusView, E_ADMITTED, E_TOO_FAST, E_TOO_MANY, E_UNTRACKED, Entrance, Entry, MOST, SECOND, Table, WAYS,
)
from flashpol._native.accept.ip_ranges cimport Address


cdef inline Table* table_of(const CensusView* address_limits, int slot) noexcept nogil:
    return <Table*>(address_limits.memory + <size_t>slot * address_limits.stride)


cdef inline bint by_address(const CensusView* address_limits) noexcept nogil:
    return address_limits.max_address_connections != 0 or address_limits.max_address_rate != 0


cdef inline void look_around(CensusView* address_limits) noexcept nogil:
    cdef int slot
    if address_limits.max_connections == 0:
        return
    address_limits.others = 0
    for slot in range(address_limits.workers):
        if slot != address_limits.slot:
            address_limits.others += table_of(address_limits, slot).held


cdef inline bint full(const CensusView* address_limits) noexcept nogil:
    cdef int64_t held = address_limits.own.held
    return (address_limits.max_worker_connections != 0 and held >= address_limits.max_worker_connections) or (
        address_limits.max_connections != 0 and held + address_limits.others >= address_limits.max_connections)


cdef inline uint64_t turned(uint64_t word, int bits) noexcept nogil:
    return (word << bits) | (word >> (64 - bits))


cdef inline void sip_round(uint64_t* v) noexcept nogil:
    v[0] += v[1]
    v[2] += v[3]
    v[1] = turned(v[1], 13) ^ v[0]
    v[3] = turned(v[3], 16) ^ v[2]
    v[0] = turned(v[0], 32)
    v[2] += v[1]
    v[0] += v[3]
    v[1] = turned(v[1], 17) ^ v[2]
    v[3] = turned(v[3], 21) ^ v[0]
    v[2] = turned(v[2], 32)


cdef inline uint64_t sip_hash(const uint64_t* key, uint64_t first, uint64_t second) noexcept nogil:
    """SipHash-1-3 (Aumasson and Bernstein) of sixteen bytes: as hash tables of Python, Rust and Ruby use it."""
    cdef uint64_t[4] v
    cdef uint64_t length = <uint64_t>16 << 56
    v[0] = key[0] ^ 0x736F6D6570736575u
    v[1] = key[1] ^ 0x646F72616E646F6Du
    v[2] = key[0] ^ 0x6C7967656E657261u
    v[3] = key[1] ^ 0x7465646279746573u
    v[3] ^= first
    sip_round(v)
    v[0] ^= first
    v[3] ^= second
    sip_round(v)
    v[0] ^= second
    v[3] ^= length
    sip_round(v)
    v[0] ^= length
    v[2] ^= 0xFF
    sip_round(v)
    sip_round(v)
    sip_round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


cdef inline uint64_t tag_of(const CensusView* address_limits, Address address) noexcept nogil:
    """Never 0. An IPv4 address is hashed as ::ffff:0:0/96 has it, which no IPv6 client has."""
    cdef uint64_t tag
    if address.four:
        tag = sip_hash(address_limits.key, 0, 0xFFFF00000000u | (address.high & address_limits.mask4) >> 32)
    else:
        tag = sip_hash(address_limits.key, address.high & address_limits.mask6[0], address.low & address_limits.mask6[1])
    return tag or 1


cdef inline Entry* set_of(const CensusView* address_limits, int slot, uint64_t tag) noexcept nogil:
    return table_of(address_limits, slot).entries + (tag & address_limits.set_mask) * WAYS


cdef inline int64_t lately(const Entry* entry, int64_t now) noexcept nogil:
    """Connections of the second up to now, times SECOND: those of the second before count by what is left of it."""
    cdef uint16_t age = <uint16_t>(<uint16_t>(now // SECOND) - entry.second)
    cdef int64_t rest = SECOND - now % SECOND
    if age == 0:
        return entry.begun * <int64_t>SECOND + entry.before * rest
    return entry.begun * rest if age == 1 else 0


cdef inline void begin(Entry* entry, int64_t now) noexcept nogil:
    """A connection of this address is admitted."""
    cdef uint16_t second = <uint16_t>(now // SECOND)
    if entry.second != second:
        entry.before = entry.begun if <uint16_t>(entry.second + 1) == second else 0
        entry.begun = 0
        entry.second = second
    entry.begun += entry.begun != MOST
    entry.open += 1


cdef inline Entry* find(Entry* row, uint64_t tag) noexcept nogil:
    cdef int i
    for i in range(WAYS):
        if row[i].tag == tag:
            return &row[i]
    return NULL


cdef inline Entry* spare(Entry* row, int64_t now) noexcept nogil:
    """The place for a newcomer. NULL: everybody there has connections."""
    cdef Entry* found = NULL
    cdef int64_t least = 0, number
    cdef int i
    for i in range(WAYS):
        if row[i].open == 0:
            number = lately(&row[i], now)
            if found == NULL or number < least:
                found, least = &row[i], number
    return found


cdef inline Entrance exceeded(const CensusView* address_limits, uint64_t tag, const Entry* own, int64_t now) noexcept nogil:
    """The others are asked only by a worker that has its share."""
    cdef int64_t open = own.open, recent = lately(own, now)
    cdef const Entry* entry
    cdef int slot
    cdef bint many = address_limits.max_address_connections != 0 and open >= address_limits.share_of_address
    cdef bint fast = address_limits.max_address_rate != 0 and recent >= address_limits.share_of_rate
    if not many and not fast:
        return E_ADMITTED
    for slot in range(address_limits.workers):
        if slot != address_limits.slot:
            entry = find(set_of(address_limits, slot, tag), tag)
            if entry != NULL:
                open += entry.open
                recent += lately(entry, now)
    if many and open >= address_limits.max_address_connections:
        return E_TOO_MANY
    if fast and recent >= address_limits.max_address_rate * SECOND:
        return E_TOO_FAST
    return E_ADMITTED


cdef inline Entrance enter(CensusView* address_limits, Address address, int64_t now, uint32_t* place) noexcept nogil:
    """Judge an address, and count its connection if it is admitted: `place` is for `leave`, 0 if it is not tracked."""
    cdef uint64_t tag = tag_of(address_limits, address)
    cdef Entry* row = set_of(address_limits, address_limits.slot, tag)
    cdef Entry* known = find(row, tag)
    cdef Entry* entry = known
    cdef Entry nobody
    cdef Entrance verdict
    memset(&nobody, 0, sizeof(Entry))
    place[0] = 0
    verdict = exceeded(address_limits, tag, known if known != NULL else &nobody, now)
    if verdict != E_ADMITTED:
        return verdict
    if known == NULL:
        entry = spare(row, now)
    if entry == NULL or entry.open == MOST:
        return E_UNTRACKED
    if known == NULL:
        entry[0] = nobody
        entry.tag = tag
    begin(entry, now)
    place[0] = 1 + <uint32_t>(entry - address_limits.own.entries)
    return E_ADMITTED


cdef inline void leave(CensusView* address_limits, uint32_t place) noexcept nogil:
    if place != 0:
        address_limits.own.entries[place - 1].open -= 1
