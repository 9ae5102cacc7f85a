"""A worker process, which serves the listeners on one gevent hub.

In this order it
1. makes an acceptor for each of its listening sockets, and reports that it is up;
2. waits until the arbiter says that all workers of its generation are up, then accepts;
3. serves, and proves that it does with each heartbeat (`self_check`); between heartbeats it adopts the sockets of
   siblings that do not accept, releases them (queue failover), and takes lines to other workers;
4. drains, once SIGTERM or the arbiter says so: it empties the accept queues that no other process goes on serving,
   closes its sockets, and waits for its connections to end, for `shutdown_timeout` or after a reload `drain_timeout`;
5. closes the connections that are left, and ends.
"""

import errno
import os
import resource
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial

from flashpol.config import Address
from flashpol.counters.refused_origins import RefusedOrigins
from flashpol.counters.shared import SharedCounters
from flashpol.counters.status import BEAT, ProcessStatus
from flashpol.hub import attempt
from flashpol.log.handler import log, report_suppressed
from flashpol.log.rate_limit import ONCE_A_MINUTE
from flashpol.process.control import AdoptSockets, PeerLines, ReleaseSockets
from flashpol.process.lifecycle import ChildControl
from flashpol.process.limits import count_files
from flashpol.process.lines import count_line_files
from flashpol.relay.group import SharedPort
from flashpol.serving.networks import exempt_from_limits
from flashpol.serving.plan import Plan
from flashpol.worker.codecs import codec_of, http_port_of
from flashpol.worker.listener import ListenerLoop
from flashpol.worker.self_check import SelfCheck
from flashpol.worker.service import Service
from flashpol.worker.tunnels import TunnelSettings


class AdoptedSockets:
    """The listening sockets of siblings that this worker accepts from as well.

    listeners: one loop for each listener. evict: closes a connection that may give way, False if there is none.
    """

    def __init__(self, listeners: Sequence[ListenerLoop], evict: Callable[[], bool]) -> None:
        self._listeners = listeners
        self._evict = evict
        self._sockets: dict[int, dict[int, tuple[int, socket.socket]]] = {}  # by slot, by inode; the listener's number

    def update(self, message: AdoptSockets | ReleaseSockets, sockets: Sequence[socket.socket]) -> None:
        """Adopt or release sockets, as a control message says. Called in the hub."""
        if isinstance(message, AdoptSockets):
            held = self._sockets.setdefault(message.slot, {})
            for number, sock in zip(message.listeners, sockets, strict=False):
                inode = os.fstat(sock.fileno()).st_ino
                if inode in held:  # the message is sent again every second
                    sock.close()
                else:
                    self._listeners[number].adopt(sock)
                    held[inode] = number, sock
            self._make_room(message, len(message.listeners) - len(sockets))
        else:
            for number, sock in self._sockets.pop(message.slot, {}).values():
                self._listeners[number].release([sock])
                sock.close()

    def _make_room(self, message: AdoptSockets, missing: int) -> None:
        """The kernel leaves out sockets for which no descriptor is free. They are sent again: free some by then."""
        if missing:
            text = "cannot adopt %d sockets of worker %d: out of file descriptors; trying again in a second"
            fields = {"event": "exhausted", "listener": None, "errno": errno.EMFILE, "rate": ONCE_A_MINUTE}
            log.warning(text, missing, message.slot, extra=fields)
            while missing and self._evict():
                missing -= 1

    def of(self, number: int) -> list[socket.socket]:
        """The adopted sockets of one listener."""
        return [sock for each in self._sockets.values() for listener, sock in each.values() if listener == number]


def run(
    slot: int,
    sockets: Sequence[Sequence[socket.socket]],
    plan: Plan,
    shared: SharedCounters,
    control: ChildControl,
) -> None:
    """Serve the plan's listener i on `sockets[i]` until `control` says `draining`; drain, and return."""
    service = Service(
        access_log=plan.config.server.access_log,
        address_limits=shared.address_limits.of(slot, exempt_from_limits(plan.config.server.connection_limits)),
        limits=plan.config.server.connection_limits,
        workers=plan.config.server.worker_count,
        tls=any(listener.tls for listener in plan.config.listeners),
        line_files=count_line_files(plan.config),
        tunnels=TunnelSettings(plan.config.server.host, control.incarnation) if plan.config.tunnels else None,
    )
    adopted = AdoptedSockets(_add_listeners(service, slot, sockets, plan, shared), service.evict)
    control.on_failover = adopted.update
    control.on_lines = partial(_add_lines, service)
    status = shared.process(slot)
    status.base_files, status.max_files = count_files(), resource.getrlimit(resource.RLIMIT_NOFILE)[0] % 2**63
    _serve(service, status, plan.config.server.stall_timeout, control)
    _drain(service, status, [[*own, *adopted.of(number)] for number, own in enumerate(sockets)], plan, control)


