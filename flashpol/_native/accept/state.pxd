# What the fast path keeps in memory.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from flashpol._native.accept.address_limits cimport CensusView
from flashpol._native.accept.ip_ranges cimport NetworkTable
from flashpol._native.accept.match cimport SEEN_BYTES, Signatures
from flashpol._native.accept.proxy cimport ProxyParser
from flashpol._native.common.deadlines cimport Link, Queue, Timer
from flashpol._native.common.system cimport sockaddr_in6

cdef enum:
    BUCKET_COUNT = 19           # finite bounds and +Inf
    PROTOCOL_COUNT = 6          # the first reasons, and P_SILENT
    REASON_COUNT = 18
    LISTENER_COUNT = 1024       # acceptors of one process
    READ_BYTES = 4096           # one read; a request is 23 bytes, an HTTP request of a browser about 1,000
    SAMPLE_COUNT = 1024         # room for sampled connections that have no outcome yet; the first is not used
    SAMPLE_BURST = 100          # connections sampled in one window at most: 864,000 lines a day

cdef enum Reason:               # why a connection was refused; the names are in REASONS
    R_HTTP = 0                  # the protocols first: what is refused elsewhere is relayed on a shared port
    R_TLS
    R_RTMP
    R_RTMPE
    R_OTHER
    R_CAPACITY
    R_SHUTDOWN
    R_CRASHED                   # written by the arbiter, for a worker that is dead
    R_UPSTREAM                  # relaying was not possible
    R_MAX_CONNECTIONS           # more than the caps of the server or a worker
    R_MAX_ADDRESS_CONNECTIONS   # more at once from one address than its cap
    R_MAX_ADDRESS_RATE          # more in a second from one address than its cap
    R_NETWORK                   # from a network that is denied
    R_UNTRUSTED                 # not from a proxy, where only proxies may connect
    R_MALFORMED                 # no PROXY header, where one must be
    R_OVERSIZED                 # a longer one than we take
    R_MAX_SESSIONS              # more relayed sessions than a worker may have
    R_MAX_SLOW_REPLIES          # more slow replies than a worker may have
    R_NONE = REASON_COUNT       # it was not

cdef enum:
    P_SILENT = R_OTHER + 1      # relayed without a byte; the names are in PROTOCOLS

cdef enum Outcome:              # of a sampled connection: a Reason, or one of these; the names are in OUTCOMES
    O_TIMEOUT = REASON_COUNT    # which R_NONE is too: it is no outcome
    O_RESET
    O_REPLY
    O_RELAYED

cdef enum State:                # of a Record; the transitions are drawn at the head of _fastpath.pyx
    S_FREE = 0
    S_FRESH = 1
    S_REQUEST = 2
    S_GRACE = 3
    S_LINGER = 4
    S_SLOW_REPLY = 5
    S_SESSION = 6

cdef enum:                      # the deadline queues; each has one duration, so insertion order is deadline order
    Q_GRACE = 0                 # in the order in which they are looked at: those that end in a reply first
    Q_LINGER = 1
    Q_FIRST = 2                 # instead of Q_REQUEST, on a shared port
    Q_REQUEST = 3
    QUEUE_COUNT = 4
    Q_NONE = 4

# One block in shared memory for each worker slot and listener, written by that slot's worker only. 64-bit aligned
# words, so a reader in another process sees whole values. LAYOUT in the .pyx names the fields for counters/shared.py.
cdef struct Counters:
    uint64_t accepted           # every connection ends in exactly one of replies (sum of buckets), refused,
    uint64_t refused[REASON_COUNT]      # relayed, timeouts, resets
    uint64_t relayed[PROTOCOL_COUNT]
    uint64_t timeouts
    uint64_t resets
    uint64_t reply_bytes
    uint64_t accept_errors
    uint64_t untracked          # admitted although the table of addresses had no place for theirs
    uint64_t duration_ns        # sum over replies, accept to last byte handed to the kernel
    uint64_t buckets[BUCKET_COUNT]
    int64_t open                # gauges: zeroed when a new worker takes the slot over
    int64_t parked
    int64_t slow_replies
    int64_t sessions

