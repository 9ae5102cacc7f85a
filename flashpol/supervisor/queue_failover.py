"""Who accepts for whom: for a worker that is dead, stopped or stuck a sibling answers those who wait in its queue."""

import os
import socket
import time
from collections.abc import Sequence

from flashpol.process.control import MAX_SOCKETS, AdoptSockets, ReleaseSockets
from flashpol.supervisor.child import Child

# Who stands in is told again, in seconds: it may have had no room for the sockets.
AGAIN = 1.0


class StandIns:
    """Of one generation. sockets: [listener][…], of which slot s of n serves s, s + n, …

    Each worker has accept queues of its own, and the kernel goes on giving an absent one its share of the clients. The
    queues are open here, so a sibling can have copies. Two that accept from one queue for a moment do no harm.
    """

    def __init__(self, workers: Sequence[Child], sockets: Sequence[Sequence[socket.socket]]) -> None:
        self._workers = workers
        self._sockets = sockets
        self._told: dict[int, list[tuple[Child, int]]] = {}  # by the slot of who is absent; with the pid that was told
        self._again = 0.0  # CLOCK_MONOTONIC

    def arrange(self) -> None:
        """See who is absent, and tell siblings what that means to them."""
        now = time.monotonic()
        again = now >= self._again
        if again:
            self._again = now + AGAIN
        for slot, worker in enumerate(self._workers):
            told = [(child, pid) for child, pid in self._told.pop(slot, ()) if child.pid == pid]
            if worker.answering:
                told = [(child, pid) for child, pid in told if not child.send(ReleaseSockets(slot))]
            else:
                standing = [child for child, _ in told if child.answering]
                if not standing or again:
                    told += self._send_one(slot, standing or self._others(slot))
            if told:
                self._told[slot] = list(dict.fromkeys(told))

    def _others(self, slot: int) -> list[Child]:
        """From the next one on, so that not all who are absent have the same."""
        after = [*self._workers[slot + 1 :], *self._workers[:slot]]
        return [child for child in after if child.answering]

    def _send_one(self, slot: int, candidates: Sequence[Child]) -> list[tuple[Child, int]]:
        """Tell the first of them that can be told. Returns who has heard at least a part of it."""
        told = []
        for child in candidates:
            parts = self._parts(slot, self._workers.index(child))
            sent = [child.send(AdoptSockets(slot, numbers), sockets) for numbers, sockets in parts]
            told += [(child, child.pid)] if any(sent) or not parts else []
            if all(sent):
                # The kernel has woken it on this CPU, since who writes to a socket usually sleeps then. We have more to
                # do: without this it heard us 1.1 to 2.1 ms later in four of five cases, with it 0.2 to 0.3.
                os.sched_yield()
                break
        return told

    def _parts(self, slot: int, its: int) -> list[tuple[tuple[int, ...], tuple[socket.socket, ...]]]:
        """Numbers and sockets of the listeners of `slot`, but not what `its` slot has itself: systemd's is for all."""
        count = len(self._workers)
        queues = [
            (number, sock)
            for number, sockets in enumerate(self._sockets)
            for sock in sockets[slot::count]
            if sock not in sockets[its::count]
        ]
        batches = (queues[start : start + MAX_SOCKETS] for start in range(0, len(queues), MAX_SOCKETS))
        return [(tuple(number for number, _ in batch), tuple(sock for _, sock in batch)) for batch in batches]
