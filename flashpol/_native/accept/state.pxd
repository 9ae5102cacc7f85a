# What the fast path keeps in memory.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from flashpol._native.accept.address_limits cimport AddressTable
from flashpol._native.accept.ip_ranges cimport NetworkTable
from flashpol._native.accept.match cimport SEEN_BYTES, Signatures
from flashpol._native.accept.proxy cimport ProxyParser
from flashpol._native.accept.top_addresses cimport TopTable
from flashpol._native.account.places cimport AccountCore, SessionLines
from flashpol._native.codecs.gate cimport Gate
from flashpol._native.codecs.codec cimport CodecLink, Factory, FAILURE_COUNT, VERSION_COUNT
from flashpol._native.common.deadlines cimport Link, Queue
from flashpol._native.common.poller cimport Poller
from flashpol._native.common.share cimport Member
from flashpol._native.common.system cimport sockaddr_in6
from flashpol._native.http.head cimport HE_EXPECTATION, HEAD_BYTES, HeadParser
from flashpol._native.http.tunnel_path cimport TunnelPath

cdef enum:
    BUCKET_COUNT = 19           # finite bounds and +Inf
    LISTENER_COUNT = 1024       # acceptors of one process
    BATCH = 32                  # connections accepted at a time
    TOGETHER = 8                # connections of a batch of so many or more end together
    READ_BYTES = 4096           # one read; a request is 23 bytes, an HTTP request of a browser about 1,000
    SAMPLE_COUNT = 1024         # room for sampled connections that are not logged yet; number 0 is not used
    SAMPLE_BURST = 100          # connections sampled in one window if not all are: 864,000 lines a day

# ---------------------------------------------------------------------------- lists; bindings/names.pxi has the names

cdef enum Reason:               # why a connection was refused
    R_HTTP = 0                  # the protocols come first: on a shared port they are relayed instead of refused
    R_TLS
    R_RTMP
    R_RTMPE
    R_OTHER
    R_CAPACITY                  # no descriptor or no memory was left
    R_SHUTDOWN
    R_CRASHED                   # written by the arbiter, for a worker that is dead
    R_UPSTREAM                  # relaying was not possible
    R_MAX_CONNECTIONS           # of the server or of a worker
    R_MAX_ADDRESS_CONNECTIONS
    R_MAX_ADDRESS_RATE
    R_NETWORK                   # the client's network is denied
    R_PROXY_UNTRUSTED           # only proxies may connect, and this is none of them
    R_PROXY_MALFORMED           # a PROXY header is required, and this is none
    R_PROXY_OVERSIZED           # the PROXY header is longer than we accept
    R_MAX_SESSIONS
    R_MAX_SLOW_REPLIES
    R_MAX_ADDRESS_SESSIONS
    R_TLS_HANDSHAKE             # the handshake failed, see HandshakeFailure
    R_TLS_ONLY                  # plain text on a listener with tls_only
    R_MAX_HANDSHAKES
    R_HTTP_MALFORMED            # HTTP that no recogniser accepts, or that asks for what is not offered
    R_ORIGIN                    # WebSocket from a page whose origin the policy does not allow
    REASON_COUNT
    R_NONE = REASON_COUNT       # the connection was not refused

cdef enum:                      # as what a connection is relayed: the first reasons up to R_OTHER, and
    P_SILENT = R_OTHER + 1      # without a byte from the client
    P_WEBSOCKET
    P_RTMPT
    PROTOCOL_COUNT

cdef enum Outcome:              # of a sampled connection: a Reason, or one of these
    O_TIMEOUT = REASON_COUNT
    O_RESET
    O_REPLY
    O_RELAYED
    O_SERVED                    # an HTTP request got what it asked for
    OUTCOME_COUNT

# ------------------------------------------------------------------- states; transitions.pxi has the picture and table

