"""Lines between workers: each worker gets a line to every other one, also to those of generations that drain.

    worker starts ──► incarnation: a number that no running worker has
                      a pair of sockets for each running worker
                          PeerLines((new,)) + one end    ──►  each of the others
                          PeerLines((others, …)) + ends  ──►  the new worker, which may accept only afterwards

The arbiter closes both ends at once, so the two workers alone have the line, and its end says that the other worker is
gone. A control socket that is full does not delay the arbiter: that line is made later. If only one end could be sent,
its receiver sees the end of a line, and gets another one with the same incarnation.

Only workers whose configuration needs lines have any: see `process.lines`.
"""

import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack

from flashpol.log.handler import log
from flashpol.log.rate_limit import ONCE_A_MINUTE
from flashpol.process.control import MAX_SOCKETS, PeerLines
from flashpol.process.lines import INCARNATIONS
from flashpol.supervisor.child import Child

# Seconds after which a line is tried again that could not be made or sent. Where the limit of descriptors is low, the
# kernel passes on no more of them while as many are on their way (ETOOMANYREFS), until the new workers read theirs.
RETRY_AFTER = 0.1


class WorkerLines:
    """The incarnations and the lines of all workers that run, of all generations."""

    def __init__(self) -> None:
        self._last = -1
        self._running: dict[int, Child] = {}  # by incarnation
        self._speaking: dict[int, Child] = {}  # those that need lines, the oldest first
        self._missing: set[tuple[int, int]] = set()  # lines between two of them, the newer one first
        self._retry_at = 0.0  # CLOCK_MONOTONIC

    def enter(self, child: Child) -> None:
        """It is about to start: give it an incarnation."""
        self._last = next(
            number
            for number in ((self._last + step) % INCARNATIONS for step in range(1, INCARNATIONS + 1))
            if number not in self._running
        )
        child.incarnation = self._last
        self._running[self._last] = child

    def connect(self, child: Child) -> None:
        """It has started: give it a line to each worker that was connected before."""
        others = list(self._speaking)
        self._speaking[child.incarnation] = child
        self._make(child.incarnation, others)

    def leave(self, child: Child) -> None:
        """It has ended, or did not start. The kernel closes its ends of the lines."""
        if self._running.get(child.incarnation) is child:
            del self._running[child.incarnation]
            self._speaking.pop(child.incarnation, None)

    def retry(self) -> None:
        """Make the lines that are missing, if it is time for that."""
        if self._missing and time.monotonic() >= self._retry_at:
            missing, self._missing = self._missing, set()
            for newer in sorted({newer for newer, _ in missing}):
                self._make(newer, [other for number, other in missing if number == newer])

    def _make(self, newer: int, others: Sequence[int]) -> None:
        """Lines between a worker and others. A worker that has ended or was stopped gets none."""
        for start in range(0, len(others), MAX_SOCKETS):
            part = [number for number in others[start : start + MAX_SOCKETS] if self._reaches(number)]
            if self._reaches(newer):
                connected = self._send(newer, part)
                self._missing |= {(newer, number) for number in part if number not in connected}
        if self._missing:
            self._retry_at = time.monotonic() + RETRY_AFTER

    def _reaches(self, incarnation: int) -> bool:
        return incarnation in self._speaking and self._speaking[incarnation].reachable

    def _send(self, newer: int, others: Sequence[int]) -> list[int]:
        """At most MAX_SOCKETS lines. Returns those of the others that are connected now."""
        connected, ends = [], []
        with ExitStack() as copies:
            for number in others:
                try:
                    ours, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                except OSError as error:
                    fields = {"event": "line-not-made", "errno": error.errno, "rate": ONCE_A_MINUTE}
                    log.error("cannot make a line between two workers: %s; trying again", error.strerror, extra=fields)
                    break
                copies.enter_context(ours)
                with other:  # the older worker first: the control socket of the newer one is hardly full
                    if self._speaking[number].send(PeerLines((newer,)), [other]):
                        connected.append(number)
                        ends.append(ours)
            if connected and not self._speaking[newer].send(PeerLines(tuple(connected)), ends):
                return []
        return connected
