"""The listen sockets that the arbiter holds. They outlive workers and generations, and so do their accept queues."""

import socket
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from flashpol.config import Address, ConfigError, Endpoint, SystemdSocket
from flashpol.process.sockets import bind

# An address as configured, and its number among equal ones: several listeners may ask for port 0.
Key = tuple[Address, int]


class ListenSockets:
    """Sockets are bound when a configuration first names their address, and closed when none does any more.

    inherited: sockets from systemd. They are kept, whether a configuration names them or not.
    """

    def __init__(self, inherited: Mapping[SystemdSocket, Sequence[socket.socket]] | None = None) -> None:
        self._bound: dict[Key, list[socket.socket]] = {}
        self._inherited = dict(inherited or {})

    def acquire(self, wanted: Sequence[tuple[Endpoint, int]], backlog: int) -> list[list[socket.socket]]:
        """For each (address, count) at least `count` sockets, open ones and new ones.

        There are more if an earlier configuration had more workers: closing one would lose the clients in its queue. A
        socket from systemd is in the list `count` times. Raises ConfigError; then nothing has changed.
        """
        seen: Counter[Endpoint] = Counter()
        bound: dict[Key, list[socket.socket]] = {}
        fresh: list[socket.socket] = []
        found: list[list[socket.socket]] = []
        try:
            for address, count in wanted:
                if isinstance(address, SystemdSocket):
                    found.append([sock for sock in self._from_systemd(address) for _ in range(count)])
                    continue
                key = (address, seen[address])
                seen[address] += 1
                have = self._bound.get(key, [])
                if not have:
                    self._require_no_overlap(address)
                new = bind(address, max(0, count - len(have)), backlog, have)
                fresh += new
                bound[key] = [*have, *new]
                found.append(bound[key])
        except BaseException:
            for sock in fresh:
                sock.close()
            raise
        self._bound |= bound
        return found

    def _require_no_overlap(self, address: Address) -> None:
        """Raises ConfigError for an address that cannot be bound while another one of this server is open."""
        for other, _ in self._bound:
            if address.port == other.port and other != address and (address.covers(other) or other.covers(address)):
                raise ConfigError(
                    f"{address} overlaps {other}, which is still open; restart, or remove the old address in one "
                    "reload and add the new one in the next"
                )

    def _from_systemd(self, address: SystemdSocket) -> Sequence[socket.socket]:
        if address not in self._inherited:
            names = ", ".join(map(str, self._inherited)) or "no sockets"
            raise ConfigError(f"{address}: systemd passed {names}; see FileDescriptorName= in the .socket unit")
        return self._inherited[address]

    def restore_backlog(self, backlog: int) -> None:
        """Give the queues this length again: a worker that stopped alone has shrunk its own. systemd's keep theirs."""
        for sockets in self._bound.values():
            for sock in sockets:
                with suppress(OSError):  # a worker has shut the shared socket down, which costs only its own queue
                    sock.listen(backlog)

    def release(self, wanted: Iterable[socket.socket]) -> None:
        """Close the bound sockets, except `wanted`."""
        keep = set(wanted)
        for sockets in self._bound.values():
            _close(sockets, keep)
        kept = ((key, [sock for sock in sockets if sock in keep]) for key, sockets in self._bound.items())
        self._bound = {key: sockets for key, sockets in kept if sockets}

    def keep_only(self, wanted: Iterable[socket.socket]) -> None:
        """Close all sockets, systemd's too, except `wanted`: in a child, and when the server stops."""
        keep = set(wanted)
        self.release(keep)
        for sockets in self._inherited.values():
            _close(sockets, keep)


def _close(sockets: Iterable[socket.socket], keep: set[socket.socket]) -> None:
    for sock in sockets:
        if sock not in keep:
            sock.close()
