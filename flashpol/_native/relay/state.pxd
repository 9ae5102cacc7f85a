# What the pump keeps in memory.

from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free

from flashpol._native.account.places cimport AccountCore
from flashpol._native.codecs.codec cimport Codec, CodecEnd
from flashpol._native.common.deadlines cimport Link, Queue
from flashpol._native.common.poller cimport Poller
from flashpol._native.common.share cimport HeldPlace
from flashpol._native.relay.counters cimport Counters
from flashpol._native.relay.ports cimport Ports

cdef enum State:                # of a Session
    S_FREE = 0
    S_CONNECTING
    S_OPEN
    S_CLOSED                    # waits for its greenlet

cdef enum:                      # the sides: flows[CLIENT] is what the client sends
    CLIENT = 0
    UPSTREAM = 1

cdef enum:                      # the deadline queues of one set of timeouts
    Q_CONNECT = 0               # S_CONNECTING
    Q_SILENT                    # S_OPEN, until a side sends its first byte
    Q_IDLE                      # S_OPEN, as the next
    Q_DURATION
    Q_PING                      # S_OPEN, of a codec that can ping: when to look whether its client is still there
    Q_CLOSING                   # the same, from our message that ends it
    Q_YOUNG                     # S_OPEN, until the options that only a long session needs are set
    QUEUE_COUNT

cdef enum:
    TIMEOUTS_COUNT = 1024       # sets of timeouts of one pump: as many as there may be listeners

# One direction of a session: from `fd` to the fd of the other flow.
cdef struct Flow:
    int fd
    uint32_t watched            # the events that epoll watches `fd` for; 0: `fd` is not in the set
    uint32_t begin              # of the bytes in `held` that are still to be sent
    uint32_t end
    char* held                  # a buffer of bytes that were read and that the other side did not take; NULL: none
    uint8_t pooled              # `held` is one of the pool's buffers, else it is freed by free()
    uint8_t blocked             # the other side takes no more now; until it does, nothing is read
    uint8_t fin_received
    uint8_t fin_sent            # to the other side
    uint8_t spoke               # a byte was read from `fd`; a PROXY header of ours is none of the client's
    uint8_t write_failed        # `fd` cannot be written to; what it still sends is passed on, then RST
    uint8_t drained             # the last read took all that there was, and no end was reported behind it
    uint8_t ending              # epoll has reported FIN or RST
    uint8_t level               # it is watched level-triggered from now on

cdef struct Session:
    Flow flows[2]
    Link links[QUEUE_COUNT]     # deadline 0: not in that queue
    uint64_t address            # a hash of the client's
    int32_t route               # that its local port is counted on, -1: it has none
    int32_t holder              # that it is counted for
    int64_t began               # ns, CLOCK_MONOTONIC: when connecting began, then when the session did
    int64_t active              # when Q_IDLE was last entered
    uint64_t sent               # bytes to the client
    Counters* counters          # this and the next are borrowed from the Destination, which run_session holds
    uint32_t* failures_in_row
    Py_ssize_t* with_upstream   # Destination.open
    Codec* codec                # of the client's side, borrowed from the account; NULL: none
    HeldPlace* place            # among those that connect, given back when it opens; borrowed from run_session's caller
    PyObject* owner             # the greenlet that sleeps in run_session, NULL: it was killed; or has not run yet
    int32_t next                # in the list of free or of closed sessions; -1 ends
    uint32_t user_timeout       # ms, of both connections when they are closed; 0: the kernel's
    uint16_t timeouts           # the set that its deadlines are from
    uint16_t keepalive          # s, of the connection to the upstream; 0: none
    uint8_t state
    uint8_t outcome
    uint8_t first_fin           # the side whose FIN came first, END_COUNT before
    uint8_t ticks               # of Q_PING since the client was last heard of
    uint8_t told                # something was sent to the client since the last of them
    uint8_t waits               # its owner has not run: it begins when the session has ended
    uint8_t no_delay            # the connection to the upstream needs no TCP_NODELAY any more, or has it

# Buffers of CHUNK bytes, a limited number. Two are always there if memory allows: one for reading and a spare one, so
# that the first can be kept at any time.
cdef struct Pool:
    char* scratch               # for reading
    char* spare                 # NULL: no buffer is left, so nothing can be kept: no more is read than can be sent
    char* free                  # a list through the first bytes of the buffers
    uint32_t idle               # length of that list
    uint32_t made
    uint32_t max_made

# All sessions of one Pump, which owns this.
cdef struct Core:
    Poller poller
    int64_t now                 # ns; the clock is read once for each set of events
    int64_t wake_end            # ns: when this wake-up should return
    int64_t bytes_left          # that it may send before it takes no more events
    Queue* queues               # QUEUE_COUNT for each set of timeouts; duration 0: the deadline never comes
    uint16_t timeouts_count     # sets
    CodecEnd stop_as            # what the clients of sessions that are cut are told: the server ends, or is replaced
    int64_t due                 # the earliest deadline in a queue that was empty when the timer was armed last; 0: none
    Session* table
    int32_t capacity
    int32_t used                # entries that were ever in use
    int32_t free                # heads and tail of the lists
    int32_t closed
    int32_t closed_last
    int32_t* clients            # the session of a client by its descriptor, -1: none; grows as needed
    int32_t clients_size
    int32_t count               # in use
    AccountCore* account        # owned by an Account; NULL: no other part of the process has one
    Pool pool
    char* wire                  # CHUNK bytes that were read, and are decoded or encoded next; CODEC_HEADROOM in front
    char* reply                 # CODEC_REPLY bytes that a codec writes by itself
    Ports* ports                # owned by the Pump's PortAccount
