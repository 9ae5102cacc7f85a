# What must hold between two calls, for tests.
#
#   state        id           deadlines                      requests
#   FREE         forgotten    none                           none; in the list of free sessions
#   OPENING      found        none                           the one that opens it
#   OPEN         found        Q_GHOST; Q_HOLD while a poll   a poll that asks, and up to WINDOW early ones
#                             is held; Q_GAP while early
#                             ones wait for one before them
#   OVER         forgotten    none                           none; pieces, until the upstream has taken them
#
# A request waits in one place, and `waiting` leads from its connection to that session. All memory is counted, in total
# and in the block of the listener. The timer fires no later than in the tick after the earliest deadline.

from libc.stdint cimport int32_t, int64_t, uint32_t

from flashpol._native.common.deadlines cimport Queue
from flashpol._native.http.tunnel_path cimport TK_IDLE, TK_NONE
from flashpol._native.tunnel.state cimport (
    Early, KEPT, Line, LINE_COUNT, MAX_REPLY, Origin, Piece, Q_GAP, Q_GHOST, Q_HOLD, QUEUE_COUNT, T_FREE, T_OPEN,
    T_OPENING, T_OVER, TunnelCore, TunnelSession, WINDOW,
)


cdef bint has_deadline(const TunnelSession* session, int which) noexcept nogil:
    return session.links[which].deadline != 0


cdef bint is_origin_sane(const TunnelSession* session, const Origin* origin, int32_t* connections) noexcept nogil:
    """It is a connection that leads back here, or a line that there is, or neither. `connections` counts the first."""
    if origin.fd >= 0:
        connections[0] += 1
        return origin.line < 0 and session.core.waiting[origin.fd] == number_of(session)
    return origin.line < 0 or session.core.lines[origin.line].fd >= 0


cdef const char* find_window_violation(const TunnelSession* session, int64_t* bytes) noexcept nogil:
    """Check the requests that wait for earlier ones. Their memory is added to `bytes`."""
    cdef const Early* early
    cdef uint32_t count = 0, size = 0
    cdef int k, other
    for k in range(WINDOW):
        early = &session.early[k]
        if early.kind == TK_NONE:
            if early.body != NULL:
                return b"a free place of a window has a body"
            continue
        count += 1
        size += early.size
        if early.number < session.expected:
            return b"a request waits whose turn is over"
        if (early.body == NULL) != (early.size == 0):
            return b"an early request has another body than it says"
        for other in range(k):
            if session.early[other].kind != TK_NONE and session.early[other].number == early.number:
                return b"a request waits twice"
    if count != session.early_count or size != session.early_bytes:
        return b"early requests are not counted"
    bytes[0] += size
    # While the upstream is slow, or the next wake-up goes on, they wait for that.
    if has_deadline(session, Q_GAP) and count == 0:
        return b"a session waits for a gap without early requests"
    if count and session.state == T_OPEN and not (
            has_deadline(session, Q_GAP) or session.waiting or session.resumes):
        return b"early requests wait for nothing"
    return NULL


cdef const char* find_bytes_violation(const TunnelSession* session, int64_t* bytes) noexcept nogil:
    """Check what waits for the upstream, and the replies. Their memory is added to `bytes`."""
    cdef const Piece* piece = session.first
    cdef const Piece* last = NULL
    cdef uint32_t waiting = 0
    cdef int k, other
    while piece != NULL:
        if piece.begin >= piece.end or waiting > session.waiting:
            return b"a piece is empty, or pieces are a ring"
        waiting += piece.end - piece.begin
        bytes[0] += <int64_t>sizeof(Piece) + piece.end
        last = piece
        piece = piece.next
    if waiting != session.waiting or last != session.last_piece:
        return b"pieces are not counted"
    if session.direct != NULL or session.direct_size or session.reply != NULL or session.reply_size:
        return b"a request or a reply is under way between two calls"
    for k in range(KEPT):
        if (session.kept[k].data == NULL) != (session.kept[k].size == 0) or session.kept[k].size > MAX_REPLY:
            return b"a reply that is kept has another size than it says"
        if session.kept[k].number < 0 and session.kept[k].data != NULL:
            return b"a reply is kept for no request"
        if session.kept[k].number >= session.expected - (session.kind != TK_NONE) and session.kept[k].number >= 0:
            return b"a reply is kept for a request that has none"
        for other in range(k):
            if session.kept[k].number >= 0 and session.kept[other].number <= session.kept[k].number:
                return b"replies are kept out of order"
        bytes[0] += session.kept[k].size
    return NULL


