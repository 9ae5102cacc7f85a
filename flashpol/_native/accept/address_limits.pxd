# The address table: how many connections the server holds in total, and how many of each address, in memory that its
# workers share. HAProxy has a stick table for this (conn_cur, conn_rate), nginx limit_conn.
#
# Every worker has a table of its own, which it alone writes and the others read. So nothing is locked, no worker waits
# for another, and what a killed worker leaves behind is its own table, which the arbiter clears.
#
# Exactness. In total: the numbers of the other workers are read once for each batch that is accepted, so the total can
# be exceeded by one batch (32) for each other worker, and no client is refused below the limit. Of one address: a
# worker whose own number is below its part of the limit (the limit divided by the workers) decides alone, without
# reading the tables of the others. So no client is refused below the limit. Above it, an address gets in only at a
# worker where it has less than that part: up to twice the limit if it could choose its workers, a few more than the
# limit in practice, as the kernel spreads connections by a hash of addresses and ports.
#
# A connection of an address counts in `open`, or in `sessions` once it is relayed: max_address_connections limits the
# first, max_address_sessions the second. exempt_networks has addresses that neither limits; they are counted
# too, because the account of places asks which address is the heaviest. An address has at most MAX_COUNT of each; more
# of them are not tracked.
#
# A table has sets of eight slots. SipHash with a random key selects the set of an address, so an attacker cannot aim at
# a set. A table never grows. When a set is full, a new address takes the slot of an address without connections; of
# those, the one with the fewest connections in the last seconds. Under a spray of addresses the idle ones are evicted
# first; addresses at their limit stay. An address with connections keeps its slot. If all eight have connections, the
# new one is admitted without being tracked, and that is counted: a full table refuses no client, and the limits in
# total still hold.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from flashpol._native.accept.ip_ranges cimport NetworkTable

cdef enum:
    WAYS = 8                    # slots of a set
    TABLE_HEAD_BYTES = 64       # before the slots of a table: a cache line
    MAX_COUNT = 0xFFFF          # of one address, as a slot counts it
    SECOND = 1_000_000_000      # ns: the window of rates

cdef enum AddressVerdict:       # bindings/names.pxi has the names
    A_ADMITTED = 0
    A_MAX_ADDRESS_CONNECTIONS
    A_MAX_ADDRESS_RATE
    A_UNTRACKED                 # admitted, but all slots of the set have connections
    VERDICT_COUNT

# One address.
cdef struct Slot:
    uint16_t open               # connections held, without the sessions
    uint16_t sessions
    uint16_t count              # connections admitted in `second`
    uint16_t previous           # and in the second before it
    uint16_t second             # modulo 2^16: a slot untouched for exactly 18 hours looks fresh, which does no harm
    uint16_t unread_until       # until this second replies are kept open until they are acknowledged; 0: they are not
    uint16_t slow_replies       # of `open`
    uint16_t exempt             # no limit by address

# 192 bytes: a look-up reads the cache line of the tags and one more.
cdef struct SlotSet:
    uint64_t tags[WAYS]         # keyed hash of an address, taken for the address itself; 0: the slot is free
    Slot slots[WAYS]

cdef struct WorkerTable:
    int64_t held                # places, without those of sessions that were evicted and are not closed yet
    char unused[TABLE_HEAD_BYTES - 8]
    SlotSet sets[1]             # and more

# One worker's view of the tables. An AddressLimits owns it; the ConnectionTable of the process borrows it.
cdef struct AddressTable:
    char* memory                # the tables of all workers, `stride` bytes from one to the next
    size_t stride
    int workers
    int worker                  # number of this worker
    WorkerTable* own
    uint64_t set_mask           # number of sets - 1
    uint64_t key[2]
    uint64_t mask_v4            # of the bits that make an address: IPv4, in the upper 32 bits
    uint64_t mask_v6[2]
    const NetworkTable* exempt  # addresses without a limit; NULL: there are none
    int64_t max_connections     # 0: no limit; the same for the next four
    int64_t max_worker_connections
    int64_t max_address_connections
    int64_t max_address_rate    # admitted per second
    int64_t max_address_sessions
    int64_t local_connections   # max_address_connections / workers: below it this worker decides alone
    int64_t local_rate          # max_address_rate * SECOND / workers: the same
    int64_t local_sessions      # and of max_address_sessions
    int64_t others_held         # places of the other workers, when last read
