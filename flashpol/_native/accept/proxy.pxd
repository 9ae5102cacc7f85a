# The header of the PROXY protocol, versions 1 and 2: bytes in, verdict out. No socket, no clock and no allocation.
#
# Written after the specification (doc/proxy-protocol.txt of HAProxy), whose sections are cited below.
# The verdict is the same however the bytes are split, and comes with the first byte that decides:
#
#   V_MATCH   the header is complete; `proxied` says whether `source` is the client's address. It is not for LOCAL,
#             UNKNOWN, UNSPEC, for UNIX sockets and datagrams: then the address of the connection itself counts
#   V_MORE    more bytes are needed
#   V_OTHER   this is no header; `oversized`: or it is longer than we accept
#
# What follows the addresses (TLVs, CRC32C among them) is skipped. TCP has a checksum of its own, and an attacker who
# could change a header on its way could change the checksum in it too.

from libc.stdint cimport uint8_t, uint16_t

from flashpol._native.common.system cimport sockaddr_in6

cdef enum:
    LINE_BYTES = 107            # version 1, CR LF included (section 2.1)
    ZERO = 0x30                 # ASCII
    FIXED_BYTES = 16            # version 2 before the addresses
    FOUR_BYTES = 12             # its addresses and ports: of IPv4, IPv6, UNIX
    SIX_BYTES = 36
    UNIX_BYTES = 216
    # After the first 16. The specification allows 65,535; TLVs of cloud balancers take some dozens, a certificate 1 to
    # 2 KB.
    REST_BYTES = 4096

cdef extern from *:
    """
    __attribute__((unused)) static const char flashpol_signature[12] = "\\r\\n\\r\\n\\0\\r\\nQUIT\\n";
    """
    const char* SIGNATURE "flashpol_signature"

cdef struct ProxyParser:
    sockaddr_in6 source         # of the client, or a sockaddr_in: sin6_family says which. Set if `proxied`
    sockaddr_in6 destination    # where the client connected to, the same way
    uint16_t rest               # version 2: bytes after the first 16; `skipped` of them were read
    uint16_t skipped
    uint8_t size                # bytes kept
    bint proxied
    bint oversized
    char kept[LINE_BYTES + 1]   # version 1: the line; version 2: the 16 bytes and the addresses
