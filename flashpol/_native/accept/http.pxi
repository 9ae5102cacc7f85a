# HTTP for the gateway: a request's head is read to its end here, and a hook of Python decides about it.
#
# A head that comes whole costs no memory. Of one that comes in parts the bytes are kept, and the connection has a place
# among the handshakes meanwhile, as TLS has: WebSocket's first request is a handshake too.

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from flashpol._native.accept.match cimport MatchVerdict, V_MATCH, V_MORE
from flashpol._native.accept.state cimport (
    Core, HR_BUSY, HR_TIMEOUT, HttpReply, Listener, O_TIMEOUT, PartialHead, PENDING_REQUEST,
    PendingSession, R_CAPACITY, R_HTTP, R_HTTP_MALFORMED, R_MAX_HANDSHAKES, Reason, Record, S_DECISION, S_HEAD,
)
from flashpol._native.http.head cimport HeadParser
from flashpol._native.http.tunnel_path cimport TunnelPath


cdef inline bint takes_http(const Core* core, const Record* record) noexcept nogil:
    """Whether HTTP on this connection is the gateway's."""
    cdef const Listener* listener = core.listeners[record.listener]
    return listener.http and (record.has_codec or not listener.tls_only)


cdef void drop_head(Core* core, int fd) noexcept nogil:
    """Forget what came of a head."""
    if core.account.codecs[fd] == NULL:
        leave_handshakes(core, fd)                      # else the place is that of the codec
    free(core.heads[fd])
    core.heads[fd] = NULL
    core.records[fd].has_head = False


cdef void refuse_http(Core* core, int fd, Reason reason, int which) noexcept nogil:
    """Refuse a request with one of the replies of the fast path."""
    cdef const HttpReply* reply = &core.http_replies[which]
    if core.records[fd].has_carrier:
        count_carrier(core, fd, reason)
    else:
        count_refused(core, core.listeners[core.records[fd].listener], fd, reason, header_source(core, fd))
        record_outcome(core, fd, reason)
    end_http(core, fd, reply.data, reply.size)


cdef void end_http(Core* core, int fd, const char* reply, size_t size) noexcept nogil:
    """Send a reply, after which the connection ends."""
    if core.records[fd].has_head:
        drop_head(core, fd)
    if size and send_last(core, fd, reply, size):
        linger(core, fd)
    else:
        close_connection(core, fd)


cdef bint keep_head(Core* core, int fd, const HeadParser* parser, size_t size) noexcept nogil:
    """Keep what came of a head, the first `size` bytes of `whole`. False: it has no place, so it was refused."""
    cdef Record* record = &core.records[fd]
    cdef PartialHead* head = core.heads[fd]
    if head == NULL:
        head = <PartialHead*>malloc(sizeof(PartialHead))
        if head == NULL:
            refuse_http(core, fd, R_CAPACITY, HR_BUSY)
            return False
        head.parser = parser[0]
        head.size = 0
        core.heads[fd] = head
        record.has_head = True
    memcpy(head.data + head.size, core.whole + head.size, size - head.size)
    head.size = <uint32_t>size
    if not record.has_place:
        # Whichever connection gives way may be read first, into the same scratch space.
        if not reserve_place(core, fd):
            refuse_http(core, fd, R_MAX_HANDSHAKES, HR_BUSY)
            return False
        settle_place(core, fd)
    return True


cdef void on_head(Core* core, int fd, HeadParser* parser, size_t size) noexcept nogil:
    """The first `size` bytes of `whole` are all that came of a request."""
    cdef TunnelPath path
    cdef MatchVerdict verdict = head_feed(parser, core.whole, size)
    while verdict == V_MATCH and is_tunnel_request(core, fd, parser, &path):
        size = begin_request(core, fd, parser, size, &path)
        if size == 0:
            return
        parser = &core.head
        head_begin(parser)
        verdict = head_feed(parser, core.whole, size)
    if verdict == V_MATCH:
        begin_decision(core, fd, size, PENDING_REQUEST)
    elif verdict != V_MORE:
        refuse_http(core, fd, R_HTTP_MALFORMED, parser.error)
    elif keep_head(core, fd, parser, size) and core.records[fd].state != S_HEAD:
        enter(core, fd, S_HEAD)


cdef void begin_head(Core* core, int fd, size_t seen, const char* data, size_t size) noexcept nogil:
    """The first bytes, `seen` of the record and `data`, are HTTP."""
    cdef Record* record = &core.records[fd]
    memcpy(core.whole, record.seen, seen)
    memcpy(core.whole + seen, data, size)
    record.seen_size = 0
    head_begin(&core.head)
    on_head(core, fd, &core.head, seen + size)


cdef void on_head_bytes(Core* core, int fd, const char* data, size_t size) noexcept nogil:
    """More of a head."""
    cdef PartialHead* head = core.heads[fd]
    memcpy(core.whole, head.data, head.size)
    memcpy(core.whole + head.size, data, size)
    on_head(core, fd, &head.parser, head.size + size)


cdef void on_head_overdue(Core* core, int fd) noexcept nogil:
    """Also of a body."""
    if core.records[fd].has_carrier and carrier_of(core, fd).served:
        count_carrier(core, fd, R_HTTP)
    else:
        core.listeners[core.records[fd].listener].counters.timeouts += 1
        record_outcome(core, fd, O_TIMEOUT)
    end_http(core, fd, core.http_replies[HR_TIMEOUT].data, core.http_replies[HR_TIMEOUT].size)


cdef void begin_decision(Core* core, int fd, size_t size, uint8_t what) noexcept nogil:
    """A head is complete: give the hook the first `size` bytes of `whole`, that and what came behind it."""
    cdef PendingSession* session = <PendingSession*>malloc(sizeof(PendingSession) + size)
    if session == NULL:
        refuse_http(core, fd, R_CAPACITY, HR_BUSY)
        return
    memcpy(session.data, core.whole, size)
    session.size = size
    session.fd = fd
    session.what = what
    if core.records[fd].has_head:
        drop_head(core, fd)
    leave_handshakes(core, fd)
    enter(core, fd, S_DECISION)
    append_pending(core, session)
