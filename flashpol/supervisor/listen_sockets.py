"""The listening sockets that the arbiter holds. They outlive workers and generations, and so do their accept queues."""

import socket
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from flashpol.config import Address, ConfigError, Endpoint, SystemdSocket
from flashpol.process.sockets import bind

Key = tuple[Address, int]  # an address as configured, and which of those that are the same: of port 0 there may be many


class Listening:
    """All of them: bound when a configuration first asks for their address, closed when none does any more.

    inherited: those that systemd handed over. They are kept, whether they are used or not.
    """

    def __init__(self, inherited: Mapping[SystemdSocket, Sequence[socket.socket]] | None = None) -> None:
        self._bound: dict[Key, list[socket.socket]] = {}
        self._inherited = dict(inherited or {})

    def acquire(self, wanted: Sequence[tuple[Endpoint, int]], backlog: int) -> list[list[socket.socket]]:
        """For each address at least so many sockets, those there are and new ones.

        There are more if an earlier configuration had more workers: closing one would lose what waits in its queue.
        One that systemd handed over is there so many times. Raises ConfigError; then nothing has changed.
        """
        seen: Counter[Endpoint] = Counter()
        bound: dict[Key, list[socket.socket]] = {}
        fresh: list[socket.socket] = []
        found: list[list[socket.socket]] = []
        try:
            for address, count in wanted:
                if isinstance(address, SystemdSocket):
                    found.append([sock for sock in self._handed_over(address) for _ in range(count)])
                    continue
                key = (address, seen[address])
                seen[address] += 1
                have = self._bound.get(key, [])
                if not have:
                    self._require_room(address)
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

    def _require_room(self, address: Address) -> None:
        """Raises ConfigError for an address that only a restart can bind."""
        for other, _ in self._bound:
            if address.port == other.port and other != address and (address.covers(other) or other.covers(address)):
                raise ConfigError(
                    f"{address}: {other} is ours, and both cannot be bound for a moment: restart the server, or reload "
                    "without it first"
                )

    def _handed_over(self, address: SystemdSocket) -> Sequence[socket.socket]:
        if address not in self._inherited:
            names = ", ".join(map(str, self._inherited)) or "none"
            raise ConfigError(f"{address}: systemd hands over no such socket (but {names}): see FileDescriptorName=")
        return self._inherited[address]

    def lengthen(self, backlog: int) -> None:
        """Give the queues this length, which a worker that ended alone may have left short. systemd's are its own."""
        for sockets in self._bound.values():
            for sock in sockets:
                with suppress(OSError):  # a worker may have made something else of it, which is its own loss
                    sock.listen(backlog)

    def release(self, wanted: Iterable[socket.socket]) -> None:
        """Close what was bound here, but not these."""
        keep = set(wanted)
        for sockets in self._bound.values():
            _close(sockets, keep)
        kept = ((key, [sock for sock in sockets if sock in keep]) for key, sockets in self._bound.items())
        self._bound = {key: sockets for key, sockets in kept if sockets}

    def keep_only(self, wanted: Iterable[socket.socket]) -> None:
        """Close all but these: in a child the others are none of its business, and in the end there are none."""
        keep = set(wanted)
        self.release(keep)
        for sockets in self._inherited.values():
            _close(sockets, keep)


def _close(sockets: Iterable[socket.socket], keep: set[socket.socket]) -> None:
    for sock in sockets:
        if sock not in keep:
            sock.close()
