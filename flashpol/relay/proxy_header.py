"""The PROXY header that flashpol sends: the first bytes to a backend, which name the client. Pure functions.

HAProxy's proxy-protocol.txt, versions 1 (text, section 2.1) and 2 (binary, section 2.2).
"""

import ipaddress
import struct

V1, V2 = VERSIONS = ("v1", "v2")

Endpoint = tuple[str, int]

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_LOCAL, _PROXY = 0x20, 0x21
_FAMILIES = {4: 0x11, 6: 0x21}  # TCP over IPv4, over IPv6
_UNSPECIFIED = 0x00
# Types of TLVs (section 2.2), and the flag in that of TLS which says that the client has it.
_AUTHORITY, _SSL, _SSL_VERSION, _SSL_CIPHER, _CLIENT_SSL = 0x02, 0x20, 0x21, 0x23, 0x01
_NOT_VERIFIED = 1  # the client has shown no certificate


def tls_fields(version: str, cipher: str, server_name: bytes) -> bytes:
    """The TLVs of version 2 for a client with TLS. version, cipher: as OpenSSL names them, such as "TLSv1.3"."""
    inner = _tlv(_SSL_VERSION, version.encode()) + _tlv(_SSL_CIPHER, cipher.encode())
    outer = _tlv(_SSL, struct.pack("!BL", _CLIENT_SSL, _NOT_VERIFIED) + inner)
    return (_tlv(_AUTHORITY, server_name) if server_name else b"") + outer


def _tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def encode(version: str, client: Endpoint | None, server: Endpoint | None, fields: bytes = b"") -> bytes:
    """The header for a connection of `client` (IP, port) to `server`. None: unknown, and the header says so.

    fields: TLVs that version 2 adds.
    """
    if client is None or server is None:
        return b"PROXY UNKNOWN\r\n" if version == V1 else _SIGNATURE + struct.pack("!BBH", _LOCAL, _UNSPECIFIED, 0)
    source, destination = ipaddress.ip_address(client[0]), ipaddress.ip_address(server[0])
    if source.version != destination.version:  # the IPv4 one is sent as an IPv4-mapped IPv6 address
        source, destination = _mapped(source), _mapped(destination)
    if version == V1:
        return f"PROXY TCP{source.version} {_text(source)} {_text(destination)} {client[1]} {server[1]}\r\n".encode()
    body = source.packed + destination.packed + struct.pack("!HH", client[1], server[1]) + fields
    return _SIGNATURE + struct.pack("!BBH", _PROXY, _FAMILIES[source.version], len(body)) + body


def _text(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """An IPv4-mapped IPv6 address is written with dots, as RFC 5952 section 5 and inet_ntop(3) have it."""
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return f"::ffff:{mapped}" if mapped else str(ip)


def _mapped(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv6Address:
    return ip if isinstance(ip, ipaddress.IPv6Address) else ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + ip.packed)
