# What is counted of conversations, in a block of shared memory.

from libc.stdint cimport int64_t, uint64_t

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
    F_UNRESOLVED                # these two are counted by relay/relay.py
    F_RATE
    OUTCOME_COUNT

# One block for each worker slot, listener and upstream, written by that slot's worker only. LAYOUT in _pump.pyx names
# the fields for counters/shared.py.
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

# Upper bounds in ns. Connecting: 50 µs on the same host, a round trip to another, 1 s and 3 s when a SYN was lost.
# Conversations: from a request and its answer to a game that goes on for a day.
cdef extern from *:
    """
    static const int64_t flashpol_connect_bounds[] = {
        10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000, 25000000, 50000000, 100000000,
        250000000, 500000000, 1000000000, 2500000000, 5000000000,
    };
    static const int64_t flashpol_duration_bounds[] = {
        10000000, 100000000, 1000000000, 10000000000, 60000000000, 300000000000, 900000000000, 3600000000000,
        14400000000000, 43200000000000, 86400000000000,
    };
    """
    const int64_t* CONNECT_BOUNDS "flashpol_connect_bounds"
    const int64_t* DURATION_BOUNDS "flashpol_duration_bounds"
