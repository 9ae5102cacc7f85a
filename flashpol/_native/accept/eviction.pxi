# Making room at a limit: the connection that the account chooses gives way.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from flashpol._native.accept.address_limits cimport AddressTable
from flashpol._native.accept.state cimport (
    BATCH, Core, Listener, R_MAX_ADDRESS_CONNECTIONS, R_MAX_ADDRESS_SESSIONS, R_MAX_SESSIONS, R_NONE, Reason, S_FREE,
)
from flashpol._native.account.places cimport (
    AccountCore, K_GRACE, K_LINGER, K_NONE, K_SILENT_SESSION, K_UNANSWERED_SESSION, MAX_LOOKED_AT, Ranking, SESSIONS,
    WAITING, WEIGHT_CLASSES,
)

cdef enum:
    MAX_EVICTIONS = 64          # connections that one new connection may make give way, most of which get a reply
    # Of all places, for a limit in total. The rest is for policy requests, which need a place for microseconds.
    SESSIONS_SHARE = 4          # sessions leave a quarter
    SLOW_REPLIES_SHARE = 8      # slow replies take an eighth


cdef bint evict_session(Core* core, int fd) noexcept nogil:
    """End a session that gives way. Its place is free from now on, its descriptor once its greenlet has closed it.

    False: too many are ending already.
    """
    cdef AccountCore* account = core.account
    cdef Listener* listener = core.listeners[core.records[fd].listener]
    if account.leaving >= account.max_leaving or account.end_session == NULL:
        return False
    forget_silence(account, fd)
    set_kind(account, fd, account.entries[fd].slot, K_NONE)
    account.entries[fd].leaving = True
    account.leaving += 1
    give_back(&account.sessions, &listener.sessions)
    if core.address_table != NULL:
        core.address_table.own.sessions -= 1
        core.address_table.own.held -= 1
    account.end_session(account.relay, fd)
    return True


cdef bint give_way(Core* core, int fd, Reason reason) noexcept nogil:
    """Evict a connection. True: its place is free. False: it got its reply, or has spoken, and gives way later or not.

    A connection whose request has arrived meanwhile gets its reply instead of being refused for `reason`, and so does
    one that lacks only the terminator.
    """
    cdef uint8_t kind = core.account.entries[fd].kind
    if kind >= K_SILENT_SESSION:
        return evict_session(core, fd)
    if kind == K_LINGER:
        close_connection(core, fd)
    elif kind == K_GRACE:
        reply(core, fd, False)
    else:
        on_readable(core, fd)
        if core.records[fd].state != S_FREE and core.account.entries[fd].kind == kind:
            refuse(core, fd, reason)
    return core.records[fd].state == S_FREE


cdef bint make_room(Core* core, Reason reason) noexcept nogil:
    """Evict one connection, of the heaviest address. False: none gives way."""
    cdef int fd
    for _ in range(MAX_EVICTIONS):
        fd = heaviest_connection(core.account)
        if fd < 0:
            return False
        if give_way(core, fd, reason):
            return True
    return False


cdef Reason make_room_of_address(Core* core, uint32_t* slot) noexcept nogil:
    """Evict a waiting connection of an address that is at max_address_connections, and count the new one.

    R_NONE: it is admitted. Otherwise it is refused, and `slot` becomes 0.
    """
    cdef int fd
    for _ in range(MAX_EVICTIONS):
        fd = first_of(&core.account.rankings[WAITING], slot[0])
        if fd < 0:
            break
        if give_way(core, fd, R_MAX_ADDRESS_CONNECTIONS):
            count_connection(slot_at(core.address_table, slot[0]), now_ns())
            return R_NONE
    slot[0] = 0
    return R_MAX_ADDRESS_CONNECTIONS


cdef bint has_place(const Core* core) noexcept nogil:
    """Whether max_connections and max_worker_connections allow one more connection."""
    cdef const AddressTable* table = core.address_table
    cdef int64_t held = table.own.held
    if table.max_worker_connections != 0 and held >= table.max_worker_connections:
        return False
    if table.max_connections == 0 or held + table.others_held < table.max_connections:
        return True
    # Those of the other workers do not give way here. A worker that has next to none of its own admits a few.
    return held - table.own.sessions - table.own.slow_replies < min(<int64_t>BATCH, table.max_connections // 8) and (
        core.account.rankings[WAITING].total == 0 and core.account.rankings[SESSIONS].total == 0)


