# What the pump keeps in memory.

from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free

from flashpol._native.common.deadlines cimport Link, Queue, Timer
from flashpol._native.relay.counters cimport Counters

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

# Everything one process relays. Owned by a Pump.
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
