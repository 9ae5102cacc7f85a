# What the tunnel sessions of a worker keep in memory.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from flashpol._native.account.places cimport AccountCore
from flashpol._native.codecs.codec cimport Codec
from flashpol._native.codecs.gate cimport Gate
from flashpol._native.common.deadlines cimport Link, Queue
from flashpol._native.common.poller cimport Poller
from flashpol._native.http.tunnel_path cimport ID_BYTES
from flashpol._native.relay.counters cimport END_COUNT

cdef enum:
    WINDOW = 16                 # requests of a session that wait for earlier ones
    KEPT = 2                    # replies that are kept: as many as Flash Player had connections
    MAX_REPLY = 65536           # bytes of a reply, its interval byte included
    LEAST_SHARE = 4096          # bytes that a session may hold, however short memory is
    SHARES = 4                  # otherwise it may hold more while that is less than the free memory divided by this
    TIMEOUTS_COUNT = 1024       # sets of timeouts
    LINE_COUNT = 4096           # lines to other workers; more than there are incarnations

cdef enum:                      # the deadline queues of one set of timeouts
    Q_HOLD = 0                  # a poll is answered, although nothing has come for it
    Q_GAP                       # an earlier request has not come: it is passed over
    Q_GHOST                     # the client has sent no request for long
    QUEUE_COUNT

cdef enum State:                # of a TunnelSession
    T_FREE = 0
    T_OPENING                   # the upstream is being connected
    T_OPEN
    T_OVER                      # its id is forgotten; the pump, or its greenlet, ends it

# Where a reply goes: a connection of this worker, or a line to another worker. Neither: the client has left.
cdef struct Origin:
    int fd                      # -1: none
    int32_t line                # -1: none
    int32_t remote              # the connection of the other worker
    uint32_t serial             # and the number of its request

# A request that waits for earlier ones.
cdef struct Early:
    int64_t number
    uint8_t kind                # a TunnelKind, TK_NONE: the place is free
    uint8_t hurried             # more has come behind it: if it is a poll, it will not be held
    Origin origin
    Origin other                # the connection that it came on before, if that is open: either may have broken
    char* body
    uint32_t size

# The reply to a request, for a client that lost it.
cdef struct Kept:
    int64_t number              # of the request; -1: there is none
    char* data                  # `size` bytes; NULL: only `interval`
    uint32_t size
    char interval

# What a request has brought, until the upstream takes it.
cdef struct Piece:
    Piece* next
    uint32_t begin
    uint32_t end
    char data[1]

cdef struct TunnelSession:
    Codec codec                 # first: the pump knows the session by it
    TunnelCore* core
    char id[ID_BYTES]
    int32_t chain               # the next of the same hash, -1 ends
    int32_t next                # in the list of free ones
    int fd                      # of its record
    uint16_t set_of_timeouts
    uint8_t state
    uint8_t kind                # of the request that asks now: TK_SEND, TK_IDLE; TK_NONE: none asks
    uint8_t resumes             # it is in the list TunnelCore.resumed
    uint32_t empties            # replies in a row without data
    TunnelCounters* counters
    Link links[QUEUE_COUNT]     # deadline 0: not in that queue
    int64_t heard               # when Q_GHOST was last entered
    int64_t expected            # the number that comes next; -1: none has come
    Origin opener               # of the request that opens it
    Origin asking               # of the request that gets what the upstream sends
    int64_t unanswered          # that of the request before, whose connection ended before its reply; -1: it had one
    Kept kept[KEPT]             # the latest first
    char* reply                 # of the request that asks, as far as it has come
    uint32_t reply_size
    Early early[WINDOW]
    uint8_t early_count
    uint32_t early_bytes
    const char* direct          # the body of the request that is carried out, of which the rest is to be sent
    uint32_t direct_size
    Piece* first                # and of earlier ones
    Piece* last_piece
    uint32_t waiting            # bytes of these
    int32_t resumed_next

# One block for each worker and listener, written by that worker only. LAYOUT in _tunnel.pyx describes it to Python.
cdef struct TunnelCounters:
    uint64_t sessions           # opened
    uint64_t ends[END_COUNT]
    uint64_t unknown            # requests for sessions that there are not
    uint64_t reordered          # requests that waited for earlier ones
    uint64_t gaps               # numbers that were passed over
    uint64_t repeated           # requests that came once more
    uint64_t refused            # 503: the window or the memory was full
    uint64_t forwarded          # requests that were given to another worker
    uint64_t forward_failures   # of these, those that got no reply of it
    uint64_t polls              # requests of /idle that were carried out
    int64_t open                # gauges, from here on: set to 0 when a new worker takes the block over
    int64_t held                # polls
    int64_t buffered            # bytes that wait for upstreams, or for earlier requests

cdef struct Timeouts:
    uint32_t buffer             # bytes of a session that may wait

# A request that was given to another worker, by the connection that waits for its reply.
cdef struct Forwarded:
    int32_t line                # -1: none
    uint32_t serial
    uint16_t listener
    char id[ID_BYTES]

# A stream to another worker, by its incarnation.
cdef struct Line:
    int fd                      # -1: there is none
    char* input                 # `have` bytes of messages that are not complete
    uint32_t have
    uint32_t room
    char* output                # bytes from `begin` to `end` that the other worker has not taken
    uint32_t begin
    uint32_t end
    uint32_t output_room
    uint8_t watched_output

cdef struct TunnelCore:
    Gate* gate                  # of the Tunnels that owns this
    AccountCore* account
    Poller poller
    int64_t now
    char host
    uint16_t incarnation
    Queue* queues               # QUEUE_COUNT for each set of timeouts
    Timeouts* timeouts
    uint16_t timeouts_count
    uint16_t* listener_sets     # by listener
    TunnelCounters** listener_counters
    int32_t listeners
    TunnelSession* table
    int32_t capacity
    int32_t used                # entries that were ever in use
    int32_t free
    int32_t count
    int32_t* hashed             # heads of the chains, by hash; -1: empty
    uint32_t hash_mask
    int32_t* waiting            # the session of the request that waits on a connection, by fd; -1: none
    Forwarded* forwarded        # by fd
    uint32_t serial
    int32_t resumed             # head of the list of sessions that go on with what waits in their windows; -1: none
    int64_t bytes               # allocated for bodies and replies
    int64_t max_bytes
    Line* lines                 # by incarnation
    int32_t line_count
    char random[256]            # for ids
    int random_left