cdef const char* find_session_violation(
    const TunnelSession* session, int32_t* connections, int64_t* bytes,
) noexcept nogil:
    cdef int k
    cdef const char* wrong
    cdef bint open = session.state == T_OPEN
    if has_deadline(session, Q_GHOST) != open or (has_deadline(session, Q_GAP) and not open):
        return b"a session has a deadline that is not one of its state, or lacks one"
    if has_deadline(session, Q_HOLD) != (session.kind != TK_NONE):
        return b"a poll has no deadline, or a deadline has no poll"
    if session.kind != TK_NONE and (not open or session.kind != TK_IDLE):
        return b"a request asks that is no poll of an open session"
    if session.kind != TK_NONE and leads_nowhere(session.core, &session.asking):
        return b"a poll is held whose client has left"
    if session.kind == TK_NONE and (session.asking.fd >= 0 or session.asking.line >= 0):
        return b"a request that does not ask has an origin"
    if session.unanswered >= 0 and (session.kind != TK_NONE or session.unanswered != session.expected - 1):
        return b"another request than the one before is unanswered"
    if not is_origin_sane(session, &session.asking, connections):
        return b"a poll is not that of its connection"
    if session.opener.fd >= 0 and session.state != T_OPENING:
        return b"the request to open a session has no reply"
    if not is_origin_sane(session, &session.opener, connections):
        return b"the request to open a session is not that of its connection"
    for k in range(WINDOW):
        if session.early[k].kind != TK_NONE and not (
                is_origin_sane(session, &session.early[k].origin, connections)
                and is_origin_sane(session, &session.early[k].other, connections)):
            return b"an early request is not that of its connection"
    if session.early_count and not open:
        return b"requests wait in a session that is not open"
    wrong = find_window_violation(session, bytes)
    return wrong if wrong != NULL else find_bytes_violation(session, bytes)


cdef const char* find_queue_violation(TunnelCore* core, int timeouts, int which) noexcept nogil:
    cdef const Queue* queue = &core.queues[timeouts * QUEUE_COUNT + which]
    cdef int32_t i = queue.head, before = -1, length = 0, expected = 0
    cdef int64_t deadline = 0
    cdef const TunnelSession* session
    if i >= 0 and not 0 < core.poller.timer.armed <= link_of(queue, i).deadline + TICK_NS:
        return b"the timer fires after a deadline"
    while i >= 0:
        session = &core.table[i]
        if session.set_of_timeouts != timeouts or session.links[which].prev != before or (
                session.links[which].deadline < deadline) or length > core.used:
            return b"a queue is out of order"
        length += 1
        deadline = session.links[which].deadline
        before = i
        i = session.links[which].next
    if queue.tail != before:
        return b"a queue does not end at its tail"
    for i in range(core.used):
        session = &core.table[i]
        expected += (session.state != T_FREE and session.set_of_timeouts == timeouts
                     and has_deadline(session, which))
    if length != expected:
        return b"a session is not in the queue of its deadline"
    return NULL


