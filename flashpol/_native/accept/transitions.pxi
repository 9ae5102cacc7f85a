# The states of a connection, what each of them means, and the one function that changes them.
#
#   FRESH ── request ──────────────────► reply ──► closed, or LINGER if input is unread or may still come
#     │                                    │  (from FRESH: REPLIED until the batch ends)
#     │                                    │ └── the kernel took a part ──► SLOW_REPLY ── rest sent ──► LINGER
#     │ nothing, or a part of a request    │
#     ▼                                    │
#   REQUEST ── the rest of it ────────────►│
#     │ │ └── its 22 bytes ──► GRACE ─────►┘ terminator, FIN or deadline
#     │ └── other protocol ──► refused ──► closed, or LINGER after a reply to HTTP
#     └── FIN, RST or deadline ──► closed
#
#   LINGER ── FIN, RST, linger_bytes or deadline ──► closed, if the client has acknowledged the reply
#     └── FIN or deadline ──► UNREAD ── acknowledged, or nothing more of it for reply_timeout ──► closed
#
# On a shared port silence and input that is not a policy request lead to the relay, if it relays that protocol:
#
#   FRESH ── nothing, or a part of a request ──► FIRST_BYTE ── deadline, after a part ──► REQUEST
#     │                                            └── deadline, after nothing ──► SESSION
#     └── a prefix of several protocols ──► PREFIX ── more bytes, FIN or deadline ──► SESSION
#
# On a listener with TLS, first bytes that begin TLS lead to the handshake. It is one deadline for all of its states.
#
#   any of the above ──► HELLO ── the first record ──► QUEUED ── its turn ──► HANDSHAKE ── bytes ──► QUEUED …
#                                                         └── complete ──► REQUEST or FIRST_BYTE, of what is inside TLS
#
# Where the gateway takes HTTP, a request leads to a hook of Python, which replies or makes it a session:
#
#   any of the above, or what is inside TLS ──► HEAD ── complete ──► DECISION ──► SESSION, or a reply, then LINGER
#
# RTMPT has many requests on a connection, each a POST with a body. One that opens a session goes to a hook, the others
# to the sessions:
#
#   HEAD ── the head ──► BODY ── complete ──► EXCHANGE ── the reply ──► KEEP ── the next request ──► HEAD …
#                                              └── more input ──► BEHIND  └── it takes a part ──► SENDING ──► KEEP
#
# There another protocol, FIN after a part of a request, and the deadline of REQUEST lead to SESSION too, unless a PROXY
# header is still awaited. A greenlet ends SLOW_REPLY and SESSION. Shutdown and eviction close a connection in any
# state.
#
# FREE is a record without a connection. FRESH and REPLIED last from accept4 to the end of the same batch. A deadline is
# set when a state is entered, and input of the client never moves it.

from libc.stdint cimport uint8_t

from flashpol._native.accept.state cimport (
    Core, G_NONE, G_PARKED, G_SESSIONS, G_SLOW_REPLIES, Listener, Q_FIRST_BYTE, Q_GRACE, Q_HANDSHAKE, Q_KEEP,
    Q_LINGER, Q_NONE, Q_REQUEST, Q_UNREAD, Queue, Record, S_BEHIND, S_BODY, S_DECISION, S_EXCHANGE,
    S_FIRST_BYTE, S_FREE, S_FRESH, S_GRACE, S_HANDSHAKE, S_HEAD, S_HELLO, S_KEEP, S_LINGER, S_PREFIX, S_QUEUED,
    S_REPLIED, S_REQUEST, S_SENDING, S_SESSION, S_SLOW_REPLY, S_UNREAD, StateRow, W_INPUT, W_NONE, W_OUTPUT,
)
from flashpol._native.account.places cimport K_HANDSHAKE, K_LINGER, K_NONE, K_QUEUED, K_WAITING
from flashpol._native.common.system cimport (
    epoll_ctl, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, epoll_event, EPOLLIN, EPOLLOUT,
)


cdef void init_states(StateRow* states) noexcept nogil:
    """Fill in the table. invariants.pxi compares every record with it. `enter` relies on the first three rows."""
    #                     state         deadline queue  watched   gauge           gives way as
    set_state_row(states, S_FREE,       Q_NONE,         W_NONE,   G_NONE,         K_NONE)
    set_state_row(states, S_FRESH,      Q_NONE,         W_NONE,   G_NONE,         K_NONE)
    set_state_row(states, S_REPLIED,    Q_NONE,         W_NONE,   G_NONE,         K_NONE)
    set_state_row(states, S_REQUEST,    Q_REQUEST,      W_INPUT,  G_PARKED,       K_WAITING)
    set_state_row(states, S_FIRST_BYTE, Q_FIRST_BYTE,   W_INPUT,  G_PARKED,       K_WAITING)
    set_state_row(states, S_PREFIX,     Q_GRACE,        W_INPUT,  G_PARKED,       K_WAITING)
    set_state_row(states, S_GRACE,      Q_GRACE,        W_INPUT,  G_PARKED,       K_WAITING)
    set_state_row(states, S_HELLO,      Q_HANDSHAKE,    W_INPUT,  G_PARKED,       K_WAITING)
    set_state_row(states, S_QUEUED,     Q_HANDSHAKE,    W_NONE,   G_PARKED,       K_QUEUED)
    set_state_row(states, S_HANDSHAKE,  Q_HANDSHAKE,    W_INPUT,  G_PARKED,       K_WAITING)
    set_state_row(states, S_HEAD,       Q_REQUEST,      W_INPUT,  G_PARKED,       K_WAITING)
    set_state_row(states, S_DECISION,   Q_NONE,         W_NONE,   G_PARKED,       K_NONE)
    set_state_row(states, S_BODY,       Q_REQUEST,      W_INPUT,  G_PARKED,       K_WAITING)
    set_state_row(states, S_EXCHANGE,   Q_NONE,         W_INPUT,  G_PARKED,       K_WAITING)
    set_state_row(states, S_BEHIND,     Q_NONE,         W_NONE,   G_PARKED,       K_WAITING)
    set_state_row(states, S_SENDING,    Q_KEEP,         W_OUTPUT, G_PARKED,       K_WAITING)
    set_state_row(states, S_KEEP,       Q_KEEP,         W_INPUT,  G_PARKED,       K_WAITING)
    set_state_row(states, S_LINGER,     Q_LINGER,       W_INPUT,  G_PARKED,       K_LINGER)
    set_state_row(states, S_UNREAD,     Q_UNREAD,       W_NONE,   G_PARKED,       K_LINGER)
    set_state_row(states, S_SLOW_REPLY, Q_NONE,         W_NONE,   G_SLOW_REPLIES, K_NONE)
    set_state_row(states, S_SESSION,    Q_NONE,         W_NONE,   G_SESSIONS,     K_NONE)


