# What is counted of sessions, in a block of shared memory.

from libc.stdint cimport int64_t, uint64_t

cdef enum:
    CONNECT_BUCKETS = 19        # finite bounds and +Inf
    DURATION_BUCKETS = 12

cdef enum Outcome:              # of run_session; _pump.pyx has the names
    E_CLIENT = 0                # both sides sent FIN, this one first
    E_UPSTREAM
    E_CLIENT_RESET
    E_UPSTREAM_RESET
    E_IDLE
    E_DURATION
    E_SHUTDOWN
    E_SILENT                    # neither side had sent a byte
    E_EVICTED                   # another connection needed its place
    E_PROTOCOL                  # the client broke the protocol of its codec
    E_PING                      # the client did not reply to a ping
    E_GHOST                     # the client of a tunnel session sent no request for rtmpt_session_timeout
    E_CRASHED                   # its worker died; counted by counters/shared.py
    END_COUNT
    F_REFUSED = END_COUNT       # from here on there was no session: the upstream could not be reached
    F_UNREACHABLE
    F_TIMEOUT
    F_RESOURCES                 # descriptors, memory or sessions ran out
    F_CUT                       # the process ended while it connected
    F_PORTS                     # no local port was left, or none for the client's address
    F_UNRESOLVED                # from here on counted by relay/relay.py
    F_RATE
    F_CONNECTING                # too many others were connecting
    OUTCOME_COUNT

# One block for each worker, listener and upstream, written by that worker only. LAYOUT in _pump.pyx describes it to
# Python.
cdef struct Counters:
    uint64_t opened             # connected; each ends as one of `ends`
    uint64_t ends[END_COUNT]
    uint64_t failures[OUTCOME_COUNT - END_COUNT]
    uint64_t sent[2]            # bytes from client and upstream that the other side's kernel took
    uint64_t connect_ns         # sum over those that connected
    uint64_t connect_buckets[CONNECT_BUCKETS]
    uint64_t duration_ns        # sum over those that ended
    uint64_t duration_buckets[DURATION_BUCKETS]
    int64_t open                # gauges, from here on: set to 0 when a new worker takes the block over
    int64_t connecting
    int64_t ports               # local ports in use, those that are left in TIME-WAIT included
    int64_t max_ports           # that there are for this worker, over the upstream's addresses and sources

# Upper bounds in ns. Connecting takes 50 µs on the same host, a round trip to another host, 1 s and 3 s when a SYN was
# lost. Sessions last from one request and reply to a game that goes on for a day.
cdef extern from *:
    """
    __attribute__((unused)) static const int64_t flashpol_connect_bounds[] = {
        10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000, 25000000, 50000000, 100000000,
        250000000, 500000000, 1000000000, 2500000000, 5000000000,
    };
    __attribute__((unused)) static const int64_t flashpol_duration_bounds[] = {
        10000000, 100000000, 1000000000, 10000000000, 60000000000, 300000000000, 900000000000, 3600000000000,
        14400000000000, 43200000000000, 86400000000000,
    };
    """
    const int64_t* CONNECT_BOUNDS "flashpol_connect_bounds"
    const int64_t* DURATION_BOUNDS "flashpol_duration_bounds"
