"""The listening sockets that the arbiter holds. They outlive workers and generations, and so do their accept queues."""

import socket
from collections import Counter
from collections.abc import Iterable, Sequence

from flashpol.config import Address
from flashpol.server.sockets import bind

Key = tuple[Address, int]  # an address as configured, and which of those that are the same: of port 0 there may be many


class Listening:
    """All of them: bound when a configuration first asks for their address, closed when none does any more."""

    def __init__(self) -> None:
        self._sockets: dict[Key, list[socket.socket]] = {}

    def acquire(self, wanted: Sequence[tuple[Address, int]], backlog: int) -> list[list[socket.socket]]:
        """For each address at least so many sockets, those there are and new ones.

        There are more if an earlier configuration had more workers: closing one would lose what waits in its queue.
        Raises ConfigError; then nothing has changed.
        """
        seen: Counter[Address] = Counter()
        found: dict[Key, list[socket.socket]] = {}
        fresh: list[socket.socket] = []
        try:
            for address, count in wanted:
                key = (address, seen[address])
                seen[address] += 1
                have = self._sockets.get(key, [])
                new = bind(address, max(0, count - len(have)), backlog, have)
                fresh += new
                found[key] = have + new
        except BaseException:
            for sock in fresh:
                sock.close()
            raise
        self._sockets |= found
        return list(found.values())

    def keep_only(self, wanted: Iterable[socket.socket]) -> None:
        """Close all others: what no configuration uses, or what is none of a child's business."""
        keep = set(wanted)
        for key, sockets in list(self._sockets.items()):
            for sock in sockets:
                if sock not in keep:
                    sock.close()
            self._sockets[key] = [sock for sock in sockets if sock in keep]
            if not self._sockets[key]:
                del self._sockets[key]
