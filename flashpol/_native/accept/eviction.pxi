# Making room at a limit: the connection that the account chooses gives way.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t

from flashpol._native.accept.address_limits cimport AddressTable, Slot
from flashpol._native.accept.state cimport (
    BATCH, Core, Listener, R_CAPACITY, R_MAX_ADDRESS_CONNECTIONS, R_MAX_ADDRESS_SESSIONS,
    R_MAX_SESSIONS, R_NONE, Reason, S_FREE, S_GRACE, S_LINGER, S_UNREAD,
)
from flashpol._native.account.places cimport (
    AccountCore, ALL, K_HANDSHAKE, K_LINGER, K_NONE, K_SILENT_SESSION, K_UNANSWERED_SESSION, K_WAITING,
    MAX_LOOKED_AT, Ranking, SESSIONS, WEIGHT_CLASSES,
)
from flashpol._native.codecs.codec cimport HF_CAPACITY
from flashpol._native.common.share cimport Member, Share

cdef enum:
    # Connections that one new connection may make give way. Most often it is one. Those that get their reply instead
    # linger, and do so only once.
    MAX_EVICTIONS = 4096
    ADDRESS_SHARE = 4           # an address may have so many times the places of a share that are still free


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
        core.address_table.own.held -= 1
    account.held -= 1
    account.end_session(account.relay, fd)
    return True


cdef bint give_way(Core* core, int fd, Reason reason) noexcept nogil:
    """Evict a connection. True: its place is free. False: it got its reply, or has spoken, and gives way later or not.

    A connection whose request has arrived meanwhile gets its reply instead of being refused for `reason`, and so does
    one that lacks only the terminator.
    Its place among the handshakes is free then.
    """
    cdef uint8_t kind = core.account.entries[fd].kind
    if kind >= K_SILENT_SESSION:
        return evict_session(core, fd)
    if kind == K_LINGER:
        if core.records[fd].state == S_UNREAD and unacknowledged(fd):
            close_with_reset(fd)
        close_connection(core, fd)
        return True
    if core.records[fd].has_codec and in_handshake(&core.records[fd]):
        codec_of(core, fd).failure = HF_CAPACITY
        refuse(core, fd, reason)
        return True
    if core.records[fd].state != S_GRACE:
        on_readable(core, fd)
    kind = core.account.entries[fd].kind
    if K_WAITING <= kind <= K_HANDSHAKE:
        if core.records[fd].state == S_GRACE:
            reply(core, fd, False)
        else:
            refuse(core, fd, reason)
    return core.records[fd].state == S_FREE


cdef int lingering_instead(Core* core, int fd, uint32_t slot) noexcept nogil:
    """The connection that gives way after `fd`, of the address at `slot`, got its reply and lingers; -1: the oldest.

    It lingers as the last of its address to give way. If the next ones got their replies too, until one of them frees a
    place, a session that began after them would soon be the oldest. So the one that has lingered longest is closed.
    """
    cdef AccountCore* account = core.account
    cdef uint32_t holder = holder_of(account, slot)
    cdef int first, lingering
    if account.entries[fd].kind != K_LINGER or account.entries[fd].slot != slot:
        return -1
    first = first_of(account, holder, K_UNANSWERED_SESSION)
    lingering = line_of(account, holder, K_LINGER).head - 1
    if lingering == fd or not (core.records[first].state == S_GRACE or account.entries[first].kind >= K_SILENT_SESSION):
        return -1
    return lingering


cdef bint make_room(Core* core, Reason reason) noexcept nogil:
    """Evict one connection, of the heaviest address. False: none gives way."""
    cdef AccountCore* account = core.account
    cdef int fd, lingering
    cdef uint32_t slot
    for _ in range(MAX_EVICTIONS):
        fd = heaviest_connection(account)
        if fd < 0:
            return False
        slot = account.entries[fd].slot
        if give_way(core, fd, reason):
            return True
        lingering = lingering_instead(core, fd, slot)
        if lingering >= 0 and give_way(core, lingering, reason):
            return True
    return False


