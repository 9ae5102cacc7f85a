# Whether a client may connect, by its address: checked at accept, or, behind a proxy, when the PROXY header is read.

from libc.stdint cimport int64_t, uint32_t

from flashpol._native.accept.address_limits cimport (
    A_ADMITTED, A_MAX_ADDRESS_CONNECTIONS, A_MAX_ADDRESS_RATE, A_UNTRACKED, AddressVerdict,
)
from flashpol._native.accept.state cimport (
    Core, Listener, R_CAPACITY, R_MAX_ADDRESS_CONNECTIONS, R_MAX_ADDRESS_RATE, R_NETWORK, R_NONE, R_PROXY_UNTRUSTED,
    Reason,
)
from flashpol._native.common.system cimport sockaddr_in6


cdef inline Reason judge_client(
    Core* core, Listener* listener, const sockaddr_in6* client, int64_t now, uint32_t* slot,
) noexcept nogil:
    """Why a client is refused, or R_NONE: then `slot` is its slot in the address table, 0 if it is not tracked.

    R_MAX_ADDRESS_CONNECTIONS with a slot: another connection of the address may give way, see make_room_of_address.
    """
    if listener.networks != NULL and not allowed(listener.networks, address_of(client)):
        return R_NETWORK
    return admit_client(core, listener, client, now, slot)


cdef inline Reason admit_client(
    Core* core, Listener* listener, const sockaddr_in6* client, int64_t now, uint32_t* slot,
) noexcept nogil:
    """The same by the limits of the address alone."""
    cdef AddressVerdict verdict = A_ADMITTED
    if core.address_table != NULL:
        verdict = admit_address(core.address_table, address_of(client), now, slot)
    if verdict == A_MAX_ADDRESS_CONNECTIONS:
        return R_MAX_ADDRESS_CONNECTIONS
    if verdict == A_MAX_ADDRESS_RATE:
        return R_MAX_ADDRESS_RATE
    listener.counters.untracked += verdict == A_UNTRACKED
    return R_NONE


cdef inline Reason judge_connection(
    Core* core, Listener* listener, int fd, const sockaddr_in6* peer, int64_t now, uint32_t* slot,
) noexcept nogil:
    """Why a connection that was just accepted is refused, or R_NONE. Behind a proxy the client is judged later."""
    slot[0] = 0
    if <size_t>fd >= core.capacity:
        return R_CAPACITY
    if not listener.needs_address:
        return R_NONE
    if listener.proxies == NULL:
        return judge_client(core, listener, peer, now, slot)
    return R_NONE if allowed(listener.proxies, address_of(peer)) else R_PROXY_UNTRUSTED
