# The account of local ports: which routes there are, who holds how many ports, which ones are in TIME-WAIT.
#
# An address may take one more port of a route only while it has at most as many as are free: so one address gets half
# of them, two get a third each, and there are always some for one more.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from flashpol._native.common.deadlines cimport Queue
from flashpol._native.common.system cimport sockaddr_in6
from flashpol._native.relay.ports cimport PortHolder, LEFT_COUNT, LEFT_SLACK, LeftPort, Ports, Route
from flashpol._native.relay.state cimport Core, Session


cdef inline bint init_ports(Ports* ports, int32_t limit, int32_t sessions) noexcept nogil:
    """For so many sessions at most. False: there is no memory. The kernel gives pages as they are used."""
    cdef uint32_t buckets = 1024, i
    while buckets < <uint32_t>sessions and buckets < 65536:
        buckets *= 2
    ports.limit = limit
    ports.left_free = ports.holders_free = -1
    ports.left = <LeftPort*>calloc(LEFT_COUNT, sizeof(LeftPort))
    ports.holders = <PortHolder*>calloc(<size_t>sessions + LEFT_COUNT, sizeof(PortHolder))
    ports.buckets = <int32_t*>malloc(buckets * sizeof(int32_t))
    if ports.left == NULL or ports.holders == NULL or ports.buckets == NULL:
        return False
    ports.bucket_mask = buckets - 1
    for i in range(buckets):
        ports.buckets[i] = -1
    return True


cdef inline void free_ports(Ports* ports) noexcept nogil:
    free(ports.chosen)
    free(ports.routes)
    free(ports.left)
    free(ports.holders)
    free(ports.buckets)


# --------------------------------------------------------------------------------------------------------------- routes

cdef inline bint is_idle(const Route* route) noexcept nogil:
    return route.users == 0 and route.used == 0 and route.reusable_count == 0 and route.blocked_count == 0


cdef inline int32_t use_route(Ports* ports, const sockaddr_in6* to, const sockaddr_in6* source) noexcept nogil:
    """The number of this route, made if need be; -1: there is no memory."""
    cdef Route* routes
    cdef Route* route
    cdef int32_t number = -1, i
    for i in range(ports.route_count):
        route = &ports.routes[i]
        if memcmp(&route.to, to, sizeof(route.to)) == 0 and memcmp(&route.source, source, sizeof(route.source)) == 0:
            route.users += 1
            return i
        if is_idle(route):
            number = i
    if number < 0:
        routes = <Route*>realloc(ports.routes, (ports.route_count + 1) * sizeof(Route))
        if routes == NULL:
            return -1
        ports.routes = routes
        number = ports.route_count
        ports.route_count += 1
    route = &ports.routes[number]
    memset(route, 0, sizeof(Route))
    memcpy(&route.to, to, sizeof(route.to))
    memcpy(&route.source, source, sizeof(route.source))
    route.users = 1
    route.chosen = <uint32_t>number * 7919
    init_queue(&route.reusable, &ports.left[0].link, sizeof(LeftPort), ports.time_wait)
    init_queue(&route.blocked, &ports.left[0].link, sizeof(LeftPort), ports.time_wait)
    return number


cdef inline int32_t in_use_of(const Route* route) noexcept nogil:
    return route.used + route.reusable_count + route.blocked_count


cdef inline bint is_scarce(const Ports* ports, const Route* route) noexcept nogil:
    """So many ports are in use that the kernel searches for one: it prefers even ones, and when those are in use each
    connect looks at all of them, which takes milliseconds."""
    return <int64_t>in_use_of(route) * 8 > <int64_t>ports.limit * 3


cdef inline bint are_few(const Ports* ports, const Route* route) noexcept nogil:
    """So few ports are in use that those in TIME-WAIT can be left there: which ones they are is not asked, and until
    TIME-WAIT is over they count as blocked."""
    return <int64_t>in_use_of(route) * 16 <= ports.limit


# -------------------------------------------------------------------------------------------------------------- holders

cdef inline int32_t* port_bucket_of(const Ports* ports, int32_t route, uint64_t address) noexcept nogil:
    cdef uint64_t mixed = (address ^ <uint64_t>route) * <uint64_t>0x9E3779B97F4A7C15
    return &ports.buckets[<uint32_t>(mixed >> 32) & ports.bucket_mask]


cdef inline int32_t find_port_holder(const Ports* ports, int32_t route, uint64_t address) noexcept nogil:
    cdef int32_t number = port_bucket_of(ports, route, address)[0]
    while number >= 0 and (ports.holders[number].address != address or ports.holders[number].route != route):
        number = ports.holders[number].next
    return number


cdef inline int32_t add_port_holder(Ports* ports, int32_t route, uint64_t address) noexcept nogil:
    """There is room: each holder has a session or a port that was left."""
    cdef int32_t* bucket = port_bucket_of(ports, route, address)
    cdef int32_t number = ports.holders_free
    cdef PortHolder* holder
    if number >= 0:
        ports.holders_free = ports.holders[number].next
    else:
        number = ports.holders_used
        ports.holders_used += 1
    holder = &ports.holders[number]
    holder.address = address
    holder.route = route
    holder.count = 0
    holder.next = bucket[0]
    bucket[0] = number
    return number


