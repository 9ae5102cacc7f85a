"""The client's address behind an HTTP proxy: X-Forwarded-For, believed only from proxies that the operator named.

Each proxy appends the address that its connection came from, so only entries at the right end are from known proxies;
everything to the left of the first address that is not theirs was sent by the client, which can write anything there.
"""

from collections.abc import Sequence
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import NamedTuple

from flashpol._fastpath import Networks

__all__ = ["ClientAddress", "client_address", "is_allowed"]

# Entries that are read. Few services have more than three proxies in a row.
_ENTRIES = 32
_MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96
# The longest entry: an IPv6 address with an IPv4 address in it, brackets, and a port.
_CHARACTERS = 53


class ClientAddress(NamedTuple):
    """`address` is in its shortest form, IPv4 also if it came as an IPv4-mapped address. `forwarded`: whether it is
    from X-Forwarded-For, so its port is unknown, and not the peer's own."""

    address: str
    forwarded: bool


def client_address(peer: str, x_forwarded_for: Sequence[bytes], networks: Networks | None) -> ClientAddress:
    """The address of the client of a request.

    peer: the IP address of the other end of the connection, or of its PROXY header. x_forwarded_for: the values of all
    fields of that name, in order, which are one list (RFC 9110, section 5.3). networks: the proxies', None: there are
    none.

    The rightmost address that is not in the networks is the client's; if all are, the leftmost. Reading ends at an
    entry that is not an address (`unknown`, `_hidden`), and the address to the right of it counts: it is that of the
    nearest proxy that is known, while everything farther left may be made up.
    """
    packed = _packed(peer.partition("%")[0])
    if packed is None:  # the address of an accepted connection is one
        raise ValueError(f"{peer!r} is not an IP address")
    forwarded = False
    if networks is not None and x_forwarded_for and networks.allow(packed):
        entries = b",".join(x_forwarded_for).rsplit(b",", _ENTRIES)
        for entry in reversed(entries[-_ENTRIES:]):
            found = _entry(entry)
            if found is None:
                break
            packed, forwarded = found, True
            if not networks.allow(packed):
                break
    return ClientAddress(_text(packed), forwarded)


def is_allowed(address: str, networks: Networks) -> bool:
    """address: of a ClientAddress."""
    packed = _packed(address)
    return packed is not None and networks.allow(packed) == 1


def _entry(entry: bytes) -> bytes | None:
    """An entry, with or without a port, as 16 bytes; None if it is not an address."""
    entry = entry.strip(b" \t")
    if not entry or len(entry) > _CHARACTERS or not entry.isascii():
        return None
    text = entry.decode("ascii")
    if text.startswith("["):
        text, closed, port = text[1:].partition("]")
        return _packed(text) if closed and ":" in text and (not port or _is_port(port)) else None
    if text.count(":") == 1:
        text, colon, port = text.partition(":")
        return _packed(text) if "." in text and _is_port(colon + port) else None
    return _packed(text)


def _is_port(text: str) -> bool:
    return text[:1] == ":" and text[1:].isdigit() and len(text) <= 6


def _packed(text: str) -> bytes | None:
    """An address as 16 bytes, IPv4 as ::ffff:0:0/96."""
    try:
        return inet_pton(AF_INET6, text) if ":" in text else _MAPPED + inet_pton(AF_INET, text)
    except (OSError, ValueError):  # ValueError: a NUL in it
        return None


def _text(packed: bytes) -> str:
    if packed.startswith(_MAPPED):
        return inet_ntop(AF_INET, packed[len(_MAPPED) :])
    return inet_ntop(AF_INET6, packed)
