# Who is inside: how many connections the server holds, and how many of each address, in memory that its workers share.
#
# Every worker has a table of its own there, which it alone writes and the others read. So nothing is locked, no worker
# waits for another, and what one leaves behind when it is killed is its own table, which the arbiter clears.
#
# Exactness. In total: the others' numbers are read once for each handful that is accepted, so a total can be exceeded
# by a handful (32) for each other worker, and nobody is refused below it. Of one address: a worker whose own number is
# below its share (the limit divided by the workers) does not ask the others. So nobody is refused below the limit;
# above it an address gets in only where it has less than a share: up to twice the limit if it could choose its workers,
# a few more in practice, as the kernel spreads connections by a hash of addresses and ports.
#
# A table has sets of eight entries. Which set an address belongs to follows from SipHash with a random key, so nobody
# can aim at a set. A table never grows. When a set is full, an address takes the place of one that has no connection
# now, of those the one with the fewest in the last seconds: a spray makes the light be forgotten, not the heavy. What
# has connections keeps its place. If all eight have, the newcomer is admitted and not tracked, and that is counted:
# a full table refuses nobody, and the caps in total hold all the same.

from libc.stdint cimport int64_t, uint16_t, uint64_t

cdef enum:
    WAYS = 8
    HEAD_BYTES = 64             # before the entries of a table: a cache line
    MOST = 0xFFFF               # of one address, as an entry counts it
    SECOND = 1_000_000_000      # ns: the window of rates

cdef enum Entrance:               # the verdict on an address
    E_ADMITTED = 0
    E_TOO_MANY
    E_TOO_FAST
    E_UNTRACKED                 # admitted, but its set is full

# One address. 16 bytes, so a set is two cache lines.
cdef struct Entry:
    uint64_t tag                # its keyed hash, which stands for it: two with the same are not to be expected. 0: free
    uint16_t open               # connections held
    uint16_t begun              # connections admitted in `second`
    uint16_t before             # in the second before it
    uint16_t second             # modulo 2^16: an entry untouched for 18 hours to the second would look fresh, no more

cdef struct Table:
    int64_t held                # connections of this worker
    char unused[HEAD_BYTES - 8]
    Entry entries[WAYS]         # and more

# Owned by a Census object; shared by all Parkers of one process.
cdef struct CensusView:
    char* memory                # the tables of all workers, `stride` bytes from one to the next
    size_t stride
    int workers
    int slot                    # of this worker
    Table* own
    uint64_t set_mask           # number of sets - 1
    uint64_t key[2]
    uint64_t mask4              # of what counts as one address: IPv4, in the upper 32 bits
    uint64_t mask6[2]
    int64_t max_connections       # 0: no limit, here and below
    int64_t max_worker_connections
    int64_t max_address_connections
    int64_t max_address_rate     # admitted per second
    int64_t share_of_address    # of the last two, a worker's: from here on it asks the others
    int64_t share_of_rate       # times SECOND
    int64_t others              # held by the other workers, when last looked
