# Which connection gives way, and what the relay says of silent sessions.

from libc.stdint cimport int32_t, uint8_t, uint32_t

from flashpol._native.account.places cimport (
    AccountCore, AccountEntry, ALL, K_LINGER, K_NONE, K_SILENT_SESSION, K_UNANSWERED_SESSION, MAX_LOOKED_AT, Ranking,
    SessionEntry, SessionLines,
)


cdef inline int heaviest_connection(const AccountCore* account) noexcept nogil:
    """The connection that gives way first of all, -1 if none can.

    While as many sessions are leaving as may, others are considered, of the heaviest address that has some.
    """
    cdef const Ranking* ranking = &account.rankings[ALL]
    cdef uint8_t last_kind = K_UNANSWERED_SESSION if account.leaving < account.max_leaving else K_LINGER
    cdef int32_t holder = heaviest(ranking)
    cdef int fd
    for _ in range(MAX_LOOKED_AT):
        if holder < 0:
            return -1
        fd = first_of(account, <uint32_t>holder, last_kind)
        if fd >= 0:
            return fd
        holder = next_heaviest(ranking, holder)
    return -1


cdef inline bint has_files(const AccountCore* account) noexcept nogil:
    """Whether a descriptor is free for one more connection. Sessions have theirs for the upstream from the beginning,
    and those that are leaving still have the client's."""
    return account.max_files == 0 or account.held + account.leaving + account.sessions.used < account.max_files


cdef inline bint exceeds_files(const AccountCore* account) noexcept nogil:
    """Whether a connection has to give way for a session that has just begun: it took its second descriptor."""
    return account.max_files != 0 and account.held + account.leaving + account.sessions.used > account.max_files


cdef inline void forget_silence(AccountCore* account, int fd) noexcept nogil:
    """The session is silent no more, or has ended."""
    cdef SessionEntry* entry = &account.session_entries[fd]
    if entry.silent != NULL:
        entry.silent[0] -= 1
        entry.silent = NULL


cdef inline void begin_place_of_session(
    AccountCore* account, int fd, SessionLines* lines, int32_t* count, bint finished,
) noexcept nogil:
    """A session begins, of the listener with these lines. count: of its silent sessions, if this is one; else NULL.
    finished: the client has sent its FIN. Such a session counts as silent until the upstream speaks."""
    account.session_entries[fd].lines = lines
    account.entries[fd].finished = finished
    account.session_entries[fd].silent = count
    if count != NULL:
        count[0] += 1


cdef inline void forget_session(AccountCore* account, int fd) noexcept nogil:
    """A session's connection is closed."""
    forget_silence(account, fd)
    account.session_entries[fd].lines = NULL
    account.leaving -= account.entries[fd].leaving
    account.entries[fd].leaving = False


cdef inline void update_session(AccountCore* account, int fd, bint client_spoke, bint upstream_spoke) noexcept nogil:
    """The session of this client's descriptor is connected, or one side has sent its first byte. The relay says so.

    A session that is not connected yet does not give way: it has no socket that could be closed at once.
    """
    cdef AccountEntry* entry = &account.entries[fd]
    if entry.leaving:
        return
    if not client_spoke or (entry.finished and not upstream_spoke):
        set_kind(account, fd, entry.slot, K_SILENT_SESSION)
        return
    forget_silence(account, fd)
    set_kind(account, fd, entry.slot, K_NONE if upstream_spoke else K_UNANSWERED_SESSION)
