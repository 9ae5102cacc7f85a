# The memory of an account. The kernel gives its pages as descriptors and addresses use them.

from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free

from flashpol._native.account.places cimport (
    AccountCore, AccountEntry, Holder, KIND_COUNT, Line, Ranking, RANKING_COUNT, WEIGHT_CLASSES,
)
from flashpol._native.codecs.codec cimport Codec


cdef bint open_ranking(Ranking* ranking, uint32_t slots) noexcept nogil:
    """False: there is no memory."""
    cdef int i
    ranking.holders = <Holder*>calloc(slots, sizeof(Holder))
    for i in range(WEIGHT_CLASSES):
        ranking.first[i] = ranking.last[i] = -1
    return ranking.holders != NULL


cdef bint open_places(AccountCore* account, size_t capacity, uint32_t slots) noexcept nogil:
    """False: there is no memory. close_places frees what was allocated."""
    cdef int i
    account.capacity = capacity
    account.slots = slots
    account.entries = <AccountEntry*>calloc(max(capacity, <size_t>1), sizeof(AccountEntry))
    account.codecs = <Codec**>calloc(max(capacity, <size_t>1), sizeof(Codec*))
    account.lines = <Line*>calloc(<size_t>slots * KIND_COUNT, sizeof(Line))
    if account.entries == NULL or account.codecs == NULL or account.lines == NULL:
        return False
    for i in range(RANKING_COUNT):
        if not open_ranking(&account.rankings[i], slots):
            return False
    return True


cdef void close_places(AccountCore* account) noexcept nogil:
    cdef int i
    free(account.entries)
    free(account.codecs)
    free(account.lines)
    for i in range(RANKING_COUNT):
        free(account.rankings[i].holders)
