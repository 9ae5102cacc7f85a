# Which address holds most, in constant time: lines of connections by address and kind, and addresses by weight.
# places.pxd explains the holders.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from flashpol._native.account.places cimport (
    AccountCore, AccountEntry, ALL, HANDSHAKES, Holder, K_HANDSHAKE, K_NONE, K_QUEUED, K_SILENT_SESSION, K_WAITING,
    Line, QUEUED, Ranking, SessionEntry, SESSIONS, WEIGHT_CLASSES,
)

cdef extern from *:
    int count_leading_zeros "__builtin_clzll"(unsigned long long) noexcept nogil
    int count_trailing_zeros "__builtin_ctzll"(unsigned long long) noexcept nogil


cdef inline int bucket_of(int32_t weight) noexcept nogil:
    cdef int power
    if weight < 16:
        return weight
    power = 63 - count_leading_zeros(<unsigned long long>weight)
    return 16 + (power - 4) * 2 + ((weight >> (power - 1)) & 1)


# ------------------------------------------------------------------------------------------------------------- holders

cdef inline uint32_t holder_of(const AccountCore* account, uint32_t slot) noexcept nogil:
    return account.holder_of_slot[slot]


cdef inline Line* line_of(const AccountCore* account, uint32_t holder, uint8_t kind) noexcept nogil:
    return &account.lines[kind][holder]


cdef uint32_t become_holder(AccountCore* account, uint32_t slot) noexcept nogil:
    cdef uint32_t holder = account.free_holder
    if holder != 0:
        account.free_holder = account.slot_of_holder[holder]
    else:
        account.last_holder += 1
        holder = account.last_holder
    account.slot_of_holder[holder] = slot
    account.holder_of_slot[slot] = holder
    return holder


cdef void give_back_holder(AccountCore* account, uint32_t slot, uint32_t holder) noexcept nogil:
    account.holder_of_slot[slot] = 0
    account.slot_of_holder[holder] = account.free_holder
    account.free_holder = holder


# ------------------------------------------------------------------------------------------------- rankings and lines

cdef inline bint has_at_least(const AccountCore* account, uint32_t slot, uint8_t kind, int number) noexcept nogil:
    """Whether an address has so many connections of a kind. It takes time for so many."""
    cdef int32_t at = line_of(account, holder_of(account, slot), kind).head
    while at != 0 and number > 0:
        at = account.entries[at - 1].after
        number -= 1
    return number <= 0


cdef void leave_bucket(Ranking* ranking, int32_t holder, int bucket) noexcept nogil:
    cdef Holder* own = &ranking.holders[holder]
    if own.before < 0:
        ranking.first[bucket] = own.after
    else:
        ranking.holders[own.before].after = own.after
    if own.after < 0:
        ranking.last[bucket] = own.before
    else:
        ranking.holders[own.after].before = own.before
    if ranking.first[bucket] < 0:
        ranking.occupied &= ~(<uint64_t>1 << bucket)


cdef void join_bucket(Ranking* ranking, int32_t holder, int bucket) noexcept nogil:
    cdef Holder* own = &ranking.holders[holder]
    own.before = ranking.last[bucket]
    own.after = -1
    if own.before < 0:
        ranking.first[bucket] = holder
    else:
        ranking.holders[own.before].after = holder
    ranking.last[bucket] = holder
    ranking.occupied |= <uint64_t>1 << bucket


cdef inline void add_weight(Ranking* ranking, uint32_t holder, int32_t change) noexcept nogil:
    cdef Holder* own = &ranking.holders[holder]
    cdef int old = bucket_of(own.weight), new = bucket_of(own.weight + change)
    if old != new:
        if old:
            leave_bucket(ranking, <int32_t>holder, old)
        if new:
            join_bucket(ranking, <int32_t>holder, new)
    own.weight += change
    ranking.total += change


cdef inline void weigh(AccountCore* account, uint32_t holder, uint8_t kind, int32_t change) noexcept nogil:
    add_weight(&account.rankings[ALL], holder, change)
    if kind >= K_SILENT_SESSION:
        add_weight(&account.rankings[SESSIONS], holder, change)
    elif kind == K_HANDSHAKE:
        add_weight(&account.rankings[HANDSHAKES], holder, change)
    elif kind == K_QUEUED:
        add_weight(&account.rankings[QUEUED], holder, change)


cdef void leave_line_of_listener(AccountCore* account, int fd) noexcept nogil:
    cdef SessionEntry* entry = &account.session_entries[fd]
    cdef int kind = account.entries[fd].kind - K_SILENT_SESSION
    if entry.lines == NULL:
        return
    if entry.before == 0:
        entry.lines.head[kind] = entry.after
    else:
        account.session_entries[entry.before - 1].after = entry.after
    if entry.after == 0:
        entry.lines.tail[kind] = entry.before
    else:
        account.session_entries[entry.after - 1].before = entry.before


