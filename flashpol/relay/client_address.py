"""Connecting to a backend from the client's own address, for `upstream_source = "client"`.

Not every address can be the source of a connection to every backend. Then the session connects from an address of this
host, as without the setting, and the log says so.
"""

import ipaddress

from flashpol.log.handler import log
from flashpol.log.rate_limit import ONCE_A_MINUTE
from flashpol.relay.backends import Backend

_IP = ipaddress.IPv4Address | ipaddress.IPv6Address
# RFC 1122 section 3.2.1.3: neither can be the source of a packet.
_THIS_NETWORK, _BROADCAST = ipaddress.IPv4Network("0.0.0.0/8"), ipaddress.IPv4Address("255.255.255.255")


class ClientAddress:
    """listener: its name, for log lines."""

    def __init__(self, listener: str) -> None:
        self._listener = listener

    def towards(self, backend: Backend, client: str) -> str | None:
        """The address that a session of `client` connects to `backend` from. None: one of this host."""
        source, destination = _ip(client), _ip(backend.destination.address[0])
        if source == destination:
            return None  # the client is the backend's host: that drops packets which claim to be its own
        why = why_unusable(source, destination)
        if why:
            self._log(backend, source, why)
            return None
        return str(source)

    def refused(self, backend: Backend, source: str) -> None:
        """A session could not begin to connect to `backend` from `source`."""
        log.warning(
            "listener %s: no connection to backend %s from the client's address %s: it has no free local port, or the "
            "kernel refuses it as a source",
            self._listener, backend, source,
            extra={"event": "ports-exhausted", "rate": ONCE_A_MINUTE, **self._fields(backend, source)},
        )  # fmt: skip

    def _log(self, backend: Backend, source: _IP, why: str) -> None:
        log.warning(
            "listener %s: a session of %s connects to backend %s from an address of this host: %s",
            self._listener, source, backend, why,
            extra={
                "event": "client-address-unused", "reason": why, "rate": ONCE_A_MINUTE,
                **self._fields(backend, str(source)),
            },
        )  # fmt: skip

    def _fields(self, backend: Backend, source: str) -> dict[str, object]:
        return {
            "listener": self._listener,
            "upstream": str(backend.remote),
            "backend": backend.address,
            "client": source,
        }


def why_unusable(source: _IP, destination: _IP) -> str | None:
    """Why no connection to `destination` can come from `source`. None: it can."""
    if source.version != destination.version:
        return f"the client has an IPv{source.version} address, the backend an IPv{destination.version} one"
    if source.is_multicast or source.is_unspecified or source in _THIS_NETWORK or source == _BROADCAST:
        return "the client's address is not one of a host"
    if source.is_loopback and not destination.is_loopback:
        return "the client's address is loopback, the backend's is not"
    if source.version == 6 and source.is_link_local:
        return "the client's address is link-local"
    return None


def _ip(host: str) -> _IP:
    """An IPv4-mapped IPv6 address as an IPv4 one; without the interface of a link-local one."""
    ip = ipaddress.ip_address(host.partition("%")[0])
    return getattr(ip, "ipv4_mapped", None) or ip