# What C knows of one listener. Owned by an Acceptor; what it points to is borrowed from the PolicyReply, the
# buffer and the Networks that the Acceptor keeps alive.
cdef struct Listener:
    uint16_t index              # place in Core.listeners
    uint8_t terminated          # a request ends in NUL or the like (Flash), or with its 22nd byte (Silverlight)
    uint8_t shared              # what is not a policy request is relayed
    uint8_t asks_address        # what follows, or the core's census, needs to know who connects
    const NetworkTable* networks    # of clients that are allowed; NULL: all
    const NetworkTable* proxies     # that send a PROXY header, and may alone connect; NULL: there is none
    const char* reply
    size_t reply_size
    Counters* counters

cdef enum Heading:              # where a connection is with its PROXY header, which is at headers[fd]
    H_NONE = 0                  # there is to be none
    H_AWAITED = 1
    H_READ = 2

# One connection that is not finished, 56 bytes, at records[fd].
cdef struct Record:
    int64_t accepted_at         # ns, CLOCK_MONOTONIC
    Link link                   # while it is in a queue; `next` also while it is in Core.handoff
    uint32_t progress           # bytes of the reply sent (S_SLOW_REPLY) or input discarded (S_LINGER)
    uint16_t listener
    uint16_t sample             # place in Core.samples until the outcome is known, 0 if not sampled
    uint32_t place              # in the census, 0 if not tracked there
    uint8_t state
    uint8_t queue               # Q_NONE: in none
    uint8_t watched             # in the epoll set
    uint8_t matched             # bytes of the request seen, 0..22
    uint8_t heading
    uint8_t seen_size           # first bytes of something that is not a request and not yet named
    char seen[SEEN_BYTES]
    uint8_t protocol            # S_SESSION: what was recognised

# A sampled connection, for the access log. Free ones and those that wait to be told form lists through `next`; 0 ends.
cdef struct Sample:
    sockaddr_in6 peer           # or a sockaddr_in: sin6_family says which
    int64_t duration            # ns, accept to outcome
    uint32_t sent               # bytes of the reply that the kernel took
    uint16_t listener
    uint16_t next
    uint8_t outcome

# A connection that is to be relayed, with all that was read of it, until its greenlet has it.
cdef struct Handed:
    Handed* next
    int fd
    size_t size
    char data[1]                # `size` of them

# Everything one process parks. Owned by a Parker.
cdef struct Core:
    int epoll
    Timer timer                 # armed to the earliest deadline
    Queue queues[QUEUE_COUNT]
    Record* records             # one for each possible fd: pages are touched only when an fd of theirs is used
    size_t capacity
    ProxyParser* headers        # one for each possible fd too, if a listener has proxies
    CensusView* address_limits          # owned by a Census object; NULL: there are no caps
    Listener* listeners[LISTENER_COUNT]
    uint16_t listener_count
    Signatures signatures
    uint32_t linger_bytes
    const char* http_answer     # borrowed from the module
    size_t http_answer_size
    int32_t handoff             # list of fds waiting for a greenlet, through Link.next; -1 ends
    Handed* handed              # list of those to be relayed
    Handed* handed_last
    Sample* samples             # NULL: there is no access log
    uint32_t share              # of connections that are sampled, in 2^-32
    uint32_t random             # xorshift32, never 0
    int64_t window              # ns: when the next SAMPLE_BURST may be sampled
    uint32_t window_left
    uint64_t left_out           # sampled beyond that, since a line told so
    uint16_t spare              # lists of samples
    uint16_t told_next
    uint16_t told_last
    char* buffer                # scratch for reads; nothing is kept in it between calls

# Upper bounds of request_duration_seconds in ns. A reply that did not wait takes 5 to 30 µs; 150 ms is the terminator's
# grace; 3 s is when Flash Player gives up.
cdef extern from *:
    """
    static const int64_t flashpol_bounds[] = {
        10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000, 25000000, 50000000, 100000000,
        250000000, 500000000, 1000000000, 2500000000, 5000000000,
    };
    """
    const int64_t* BOUNDS "flashpol_bounds"