cdef const char* find_list_violation(const TunnelCore* core) noexcept nogil:
    """Compare the lists of free and of resumed sessions, and the chains, with the table."""
    cdef int32_t i, free_ones = 0, resumed = 0, found = 0, in_use = 0
    cdef uint32_t k
    for i in range(core.used):
        in_use += core.table[i].state != T_FREE
        free_ones += core.table[i].state == T_FREE
        found += core.table[i].state in (T_OPENING, T_OPEN)
        resumed += core.table[i].resumes
    if in_use != core.count:
        return b"the number of sessions differs from the table"
    i = core.free
    while i >= 0 and free_ones >= 0:
        free_ones -= 1
        i = core.table[i].next
    i = core.resumed
    while i >= 0 and resumed >= 0:
        resumed -= 1
        i = core.table[i].resumed_next
    if free_ones or resumed:
        return b"a session is in no list of its state, or in another"
    if core.resumed >= 0 and core.poller.timer.armed != 1:
        return b"sessions go on in the next wake-up, and there is none"
    for k in range(core.hash_mask + 1):
        i = core.hashed[k]
        while i >= 0 and found >= 0:
            if not core.table[i].state in (T_OPENING, T_OPEN) or chain_of(core, core.table[i].id) != &core.hashed[k]:
                return b"a session is in a chain that is not that of its id"
            found -= 1
            i = core.table[i].chain
    if found:
        return b"a session cannot be found"
    return NULL


cdef const char* find_gauge_violation(const TunnelCore* core, const TunnelSession* session) noexcept nogil:
    """Compare the gauges of this session's block with all sessions that are counted there."""
    cdef int64_t open = 0, held = 0, bytes = 0
    cdef int32_t i, connections = 0
    cdef const TunnelSession* other
    for i in range(core.used):
        other = &core.table[i]
        if other.state != T_FREE and other.counters == session.counters:
            open += other.state == T_OPEN
            held += other.kind == TK_IDLE
            find_session_violation(other, &connections, &bytes)
    if open != session.counters.open or held != session.counters.held or bytes != session.counters.buffered:
        return b"the gauges differ from the sessions"
    return NULL


cdef const char* find_line_violation(const TunnelCore* core) noexcept nogil:
    cdef int32_t k, count = 0
    cdef const Line* line
    for k in range(LINE_COUNT):
        line = &core.lines[k]
        count += line.fd >= 0
        if line.begin > line.end or line.end > line.output_room or line.have > line.room:
            return b"a line has more bytes than room"
        if line.fd < 0 and (line.input != NULL or line.output != NULL):
            return b"a line that has ended has bytes"
        if line.fd >= 0 and line.watched_output != (line.begin < line.end):
            return b"a line is watched for output that it does not have, or not for what it has"
    if count != core.line_count:
        return b"the number of lines is wrong"
    return NULL


cdef const char* find_violation(TunnelCore* core) noexcept nogil:
    """What is wrong, NULL if nothing."""
    cdef int32_t i, connections = 0
    cdef int64_t bytes = 0
    cdef size_t fd
    cdef int timeouts, which
    cdef const TunnelSession* session
    cdef const char* wrong = find_list_violation(core)
    if wrong != NULL:
        return wrong
    for i in range(core.used):
        session = &core.table[i]
        if session.state == T_FREE:
            continue
        if session.state > T_OVER:
            return b"a session has no state"
        wrong = find_session_violation(session, &connections, &bytes)
        if wrong == NULL:
            wrong = find_gauge_violation(core, session)
        if wrong != NULL:
            return wrong
    if bytes != core.bytes:
        return b"memory is not counted"
    for fd in range(core.account.capacity):
        if core.waiting[fd] >= 0:
            connections -= 1
            if core.forwarded[fd].line >= 0:
                return b"a request is here and with another worker"
        if core.forwarded[fd].line >= 0 and core.lines[core.forwarded[fd].line].fd < 0:
            return b"a request waits for a line that has ended"
    if connections:
        return b"a connection waits for a session that does not know it"
    for timeouts in range(core.timeouts_count):
        for which in range(QUEUE_COUNT):
            wrong = find_queue_violation(core, timeouts, which)
            if wrong != NULL:
                return wrong
    return find_line_violation(core)
