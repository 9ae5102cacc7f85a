"""Queue failover: while a worker does not accept, a sibling accepts from its queues.

Each worker has accept queues of its own, and the kernel goes on giving an absent worker its share of the clients. The
arbiter holds all queues open, so it can send a sibling copies of the sockets:

    worker 1 answers ──────► killed, stopped, or stalled for half of stall_timeout
           ▲                       │  AdoptSockets(1, listeners) + sockets  ──►  worker 2
           │                       ▼  (resent every second: worker 2 may have had no descriptors for some)
    ReleaseSockets(1) ──► ◄── worker 2 accepts from its own queues and from worker 1's,
    worker 2                  in the name of its own listeners and into its own counters
           ▲
           └── worker 1, or its successor, answers again

Two processes that accept from one queue for a moment do no harm, so nothing is locked. A socket that both workers have
is not sent: under systemd all workers share one. docs/architecture.md, "Accept queues", says why there are several
queues, and what that was compared with.
"""

import os
import socket
import time
from collections.abc import Sequence

from flashpol.process.control import MAX_SOCKETS, AdoptSockets, ReleaseSockets
from flashpol.supervisor.child import Child

# Seconds after which AdoptSockets is sent again.
RESEND_AFTER = 1.0


class QueueFailover:
    """Of one generation. sockets: [listener][…], of which slot s of n serves s, s + n, …"""

    def __init__(self, workers: Sequence[Child], sockets: Sequence[Sequence[socket.socket]]) -> None:
        self._workers = workers
        self._sockets = sockets
        # By the absent worker's slot: the siblings that adopted its sockets, with the pid that received the message.
        self._adopters: dict[int, list[tuple[Child, int]]] = {}
        self._resend_at = 0.0  # CLOCK_MONOTONIC

    def update(self) -> None:
        """Compare with which workers answer now, and send siblings what has changed."""
        now = time.monotonic()
        resend = now >= self._resend_at
        if resend:
            self._resend_at = now + RESEND_AFTER
        for slot, worker in enumerate(self._workers):
            adopters = [(child, pid) for child, pid in self._adopters.pop(slot, ()) if child.pid == pid]
            if worker.answering:
                adopters = [(child, pid) for child, pid in adopters if not child.send(ReleaseSockets(slot))]
            else:
                answering = [child for child, _ in adopters if child.answering]
                if not answering or resend:
                    adopters += self._send_to_one(slot, answering or self._siblings(slot))
            if adopters:
                self._adopters[slot] = list(dict.fromkeys(adopters))

    def _siblings(self, slot: int) -> list[Child]:
        """Siblings that answer, the next slot first, so that several absent workers do not burden the same one."""
        after = [*self._workers[slot + 1 :], *self._workers[:slot]]
        return [child for child in after if child.answering]

    def _send_to_one(self, slot: int, candidates: Sequence[Child]) -> list[tuple[Child, int]]:
        """Send the sockets to the first candidate that takes them all. Returns the candidates that took some."""
        adopters = []
        for child in candidates:
            parts = self._parts(slot, self._workers.index(child))
            sent = [child.send(AdoptSockets(slot, numbers), sockets) for numbers, sockets in parts]
            adopters += [(child, child.pid)] if any(sent) or not parts else []
            if all(sent):
                # The kernel has woken the child on this CPU, since the writer to a socket usually sleeps next. The
                # arbiter does not: without this the child ran 1.1 to 2.1 ms later in four of five runs, with it 0.2
                # to 0.3.
                os.sched_yield()
                break
        return adopters

    def _parts(self, slot: int, its: int) -> list[tuple[tuple[int, ...], tuple[socket.socket, ...]]]:
        """Listeners' numbers and sockets of `slot` that slot `its` does not have itself, as many as a message takes."""
        count = len(self._workers)
        queues = [
            (number, sock)
            for number, sockets in enumerate(self._sockets)
            for sock in sockets[slot::count]
            if sock not in sockets[its::count]
        ]
        batches = (queues[start : start + MAX_SOCKETS] for start in range(0, len(queues), MAX_SOCKETS))
        return [(tuple(number for number, _ in batch), tuple(sock for _, sock in batch)) for batch in batches]
