# The memory of an account. The kernel gives its pages as descriptors and addresses use them.

from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free

from flashpol._native.account.places cimport (
    AccountCore, AccountEntry, Holder, K_WAITING, KIND_COUNT, Line, Ranking, RANKING_COUNT, SessionEntry,
    WEIGHT_CLASSES,
)
from flashpol._native.codecs.codec cimport Codec


cdef bint open_ranking(Ranking* ranking, size_t holders) noexcept nogil:
    """False: there is no memory."""
    cdef int i
    ranking.holders = <Holder*>calloc(holders, sizeof(Holder))
    for i in range(WEIGHT_CLASSES):
        ranking.first[i] = ranking.last[i] = -1
    return ranking.holders != NULL


cdef bint open_places(AccountCore* account, size_t capacity, uint32_t slots) noexcept nogil:
    """False: there is no memory. close_places frees what was allocated."""
    cdef size_t holders
    cdef int i
    account.capacity = capacity
    account.slots = slots
    account.entries = <AccountEntry*>calloc(max(capacity, <size_t>1), sizeof(AccountEntry))
    account.session_entries = <SessionEntry*>calloc(max(capacity, <size_t>1), sizeof(SessionEntry))
    account.codecs = <Codec**>calloc(max(capacity, <size_t>1), sizeof(Codec*))
    account.max_holders = <uint32_t>min(capacity, <size_t>slots)     # each has a connection
    holders = <size_t>account.max_holders + 1
    account.holder_of_slot = <uint32_t*>calloc(slots, sizeof(uint32_t))
    account.slot_of_holder = <uint32_t*>calloc(holders, sizeof(uint32_t))
    if account.entries == NULL or account.session_entries == NULL or account.codecs == NULL:
        return False
    if account.holder_of_slot == NULL or account.slot_of_holder == NULL:
        return False
    for i in range(<int>K_WAITING, <int>KIND_COUNT):
        account.lines[i] = <Line*>calloc(holders, sizeof(Line))
        if account.lines[i] == NULL:
            return False
    for i in range(RANKING_COUNT):
        if not open_ranking(&account.rankings[i], holders):
            return False
    return True


cdef void close_places(AccountCore* account) noexcept nogil:
    cdef int i
    free(account.entries)
    free(account.session_entries)
    free(account.codecs)
    free(account.holder_of_slot)
    free(account.slot_of_holder)
    for i in range(<int>K_WAITING, <int>KIND_COUNT):
        free(account.lines[i])
    for i in range(RANKING_COUNT):
        free(account.rankings[i].holders)