cdef void set_state_row(
    StateRow* states, int state, uint8_t queue, uint8_t watched, uint8_t gauge, uint8_t kind,
) noexcept nogil:
    states[state] = StateRow(queue, watched, gauge, kind)


cdef inline Queue* queue_of(const Core* core, const Record* record, uint8_t queue) noexcept nogil:
    return &core.queues[core.listeners[record.listener].queues + queue]


cdef inline void enter(Core* core, int fd, uint8_t state) noexcept nogil:
    """Change the state of a record: its deadline, its place in the epoll set and its gauges follow from the table.

    A request that is complete at accept goes from FREE to FRESH, in a long batch to REPLIED, and back to FREE. None of
    them has a deadline, a watch or a gauge, so `enter` costs such a reply two or three comparisons.
    """
    cdef Record* record = &core.records[fd]
    if state > S_REPLIED or record.state > S_REPLIED:
        change_row(core, fd, record.state, state)
    if state == S_FRESH:
        core.listeners[record.listener].counters.open += 1
    elif state == S_FREE:
        core.listeners[record.listener].counters.open -= 1
    record.state = state


cdef inline uint8_t kind_of(const Record* record, const StateRow* row) noexcept nogil:
    """How a connection gives way in a state."""
    return <uint8_t>K_HANDSHAKE if record.has_place and row.kind in (K_WAITING, K_QUEUED) else row.kind


cdef void change_row(Core* core, int fd, uint8_t old_state, uint8_t state) noexcept nogil:
    cdef Record* record = &core.records[fd]
    cdef Listener* listener = core.listeners[record.listener]
    cdef const StateRow* old = &core.states[old_state]
    cdef const StateRow* new = &core.states[state]
    # One deadline is for all states of a handshake; a state that is entered again has another.
    if old.queue != new.queue or old_state == state:
        if old.queue != Q_NONE:
            dequeue(queue_of(core, record, old.queue), &record.link)
        if new.queue != Q_NONE:
            enqueue(queue_of(core, record, new.queue), &record.link, fd, now_ns())
    if old.gauge != G_NONE:
        listener.counters.by_state[old.gauge] -= 1
        if old.gauge != G_PARKED:
            give_back_place(core, listener, fd, old.gauge)
    if new.gauge != G_NONE:
        listener.counters.by_state[new.gauge] += 1
        if new.gauge != G_PARKED:
            take_place(core, listener, fd, new.gauge)
    if new.watched != record.watched:
        watch(core, fd, new.watched)
    set_kind(core.account, fd, record.slot, kind_of(record, new))


# The places that do not give way have shares: a session and a slow reply take from them, and give back.

cdef void take_place(Core* core, Listener* listener, int fd, uint8_t gauge) noexcept nogil:
    cdef uint32_t slot = core.records[fd].slot
    if gauge == G_SLOW_REPLIES:
        take(&core.account.slow_replies, &listener.slow_replies)
        if slot != 0:
            slot_at(core.address_table, slot).slow_replies += 1
        return
    take(&core.account.sessions, &listener.sessions)
    if core.address_table != NULL and not become_session(core.address_table, slot):
        core.records[fd].slot = 0
        listener.counters.untracked += 1


cdef void give_back_place(Core* core, Listener* listener, int fd, uint8_t gauge) noexcept nogil:
    if gauge == G_SLOW_REPLIES:
        give_back(&core.account.slow_replies, &listener.slow_replies)
        if core.records[fd].slot != 0:
            slot_at(core.address_table, core.records[fd].slot).slow_replies -= 1
    elif not core.account.entries[fd].leaving:          # else `evict_session` has given it back
        give_back(&core.account.sessions, &listener.sessions)


cdef void watch(Core* core, int fd, uint8_t watched) noexcept nogil:
    """Put a descriptor into the epoll set, for input or output, or take it out."""
    cdef Record* record = &core.records[fd]
    cdef epoll_event event
    if watched != W_NONE:
        event.events = EPOLLIN if watched == W_INPUT else EPOLLOUT
        event.data.fd = fd
        if epoll_ctl(core.poller.epoll, EPOLL_CTL_MOD if record.watched else EPOLL_CTL_ADD, fd, &event) != 0:
            # The kernel cannot watch it (max_user_watches, ENOMEM): only the deadline ends this state.
            core.listeners[record.listener].counters.accept_errors += 1
            return
    else:
        # close() would take it out too, unless a fork of the embedding program has a copy of the descriptor: then the
        # set would report it again and again.
        epoll_ctl(core.poller.epoll, EPOLL_CTL_DEL, fd, NULL)
    record.watched = watched
