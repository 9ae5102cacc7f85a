# The memory of an account. The kernel gives its pages as descriptors and addresses use them.

from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free

from flashpol._native.account.places cimport (
    AccountCore, AccountEntry, ALL, Holder, KIND_COUNT, Line, Ranking, RANKING_COUNT, SESSIONS, WEIGHT_CLASSES,
)


cdef bint open_ranking(Ranking* ranking, uint32_t slots) noexcept nogil:
    """False: there is no memory."""
    cdef int i
    ranking.holders = <Holder*>calloc(slots, sizeof(Holder))
    for i in range(WEIGHT_CLASSES):
        ranking.first[i] = ranking.last[i] = -1
    return ranking.holders != NULL


cdef bint open_places(AccountCore* account, size_t capacity, uint32_t slots) noexcept nogil:
    """False: there is no memory. close_places frees what was allocated."""
    account.capacity = capacity
    account.slots = slots
    account.entries = <AccountEntry*>calloc(max(capacity, <size_t>1), sizeof(AccountEntry))
    account.lines = <Line*>calloc(<size_t>slots * KIND_COUNT, sizeof(Line))
    return (
        account.entries != NULL
        and account.lines != NULL
        and open_ranking(&account.rankings[ALL], slots)
        and open_ranking(&account.rankings[SESSIONS], slots)
    )


cdef void close_places(AccountCore* account) noexcept nogil:
    cdef int i
    free(account.entries)
    free(account.lines)
    for i in range(RANKING_COUNT):
        free(account.rankings[i].holders)
