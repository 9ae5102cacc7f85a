# Which connection gives way, and what the relay says of silent sessions.

from libc.stdint cimport int32_t, uint32_t

from flashpol._native.account.places cimport (
    AccountCore, AccountEntry, K_NONE, K_SILENT_SESSION, Ranking, SESSIONS, WAITING,
)


cdef inline int heaviest_connection(const AccountCore* account) noexcept nogil:
    """The connection that gives way first of all, -1 if none can."""
    cdef const Ranking* sessions = &account.rankings[SESSIONS]
    cdef const Ranking* waiting = &account.rankings[WAITING]
    cdef int32_t silent = heaviest(sessions) if account.leaving < account.max_leaving else -1
    cdef int32_t slot = heaviest(waiting)
    if silent >= 0 and (slot < 0 or sessions.holders[silent].weight > waiting.holders[slot].weight):
        return first_of(sessions, <uint32_t>silent)
    return first_of(waiting, <uint32_t>slot) if slot >= 0 else -1


cdef inline void forget_silence(AccountCore* account, int fd) noexcept nogil:
    """The session of this client's descriptor is not silent any more, or has ended."""
    cdef AccountEntry* entry = &account.entries[fd]
    if entry.silent:
        entry.silent = False
        account.silent_sessions -= 1
        set_kind(account, fd, entry.slot, K_NONE)


cdef inline void begin_silence(AccountCore* account, int fd, uint32_t slot) noexcept nogil:
    """A session begins in which the client has sent nothing. It gives way once it is connected."""
    account.entries[fd].slot = slot
    account.entries[fd].silent = True
    account.silent_sessions += 1


cdef inline void forget_session(AccountCore* account, int fd) noexcept nogil:
    """A session's connection is closed."""
    forget_silence(account, fd)
    account.leaving -= account.entries[fd].leaving
    account.entries[fd].leaving = False


# The relay calls these two, with the client's descriptor.

cdef inline void session_opened(AccountCore* account, int fd) noexcept nogil:
    """The session is connected to its upstream."""
    if account.entries[fd].silent:
        set_kind(account, fd, account.entries[fd].slot, K_SILENT_SESSION)


cdef inline void client_spoke(AccountCore* account, int fd) noexcept nogil:
    """The client has sent its first byte in the session."""
    forget_silence(account, fd)
