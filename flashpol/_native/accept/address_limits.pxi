# Admitting an address and releasing its slot. address_limits.pxd explains the table.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from flashpol._native.accept.address_limits cimport (
    A_ADMITTED, A_MAX_ADDRESS_CONNECTIONS, A_MAX_ADDRESS_RATE, A_UNTRACKED, AddressTable, AddressVerdict, MAX_COUNT,
    SECOND, Slot, SlotSet, WAYS, WorkerTable,
)
from flashpol._native.accept.ip_ranges cimport Address


cdef inline WorkerTable* table_of(const AddressTable* table, int worker) noexcept nogil:
    return <WorkerTable*>(table.memory + <size_t>worker * table.stride)


# ------------------------------------------------------------------------------------------------------------- in total

cdef inline void refresh_others(AddressTable* table) noexcept nogil:
    """Read how many places the other workers hold."""
    cdef int worker
    if table.max_connections == 0:
        return
    table.others_held = 0
    for worker in range(table.workers):
        if worker != table.worker:
            table.others_held += table_of(table, worker).held


# ------------------------------------------------------------------------------------------ the hash of an address

cdef inline uint64_t rotate_left(uint64_t word, int bits) noexcept nogil:
    return (word << bits) | (word >> (64 - bits))


cdef inline void sip_round(uint64_t* v) noexcept nogil:
    v[0] += v[1]
    v[2] += v[3]
    v[1] = rotate_left(v[1], 13) ^ v[0]
    v[3] = rotate_left(v[3], 16) ^ v[2]
    v[0] = rotate_left(v[0], 32)
    v[2] += v[1]
    v[0] += v[3]
    v[1] = rotate_left(v[1], 17) ^ v[2]
    v[3] = rotate_left(v[3], 21) ^ v[0]
    v[2] = rotate_left(v[2], 32)


cdef inline uint64_t sip_hash(const uint64_t* key, uint64_t first, uint64_t second) noexcept nogil:
    """SipHash-1-3 (Aumasson and Bernstein) of sixteen bytes, as the hash tables of Python, Rust and Ruby use it."""
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


cdef inline uint64_t tag_of(const AddressTable* table, Address address) noexcept nogil:
    """Never 0. An IPv4 address is hashed as its ::ffff:0:0/96 form, which no IPv6 client has."""
    cdef uint64_t tag
    if address.is_v4:
        tag = sip_hash(table.key, 0, 0xFFFF00000000u | (address.high & table.mask_v4) >> 32)
    else:
        tag = sip_hash(table.key, address.high & table.mask_v6[0], address.low & table.mask_v6[1])
    return tag or 1


# --------------------------------------------------------------------------------------------------- slots of a set

cdef inline SlotSet* set_of(const AddressTable* table, int worker, uint64_t tag) noexcept nogil:
    return &table_of(table, worker).sets[tag & table.set_mask]


cdef inline Slot* find_slot(SlotSet* slots, uint64_t tag) noexcept nogil:
    """The slot of an address in its set, NULL if it has none."""
    cdef int i
    for i in range(WAYS):
        if slots.tags[i] == tag:
            return &slots.slots[i]
    return NULL