cdef enum State:
    S_FREE = 0                  # there is no connection
    S_FRESH                     # accepted in this wake-up, not yet in the epoll set
    S_REPLIED                   # the same, and the reply is sent: the connection ends with its batch
    S_REQUEST                   # waits for the request, or for the PROXY header before it
    S_FIRST_BYTE                # the same on a shared port, where silence leads to the relay
    S_PREFIX                    # shared port: the first bytes could begin several protocols
    S_GRACE                     # the request is complete but for its terminator
    S_HELLO                     # the first bytes begin TLS, and its first record is not complete
    S_QUEUED                    # a step of the handshake waits for its turn; nothing more is read
    S_HANDSHAKE                 # the handshake waits for the client
    S_HEAD                      # HTTP for the gateway, whose head is not complete
    S_DECISION                  # a head is complete, and a hook decides next; nothing more is read
    S_BODY                      # RTMPT: the head is complete, the body is not
    S_EXCHANGE                  # RTMPT: a request has no reply yet
    S_BEHIND                    # the same, and more has come behind it, or FIN; nothing more is read
    S_SENDING                   # RTMPT: the client does not take all of a reply
    S_KEEP                      # RTMPT: the last reply is sent, and another request may come
    S_LINGER                    # the reply is sent; input is discarded until the client closes
    S_UNREAD                    # the client has not acknowledged all of the reply; nothing more is read
    S_SLOW_REPLY                # a greenlet sends the rest of the reply
    S_SESSION                   # a greenlet relays it
    STATE_COUNT

cdef enum:                      # the deadline queues, in the order in which `dispatch` handles them:
    Q_GRACE = 0                 # those that end in a reply come first
    Q_LINGER
    Q_FIRST_BYTE
    Q_REQUEST
    Q_HANDSHAKE                 # from S_HELLO to the end of the handshake
    Q_UNREAD
    Q_KEEP                      # S_SENDING and S_KEEP
    QUEUE_COUNT
    Q_NONE = QUEUE_COUNT

cdef enum:                      # the gauges: what a live connection is counted as, besides `open`
    G_PARKED = 0
    G_SLOW_REPLIES
    G_SESSIONS
    GAUGE_COUNT
    G_NONE = GAUGE_COUNT

cdef enum Watch:
    W_NONE = 0                  # not in the epoll set
    W_INPUT
    W_OUTPUT

cdef struct StateRow:
    uint8_t queue               # the deadline queue, Q_NONE: no deadline
    uint8_t watched             # a Watch
    uint8_t gauge
    uint8_t kind                # how it gives way; the relay changes it for sessions

# -------------------------------------------------------------------------------------------------------------- memory

# One block in shared memory for each worker and listener, written by that worker only. All fields are aligned words of
# 64 bits, so a reader in another process sees whole values. LAYOUT in bindings/names.pxi describes it to Python.
cdef struct Counters:
    uint64_t accepted           # every connection ends in exactly one of replies (sum of buckets), refused,
    uint64_t refused[REASON_COUNT]      # relayed,
    uint64_t relayed[PROTOCOL_COUNT]
    uint64_t served             # served, timeouts, resets
    uint64_t timeouts
    uint64_t resets
    uint64_t reply_bytes
    uint64_t accept_errors
    uint64_t untracked          # admitted although the address table had no slot for their address
    uint64_t duration_ns        # sum over replies, from accept to the last byte handed to the kernel
    uint64_t buckets[BUCKET_COUNT]
    uint64_t handshakes[VERSION_COUNT]      # completed, by the version of TLS
    uint64_t resumed            # of these, those that took up an earlier session
    uint64_t handshake_failures[FAILURE_COUNT]
    uint64_t unknown_names      # handshakes for a name that no certificate has
    uint64_t truncated          # TLS connections whose client closed its side without close_notify
    uint64_t handshake_ns       # sum over completed ones, from accept
    uint64_t handshake_buckets[BUCKET_COUNT]
    int64_t open                # gauges, from here on: set to 0 when a new worker takes the block over
    int64_t by_state[GAUGE_COUNT]
    int64_t tls                 # connections with TLS, those whose handshake is not complete included
    int64_t handshaking         # of these, those that have a place in the share of handshakes

# Connections in their order, linked through Codec.before and after; -1: none.
cdef struct TurnLine:
    int32_t first
    int32_t last

