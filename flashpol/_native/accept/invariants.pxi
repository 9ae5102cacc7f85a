# What must hold between two calls. Tests check it: every record there can be is compared with the table of states.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from flashpol._native.accept.state cimport (
    Carrier, Core, G_SESSIONS, G_SLOW_REPLIES, GAUGE_COUNT, Listener, QUEUE_COUNT, Record, S_BEHIND, S_BODY, S_DECISION,
    S_EXCHANGE, S_FREE, S_FRESH, S_HEAD, S_KEEP, S_QUEUED, S_REPLIED, S_SENDING, STATE_COUNT, StateRow, TurnLine,
)
from flashpol._native.account.places cimport (
    AccountEntry, K_NONE, K_SILENT_SESSION, SESSION_KINDS, SessionEntry, SESSIONS,
)
from flashpol._native.codecs.codec cimport Codec, CodecLink
from flashpol._native.common.share cimport Share


cdef const char* find_queue_violation(Core* core, int number, int64_t* length) noexcept nogil:
    """What is wrong with a deadline queue, NULL if nothing. `length` is the number of its records."""
    cdef int fd = core.queues[number].head, before = -1
    cdef int64_t deadline = 0
    cdef Record* record
    length[0] = 0
    while fd >= 0:
        record = &core.records[fd]
        if record.state >= STATE_COUNT or (
                queue_of(core, record, core.states[record.state].queue) != &core.queues[number]):
            return b"a record is in a queue that is not the one of its state"
        if record.link.prev != before or record.link.deadline < deadline:
            return b"a queue is out of order"
        if length[0] > <int64_t>core.capacity:
            return b"a queue is a ring"
        length[0] += 1
        deadline = record.link.deadline
        before = fd
        fd = record.link.next
    if core.queues[number].tail != before:
        return b"a queue does not end at its tail"
    return NULL


cdef const char* find_record_violation(Core* core, const Record* record) noexcept nogil:
    """What is wrong with one record of a connection, NULL if nothing."""
    cdef const StateRow* row
    cdef const AccountEntry* entry = &core.account.entries[record - core.records]
    cdef const SessionEntry* of_session = &core.account.session_entries[record - core.records]
    if record.state >= STATE_COUNT:
        return b"a record has no state"
    if record.state == S_FRESH or record.state == S_REPLIED:
        return b"a connection was accepted and not handled"
    if record.listener >= core.listener_count:
        return b"a record belongs to no listener"
    row = &core.states[record.state]
    if record.has_codec != (core.account.codecs[record - core.records] != NULL) or (
            record.has_place > record.has_codec + record.has_head):
        return b"a codec is not of its connection"
    if record.has_head != (core.heads != NULL and core.heads[record - core.records] != NULL) or (
            record.has_head != (record.state == S_HEAD or record.state == S_BODY)):
        return b"a head is not of its connection"
    if record.has_carrier != (core.carriers != NULL and core.carriers[record - core.records] != NULL):
        return b"a carrier is not of its connection"
    if record.state in (S_BODY, S_EXCHANGE, S_BEHIND, S_SENDING, S_KEEP) and not record.has_carrier:
        return b"a connection that carries nothing is in a state of carriers"
    if record.has_carrier and find_carrier_violation(core, record) != NULL:
        return find_carrier_violation(core, record)
    if record.watched and not row.watched:
        return b"a descriptor is in the epoll set in a state without a watch"
    if row.gauge == G_SESSIONS:
        if entry.kind != K_NONE and entry.kind < K_SILENT_SESSION:
            return b"a session gives way as something else"
    elif entry.kind != kind_of(record, row) or of_session.silent != NULL or entry.leaving:
        return b"a connection does not give way as its state says"
    if entry.kind != K_NONE and entry.slot != record.slot:
        return b"a connection is in the line of another address"
    # The kernel may refuse a watch: `watch` counts that as an accept error.
    if row.watched and not record.watched and core.listeners[record.listener].counters.accept_errors == 0:
        return b"a descriptor is not in the epoll set in a state with a watch"
    return NULL


