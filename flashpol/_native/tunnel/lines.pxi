# Lines: streams to the other workers of this host, over which requests go to the worker that has the session.
#
# A message is a header of fixed size, then a body. Lines are between processes of one host and one program, so numbers
# are as the machine has them. A worker that has no room for a message replies 503 by itself: none waits for another.

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove, memset
from posix.unistd cimport close

from flashpol._native.common.system cimport (
    epoll_ctl, EPOLL_CTL_ADD, EPOLL_CTL_MOD, epoll_event, epoll_wait, EPOLLIN, EPOLLOUT, MSG_NOSIGNAL, recv, send,
)
from flashpol._native.http.tunnel_path cimport ID_BYTES, NO_NUMBER, TK_CLOSE, TK_SEND
from flashpol._native.tunnel.state cimport Forwarded, Line, MAX_REPLY, Origin, T_OPEN, TunnelCore, TunnelSession

cdef enum:
    EVENTS = 16
    LINE_READ = 65536           # bytes that one wake-up reads of a line
    LINE_READS = 8              # such reads in one wake-up
    LINE_OUTPUT = 4194304       # bytes that may wait for the other worker: then it gets no more requests,
    LINE_REPLIES = 6291456      # then no more replies with what upstreams have sent,
    LINE_MOST = 8388608         # and then it is stuck
    VERSION = 1
    SMALL = 4096                # a message that is sent at once, in one piece

cdef enum MessageType:
    M_REQUEST = 0
    M_REPLY
    M_CANCEL                    # the connection of a request has ended
    M_HURRY                     # more has come on it

cdef struct Message:
    uint32_t size               # of the body that follows
    uint8_t version
    uint8_t type
    uint8_t kind                # M_REQUEST: a TunnelKind
    uint8_t unused
    uint16_t status             # M_REPLY
    uint16_t unused_too
    int32_t remote              # the connection, of the worker that has it
    uint32_t serial
    int64_t number
    char id[ID_BYTES]


cdef void watch_output(TunnelCore* core, int32_t line, bint output) noexcept nogil:
    cdef Line* to = &core.lines[line]
    cdef epoll_event event
    if to.watched_output != output:
        event.events = EPOLLIN | EPOLLOUT if output else EPOLLIN
        event.data.u64 = <uint64_t>line
        epoll_ctl(core.poller.epoll, EPOLL_CTL_MOD, to.fd, &event)
        to.watched_output = output


cdef bint append_output(Line* to, const char* data, uint32_t size) noexcept nogil:
    """Keep what the other worker does not take. False: there is no room."""
    cdef char* larger
    cdef uint32_t room
    if to.begin and to.end + size > to.output_room and to.begin >= to.output_room // 2:
        memmove(to.output, to.output + to.begin, to.end - to.begin)
        to.end -= to.begin
        to.begin = 0
    if to.end + size > to.output_room:
        room = max(to.output_room * 2, to.end + size)
        larger = <char*>realloc(to.output, room)
        if larger == NULL:
            return False
        to.output, to.output_room = larger, room
    memcpy(to.output + to.end, data, size)
    to.end += size
    return True


cdef bint send_message(
    TunnelCore* core, int32_t line, Message* message, const char* body, uint32_t most,
) noexcept nogil:
    """most: bytes that may wait then. False: the line has no room for it, and nothing of it was sent."""
    cdef Line* to = &core.lines[line]
    cdef uint32_t whole = sizeof(Message) + message.size
    cdef ssize_t n = 0
    cdef char[SMALL] small
    message.version = VERSION
    if to.fd < 0 or to.end - to.begin + whole > most:
        return False
    if to.end == to.begin and message.size <= <uint32_t>(SMALL - sizeof(Message)):
        memcpy(small, message, sizeof(Message))
        if message.size:
            memcpy(small + sizeof(Message), body, message.size)
        n = max(<ssize_t>0, send(to.fd, small, whole, MSG_NOSIGNAL))
        if n == <ssize_t>whole:
            return True
        if not append_output(to, small + n, whole - <uint32_t>n):
            if n:
                close_line(core, line)                  # a part of it is under way
            return False
    elif not append_output(to, <char*>message, sizeof(Message)):
        return False
    elif message.size and not append_output(to, body, message.size):
        to.end -= sizeof(Message)
        return False
    watch_output(core, line, True)
    return True


