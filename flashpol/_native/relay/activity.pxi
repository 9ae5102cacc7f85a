# What is known of a session's sides: who has spoken, and which session a client's descriptor belongs to.
#
# A client whose first bytes the fast path had read has spoken before its session opens. The account of places learns
# when a session opens, and from then on when a side sends its first byte.

from libc.stdint cimport int32_t
from libc.stdlib cimport realloc
from libc.string cimport memset

from flashpol._native.relay.counters cimport E_EVICTED
from flashpol._native.relay.state cimport CLIENT, Core, Q_SILENT, S_OPEN, Session, UPSTREAM


cdef inline void on_opened(Core* core, Session* session) noexcept nogil:
    """The upstream has accepted the session."""
    tell_account(core, session)


cdef inline void tell_account(Core* core, const Session* session) noexcept nogil:
    if core.account != NULL and session.state == S_OPEN:
        update_session(
            core.account, session.flows[CLIENT].fd, session.flows[CLIENT].spoke, session.flows[UPSTREAM].spoke
        )


# -------------------------------------------------------------------------------------------------------------- silence

cdef inline void on_spoke(Core* core, Session* session, int side) noexcept nogil:
    """The first byte of this side was read."""
    session.flows[side].spoke = True
    stop_deadline(core, <int32_t>(session - core.table), Q_SILENT)
    tell_account(core, session)


cdef inline bint is_silent(const Session* session) noexcept nogil:
    """Neither side has sent a byte, and the session ends at the deadline in Q_SILENT."""
    return not (session.flows[0].spoke or session.flows[1].spoke)


# -------------------------------------------------------------------------------------------- sessions by descriptor

cdef inline bint index_client(Core* core, int fd, int32_t i) noexcept nogil:
    """Session `i` is that of the client `fd`. False: there is no memory."""
    cdef int32_t* larger
    cdef int32_t size
    if fd >= core.clients_size:
        size = max(1024, core.clients_size)
        while size <= fd:
            size *= 2
        larger = <int32_t*>realloc(core.clients, <size_t>size * sizeof(int32_t))
        if larger == NULL:
            return False
        memset(larger + core.clients_size, 0xFF, <size_t>(size - core.clients_size) * sizeof(int32_t))
        core.clients = larger
        core.clients_size = size
    core.clients[fd] = i
    return True


cdef inline void forget_client(Core* core, int fd, int32_t i) noexcept nogil:
    if core.clients[fd] == i:
        core.clients[fd] = -1


cdef inline int32_t session_of(const Core* core, int fd) noexcept nogil:
    """The session of the client `fd`, connecting or open; -1 if it has none."""
    return core.clients[fd] if 0 <= fd < core.clients_size else -1


cdef inline bint cut_by_client(Core* core, int fd) noexcept nogil:
    """Evict the open session of the client `fd`. False: it has none.

    The greenlet, which closes the client, wakes in the next dispatch; that is due at once.
    """
    cdef int32_t i = session_of(core, fd)
    if i < 0 or core.table[i].state != S_OPEN:
        return False
    core.now = now_ns()
    end_session(core, i, E_EVICTED)
    fire_timer(&core.poller)
    return True


cdef void end_session_of(void* core, int fd) noexcept nogil:
    """AccountCore.end_session: what the account calls to evict a session."""
    cut_by_client(<Core*>core, fd)