cdef inline Slot* slot_at(const AddressTable* table, uint32_t number) noexcept nogil:
    """The slot of this worker with that number, which is not 0."""
    return &table.own.sets[(number - 1) // WAYS].slots[(number - 1) % WAYS]


cdef inline uint64_t tag_at(const AddressTable* table, uint32_t number) noexcept nogil:
    """The tag of that slot."""
    return table.own.sets[(number - 1) // WAYS].tags[(number - 1) % WAYS]


cdef inline bint has_usual_prefixes(const AddressTable* table) noexcept nogil:
    """An IPv4 address is one, and so is an IPv6 /64."""
    return (table.mask_v4 == <uint64_t>0xFFFFFFFF00000000u and table.mask_v6[0] == ~<uint64_t>0
            and table.mask_v6[1] == 0)


cdef inline int64_t sliding_rate(const Slot* slot, int64_t now) noexcept nogil:
    """Connections of the second that ends now, times SECOND: the previous second counts by the part still in it."""
    cdef uint16_t age = <uint16_t>(<uint16_t>(now // SECOND) - slot.second)
    cdef int64_t rest = SECOND - now % SECOND
    if age == 0:
        return slot.count * <int64_t>SECOND + slot.previous * rest
    return slot.count * rest if age == 1 else 0


cdef inline void count_connection(Slot* slot, int64_t now) noexcept nogil:
    cdef uint16_t second = <uint16_t>(now // SECOND)
    if slot.second != second:
        slot.previous = slot.count if <uint16_t>(slot.second + 1) == second else 0
        slot.count = 0
        slot.second = second
    slot.count += slot.count != MAX_COUNT
    slot.open += 1


cdef inline int evictable(const SlotSet* slots, int64_t now) noexcept nogil:
    """Where a new address goes: of the slots without connections the one with the lowest rate. -1: there is none."""
    cdef int i, found = -1
    cdef int64_t lowest = 0, rate
    for i in range(WAYS):
        if slots.slots[i].open == 0 and slots.slots[i].sessions == 0:
            rate = sliding_rate(&slots.slots[i], now)
            if found < 0 or rate < lowest:
                found, lowest = i, rate
    return found


# ---------------------------------------------------------------------------------------------------------- by address

cdef inline AddressVerdict judge_address(
    const AddressTable* table, uint64_t tag, const Slot* own, int64_t now,
) noexcept nogil:
    """Compare an address with its limits. The other workers' tables are read only from local_* on."""
    cdef int64_t open = own.open, rate = sliding_rate(own, now)
    cdef const Slot* slot
    cdef int worker
    cdef bint check_open = table.max_address_connections != 0 and open >= table.local_connections
    cdef bint check_rate = table.max_address_rate != 0 and rate >= table.local_rate
    if not check_open and not check_rate:
        return A_ADMITTED
    for worker in range(table.workers):
        if worker != table.worker:
            slot = find_slot(set_of(table, worker, tag), tag)
            if slot != NULL:
                open += slot.open
                rate += sliding_rate(slot, now)
    # The rate first: it refuses, whereas at the other limit a silent connection of the address may give way.
    if check_rate and rate >= table.max_address_rate * SECOND:
        return A_MAX_ADDRESS_RATE
    if check_open and open >= table.max_address_connections:
        return A_MAX_ADDRESS_CONNECTIONS
    return A_ADMITTED


cdef inline AddressVerdict admit_address(
    AddressTable* table, Address address, int64_t now, uint32_t* number,
) noexcept nogil:
    """Judge an address, and count its connection if it is admitted.

    `number` becomes the slot's number, for release_slot; 0: the connection is not tracked. At max_address_connections
    it is the number of the slot that the address has in this worker, and nothing is counted: the caller may evict a
    connection of that slot and then call count_connection.
    """
    cdef uint64_t tag = tag_of(table, address)
    cdef SlotSet* slots = set_of(table, table.worker, tag)
    cdef Slot* slot = find_slot(slots, tag)
    cdef Slot empty
    cdef AddressVerdict verdict = A_ADMITTED
    cdef bint exempt = table.exempt != NULL and allowed(table.exempt, address)
    cdef int way
    memset(&empty, 0, sizeof(Slot))
    number[0] = 0
    if not exempt:
        verdict = judge_address(table, tag, slot if slot != NULL else &empty, now)
    if slot == NULL:
        if verdict != A_ADMITTED:
            return verdict
        way = evictable(slots, now)
        if way < 0:
            return A_UNTRACKED
        slot = &slots.slots[way]
        slot[0] = empty
        slots.tags[way] = tag
    if verdict == A_ADMITTED:
        if slot.open == MAX_COUNT:
            return A_UNTRACKED
        count_connection(slot, now)
    slot.exempt = exempt
    number[0] = 1 + <uint32_t>((slots - table.own.sets) * WAYS + (slot - slots.slots))
    return verdict


cdef inline bint end_session_of_slot(AddressTable* table, uint32_t number) noexcept nogil:
    """A session goes on as another connection. False: the slot cannot count more of them, and does not track it."""
    cdef Slot* slot
    if number == 0:
        return True
    slot = slot_at(table, number)
    slot.sessions -= 1
    if slot.open == MAX_COUNT:
        return False
    slot.open += 1
    return True


cdef inline void release_slot(AddressTable* table, uint32_t number, bint session) noexcept nogil:
    """A connection that admit_address counted has ended. 0: it was not tracked, and nothing happens."""
    if number != 0:
        if session:
            slot_at(table, number).sessions -= 1
        else:
            slot_at(table, number).open -= 1


cdef inline bint session_exceeds(const AddressTable* table, uint32_t number) noexcept nogil:
    """Whether one more session of the slot's address would exceed max_address_sessions."""
    cdef int64_t sessions
    cdef const Slot* slot
    cdef uint64_t tag
    cdef int worker
    if table.max_address_sessions == 0 or number == 0 or slot_at(table, number).exempt:
        return False
    sessions = slot_at(table, number).sessions
    if sessions < table.local_sessions:
        return False
    tag = table.own.sets[(number - 1) // WAYS].tags[(number - 1) % WAYS]
    for worker in range(table.workers):
        if worker != table.worker:
            slot = find_slot(set_of(table, worker, tag), tag)
            if slot != NULL:
                sessions += slot.sessions
    return sessions >= table.max_address_sessions


cdef inline bint become_session(AddressTable* table, uint32_t number) noexcept nogil:
    """A connection that admit_address counted is relayed from now on. False: it is not tracked any more, since the slot
    cannot count more sessions."""
    cdef Slot* slot
    if number == 0:
        return True
    slot = slot_at(table, number)
    slot.open -= 1
    if slot.sessions == MAX_COUNT:
        return False
    slot.sessions += 1
    return True