# -------------------------------------------------------------------------------------------- what this worker asks for

cdef bint forward(
    TunnelCore* core, int32_t line, int fd, uint16_t listener, uint8_t kind, const char* id, int64_t number,
    const char* body, uint32_t size,
) noexcept nogil:
    """Give a request to the worker that has the session. False: there is no such worker."""
    cdef Forwarded* forwarded = &core.forwarded[fd]
    cdef uint32_t most
    cdef Message message
    cdef Origin origin = Origin(fd, -1, 0, 0)
    if core.lines[line].fd < 0:
        return False
    memset(&message, 0, sizeof(message))
    core.serial += 1
    message.type, message.kind, message.size = M_REQUEST, kind, size
    message.remote, message.serial, message.number = fd, core.serial, number
    memcpy(message.id, id, ID_BYTES)
    core.listener_counters[listener].forwarded += 1
    # Small requests find room beside large ones.
    most = LINE_OUTPUT // 2 if size > SMALL and core.lines[line].begin < core.lines[line].end else LINE_OUTPUT
    if not send_message(core, line, &message, body, most):
        core.listener_counters[listener].forward_failures += 1
        reply_to(core, &origin, 503, NULL, 0)
        return True
    forwarded.line, forwarded.serial, forwarded.listener = line, core.serial, listener
    memcpy(forwarded.id, id, ID_BYTES)
    return True


cdef void send_about(TunnelCore* core, int fd, uint8_t type) noexcept nogil:
    cdef const Forwarded* forwarded = &core.forwarded[fd]
    cdef Message message
    memset(&message, 0, sizeof(message))
    message.type, message.remote, message.serial = type, fd, forwarded.serial
    memcpy(message.id, forwarded.id, ID_BYTES)
    send_message(core, forwarded.line, &message, NULL, LINE_MOST)


cdef void cancel_forwarded(TunnelCore* core, int fd) noexcept nogil:
    """Its connection has ended: what comes for it is to stay with the session."""
    send_about(core, fd, M_CANCEL)
    core.forwarded[fd].line = -1


cdef void hurry_forwarded(TunnelCore* core, int fd) noexcept nogil:
    send_about(core, fd, M_HURRY)


# ------------------------------------------------------------------------------------------- what other workers ask for

cdef void send_reply_by_line(
    TunnelCore* core, const Origin* to, int status, const char* body, uint32_t size,
) noexcept nogil:
    cdef Message message
    memset(&message, 0, sizeof(message))
    message.type, message.status, message.size = M_REPLY, <uint16_t>status, size
    message.remote, message.serial = to.remote, to.serial
    if core.lines[to.line].fd < 0 or send_message(core, to.line, &message, body, LINE_REPLIES):
        return
    # The other worker is slow. The client can ask once more for what the session keeps.
    message.status, message.size = 503, 0
    if core.lines[to.line].fd >= 0 and not send_message(core, to.line, &message, NULL, LINE_MOST):
        close_line(core, to.line)                       # it is stuck: its clients get 404


cdef void on_message(TunnelCore* core, int32_t line, const Message* message, const char* body) noexcept nogil:
    cdef TunnelSession* session
    cdef Forwarded* forwarded
    cdef Origin origin = Origin(-1, line, message.remote, message.serial)
    if message.type == M_REPLY:
        forwarded = &core.forwarded[message.remote]
        if forwarded.line == line and forwarded.serial == message.serial:
            forwarded.line = -1
            core.listener_counters[forwarded.listener].unknown += message.status == 404
            core.gate.reply(core.gate.core, message.remote, message.status, body, message.size)
        return
    session = find_session(core, message.id)
    if session == NULL or session.state != T_OPEN:
        if message.type == M_REQUEST:
            reply_to(core, &origin, 404, NULL, 0)
    elif message.type == M_REQUEST:
        on_request(session, &origin, message.kind, message.number, body, message.size)
    elif message.type == M_CANCEL:
        forget_origin(session, -1, line, message.remote, message.serial)
    else:
        hurry_origin(session, -1, line, message.remote, message.serial)


