# What must hold in the account between two calls, for tests.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from flashpol._native.account.places cimport (
    AccountCore, AccountEntry, ALL, HANDSHAKES, K_HANDSHAKE, K_NONE, K_QUEUED, K_SILENT_SESSION, K_UNANSWERED_SESSION,
    K_WAITING, QUEUED, Ranking, SESSIONS, WEIGHT_CLASSES,
)


cdef const char* find_line_violation(
    AccountCore* account, uint32_t holder, uint8_t kind, int32_t* length,
) noexcept nogil:
    cdef const AccountEntry* entry
    cdef uint64_t number = 0
    cdef int32_t before = 0, at = line_of(account, holder, kind).head
    length[0] = 0
    while at != 0:
        entry = &account.entries[at - 1]
        if entry.kind != kind or holder_of(account, entry.slot) != holder or entry.before != before:
            return b"a line has a connection that is not of its address and kind"
        if entry.number <= number:
            return b"a line is out of order"
        length[0] += 1
        number = entry.number
        before = at
        at = entry.after
    if line_of(account, holder, kind).tail != before:
        return b"a line does not end at its tail"
    return NULL


cdef const char* find_ranking_violation(
    AccountCore* account, Ranking* ranking, uint8_t first_kind, uint8_t last_kind,
) noexcept nogil:
    cdef int64_t total = 0, in_buckets = 0, holders = 0
    cdef int32_t length, weight, holder, before
    cdef const char* wrong
    cdef uint32_t number
    cdef uint8_t kind
    cdef int bucket
    for number in range(account.last_holder + 1):
        weight = 0
        for kind in range(first_kind, <uint8_t>(last_kind + 1)):
            wrong = find_line_violation(account, number, kind, &length)
            if wrong != NULL:
                return wrong
            weight += length
        if weight != ranking.holders[number].weight:
            return b"an address has another weight than connections"
        total += weight
        holders += weight != 0
    for bucket in range(WEIGHT_CLASSES):
        before = -1
        holder = ranking.first[bucket]
        if (holder >= 0) != ((ranking.occupied >> bucket) & 1):
            return b"the buckets differ from their bits"
        while holder >= 0:
            if bucket_of(ranking.holders[holder].weight) != bucket or ranking.holders[holder].before != before:
                return b"an address is in the bucket of another weight"
            in_buckets += 1
            if in_buckets > holders:
                return b"a bucket is a ring"
            before = holder
            holder = ranking.holders[holder].after
        if ranking.last[bucket] != before:
            return b"a bucket does not end at its last address"
    if in_buckets != holders:
        return b"an address is in no bucket"
    if total != ranking.total:
        return b"a ranking has another total than connections"
    return NULL


cdef const char* find_holder_violation(const AccountCore* account) noexcept nogil:
    """What is wrong with the numbers of holders, NULL if nothing."""
    cdef uint32_t slot, holder, taken = 0, given_back = 0
    for slot in range(account.slots):
        holder = account.holder_of_slot[slot]
        if holder == 0:
            continue
        taken += 1
        if holder > account.last_holder or account.slot_of_holder[holder] != slot:
            return b"a holder has the number of another"
        if account.rankings[ALL].holders[holder].weight == 0:
            return b"an address without connections is a holder"
    holder = account.free_holder
    while holder != 0 and given_back <= account.last_holder:
        if account.rankings[ALL].holders[holder].weight != 0:
            return b"a holder's number was given back"
        given_back += 1
        holder = account.slot_of_holder[holder]
    if taken + given_back != account.last_holder or account.last_holder > account.max_holders:
        return b"a holder's number is lost"
    return NULL


cdef const char* find_places_violation(AccountCore* account) noexcept nogil:
    """What is wrong, NULL if nothing."""
    cdef int64_t leaving = 0, in_line = account.rankings[ALL].total
    cdef const AccountEntry* entry
    cdef const char* wrong
    cdef size_t fd
    wrong = find_holder_violation(account)
    if wrong == NULL:
        wrong = find_ranking_violation(account, &account.rankings[ALL], K_WAITING, K_UNANSWERED_SESSION)
    if wrong == NULL:
        wrong = find_ranking_violation(account, &account.rankings[QUEUED], K_QUEUED, K_QUEUED)
    if wrong == NULL:
        wrong = find_ranking_violation(account, &account.rankings[HANDSHAKES], K_HANDSHAKE, K_HANDSHAKE)
    if wrong == NULL:
        wrong = find_ranking_violation(
            account, &account.rankings[SESSIONS], K_SILENT_SESSION, K_UNANSWERED_SESSION)
    if wrong != NULL:
        return wrong
    for fd in range(account.capacity):
        entry = &account.entries[fd]
        leaving += entry.leaving
        in_line -= entry.kind != K_NONE
        if entry.kind == (K_UNANSWERED_SESSION if account.session_entries[fd].silent != NULL else K_SILENT_SESSION):
            return b"a session gives way as something else"
        if entry.kind == K_UNANSWERED_SESSION and entry.finished:
            return b"a session that began with FIN does not count as silent"
    if leaving != account.leaving or in_line != 0:
        return b"the account differs from its places"
    return NULL
