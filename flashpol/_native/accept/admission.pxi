# Who may come in: judged by address, when a connection is accepted or when its PROXY header has said who it is.

from libc.stdint cimport int64_t, uint32_t

from flashpol._native.accept.address_limits cimport E_ADMITTED, E_TOO_FAST, E_TOO_MANY, E_UNTRACKED, Entrance
from flashpol._native.accept.ip_ranges cimport Address
from flashpol._native.accept.state cimport (
    Core, Listener, R_CAPACITY, R_MAX_ADDRESS_CONNECTIONS, R_MAX_ADDRESS_RATE, R_NETWORK, R_NONE, R_UNTRUSTED, Reason,
)
from flashpol._native.common.system cimport sockaddr_in6


cdef inline Reason judge_client(
    Core* core, Listener* listener, const sockaddr_in6* client, int64_t now, uint32_t* place,
) noexcept nogil:
    """Why a client is refused, or R_NONE. `place` becomes its place in the census."""
    cdef Address address = address_of(client)
    cdef Entrance entrance = E_ADMITTED
    if listener.networks != NULL and not allowed(listener.networks, address):
        return R_NETWORK
    if core.address_limits != NULL and by_address(core.address_limits):
        entrance = enter(core.address_limits, address, now, place)
    if entrance == E_TOO_MANY:
        return R_MAX_ADDRESS_CONNECTIONS
    if entrance == E_TOO_FAST:
        return R_MAX_ADDRESS_RATE
    listener.counters.untracked += entrance == E_UNTRACKED
    return R_NONE


cdef inline Reason judge_connection(
    Core* core, Listener* listener, int fd, const sockaddr_in6* peer, int64_t now, uint32_t* place,
) noexcept nogil:
    """Why a connection that was just accepted is refused, or R_NONE. Who the client is, a proxy has yet to say."""
    place[0] = 0
    if <size_t>fd >= core.capacity:
        return R_CAPACITY
    if not listener.asks_address:
        return R_NONE
    if listener.proxies == NULL:
        return judge_client(core, listener, peer, now, place)
    return R_NONE if allowed(listener.proxies, address_of(peer)) else R_UNTRUSTED
