# The pump at a glance: pairs of descriptors, what is kept of each, and which function does what.
#
#   converse     connect, send what was read before, sleep until it is over       (a greenlet's; all else needs none)
#   move         one direction: read, send at once, keep only what was not taken  (the only reader and writer of bytes)
#   observe      ask epoll for what this conversation can act on, and for nothing else
#   collect      ready or overdue conversations, bounded per wake-up
#   finish       the one end of every conversation: counted, unwatched, given to its greenlet
#
# Every C function is `noexcept nogil`: nothing in here can raise, so nothing can stop a watcher.

from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from flashpol._core.deadlines cimport Link, Queue, Timer

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    struct sockaddr:
        unsigned short sa_family
    struct sockaddr_storage:
        unsigned short ss_family

cdef enum:
    CONNECT_BUCKETS = 19        # finite bounds and +Inf
    DURATION_BUCKETS = 12

cdef enum Outcome:              # of `converse`; the names are in ENDS and FAILURES
    E_CLIENT = 0                # both sides closed, this one first
    E_UPSTREAM
    E_CLIENT_RESET
    E_UPSTREAM_RESET
    E_IDLE
    E_DURATION
    E_SHUTDOWN
    END_COUNT
    F_REFUSED = END_COUNT       # from here on there was no conversation: the upstream could not be reached
    F_UNREACHABLE
    F_TIMEOUT
    F_RESOURCES
    F_CUT
    F_UNRESOLVED                # these two are counted by gateway/relay.py
    F_RATE
    OUTCOME_COUNT

cdef enum State:                # of a Conversation
    S_FREE = 0
    S_CONNECTING = 1
    S_OPEN = 2
    S_OVER = 3                  # waits for its greenlet

cdef enum:                      # the sides: flows[CLIENT] is what the client sends
    CLIENT = 0
    UPSTREAM = 1

cdef enum:                      # the deadline queues; each has one duration, so insertion order is deadline order
    Q_CONNECT = 0
    Q_IDLE = 1
    Q_DURATION = 2
    QUEUE_COUNT = 3

# One block in shared memory for each worker slot, listener and upstream, written by that slot's worker only.
cdef struct Counters:
    uint64_t opened             # connected; each ends as one of `ends`
    uint64_t ends[END_COUNT]
    uint64_t failures[OUTCOME_COUNT - END_COUNT]
    uint64_t sent[2]            # bytes that client and upstream sent, as far as the other side's kernel took them
    uint64_t connect_ns         # sum over those connected
    uint64_t connect_buckets[CONNECT_BUCKETS]
    uint64_t duration_ns        # sum over those ended
    uint64_t duration_buckets[DURATION_BUCKETS]
    int64_t open                # gauges: zeroed when a new worker takes the slot over
    int64_t connecting

# One direction of a conversation: from `fd` to the other flow's fd.
cdef struct Flow:
    int fd
    uint32_t watched            # what epoll watches `fd` for; 0: it is not in the set
    uint32_t begin              # of `held`, in bytes
    uint32_t end
    char* held                  # read, and not yet taken by the other side; NULL if there is nothing
    uint8_t pooled              # `held` goes back to the pool, else to free()
    uint8_t blocked             # the other side takes no more now: nothing is read until it does
    uint8_t ended               # FIN was read
    uint8_t passed              # and passed on
    uint8_t broken              # `fd` cannot be written to any more: what it still has to say is passed on, then RST

cdef struct Conversation:
    Flow flows[2]
    Link links[QUEUE_COUNT]     # deadline 0: it is not in that queue
    int64_t began               # ns, CLOCK_MONOTONIC: connect, then the conversation
    int64_t active              # when Q_IDLE was last entered
    uint64_t sent               # bytes to the client
    Counters* counters          # these two borrowed from the Destination, which `converse` holds
    uint32_t* streak            # failures in a row
    PyObject* owner             # the greenlet that sleeps in `converse`; NULL: it was killed
    int32_t next                # free ones, and those that are over, form lists; -1 ends
    uint8_t state
    uint8_t outcome
    uint8_t first_fin           # the side whose FIN came first, END_COUNT before

# Buffers of CHUNK bytes. One is for reading, one is spare, so that the first can be kept at any time.
cdef struct Pool:
    char* scratch
    char* spare                 # NULL: nothing can be kept now, so no more is read than is taken
    char* free                  # list through their first bytes
    uint32_t idle               # in that list
    uint32_t made
    uint32_t most

cdef struct Core:
    int epoll
    Timer timer                 # armed to the earliest deadline
    int64_t now                 # ns; the clock is read once for each lot of events
    Queue queues[QUEUE_COUNT]   # duration 0: never
    Conversation* table
    int32_t capacity
    int32_t used                # entries that were ever in use
    int32_t free
    int32_t over                # lists
    int32_t over_last
    int32_t count               # in use
    Pool pool
