# The account of local ports.
#
# A connection to an upstream on this or another host takes a local port. From one source address to one destination
# there are as many as net.ipv4.ip_local_port_range has, 28,232 by default. A session whose client closed first leaves
# its port in TIME-WAIT on our side, for 60 s. See docs/guide/shared-port.md, "Local ports".
#
# A session that connects from its client's own address is not in the account: connect_as_client says why.

from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t

from flashpol._native.common.deadlines cimport Link, Queue
from flashpol._native.common.system cimport sockaddr_in6, sockaddr_storage, socklen_t
from flashpol._native.relay.counters cimport Counters

cdef enum:
    LEFT_COUNT = 65536          # ports in TIME-WAIT that are remembered; above that the oldest are forgotten
    LEFT_SLACK = 1_000_000_000  # ns, by which the timer may be late for them
    LEFT_TRIES = 4              # such ports that one connect tries
    CHOSEN_TRIES = 16           # other ports that it tries then

# Where a Destination's connections go to and come from.
cdef struct Target:
    sockaddr_storage address
    socklen_t size
    uint16_t keepalive          # seconds, 0: never
    uint32_t user_timeout       # ms, of both connections of a session when they are closed; 0: the kernel's
    uint16_t timeouts           # number of a set of the pump
    sockaddr_in6* sources       # `source_count` of them, or sockaddr_in; owned
    int source_count
    int32_t* routes             # of the pump, one for each source, or one without a source; owned
    int route_count             # 0: not known yet, or a Unix socket, which takes no port
    uint32_t turn               # the route that was tried first

# The ports from one source towards one destination. Those in TIME-WAIT are in one of two queues, the oldest first.
cdef struct Route:
    sockaddr_in6 to
    sockaddr_in6 source         # all zero: the kernel chooses
    int32_t users               # Destinations that have it; it is free if there are none, nor any port in use
    int32_t used                # by sessions that connect or are open
    int32_t reusable_count      # in TIME-WAIT, and a new connection can take them over
    int32_t blocked_count       # in TIME-WAIT, and no connection can
    Queue reusable              # of LeftPort
    Queue blocked
    uint32_t chosen             # where in Ports.chosen to go on

# A port in TIME-WAIT, or free: `route` is -1. The link is also the list of free ones.
cdef struct LeftPort:
    Link link
    sockaddr_in6 local          # address and port
    Counters* counters          # of the session that left it; the Pump keeps the block alive
    int32_t route
    int32_t holder              # of a blocked one; -1: it counts for no address

# How many ports one address has on one route: those of its sessions, and those they left that are blocked.
cdef struct PortHolder:
    uint64_t address            # a hash
    int32_t route
    int32_t count               # 0: free
    int32_t next                # in its bucket, or in the list of free ones; -1 ends

cdef struct Ports:
    int32_t limit               # of each route
    int64_t time_wait           # ns
    uint16_t* chosen            # ports to choose from when they are scarce
    uint32_t chosen_count
    uint32_t turn               # of `chosen`, for connections from their client's address
    Route* routes
    int32_t route_count
    LeftPort* left              # LEFT_COUNT of them
    int32_t left_used           # those from this number on were never used
    int32_t left_free
    PortHolder* holders
    int32_t holders_used
    int32_t holders_free
    int32_t* buckets            # heads of the lists of holders
    uint32_t bucket_mask
