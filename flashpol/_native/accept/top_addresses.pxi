# Counting refused addresses. top_addresses.pxd explains the table.

from libc.stdlib cimport calloc

from flashpol._native.accept.address_limits cimport AddressTable
from flashpol._native.accept.ip_ranges cimport Address
from flashpol._native.accept.state cimport (
    Core, H_NONE, Listener, R_CAPACITY, R_MAX_ADDRESS_CONNECTIONS, R_MAX_ADDRESS_RATE, R_MAX_ADDRESS_SESSIONS,
    R_MAX_CONNECTIONS, R_MAX_HANDSHAKES, R_MAX_SESSIONS, R_MAX_SLOW_REPLIES, R_PROXY_MALFORMED, R_PROXY_OVERSIZED,
    R_PROXY_UNTRUSTED, R_TLS_HANDSHAKE, Reason,
)
from flashpol._native.accept.top_addresses cimport TOP_COUNT, TopAddress, TopTable
from flashpol._native.common.system cimport getpeername, sockaddr_in6, socklen_t


cdef inline bint is_logged(Reason reason) noexcept nogil:
    """Whether the operator can change what refused a connection: a limit, a certificate or a profile that clients do
    not accept, or a proxy that is set up wrong. The other reasons are the clients' doing, or as configured."""
    return reason in (R_CAPACITY, R_MAX_CONNECTIONS, R_MAX_ADDRESS_CONNECTIONS, R_MAX_ADDRESS_RATE,
                      R_MAX_ADDRESS_SESSIONS, R_MAX_SESSIONS, R_MAX_SLOW_REPLIES, R_MAX_HANDSHAKES, R_TLS_HANDSHAKE,
                      R_PROXY_UNTRUSTED, R_PROXY_MALFORMED, R_PROXY_OVERSIZED)


cdef void count_address(TopTable* table, Address address) noexcept nogil:
    cdef TopAddress* entry
    cdef TopAddress* lowest = &table.entries[0]
    cdef int i
    table.total += 1
    for i in range(table.size):
        entry = &table.entries[i]
        if entry.address.high == address.high and entry.address.low == address.low and (
                entry.address.is_v4 == address.is_v4):
            entry.count += 1
            return
        if entry.count < lowest.count:
            lowest = entry
    if table.size < TOP_COUNT:
        lowest = &table.entries[table.size]
        table.size += 1
    lowest.address = address
    lowest.error = lowest.count
    lowest.count += 1


cdef inline Address limited_address(const AddressTable* limits, const sockaddr_in6* client) noexcept nogil:
    """The address, or its prefix if the limits count prefixes."""
    cdef Address address = address_of(client)
    if limits == NULL:
        return address
    if address.is_v4:
        address.high &= limits.mask_v4
    else:
        address.high &= limits.mask_v6[0]
        address.low &= limits.mask_v6[1]
    return address


cdef void note_refused(
    Core* core, Listener* listener, int fd, Reason reason, const sockaddr_in6* client,
) noexcept nogil:
    """Count the address of a client that a limit refused. client: NULL if only the kernel knows it."""
    cdef sockaddr_in6 peer
    cdef socklen_t size = sizeof(peer)
    cdef TopTable* table = listener.refused[<int>reason]
    if table == NULL:
        table = listener.refused[<int>reason] = <TopTable*>calloc(1, sizeof(TopTable))
        if table == NULL:
            return
        core.refused_tables += 1
    if client == NULL and getpeername(fd, &peer, &size) == 0:
        client = &peer
    if client == NULL:          # the client has reset the connection
        table.total += 1
    else:
        count_address(table, limited_address(core.address_table, client))


cdef inline const sockaddr_in6* header_source(const Core* core, int fd) noexcept nogil:
    """The client of a record by its PROXY header, or its proxy until the header is read. NULL: there are no proxies."""
    return &core.headers[fd].source if core.records[fd].header_state != H_NONE else NULL