cdef Reason make_room_of_address(Core* core, uint32_t* slot) noexcept nogil:
    """Evict a waiting connection of an address that is at max_address_connections, and count the new one.

    R_NONE: it is admitted. Otherwise it is refused, and `slot` becomes 0. A reply that may still be on its way counts:
    if it were evicted, the kernel would have it, and the address one place more.
    """
    cdef Slot* own = slot_at(core.address_table, slot[0])
    cdef uint16_t open = own.open
    cdef int fd
    for _ in range(MAX_EVICTIONS):
        fd = first_of(core.account, holder_of(core.account, slot[0]), K_LINGER)
        if fd >= 0 and core.records[fd].state == S_LINGER and unacknowledged(fd):
            fd = first_of(core.account, holder_of(core.account, slot[0]), K_HANDSHAKE)
        if fd < 0:
            break
        # One that has become a session counts for max_address_connections no more.
        if give_way(core, fd, R_MAX_ADDRESS_CONNECTIONS) or own.open < open:
            count_connection(own, now_ns())
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
    return core.account.rankings[ALL].total == 0 and (
        held - core.account.sessions.used - core.account.slow_replies.used
        < min(<int64_t>BATCH, table.max_connections // 8))


# ----------------------------------------------------------------------------------------- places that do not give way

cdef inline bint has_handshakes(const Listener* listener) noexcept nogil:
    return listener.factory != NULL or listener.http


cdef void share_out(Core* core) noexcept nogil:
    """Give each listener its reserve of sessions, slow replies and handshakes: half of all, divided equally.

    Only shared ports and WebSocket paths have sessions, and only listeners with TLS or HTTP have handshakes. Called for
    each new listener, before the first connection is accepted.
    """
    cdef AccountCore* account = core.account
    cdef int i, relaying = 0, secured = 0
    for i in range(core.listener_count):
        relaying += core.listeners[i].has_sessions
        secured += has_handshakes(core.listeners[i])
    for i in range(core.listener_count):
        set_reserve(&account.slow_replies, &core.listeners[i].slow_replies,
                    account.slow_replies.limit // (2 * core.listener_count))
        if core.listeners[i].has_sessions:
            set_reserve(&account.sessions, &core.listeners[i].sessions, account.sessions.limit // (2 * relaying))
        if has_handshakes(core.listeners[i]):
            set_reserve(
                &account.handshakes, &core.listeners[i].handshakes, account.handshakes.limit // (2 * secured))


cdef int64_t max_silent(const AccountCore* account, const Listener* listener) noexcept nogil:
    """Half of the sessions that a listener can have."""
    cdef int64_t most = account.sessions.limit - account.sessions.reserved + listener.sessions.reserve
    return most - most // 2


cdef bint may_replace(const Core* core, int fd, const Listener* listener, bint own) noexcept nogil:
    """Whether the end of this session gives `listener` a place. own: only if it is its own."""
    cdef const Listener* owner = core.listeners[core.records[fd].listener]
    return owner == listener or (not own and owner.sessions.used > owner.sessions.reserve)


cdef int64_t sessions_of(const Core* core, uint32_t number) noexcept nogil:
    return slot_at(core.address_table, number).sessions if number != 0 else 0


cdef int first_session(const Listener* listener, uint8_t last_kind) noexcept nogil:
    """The session of a listener that gives way first, of the kinds up to `last_kind`; -1 if there is none."""
    cdef int kind
    for kind in range(<int>last_kind - <int>K_SILENT_SESSION + 1):
        if listener.session_lines.head[kind] != 0:
            return listener.session_lines.head[kind] - 1
    return -1


cdef bint make_room_of_listener(
    Core* core, const Listener* listener, uint8_t last_kind, bint own, int64_t least,
) noexcept nogil:
    """The same as make_room_for_session, of whatever address."""
    cdef int i, fd = first_session(listener, last_kind)
    if not own:
        for i in range(core.listener_count):
            if fd >= 0:
                break
            if core.listeners[i].sessions.used > core.listeners[i].sessions.reserve:
                fd = first_session(core.listeners[i], last_kind)
    return fd >= 0 and sessions_of(core, core.records[fd].slot) >= least and evict_session(core, fd)


cdef bint make_room_for_session(
    Core* core, const Listener* listener, uint8_t last_kind, bint own, int64_t least,
) noexcept nogil:
    """Evict a session up to `last_kind` in the order of the kinds, of the heaviest address. False: none gives way.

    The place is one that `listener` may take then. own: it is one of its own sessions. least: its address has at least
    so many sessions. Sessions of another listener within its reserve do not help, nor those of lighter addresses: after
    MAX_LOOKED_AT of them it is not the heaviest.
    """
    cdef const Ranking* ranking = &core.account.rankings[SESSIONS]
    cdef int bucket, looked_at = 0
    cdef uint8_t kind
    cdef int32_t holder, at
    for bucket in range(WEIGHT_CLASSES - 1, 0, -1):
        if (ranking.occupied >> bucket) & 1 == 0:
            continue
        holder = ranking.first[bucket]
        while holder >= 0:
            if sessions_of(core, core.account.slot_of_holder[holder]) < least:
                looked_at += 1
            else:
                for kind in range(<uint8_t>K_SILENT_SESSION, <uint8_t>(last_kind + 1)):
                    at = line_of(core.account, <uint32_t>holder, kind).head
                    while at != 0 and looked_at < MAX_LOOKED_AT:
                        if may_replace(core, at - 1, listener, own):
                            return evict_session(core, at - 1)
                        looked_at += 1
                        at = core.account.entries[at - 1].after
            if looked_at >= MAX_LOOKED_AT:
                return make_room_of_listener(core, listener, last_kind, own, least)
            holder = ranking.holders[holder].after
    return False


cdef int64_t free_places(const Share* share, const Member* member) noexcept nogil:
    """Places of a share that a member may still take."""
    return share.limit - share.reserved - share.common_used + max(0, member.reserve - member.used)


# An address may take one more place of a share while it has at most ADDRESS_SHARE times as many as are free: four
# fifths of all if it is alone. So however many addresses take all they can, newcomers of others find places. This is
# the dynamic threshold of Choudhury and Hahne (1998), for the queues of a switch.

cdef bint exceeds_free_sessions(const Core* core, const Listener* listener, uint32_t number) noexcept nogil:
    """Whether it may not take one more session that uses up a free place.

    It may replace one that gives way, of an address that is not much lighter.
    """
    cdef const Slot* slot
    if number == 0:
        return False
    slot = slot_at(core.address_table, number)
    return not slot.exempt and slot.sessions > ADDRESS_SHARE * free_places(&core.account.sessions, &listener.sessions)


cdef bint evict_session_of(Core* core, uint32_t slot, uint8_t last_kind) noexcept nogil:
    """Evict a session of this address, of the kinds up to `last_kind`. False: none of them gives way."""
    cdef uint32_t holder = holder_of(core.account, slot)
    cdef uint8_t kind
    cdef int fd
    for kind in range(<uint8_t>K_SILENT_SESSION, <uint8_t>(last_kind + 1)):
        fd = line_of(core.account, holder, kind).head - 1
        if fd >= 0:
            return evict_session(core, fd)
    return False


cdef bint leaves_files(const AccountCore* account, int64_t more) noexcept nogil:
    """Whether sessions and slow replies may take so many more descriptors: they leave an eighth to policy requests."""
    return account.max_files == 0 or (
        2 * account.sessions.used + account.slow_replies.used + more <= account.max_files - account.max_files // 8)


cdef Reason judge_session(Core* core, int fd, bint silent, bint finished) noexcept nogil:
    """Why a connection is not relayed, or R_NONE.

    silent: its client has sent nothing. finished: it has sent FIN after a part of a request, as all clients of a flood
    do when that ends. Such a session counts as silent, and replaces only silent ones.
    """
    cdef uint32_t slot = core.records[fd].slot
    cdef Listener* listener = core.listeners[core.records[fd].listener]
    cdef AccountCore* account = core.account
    # A session replaces none of an address that is much lighter than its own.
    cdef int64_t least = sessions_of(core, slot) // ADDRESS_SHARE
    cdef uint8_t last_kind = K_SILENT_SESSION if finished else K_UNANSWERED_SESSION
    if core.address_table != NULL:
        if session_exceeds(core.address_table, slot) and not evict_session_of(core, slot, last_kind):
            return R_MAX_ADDRESS_SESSIONS
        if exceeds_free_sessions(core, listener, slot) and not make_room_for_session(
                core, listener, last_kind, False, least):
            return R_MAX_ADDRESS_SESSIONS if has_room(&account.sessions, &listener.sessions) else R_MAX_SESSIONS
    if (silent or finished) and listener.silent_sessions >= max_silent(account, listener) and (
            not make_room_for_session(core, listener, K_SILENT_SESSION, True, least)):
        return R_MAX_SESSIONS
    if not has_room(&account.sessions, &listener.sessions) and (
            not make_room_for_session(core, listener, last_kind, False, least)):
        return R_MAX_SESSIONS
    if not leaves_files(account, 2) and not make_room_for_session(core, listener, last_kind, False, least):
        return R_CAPACITY
    return R_NONE


cdef bint may_reply_slowly(const Core* core, int fd) noexcept nogil:
    cdef const Listener* listener = core.listeners[core.records[fd].listener]
    cdef const Share* share = &core.account.slow_replies
    cdef uint32_t number = core.records[fd].slot
    cdef const Slot* slot
    if not leaves_files(core.account, 1):
        return False
    if number != 0:
        slot = slot_at(core.address_table, number)
        if not slot.exempt and slot.slow_replies > ADDRESS_SHARE * free_places(share, &listener.slow_replies):
            return False
    return has_room(share, &listener.slow_replies)
