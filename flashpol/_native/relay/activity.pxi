# What is known of a session's sides: who has spoken, and which session a client's descriptor belongs to.
#
# on_opened and on_client_spoke are called at most once for each session. A client whose first bytes the fast path had
# read has spoken before its session opens; otherwise on_client_spoke comes after on_opened, or never.

from libc.stdint cimport int32_t
from libc.stdlib cimport realloc
from libc.string cimport memset

from flashpol._native.relay.counters cimport E_EVICTED
from flashpol._native.relay.state cimport CLIENT, Core, Q_SILENT, S_OPEN, Session


cdef inline void on_opened(Core* core, Session* session) noexcept nogil:
    """The upstream has accepted the session."""
    if core.account != NULL:
        session_opened(core.account, session.flows[CLIENT].fd)


cdef inline void on_client_spoke(Core* core, Session* session) noexcept nogil:
    """The client has sent its first byte: flows[CLIENT].spoke is set."""
    if core.account != NULL:
        client_spoke(core.account, session.flows[CLIENT].fd)


# -------------------------------------------------------------------------------------------------------------- silence

cdef inline void on_spoke(Core* core, Session* session, int side) noexcept nogil:
    """The first byte of this side was read."""
    session.flows[side].spoke = True
    stop_deadline(core, <int32_t>(session - core.table), Q_SILENT)
    if side == CLIENT:
        on_client_spoke(core, session)


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
