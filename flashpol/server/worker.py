"""A child process that serves: one gevent hub, its acceptors, its conversations."""

import resource
import socket
import time
from collections.abc import Sequence

from flashpol.config import Address
from flashpol.counters import ADMISSION_POLL, BEAT, SharedCounters
from flashpol.gateway.hub import Stop
from flashpol.server.log import log, tell
from flashpol.server.plan import Plan
from flashpol.server.process import count_files
from flashpol.server.service import Beyond, Service


def run(
    slot: int,
    sockets: Sequence[Sequence[socket.socket]],
    plan: Plan,
    shared: SharedCounters,
    stop: Stop,
) -> None:
    """Serve what the plan says on `sockets[i]`, those of its listener i, until `stop` comes; finish what is inside."""
    service = Service(access_log=plan.config.server.access_log, census=shared.census.of(slot))
    blocks: list[list[memoryview]] = [[] for _ in plan.config.listeners]
    for upstream, (number, _) in enumerate(plan.config.upstreams):
        blocks[number].append(shared.relay_memory(slot, upstream))
    parts = zip(plan.config.listeners, sockets, plan.replies, plan.access, strict=True)
    for number, (listener, own, reply, access) in enumerate(parts):
        for sock in own:
            service.add(
                sock,
                reply,
                shared.memory(slot, number),
                name=listener.name,
                limits=plan.config.limits(listener),
                ours=isinstance(listener.address, Address),
                terminated=listener.terminated,
                access=access,
                beyond=Beyond(listener, blocks[number]) if listener.shared else None,
            )
    status = shared.process(slot)
    # Some beats within the time after which it is held to stand still.
    beat = min(BEAT, plan.config.server.stall_timeout / 4 or BEAT)
    status.base_files, status.max_files = count_files(), resource.getrlimit(resource.RLIMIT_NOFILE)[0] % 2**63
    status.beat_ns = time.monotonic_ns()
    status.up = 1
    # If the others do not come up, this generation will have answered nobody.
    while not shared.admitted and not stop.event.wait(ADMISSION_POLL):
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
    service.stop_accepting(timeout, kept=[sock for number in stop.kept or () for sock in sockets[number]])
    for own in sockets:
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