cdef const char* find_carrier_violation(const Core* core, const Record* record) noexcept nogil:
    """What is wrong with a connection that carries requests of RTMPT, NULL if nothing."""
    cdef int fd = <int>(record - core.records)
    cdef const Carrier* carrier = core.carriers[fd]
    cdef const Codec* codec = core.account.codecs[fd]
    cdef bint sending = carrier.unsent != NULL or (codec != NULL and codec.unsent != NULL)
    if carrier.fd != fd or core.gate == NULL:
        return b"a carrier is another connection's"
    if carrier.waits != (record.state == S_EXCHANGE) and record.state not in (S_DECISION, S_BEHIND):
        return b"a carrier waits in a state without a request"
    if record.state == S_BEHIND and carrier.waits == carrier.resumes:
        return b"what has come behind a request waits for nothing"
    if carrier.resumes and (record.state != S_BEHIND or carrier.rest_size == 0):
        return b"a carrier goes on in the next wake-up, and has nothing"
    if (carrier.body != NULL) != (record.state == S_BODY) or (carrier.body == NULL and carrier.room):
        return b"a carrier has a body in a state without one"
    if carrier.body != NULL and not (
            carrier.have <= carrier.room <= carrier.body_size and carrier.have < carrier.body_size):
        return b"a body has more bytes than room, or is complete"
    if (carrier.rest != NULL) != (carrier.rest_size != 0):
        return b"the rest behind a request has another size than it says"
    if carrier.rest_size and record.state not in (S_DECISION, S_BEHIND, S_SENDING):
        return b"a rest is kept behind no request"
    if sending != (record.state == S_SENDING) or (
            carrier.unsent != NULL and carrier.unsent_begin >= carrier.unsent_end):
        return b"a reply is being sent in another state, or nothing is"
    return NULL


cdef const char* find_resumed_violation(const Core* core) noexcept nogil:
    """Compare the list of carriers that go on in the next wake-up, and the memory of bodies, with the records."""
    cdef const Carrier* carrier = core.resumed
    cdef const Carrier* before = NULL
    cdef int64_t resumed = 0, bytes = 0
    cdef size_t fd
    if core.carriers == NULL:
        return NULL
    if core.serving >= 0:
        return b"a request is being served between two calls"
    for fd in range(core.capacity):
        if core.carriers[fd] != NULL:
            resumed += core.carriers[fd].resumes
            bytes += core.carriers[fd].room
            bytes += core.carriers[fd].unsent_end if core.carriers[fd].unsent != NULL else 0
    if bytes != core.body_bytes:
        return b"the memory of bodies and of replies is not counted"
    while carrier != NULL and resumed >= 0:
        if carrier.before != before or not carrier.resumes:
            return b"the list of carriers that go on is out of order"
        resumed -= 1
        before, carrier = carrier, carrier.after
    if resumed:
        return b"a carrier that goes on is not in the list"
    if core.resumed != NULL and core.poller.timer.armed != 1:
        return b"carriers go on in the next wake-up, and there is none"
    return NULL


cdef const char* find_share_violation(
    const Share* share, int64_t used, int64_t reserved, int64_t common,
) noexcept nogil:
    if share.reserved != reserved or share.common_used != common or share.used != used:
        return b"a share differs from its members"
    if used > share.limit:
        return b"a share is exceeded"
    return NULL


cdef const char* find_own_line_violation(Core* core, const Listener* listener, int64_t* length) noexcept nogil:
    """What is wrong with a listener's lines of sessions, NULL if nothing. Their length is added to `length`."""
    cdef const AccountEntry* entry
    cdef const SessionEntry* of_session
    cdef uint64_t number
    cdef int32_t before, at
    cdef int kind
    for kind in range(<int>SESSION_KINDS):
        number, before, at = 0, 0, listener.session_lines.head[kind]
        while at != 0:
            entry = &core.account.entries[at - 1]
            of_session = &core.account.session_entries[at - 1]
            if of_session.lines != &listener.session_lines or entry.kind != <int>K_SILENT_SESSION + kind:
                return b"a listener's line has a session that is not of it"
            if of_session.before != before or entry.number <= number:
                return b"a listener's line is out of order"
            number, before, at = entry.number, at, of_session.after
            length[0] += 1
        if listener.session_lines.tail[kind] != before:
            return b"a listener's line does not end at its tail"
    return NULL