cdef inline void release_port_holder(Ports* ports, int32_t number) noexcept nogil:
    """It has one port less; without any it is forgotten."""
    cdef PortHolder* holder = &ports.holders[number]
    cdef int32_t* link
    holder.count -= 1
    if holder.count == 0:
        link = port_bucket_of(ports, holder.route, holder.address)
        while link[0] != number:
            link = &ports.holders[link[0]].next
        link[0] = holder.next
        holder.next = ports.holders_free
        ports.holders_free = number


# ---------------------------------------------------------------------------------------------------- ports of sessions

cdef inline bint take_port(Core* core, Session* session, int32_t number) noexcept nogil:
    """Take a port of this route for a session. False: there is none, or none for its client's address."""
    cdef Ports* ports = core.ports
    cdef Route* route = &ports.routes[number]
    cdef int32_t holder, available
    forget_expired(core, &route.blocked)
    available = ports.limit - route.used - route.blocked_count
    holder = find_port_holder(ports, number, session.address)
    if available <= 0 or (holder >= 0 and ports.holders[holder].count > available):
        return False
    if holder < 0:
        holder = add_port_holder(ports, number, session.address)
    ports.holders[holder].count += 1
    route.used += 1
    session.route = number
    session.holder = holder
    session.counters.ports += 1
    return True


cdef inline void return_port(Core* core, Session* session) noexcept nogil:
    """The session has none any more, and left nothing."""
    core.ports.routes[session.route].used -= 1
    release_port_holder(core.ports, session.holder)
    session.counters.ports -= 1
    session.route = -1


cdef inline void leave_port(Core* core, Session* session, const sockaddr_in6* local, bint reusable) noexcept nogil:
    """The session has ended, and its port is in TIME-WAIT. If it cannot be used again, it still counts for the client's
    address."""
    cdef Ports* ports = core.ports
    cdef Route* route = &ports.routes[session.route]
    cdef Queue* queue = &route.reusable if reusable else &route.blocked
    cdef int32_t number
    cdef LeftPort* left
    if ports.left_free < 0 and ports.left_used == LEFT_COUNT and queue.head >= 0:
        forget_left(core, queue, queue.head)
    number = take_left_entry(ports)
    if number < 0:
        return_port(core, session)
        return
    left = &ports.left[number]
    memcpy(&left.local, local, sizeof(left.local))
    left.counters = session.counters
    left.route = session.route
    left.holder = -1
    if reusable:
        route.reusable_count += 1
        release_port_holder(ports, session.holder)
    else:
        route.blocked_count += 1
        left.holder = session.holder
    route.used -= 1
    session.route = -1
    if queue.head < 0:
        note_deadline(core, core.now + queue.duration + LEFT_SLACK)
    enqueue(queue, &left.link, number, core.now)


# ---------------------------------------------------------------------------------------------------- ports left behind

cdef inline int32_t take_left_entry(Ports* ports) noexcept nogil:
    """A free LeftPort, -1: there is none."""
    cdef int32_t number = ports.left_free
    if number >= 0:
        ports.left_free = ports.left[number].link.next
    elif ports.left_used < LEFT_COUNT:
        number = ports.left_used
        ports.left_used += 1
    return number


cdef inline void forget_left(Core* core, Queue* queue, int32_t number) noexcept nogil:
    cdef Ports* ports = core.ports
    cdef LeftPort* left = &ports.left[number]
    cdef Route* route = &ports.routes[left.route]
    dequeue(queue, &left.link)
    if queue == &route.reusable:
        route.reusable_count -= 1
    else:
        route.blocked_count -= 1
        release_port_holder(ports, left.holder)
    left.counters.ports -= 1
    left.route = -1
    left.link.next = ports.left_free
    ports.left_free = number


cdef inline int64_t forget_expired(Core* core, Queue* queue) noexcept nogil:
    """Forget the ports whose TIME-WAIT is over. When to look again; 0: none is left."""
    cdef int32_t number = first_overdue(queue, core.now)
    while number >= 0:
        forget_left(core, queue, number)
        number = first_overdue(queue, core.now)
    return link_of(queue, queue.head).deadline + LEFT_SLACK if queue.head >= 0 else 0


cdef inline bint take_left(Core* core, Route* route, sockaddr_in6* local) noexcept nogil:
    """The port that has been in TIME-WAIT longest, of those that a new connection can take over. It is forgotten."""
    cdef int32_t number = route.reusable.head
    if number < 0:
        return False
    memcpy(local, &core.ports.left[number].local, sizeof(local[0]))
    forget_left(core, &route.reusable, number)
    return True


cdef inline int64_t forget_all_expired(Core* core) noexcept nogil:
    """Of all routes. When to look again; 0: none is left."""
    cdef int32_t i
    cdef int64_t earliest = 0
    for i in range(core.ports.route_count):
        earliest = earlier(earliest, forget_expired(core, &core.ports.routes[i].reusable))
        earliest = earlier(earliest, forget_expired(core, &core.ports.routes[i].blocked))
    return earliest
