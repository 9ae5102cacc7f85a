# The memory of an account. The kernel gives its pages as descriptors and addresses use them.

from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free

from flashpol._native.account.places cimport (
    AccountCore, AccountEntry, Holder, K_LINGER, K_SILENT, K_SILENT_SESSION, KIND_COUNT, Line, Ranking,
    SESSIONS, WAITING, WEIGHT_CLASSES,
)


cdef bint open_ranking(Ranking* ranking, uint32_t slots, int first_kind, int kinds) noexcept nogil:
    """False: there is no memory. The kernel gives pages as addresses use them."""
    cdef int i
    ranking.first_kind = first_kind
    ranking.kinds = kinds
    ranking.holders = <Holder*>calloc(slots, sizeof(Holder))
    ranking.lines = <Line*>calloc(<size_t>slots * <size_t>kinds, sizeof(Line))
    if ranking.holders == NULL or ranking.lines == NULL:
        return False
    for i in range(WEIGHT_CLASSES):
        ranking.first[i] = ranking.last[i] = -1
    return True


cdef void close_ranking(Ranking* ranking) noexcept nogil:
    free(ranking.holders)
    free(ranking.lines)


cdef bint open_places(AccountCore* account, size_t capacity, uint32_t slots) noexcept nogil:
    """False: there is no memory. close_places frees what was allocated."""
    account.capacity = capacity
    account.slots = slots
    account.entries = <AccountEntry*>calloc(max(capacity, <size_t>1), sizeof(AccountEntry))
    return (
        account.entries != NULL
        and open_ranking(&account.rankings[WAITING], slots, K_SILENT, K_LINGER - K_SILENT + 1)
        and open_ranking(&account.rankings[SESSIONS], slots, K_SILENT_SESSION, KIND_COUNT - K_SILENT_SESSION)
    )


cdef void close_places(AccountCore* account) noexcept nogil:
    free(account.entries)
    close_ranking(&account.rankings[WAITING])
    close_ranking(&account.rankings[SESSIONS])