# What C knows of one listener. An Acceptor owns it; what it points to is borrowed from the PolicyReply, the buffer and
# the Networks that the Acceptor keeps alive.
cdef struct Listener:
    uint16_t index              # in Core.listeners
    uint8_t terminated          # a request ends with NUL or the like (Flash), or with its 22nd byte (Silverlight)
    uint8_t tls_only            # and plain text is refused
    uint8_t http                # the gateway decides about HTTP requests
    uint8_t rtmpt               # the paths of RTMPT are tunnel sessions
    int64_t max_body            # of their requests
    uint8_t has_sessions        # it relays a protocol, or has WebSocket paths or RTMPT
    uint8_t needs_address       # networks, proxies or the address table need the peer's address at accept
    uint32_t relayed            # the protocols, as bits, that are relayed and not refused; 0: not a shared port
    int queues                  # of its timeouts: the first one in Core.queues
    uint32_t linger_bytes
    int64_t unread_timeout      # ns
    Member sessions             # of the shares in AccountCore
    Member slow_replies
    Member handshakes
    Factory* factory            # of codecs; NULL: the listener has no TLS
    TurnLine hellos             # S_QUEUED: those that have no place among the handshakes yet
    SessionLines session_lines  # those that give way
    int32_t silent_sessions     # of `sessions`, those that count as silent, also before they are connected
    const NetworkTable* networks    # of clients that are allowed; NULL: all
    const NetworkTable* proxies     # that send a PROXY header and alone may connect; NULL: clients connect themselves
    const char* reply
    size_t reply_size
    Counters* counters
    TopTable* refused[REASON_COUNT]     # addresses refused by limits, NULL: none since the last line; owned

cdef enum HeaderState:          # of a connection's PROXY header, which is at headers[fd]
    H_NONE = 0                  # the listener has no proxies
    H_AWAITED
    H_READ

# One open connection, 56 bytes, at records[fd]. Only `enter` in transitions.pxi writes state and watched.
cdef struct Record:
    int64_t accepted_at         # ns, CLOCK_MONOTONIC; S_UNREAD: when the client last acknowledged something
    Link link                   # in the deadline queue; `next` is also that of Core.pending_slow_replies
    # S_SLOW_REPLY: bytes of the reply sent; S_LINGER: of input discarded; S_UNREAD: of the reply not acknowledged.
    uint32_t progress
    uint32_t slot               # in the address table, 0: not tracked there
    uint16_t listener
    uint32_t sample             # number in Core.samples until the outcome is known, 0: not sampled
    uint8_t state
    uint8_t watched             # a Watch
    uint8_t matched             # bytes of the request seen, 0..22
    uint8_t header_state
    uint8_t protocol            # S_SESSION: what was recognised
    uint8_t seen_size
    char seen[SEEN_BYTES]       # first bytes that are not a request and that no signature matches yet
    uint8_t has_codec           # in AccountCore.codecs
    uint8_t has_place           # in the share of handshakes
    uint8_t has_head            # in Core.heads
    uint8_t has_carrier         # in Core.carriers

# A sampled connection, for the access log. The free ones and the finished ones are two lists, through `next`; 0 ends.
cdef struct Sample:
    sockaddr_in6 peer           # or a sockaddr_in: sin6_family says which
    int64_t duration            # ns, from accept to the outcome
    uint32_t sent               # bytes of the reply that the kernel took
    uint32_t next
    uint16_t listener
    uint8_t outcome
    uint8_t protocol            # of a relayed connection; PROTOCOL_COUNT: it was not relayed
    uint8_t tls

# A head of which a part has come. Like a handshake, such a connection has a place: it has 9 KB of memory.
cdef struct PartialHead:
    HeadParser parser
    CodecLink link              # among the connections with a place, if it has no codec
    uint32_t size
    char[HEAD_BYTES] data

# A connection that has carried a request of RTMPT.
cdef struct Carrier:
    TunnelPath path             # of the request that is under way, or was last
    uint8_t keeps               # the connection goes on after the reply
    uint8_t served              # a request was carried out
    uint8_t reason              # why one was refused, R_NONE: none was
    uint8_t failed              # nothing can be sent any more; what the client has sent is still carried out
    uint8_t waits               # a request has no reply yet
    uint8_t resumes             # it is in the list Core.resumed
    Carrier* before             # its neighbours there
    Carrier* after
    int fd
    char* body                  # of which `have` bytes have come; `room` are allocated, `body_size` are due
    uint32_t have
    uint32_t room
    uint32_t body_size
    uint32_t rest_size
    char* rest                  # what came behind the request that is under way
    char* unsent                # of a reply, plain; NULL: nothing
    uint32_t unsent_begin
    uint32_t unsent_end

# The replies to HTTP that the fast path sends by itself: by HeadError, and
cdef enum:
    HR_TIMEOUT = HE_EXPECTATION + 1     # 408
    HR_BUSY                     # 503
    HR_METHOD                   # 405
    HR_BODY                     # 413
    HR_COUNT

cdef struct HttpReply:
    const char* data
    size_t size