cdef const char* find_account_violation(Core* core, int64_t live) noexcept nogil:
    """Compare the account with the listeners, their gauges, and the records."""
    cdef int64_t[2] used, reserved, common
    cdef int64_t sessions = 0, slow_replies = 0, in_own_lines = 0
    cdef const Listener* listener
    cdef const char* wrong
    cdef int i
    cdef size_t fd
    cdef int64_t silent
    used[0] = used[1] = reserved[0] = reserved[1] = common[0] = common[1] = 0
    for i in range(core.listener_count):
        listener = core.listeners[i]
        sessions += listener.counters.by_state[<int>G_SESSIONS]
        slow_replies += listener.counters.by_state[<int>G_SLOW_REPLIES]
        used[0] += listener.sessions.used
        reserved[0] += listener.sessions.reserve
        silent = 0
        for fd in range(core.account.capacity):
            silent += core.account.session_entries[fd].silent == &listener.silent_sessions
        if listener.silent_sessions != silent or silent > listener.sessions.used:
            return b"a listener's count of silent sessions is wrong"
        wrong = find_own_line_violation(core, listener, &in_own_lines)
        if wrong != NULL:
            return wrong
        common[0] += max(<int64_t>0, listener.sessions.used - listener.sessions.reserve)
        used[1] += listener.slow_replies.used
        reserved[1] += listener.slow_replies.reserve
        common[1] += max(<int64_t>0, listener.slow_replies.used - listener.slow_replies.reserve)
    if in_own_lines != core.account.rankings[SESSIONS].total:
        return b"a session that gives way is in no line of its listener"
    if used[0] != sessions - core.account.leaving or used[1] != slow_replies:
        return b"a share has other members than connections"
    wrong = find_share_violation(&core.account.sessions, used[0], reserved[0], common[0])
    if wrong == NULL:
        wrong = find_share_violation(&core.account.slow_replies, used[1], reserved[1], common[1])
    if wrong == NULL:
        wrong = find_places_violation(core.account)
    if wrong == NULL and core.account.held != live - core.account.leaving:
        return b"the account holds another number of connections"
    if wrong == NULL and core.address_table != NULL and core.address_table.own.held != live - core.account.leaving:
        return b"the address table holds another number of connections"
    return wrong


cdef const char* find_turn_violation(
    Core* core, const TurnLine* line, int which, const Listener* listener, int64_t* length,
) noexcept nogil:
    """What is wrong with a line of handshakes, NULL if nothing. `length` is the number of its connections.

    which: TURNS or PLACED. listener: of a line of hellos, which have no place yet; else NULL.
    """
    cdef int32_t fd = line.first, before = -1
    cdef int64_t since = 0
    cdef const CodecLink* link
    length[0] = 0
    while fd >= 0:
        if core.account.codecs[fd] == NULL and (which == TURNS or not core.records[fd].has_head):
            return b"a line of handshakes has a connection without a codec"
        link = link_at(core, which, fd)
        if link.before != before or link.since < since:
            return b"a line of handshakes is out of order"
        if which == TURNS and not core.account.codecs[fd].in_turns:
            return b"a handshake is in another line than it says"
        if core.records[fd].has_place != (listener == NULL) or (
                listener != NULL and core.listeners[core.records[fd].listener] != listener):
            return b"a handshake is in the line of others"
        if length[0] > <int64_t>core.capacity:
            return b"a line of handshakes is a ring"
        length[0] += 1
        since = link.since
        before = fd
        fd = link.after
    if line.last != before:
        return b"a line of handshakes does not end at its last"
    return NULL


