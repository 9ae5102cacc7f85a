"""Local ports towards backends: whom they are counted for, and what the log says when they run out.

The pump keeps the account: `_native/relay/ports.pxi`.
"""

import ipaddress

from flashpol._fastpath import ConnectionTable
from flashpol.log.handler import log
from flashpol.log.rate_limit import ONCE_A_MINUTE
from flashpol.relay.backends import Backend

# The log says so when more than this share of a backend's ports is in use, and again after it was below the other.
LOW, ENOUGH = 0.75, 0.5
_WORD = 2**64 - 1


def address_key(connection_table: ConnectionTable, fd: int) -> int:
    """A number for the client's address; an IPv6 client counts by its /64. It is as secret as the hashes of strings."""
    key = connection_table.address_key(fd)
    if key:
        return key
    try:
        host, _ = connection_table.client(fd)
    except OSError:  # the client has reset the connection
        return 0
    return hash(host if "." in host else ipaddress.IPv6Address(host).packed[:8]) & _WORD


class PortLog:
    """Log lines about the local ports of one listener's backends."""

    def __init__(self, listener: str) -> None:
        self._listener = listener

    def check(self, backend: Backend) -> None:
        """Log once when ports become scarce."""
        used, most = backend.destination.ports
        if not backend.ports_low and used > most * LOW:
            backend.ports_low = True
            log.warning(
                "listener %s: %s of %s local ports towards backend %s are in use; another address in upstream_source "
                "has as many",
                self._listener, f"{used:,}", f"{most:,}", backend,
                extra={"event": "ports-low", **self._fields(backend, used, most)},
            )  # fmt: skip
        elif backend.ports_low and used < most * ENOUGH:
            backend.ports_low = False

    def exhausted(self, backend: Backend) -> None:
        """A session got no port."""
        used, most = backend.destination.ports
        log.warning(
            "listener %s: no local port towards backend %s for a session: %s of %s are in use, and one client address "
            "may have as many as are free",
            self._listener, backend, f"{used:,}", f"{most:,}",
            extra={"event": "ports-exhausted", "rate": ONCE_A_MINUTE, **self._fields(backend, used, most)},
        )  # fmt: skip

    def _fields(self, backend: Backend, used: int, most: int) -> dict[str, object]:
        fields = {"listener": self._listener, "upstream": str(backend.remote), "backend": backend.address}
        return {**fields, "ports": used, "max_ports": most}