cdef enum Pending:              # which hook takes a connection
    PENDING_SESSION = 0         # S_SESSION
    PENDING_REQUEST             # S_DECISION
    PENDING_OPEN                # S_DECISION: it asks for a tunnel session

# How many of its requests for unknown sessions an address has sent lately.
cdef struct Guesses:
    int64_t since               # ns
    uint32_t count

# A connection that is to be relayed, with all bytes that were read from it, until its greenlet takes it.
cdef struct PendingSession:
    PendingSession* next
    uint8_t what                # a Pending
    int fd
    size_t size
    char data[1]                # `size` bytes

# All connections of one ConnectionTable, which owns this.
cdef struct Core:
    Poller poller
    Queue* queues               # QUEUE_COUNT for each set of timeouts
    int timeouts_count
    StateRow states[STATE_COUNT]    # what each state means; constant
    Record* records             # one for each possible fd: the kernel gives pages only where an fd is used
    size_t capacity
    PartialHead** heads         # one for each possible fd, NULL: no listener has `http`
    HeadParser head             # of a head that came whole
    Gate* gate                  # of the tunnel sessions; NULL: there are none
    Carrier** carriers          # one for each possible fd, NULL: there is no gate
    int serving                 # the connection whose input is being served, -1: none
    bint draining               # others serve new clients, or nothing does
    Carrier* resumed            # the first of those whose next request has come already, NULL: there is none
    Carrier* resumed_last
    int64_t body_bytes          # allocated for bodies, and for replies that clients do not take
    int64_t body_left           # bytes of bodies that this wake-up still reads
    int32_t requests_left       # requests of RTMPT that come behind others, which it still carries out
    int64_t max_body_bytes
    Guesses* guesses            # by slot of the address table; NULL: there is none
    HttpReply[HR_COUNT] http_replies    # borrowed from the ConnectionTable
    ProxyParser* headers        # one for each possible fd too, NULL: no listener has proxies
    AddressTable* address_table     # owned by an AddressLimits; NULL: there are no limits
    AccountCore* account             # owned by an Account
    int[BATCH] replied          # S_REPLIED, `replied_count` of them
    int replied_count
    bint ends_together          # connections of this batch end together, not each after its reply
    bint has_close_range        # the kernel has that system call, and no filter refuses it
    int until_check             # replies until one is kept open to see whether it is acknowledged
    Listener* listeners[LISTENER_COUNT]
    uint16_t listener_count
    int refused_tables          # how many of the listeners' `refused` there are
    Signatures signatures
    const char* http_reply      # borrowed from the module
    size_t http_reply_size
    int32_t pending_slow_replies    # fds that wait for a greenlet: a list through Link.next; -1 ends
    PendingSession* pending_sessions
    PendingSession* pending_sessions_last
    Sample* samples             # NULL: there is no access log
    uint32_t sample_rate        # share of the connections that is sampled, in 2^-32
    uint32_t random             # state of xorshift32, never 0
    bint sample_all             # every connection: no SAMPLE_BURST, and room for all that there can be
    int64_t window_end          # ns: when the next SAMPLE_BURST may be sampled
    uint32_t window_room        # how many more may be sampled before that
    uint64_t left_out           # sampled, but not logged for want of room, since the last line
    uint32_t sample_count       # size of `samples`
    uint32_t used_samples       # those from this number on were never used
    uint32_t free_samples       # heads and tail of the lists of samples
    uint32_t done_samples
    uint32_t done_samples_last
    TurnLine begun              # S_QUEUED: those that have a place among the handshakes
    TurnLine placed             # all that have one
    int32_t hellos              # connections in the lines of the listeners
    uint32_t turn               # counts the turns
    uint16_t turn_of            # the listener whose hello had the last one
    # Scratch space; nothing stays in it between two calls.
    char* buffer                # what was read, or decoded
    char* whole                 # what came of a head, and behind it
    char* wire                  # what was read, for a codec
    char* encoded               # what a codec writes
    char* outgoing              # a reply to a request of RTMPT

# Upper bounds of request_duration_seconds in ns. A reply that did not wait takes 5 to 30 µs; 150 ms is the grace for
# the terminator; after 3 s Flash Player gives up.
cdef extern from *:
    """
    __attribute__((unused)) static const int64_t flashpol_bounds[] = {
        10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000, 25000000, 50000000, 100000000,
        250000000, 500000000, 1000000000, 2500000000, 5000000000,
    };
    """
    const int64_t* BOUNDS "flashpol_bounds"
