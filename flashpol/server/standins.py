"""Who accepts for whom: for a worker that is dead, stopped or stuck a sibling answers those who wait in its queue."""

import os
import socket
from collections.abc import Sequence

from flashpol.gateway.handover import MOST_SOCKETS, StandDown, StandIn
from flashpol.server.child import Child


class StandIns:
    """Of one generation. sockets: [listener][…], of which slot s of n serves s, s + n, …

    Each worker has accept queues of its own, and the kernel goes on giving an absent one its share of the clients. The
    queues are open here, so a sibling can have copies. Two that accept from one queue for a moment do no harm.
    """

    def __init__(self, workers: Sequence[Child], sockets: Sequence[Sequence[socket.socket]]) -> None:
        self._workers = workers
        self._sockets = sockets
        self._told: dict[int, list[tuple[Child, int]]] = {}  # by the slot of who is absent; with the pid that was told

    def arrange(self) -> None:
        """See who is absent, and tell siblings what that means to them."""
        for slot, worker in enumerate(self._workers):
            told = [child for child, pid in self._told.get(slot, ()) if child.pid == pid]
            if worker.answering:
                for child in told:
                    child.send(StandDown(slot))
                self._told.pop(slot, None)
            elif not any(child.answering for child in told):
                self._find(slot)

    def _find(self, slot: int) -> None:
        """The next one that answers, so that not all who are absent have the same."""
        count = len(self._workers)
        for other in (each % count for each in range(slot + 1, slot + count)):
            child = self._workers[other]
            if child.answering and self._send(child, other, slot):
                # The kernel wakes it on our CPU, since who writes to a socket usually sleeps then. We go on for a while.
                os.sched_yield()
                self._told.setdefault(slot, []).append((child, child.pid))
                return

    def _send(self, child: Child, its: int, slot: int) -> bool:
        count = len(self._workers)
        queues = [
            (number, sock)
            for number, sockets in enumerate(self._sockets)
            for sock in sockets[slot::count]
            if sock not in sockets[its::count]  # systemd's is one for all
        ]
        for start in range(0, len(queues), MOST_SOCKETS):
            numbers, sockets = zip(*queues[start : start + MOST_SOCKETS], strict=True)
            if not child.send(StandIn(slot, numbers), sockets):
                return False
        return True