cdef const char* find_codec_violation(Core* core) noexcept nogil:
    """Compare the codecs with the records, the lines of handshakes, their share, and the gauges."""
    cdef int64_t tls = 0, handshaking = 0, used = 0, reserved = 0, common = 0, length
    cdef int64_t[2] in_line                             # those that have begun, hellos
    cdef const Record* record
    cdef const Listener* listener
    cdef Codec* codec
    cdef const char* wrong
    cdef size_t fd
    cdef int i
    in_line[0] = in_line[1] = 0
    for fd in range(core.capacity):
        record, codec = &core.records[fd], core.account.codecs[fd]
        if codec == NULL:
            if record.state != S_FREE and record.has_place > record.has_head:
                return b"a connection without a codec has a place among the handshakes"
            if record.state != S_FREE:
                handshaking += record.has_place
            continue
        if record.state == S_FREE:
            return b"a closed descriptor has a codec"
        if codec.in_turns != (record.state == S_QUEUED):
            return b"a connection waits for a turn in another state"
        tls += tls_of(codec) != NULL
        handshaking += record.has_place
        in_line[0] += codec.in_turns * record.has_place
        in_line[1] += codec.in_turns * (1 - record.has_place)
    if core.hellos != in_line[1]:
        return b"the number of hellos differs from the records"
    for i in range(core.listener_count):
        listener = core.listeners[i]
        tls -= listener.counters.tls
        handshaking -= listener.counters.handshaking
        if listener.counters.handshaking != listener.handshakes.used:
            return b"a listener has another number of places than handshakes"
        used += listener.handshakes.used
        reserved += listener.handshakes.reserve
        common += max(<int64_t>0, listener.handshakes.used - listener.handshakes.reserve)
        wrong = find_turn_violation(core, &listener.hellos, TURNS, listener, &length)
        if wrong != NULL:
            return wrong
        in_line[1] -= length
    if tls or handshaking:
        return b"the gauges of TLS differ from the records"
    wrong = find_turn_violation(core, &core.begun, TURNS, NULL, &length)
    if wrong != NULL:
        return wrong
    in_line[0] -= length
    wrong = find_turn_violation(core, &core.placed, PLACED, NULL, &length)
    if wrong != NULL:
        return wrong
    if in_line[0] or in_line[1] or length != used:
        return b"a handshake is in no line"
    return find_share_violation(&core.account.handshakes, used, reserved, common)


cdef int64_t count_samples(Core* core, uint32_t number) noexcept nogil:
    """Length of a list of samples."""
    cdef int64_t count = 0
    while number != 0 and count < core.used_samples:
        count += 1
        number = core.samples[number].next
    return count


cdef const char* find_violation(Core* core, int64_t* live) noexcept nogil:
    """What is wrong, NULL if nothing. `live` is the number of connections."""
    cdef int64_t open = 0, length, sampled = 0
    cdef int64_t[QUEUE_COUNT + 1] queued                # records whose state has that queue, or Q_NONE
    cdef int64_t[GAUGE_COUNT + 1] counted               # records whose state has that gauge, or G_NONE
    cdef size_t fd
    cdef int i, gauge
    cdef const char* wrong
    cdef Record* record
    live[0] = 0
    for i in range(QUEUE_COUNT + 1):
        queued[i] = 0
    for i in range(GAUGE_COUNT + 1):
        counted[i] = 0
    for fd in range(core.capacity):
        record = &core.records[fd]
        if record.state == S_FREE:
            if record.watched:
                return b"a closed descriptor is in the epoll set"
            if core.account.entries[fd].kind != K_NONE or core.account.session_entries[fd].silent != NULL:
                return b"a closed descriptor has a place"
            continue
        wrong = find_record_violation(core, record)
        if wrong != NULL:
            return wrong
        live[0] += 1
        sampled += record.sample != 0
        queued[core.states[record.state].queue] += 1
        counted[core.states[record.state].gauge] += 1
    for i in range(QUEUE_COUNT * core.timeouts_count):
        wrong = find_queue_violation(core, i, &length)
        if wrong != NULL:
            return wrong
        queued[i % QUEUE_COUNT] -= length
    for i in range(QUEUE_COUNT):
        if queued[i] != 0:
            return b"a record is not in the queue of its state"
    wrong = find_account_violation(core, live[0])
    if wrong == NULL:
        wrong = find_codec_violation(core)
    if wrong == NULL:
        wrong = find_resumed_violation(core)
    if wrong != NULL:
        return wrong
    for i in range(core.listener_count):
        open += core.listeners[i].counters.open
        for gauge in range(GAUGE_COUNT):
            counted[gauge] -= core.listeners[i].counters.by_state[gauge]
    if open != live[0]:
        return b"the gauges differ from the records"
    for gauge in range(GAUGE_COUNT):
        if counted[gauge] != 0:
            return b"the gauges differ from the records"
    if core.samples != NULL:
        sampled += count_samples(core, core.free_samples) + count_samples(core, core.done_samples)
        if sampled != <int64_t>core.used_samples - 1:
            return b"a sample is lost"
    return NULL