cdef void join_line_of_listener(AccountCore* account, int fd) noexcept nogil:
    cdef SessionEntry* entry = &account.session_entries[fd]
    cdef int kind = account.entries[fd].kind - K_SILENT_SESSION
    if entry.lines == NULL:
        return
    entry.before = entry.lines.tail[kind]
    entry.after = 0
    if entry.before == 0:
        entry.lines.head[kind] = fd + 1
    else:
        account.session_entries[entry.before - 1].after = fd + 1
    entry.lines.tail[kind] = fd + 1


cdef void leave_line(AccountCore* account, int fd) noexcept nogil:
    cdef AccountEntry* entry = &account.entries[fd]
    cdef uint32_t holder = holder_of(account, entry.slot)
    cdef Line* line = line_of(account, holder, entry.kind)
    if entry.before == 0:
        line.head = entry.after
    else:
        account.entries[entry.before - 1].after = entry.after
    if entry.after == 0:
        line.tail = entry.before
    else:
        account.entries[entry.after - 1].before = entry.before
    weigh(account, holder, entry.kind, -1)
    if account.rankings[ALL].holders[holder].weight == 0:
        give_back_holder(account, entry.slot, holder)
    if entry.kind >= K_SILENT_SESSION:
        leave_line_of_listener(account, fd)


cdef void join_line(AccountCore* account, int fd) noexcept nogil:
    cdef AccountEntry* entry = &account.entries[fd]
    cdef uint32_t holder = holder_of(account, entry.slot) or become_holder(account, entry.slot)
    cdef Line* line = line_of(account, holder, entry.kind)
    account.joined += 1
    entry.number = account.joined
    entry.before = line.tail
    entry.after = 0
    if line.tail == 0:
        line.head = fd + 1
    else:
        account.entries[line.tail - 1].after = fd + 1
    line.tail = fd + 1
    weigh(account, holder, entry.kind, 1)
    if entry.kind >= K_SILENT_SESSION:
        join_line_of_listener(account, fd)


cdef inline void set_kind(AccountCore* account, int fd, uint32_t slot, uint8_t kind) noexcept nogil:
    """Say whether a connection gives way, and as what. slot: of its address. Nothing happens if both are as before."""
    cdef AccountEntry* entry = &account.entries[fd]
    if entry.kind == kind and entry.slot == slot:
        return
    if entry.kind != K_NONE:
        leave_line(account, fd)
    entry.kind = kind
    entry.slot = slot
    if kind != K_NONE:
        join_line(account, fd)


cdef inline void renew_place(AccountCore* account, int fd) noexcept nogil:
    """A connection was of use: of its address it is the last to give way."""
    cdef AccountEntry* entry = &account.entries[fd]
    cdef Line* line
    if entry.kind == K_NONE or entry.kind >= K_SILENT_SESSION:
        return
    account.joined += 1
    entry.number = account.joined
    if entry.after == 0:
        return
    line = line_of(account, holder_of(account, entry.slot), entry.kind)
    account.entries[entry.after - 1].before = entry.before
    if entry.before == 0:
        line.head = entry.after
    else:
        account.entries[entry.before - 1].after = entry.after
    entry.before = line.tail
    entry.after = 0
    account.entries[line.tail - 1].after = fd + 1
    line.tail = fd + 1


# --------------------------------------------------------------------------------------------------------- the heaviest

cdef inline int32_t heaviest(const Ranking* ranking) noexcept nogil:
    """The address with the most connections, as a holder, -1 if there is none. Among equals the one that became so
    first. From 16 on, weights in one half of a power of two count as equal."""
    if ranking.occupied == 0:
        return -1
    return ranking.first[63 - count_leading_zeros(ranking.occupied)]


cdef inline int32_t next_heaviest(const Ranking* ranking, int32_t holder) noexcept nogil:
    """The address after `holder` in the order of `heaviest`, -1 if it is the last."""
    cdef int bucket = bucket_of(ranking.holders[holder].weight)
    cdef uint64_t lighter = ranking.occupied & ((<uint64_t>1 << bucket) - 1)
    if ranking.holders[holder].after >= 0:
        return ranking.holders[holder].after
    return ranking.first[63 - count_leading_zeros(lighter)] if lighter else -1


cdef inline int32_t lightest(const Ranking* ranking) noexcept nogil:
    """The address with the fewest connections, as a holder, -1 if there is none. Among equals the one that became so
    first."""
    if ranking.occupied == 0:
        return -1
    return ranking.first[count_trailing_zeros(ranking.occupied)]


cdef inline int first_of(const AccountCore* account, uint32_t holder, uint8_t last_kind) noexcept nogil:
    """The connection of an address that has waited longest, of the kinds up to `last_kind`; -1 if there is none."""
    cdef uint8_t kind
    cdef int fd, found = -1
    for kind in range(<uint8_t>K_WAITING, <uint8_t>(last_kind + 1)):
        fd = line_of(account, holder, kind).head - 1
        if fd >= 0 and (found < 0 or account.entries[fd].number < account.entries[found].number):
            found = fd
    return found
