"""A child process that serves: one gevent hub, its acceptors, its conversations."""

import errno
import os
import resource
import socket
import time
from collections.abc import Callable, Sequence

from flashpol.config import Address
from flashpol.counters.shared import BEAT, SharedCounters
from flashpol.hub import Stop
from flashpol.log.handler import log, tell
from flashpol.log.rate_limit import ONCE_A_MINUTE
from flashpol.process.control import StandDown, StandIn
from flashpol.process.privileges import count_files
from flashpol.serving.plan import Plan
from flashpol.worker.service import Beyond, Door, Service


class Siblings:
    """The sockets of siblings for whom this worker stands in.

    doors: one for each listener. make_room: has a client that is silent give its descriptor back.
    """

    def __init__(self, doors: Sequence[Door], evict_oldest: Callable[[], bool]) -> None:
        self._doors = doors
        self._evict_oldest = evict_oldest
        self._sockets: dict[int, dict[int, tuple[int, socket.socket]]] = {}  # by slot, by inode; the listener's number

    def hear(self, message: StandIn | StandDown, sockets: Sequence[socket.socket]) -> None:
        """See `Stop.on_sibling`."""
        if isinstance(message, StandIn):
            held = self._sockets.setdefault(message.slot, {})
            for number, sock in zip(message.listeners, sockets, strict=False):
                inode = os.fstat(sock.fileno()).st_ino
                if inode in held:  # it is said again
                    sock.close()
                else:
                    self._doors[number].stand_in(sock)
                    held[inode] = number, sock
            self._complain(message, len(message.listeners) - len(sockets))
        else:
            for number, sock in self._sockets.pop(message.slot, {}).values():
                self._doors[number].leave([sock])
                sock.close()

    def _complain(self, message: StandIn, missing: int) -> None:
        """The kernel leaves out descriptors for which there is no room. They come again, and room is made for them."""
        if missing:
            text = "standing in for worker %d: no descriptors for %d of its listeners; it is tried again"
            fields = {"event": "exhausted", "listener": None, "errno": errno.EMFILE, "rate": ONCE_A_MINUTE}
            log.warning(text, message.slot, missing, extra=fields)
            while missing and self._evict_oldest():
                missing -= 1

    def of(self, number: int) -> list[socket.socket]:
        """Those of one listener."""
        return [sock for each in self._sockets.values() for listener, sock in each.values() if listener == number]


def run(
    slot: int,
    sockets: Sequence[Sequence[socket.socket]],
    plan: Plan,
    shared: SharedCounters,
    stop: Stop,
) -> None:
    """Serve what the plan says on `sockets[i]`, those of its listener i, until `stop` comes; finish what is inside."""
    service = Service(
        access_log=plan.config.server.access_log,
        address_limits=shared.address_limits.of(slot),
        limits=plan.config.server.connection_limits,
    )
    doors: list[Door] = []
    blocks: list[list[memoryview]] = [[] for _ in plan.config.listeners]
    for upstream, (number, _) in enumerate(plan.config.upstreams):
        blocks[number].append(shared.relay_memory(slot, upstream))
    parts = zip(plan.config.listeners, sockets, plan.replies, plan.access, strict=True)
    for number, (listener, own, reply, access) in enumerate(parts):
        first, *_ = [
            service.add(
                sock,
                reply,
                shared.memory(slot, number),
                name=listener.name,
                timeouts=plan.config.timeouts(listener),
                ours=isinstance(listener.address, Address),
                terminated=listener.terminated,
                access=access,
                beyond=Beyond(listener, blocks[number]) if listener.shared else None,
            )
            for sock in own
        ]
        doors.append(first)
    siblings = Siblings(doors, service.evict_oldest)
    stop.on_sibling = siblings.hear
    status = shared.process(slot)
    # Some beats within the time after which it is held to stand still.
    beat = min(BEAT, plan.config.server.stall_timeout / 4 or BEAT)
    status.base_files, status.max_files = count_files(), resource.getrlimit(resource.RLIMIT_NOFILE)[0] % 2**63
    status.beat_ns = time.monotonic_ns()
    status.up = 1
    # If the others do not come up, this generation will have answered nobody.
    while not stop.begun.wait(beat):
        status.beat_ns = time.monotonic_ns()
    service.start()
    while not stop.event.is_set():
        tell()
        status.beat_ns = started = time.monotonic_ns()
        if not stop.event.wait(beat):
            status.loop_lag_ns = max(0, time.monotonic_ns() - started - int(beat * 1e9))
    timeout = plan.config.server.shutdown_timeout
    deadline = time.monotonic() + timeout
    drained = deadline if stop.kept is None else time.monotonic() + plan.config.draining
    held = [[*own, *siblings.of(number)] for number, own in enumerate(sockets)]
    service.stop_accepting(timeout, kept=[sock for number in stop.kept or () for sock in held[number]])
    for own in held:
        for sock in own:
            sock.close()
    status.up, status.accepts_no_more = 0, 1

    def patience() -> float:
        nonlocal drained
        if stop.urgent.is_set():
            drained = min(drained, max(deadline, time.monotonic() + timeout))
        return drained - time.monotonic()

    if not service.finish(timeout, patience):
        log.warning("connections were cut off: they did not end within shutdown_timeout", extra={"event": "cut-off"})
