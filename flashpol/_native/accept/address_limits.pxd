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
# A table has sets of eight slots. SipHash with a random key selects the set of an address, so an attacker cannot aim at
# a set. A table never grows. When a set is full, a new address takes the slot of an address without connections; of
# those, the one with the fewest connections in the last seconds. Under a spray of addresses the idle ones are evicted
# first; addresses at their limit stay. An address with connections keeps its slot. If all eight have connections, the
# new one is admitted without being tracked, and that is counted: a full table refuses no client, and the limits in
# total still hold.

from libc.stdint cimport int64_t, uint16_t, uint64_t

cdef enum:
    WAYS = 8                    # slots of a set
    HEAD_BYTES = 64             # before the slots of a table: a cache line
    MAX_COUNT = 0xFFFF          # of one address, as a slot counts it
    SECOND = 1_000_000_000      # ns: the window of rates

cdef enum AddressVerdict:       # bindings/names.pxi has the names
    A_ADMITTED = 0
    A_MAX_ADDRESS_CONNECTIONS
    A_MAX_ADDRESS_RATE
    A_UNTRACKED                 # admitted, but all slots of the set have connections
    VERDICT_COUNT

# One address. 16 bytes, so that a set is two cache lines.
cdef struct Slot:
    uint64_t tag                # keyed hash of the address, taken for the address itself; 0: free
    uint16_t open               # connections held
    uint16_t count              # connections admitted in `second`
    uint16_t previous           # and in the second before it
    uint16_t second             # modulo 2^16: a slot untouched for exactly 18 hours looks fresh, which does no harm

cdef struct WorkerTable:
    int64_t held                # connections of this worker
    char unused[HEAD_BYTES - 8]
    Slot slots[WAYS]            # and more

# One worker's view of the tables. An AddressLimits owns it; all ConnectionTables of the process share it.
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
    int64_t max_connections     # 0: no limit; the same for the next three
    int64_t max_worker_connections
    int64_t max_address_connections
    int64_t max_address_rate    # admitted per second
    int64_t local_connections   # max_address_connections / workers: below it this worker decides alone
    int64_t local_rate          # max_address_rate * SECOND / workers: the same
    int64_t others_held         # connections of the other workers, when last read