# ----------------------------------------------------------------------------------------- places that do not give way

cdef void share_out(Core* core) noexcept nogil:
    """Give each listener its reserve of sessions and of slow replies: half of all, divided equally.

    Only shared ports have sessions. Called for each new listener, before the first connection is accepted.
    """
    cdef AccountCore* account = core.account
    cdef int i, shared = 0
    for i in range(core.listener_count):
        shared += core.listeners[i].shared
    for i in range(core.listener_count):
        set_reserve(&account.slow_replies, &core.listeners[i].slow_replies,
                    account.slow_replies.limit // (2 * core.listener_count))
        if core.listeners[i].shared:
            set_reserve(&account.sessions, &core.listeners[i].sessions, account.sessions.limit // (2 * shared))


cdef bint may_replace(const Core* core, int fd, const Listener* listener) noexcept nogil:
    """Whether the end of this session gives `listener` a place, or any listener if it is NULL."""
    cdef const Listener* owner = core.listeners[core.records[fd].listener]
    return listener == NULL or owner == listener or owner.sessions.used > owner.sessions.reserve


cdef bint make_room_for_session(Core* core, const Listener* listener, uint8_t last_kind) noexcept nogil:
    """Evict a session up to `last_kind` in the order of the kinds, of the heaviest address. False: none gives way.

    The place is one that `listener` may take then, or any if it is NULL.
    """
    cdef const Ranking* ranking = &core.account.rankings[SESSIONS]
    cdef int bucket, looked_at = 0
    cdef uint8_t kind
    cdef int32_t slot, at
    for bucket in range(WEIGHT_CLASSES - 1, 0, -1):
        if (ranking.occupied >> bucket) & 1 == 0:
            continue
        slot = ranking.first[bucket]
        while slot >= 0:
            for kind in range(<uint8_t>K_SILENT_SESSION, <uint8_t>(last_kind + 1)):
                at = line_of(ranking, <uint32_t>slot, kind).head
                while at != 0:
                    if may_replace(core, at - 1, listener):
                        return evict_session(core, at - 1)
                    looked_at += 1
                    if looked_at == MAX_LOOKED_AT:
                        return False
                    at = core.account.entries[at - 1].after
            slot = ranking.holders[slot].after
    return False


cdef bint sessions_fill_total(const AddressTable* table) noexcept nogil:
    cdef int64_t total
    if table == NULL or table.max_connections == 0:
        return False
    total = table.own.sessions + table.others_sessions
    return total >= max(<int64_t>1, table.max_connections - table.max_connections // SESSIONS_SHARE)


cdef Reason judge_session(Core* core, int fd, bint silent) noexcept nogil:
    """Why a connection is not relayed, or R_NONE."""
    cdef Listener* listener = core.listeners[core.records[fd].listener]
    cdef AccountCore* account = core.account
    if core.address_table != NULL and session_exceeds(core.address_table, core.records[fd].slot):
        return R_MAX_ADDRESS_SESSIONS
    if silent and account.silent_sessions >= account.max_silent_sessions and (
            not make_room_for_session(core, NULL, K_SILENT_SESSION)):
        return R_MAX_SESSIONS
    if sessions_fill_total(core.address_table) and not make_room_for_session(core, NULL, K_UNANSWERED_SESSION):
        return R_MAX_SESSIONS
    if not has_room(&account.sessions, &listener.sessions) and (
            not make_room_for_session(core, listener, K_UNANSWERED_SESSION)):
        return R_MAX_SESSIONS
    return R_NONE


cdef bint may_reply_slowly(const Core* core, int fd) noexcept nogil:
    cdef const Listener* listener = core.listeners[core.records[fd].listener]
    cdef const AddressTable* table = core.address_table
    if table != NULL and table.max_connections != 0 and (
            table.own.slow_replies + table.others_slow_replies
            >= max(<int64_t>1, table.max_connections // SLOW_REPLIES_SHARE)):
        return False
    return has_room(&core.account.slow_replies, &listener.slow_replies)