def _add_listeners(
    service: Service, slot: int, sockets: Sequence[Sequence[socket.socket]], plan: Plan, shared: SharedCounters
) -> list[ListenerLoop]:
    """The first loop of each listener: it adopts the sockets of siblings."""
    blocks: list[list[memoryview]] = [[] for _ in plan.config.listeners]
    for upstream, (number, _) in enumerate(plan.config.upstreams):
        blocks[number].append(shared.relay_memory(slot, upstream))
    path_blocks: list[list[memoryview]] = [[] for _ in plan.config.listeners]
    refused: list[list[RefusedOrigins]] = [[] for _ in plan.config.listeners]
    for path, (number, _) in enumerate(plan.config.websocket_paths):
        path_blocks[number].append(shared.path_memory(slot, path))
        refused[number].append(shared.refused_origins(slot, path))
    tunnels = {number: shared.tunnel_memory(slot, each) for each, number in enumerate(plan.config.tunnels)}
    first_loops = []
    parts = zip(plan.config.listeners, sockets, plan.replies, plan.access, strict=True)
    for number, (listener, own, reply, access) in enumerate(parts):
        codec = codec_of(listener, plan)
        http = (
            http_port_of(number, listener, own[0], plan, path_blocks[number], refused[number])
            if listener.takes_http
            else None
        )
        first, *_ = [
            service.add(
                sock,
                reply,
                shared.memory(slot, number),
                name=listener.name,
                timeouts=plan.config.timeouts(listener),
                exclusive=isinstance(listener.address, Address),
                terminated=listener.terminated,
                access=access,
                shared_port=(
                    SharedPort(listener, blocks[number], plan.local_ports, plan.config.server.worker_count)
                    if listener.relays
                    else None
                ),
                codec=codec,
                tls_only=listener.tls_only,
                http=http,
                tunnel_block=tunnels.get(number),
            )
            for sock in own
        ]
        first_loops.append(first)
    return first_loops


def _add_lines(service: Service, message: PeerLines, lines: Sequence[socket.socket]) -> None:
    """Called in the hub. A line that is missing, for want of a descriptor, has ended for the other worker."""
    for incarnation, line in zip(message.incarnations, lines, strict=False):
        service.add_line(incarnation, line)
    if missing := len(message.incarnations) - len(lines):
        text = "%d lines to other workers are missing: out of file descriptors; tunnels there cannot be reached"
        fields = {"event": "lines-missing", "lines": missing, "rate": ONCE_A_MINUTE}
        log.warning(text, missing, extra=fields)


def _serve(service: Service, status: ProcessStatus, stall_timeout: float, control: ChildControl) -> None:
    # Several heartbeats within the time after which the worker counts as stalled.
    interval = min(BEAT, stall_timeout / 4 or BEAT)
    status.heartbeat_ns = time.monotonic_ns()
    status.up = 1
    # If the other workers do not come up, this generation must not have accepted a connection.
    while not control.accepting.wait(interval):
        status.heartbeat_ns = time.monotonic_ns()
    service.start()
    check = SelfCheck()
    while not control.draining.is_set():
        attempt(service.log_refusals, "the log of refusals")
        attempt(report_suppressed, "the log of suppressed lines")
        started = time.monotonic_ns()
        if check.passed():
            status.heartbeat_ns = started
        if not control.draining.wait(interval):
            status.loop_lag_ns = max(0, time.monotonic_ns() - started - int(interval * 1e9))


def _drain(
    service: Service,
    status: ProcessStatus,
    sockets: Sequence[Sequence[socket.socket]],
    plan: Plan,
    control: ChildControl,
) -> None:
    timeout = plan.config.server.shutdown_timeout
    shutdown_deadline = time.monotonic() + timeout
    deadline = shutdown_deadline if control.kept is None else time.monotonic() + plan.config.draining
    service.stop_accepting(timeout, kept=[sock for number in control.kept or () for sock in sockets[number]])
    for own in sockets:
        for sock in own:
            sock.close()
    status.up, status.draining = 0, 1

    def time_left() -> float:
        nonlocal deadline
        if control.hurry.is_set():
            deadline = min(deadline, max(shutdown_deadline, time.monotonic() + timeout))
        return deadline - time.monotonic()

    if not service.finish(timeout, time_left, replaced=control.kept is not None):
        log.warning(
            "closed the connections that had not ended within shutdown_timeout or drain_timeout",
            extra={"event": "cut-off"},
        )