cdef bint is_sane(const TunnelCore* core, const Message* message) noexcept nogil:
    """Whether a worker of ours can have written it."""
    if message.version != VERSION or message.remote < 0:
        return False
    if message.type == M_REQUEST:
        return (message.size <= LINE_OUTPUT and TK_SEND <= message.kind <= TK_CLOSE
                and (message.number >= 0 or message.number == NO_NUMBER))
    if message.type == M_REPLY:                         # the connection is one of ours
        return (message.size <= MAX_REPLY and 200 <= message.status <= 599
                and <size_t>message.remote < core.account.capacity)
    return message.size == 0 and message.type <= M_HURRY


cdef bint on_line_input(TunnelCore* core, int32_t line) noexcept nogil:
    """Read once. True: there may be more."""
    cdef Line* at = &core.lines[line]
    cdef Message message
    cdef char* input
    cdef uint32_t begin = 0, have
    cdef ssize_t n
    if at.room - at.have < LINE_READ:
        input = <char*>realloc(at.input, at.have + LINE_READ)
        if input == NULL:
            close_line(core, line)
            return False
        at.input, at.room = input, at.have + LINE_READ
    n = recv(at.fd, at.input + at.have, LINE_READ, 0)
    if n <= 0:
        if n == 0 or (errno != EAGAIN and errno != EINTR):
            close_line(core, line)
        return False
    # What a message brings about may close the line, so meanwhile the bytes are not the line's.
    input, have = at.input, at.have + <uint32_t>n
    at.input = NULL
    while at.fd >= 0 and have - begin >= sizeof(Message):
        memcpy(&message, input + begin, sizeof(Message))
        if not is_sane(core, &message):
            close_line(core, line)
            break
        if have - begin - sizeof(Message) < message.size:
            break
        on_message(core, line, &message, input + begin + sizeof(Message))
        begin += sizeof(Message) + message.size
    if at.fd < 0 or begin == have:
        free(input)
        at.have = at.room = 0
        return at.fd >= 0 and n == LINE_READ
    memmove(input, input + begin, have - begin)
    at.input, at.have = input, have - begin
    return n == LINE_READ


cdef void on_line_ready(TunnelCore* core, int32_t line, uint32_t events) noexcept nogil:
    cdef Line* at = &core.lines[line]
    cdef ssize_t n
    cdef int reads = LINE_READS
    if at.fd >= 0 and events & ~<uint32_t>EPOLLIN and at.begin < at.end:
        n = send(at.fd, at.output + at.begin, at.end - at.begin, MSG_NOSIGNAL)
        if n > 0:
            at.begin += <uint32_t>n
        elif errno != EAGAIN and errno != EINTR:
            close_line(core, line)
        if at.begin == at.end:
            free(at.output)
            at.output = NULL
            at.begin = at.end = at.output_room = 0
            if at.fd >= 0:
                watch_output(core, line, False)
    while reads and at.fd >= 0 and events & ~<uint32_t>EPOLLOUT:
        reads = reads - 1 if on_line_input(core, line) else 0


# -------------------------------------------------------------------------------------------------------- begin and end

cdef bint open_line(TunnelCore* core, int32_t line, int fd) noexcept nogil:
    """False: the kernel cannot watch it."""
    cdef epoll_event event
    event.events = EPOLLIN
    event.data.u64 = <uint64_t>line
    if epoll_ctl(core.poller.epoll, EPOLL_CTL_ADD, fd, &event) != 0:
        return False
    close_line(core, line)
    core.lines[line].fd = fd
    core.line_count += 1
    return True


cdef void close_line(TunnelCore* core, int32_t line) noexcept nogil:
    """The other worker is gone, and its sessions with it: requests that wait for it get 404. A line ends once."""
    cdef Line* at = &core.lines[line]
    cdef Forwarded* forwarded
    cdef size_t fd
    cdef int32_t i
    if at.fd < 0:
        return
    close(at.fd)
    at.fd = -1
    free(at.input)
    free(at.output)
    memset(at, 0, sizeof(Line))
    at.fd = -1
    core.line_count -= 1
    for i in range(core.used):
        if core.table[i].state == T_OPEN:
            forget_origin(&core.table[i], -1, line, -1, 0)
    for fd in range(core.account.capacity):
        forwarded = &core.forwarded[fd]
        if forwarded.line == line:
            forwarded.line = -1
            core.listener_counters[forwarded.listener].forward_failures += 1
            core.gate.reply(core.gate.core, <int>fd, 404, NULL, 0)
