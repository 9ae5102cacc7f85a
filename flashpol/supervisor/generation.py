"""One configuration at work: its workers, its admin process, its counters. A reload makes the next one."""

import logging
import math
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from flashpol.config import MAX_LISTENERS, ConfigError, Endpoint
from flashpol.counters.shared import SharedCounters
from flashpol.counters.status import ServerStatus
from flashpol.counters.totals import CounterTotals
from flashpol.log.handler import log
from flashpol.process.control import Drain, StartAccepting
from flashpol.process.sockets import accept_queue, bound_address
from flashpol.serving.plan import Plan
from flashpol.serving.policies import CLIENTS_OF
from flashpol.supervisor.child import Child
from flashpol.supervisor.listen_sockets import Listening
from flashpol.supervisor.proc_stats import Usage
from flashpol.supervisor.queue_failover import StandIns
from flashpol.supervisor.reload_request import ReloadRequest
from flashpol.supervisor.stall_detector import StallDetector

if TYPE_CHECKING:
    from flashpol.process.lifecycle import ChildControl

# Beyond shutdown_timeout, before a child that does not end is killed; and again before it is left alone.
KILL_AFTER = 1.0
# The share of stall_timeout after which a sibling stands in for a worker that stands still.
STAND_IN_AFTER = 0.5
# So often within stall_timeout the workers' pulse is felt, but not more often than this, in seconds.
LOOKS, SHORTEST_LOOK = 8, 0.05
# The admin process yields to the workers: with this niceness it has a quarter of a CPU that all of them want.
ADMIN_NICENESS = 5


@dataclass(frozen=True)
class Foundation:
    """What outlives every generation."""

    listening: Listening
    totals: CounterTotals
    status: ServerStatus
    bell: ReloadRequest


class Generation:
    """Raises ConfigError while it is being made, if an address cannot be bound; then nothing has changed.

    sockets: [listener][…], of which slot s of n serves s, s + n, …; usually there is one for each slot.
    """

    def __init__(self, plan: Plan, foundation: Foundation) -> None:
        self.plan = plan
        self._foundation = foundation
        server, listeners = plan.config.server, plan.config.listeners
        count = server.worker_count
        wanted: list[tuple[Endpoint, int]] = [(listener.address, count) for listener in listeners]
        if server.admin:
            wanted.append((server.admin, 1))
        acquired = foundation.listening.acquire(wanted, server.backlog)
        self.sockets = acquired[: len(listeners)]
        self.admin_socket: socket.socket | None = acquired[-1][0] if server.admin else None
        # The port is the one the kernel chose where the configuration says 0.
        self.addresses = [bound_address(sockets[0]) for sockets in self.sockets]
        self.names = [
            listener.name or str(address) for listener, address in zip(listeners, self.addresses, strict=True)
        ]
        if sum(-(-len(sockets) // count) for sockets in self.sockets) > MAX_LISTENERS:
            raise ConfigError(f"{count} workers have too many sockets to take over from more: restart the server")
        self.shared = SharedCounters(
            count, len(listeners), len(plan.config.upstreams), connection_limits=server.connection_limits
        )
        self.routes = [(self.names[number], str(remote)) for number, remote in plan.config.upstreams]
        foundation.totals.open(self.names, self.shared, self.routes)
        self.workers = [
            Child(f"worker {slot}", partial(self._work, slot), self.shared.process(slot)) for slot in range(count)
        ]
        self.admin: Child | None = None
        self._begun = False
        self.pulse_interval = max(SHORTEST_LOOK, server.stall_timeout / LOOKS)
        self._pulses = [StallDetector(self.pulse_interval) for _ in self.workers]
        self._stand_ins = StandIns(self.workers, self.sockets)

    @property
    def children(self) -> list[Child]:
        return [*self.workers, *([self.admin] if self.admin else [])]

    @property
    def all_sockets(self) -> Iterator[socket.socket]:
        for sockets in self.sockets:
            yield from sockets
        if self.admin_socket:
            yield self.admin_socket

    @property
    def up(self) -> bool:
        """All processes that there are serve."""
        return all(child.status.up for child in self.children)

    @property
    def attended(self) -> bool:
        """It has its admin process, or needs none."""
        return self.admin is not None or self.admin_socket is None

    @property
    def serving(self) -> bool:
        """At least one worker accepts, and its loop turns."""
        return any(child.status.serving for child in self.workers)

    @property
    def deaths(self) -> int:
        return sum(child.restarts for child in self.children)

    @property
    def ended(self) -> bool:
        return not any(child.pid for child in self.children)

    @property
    def summary(self) -> str:
        counts = ((len(self.workers), "worker"), (len(self.sockets), "listener"))
        return ", ".join(f"{count} {what}{'s' if count != 1 else ''}" for count, what in counts)

    @property
    def fields(self) -> dict[str, object]:
        """The same for a log line."""
        return {"workers": len(self.workers), "listeners": self.names}

    # --------------------------------------------------------------------------------------------------------- starting

    def start_due(self, others: Sequence[Child]) -> None:
        """Fork those whose time has come. `others`: all children there are, whose lines they must not keep open."""
        now = time.monotonic()
        for child in self.children:
            if child.due is not None and child.due <= now:
                self._foundation.listening.lengthen(self.plan.config.server.backlog)
                try:
                    child.start(now, others, self.plan.privileges)
                except OSError as error:
                    fields = {"event": "process-not-started", "child": child.name, "errno": error.errno}
                    text = "%s cannot be started: %s; it is tried again"
                    log.error(text, child.name, error.strerror, extra=fields)
                else:
                    if self._begun and child in self.workers:
                        child.send(StartAccepting())

    def begin(self) -> None:
        """Let the workers accept, now that all are up. One that comes later need not wait."""
        self._begun = True
        for child in self.workers:
            if not child.send(StartAccepting()):
                child.kill()  # it would wait for ever

    def add_admin(self) -> None:
        """Have an admin process from now on."""
        if self.admin_socket and not self.admin:
            self.admin = Child("admin", self._administer, self.shared.admin)

    def _work(self, slot: int) -> Callable[["ChildControl"], None]:
        from flashpol.worker.worker import run

        own = [sockets[slot :: len(self.workers)] for sockets in self.sockets]
        self._foundation.listening.keep_only(sock for sockets in own for sock in sockets)
        self._foundation.bell.close()
        return partial(run, slot, own, self.plan, self.shared)

    def _administer(self) -> Callable[["ChildControl"], None]:
        from flashpol.admin.context import AdminContext, ListenerInfo
        from flashpol.admin.endpoint import run

        if self.admin_socket is None:
            raise AssertionError("the admin process is only among the children when there is a socket for it")
        with suppress(OSError):  # a wish: a seccomp filter, such as of systemd, may refuse setpriority
            os.nice(ADMIN_NICENESS)
        # Its copies would keep an accept queue alive that no worker empties.
        self._foundation.listening.keep_only([self.admin_socket])
        config, user = self.plan.config, self.plan.privileges.user
        sources = [config.policy(listener.policy) for listener in config.listeners]
        listeners = [
            ListenerInfo(
                name,
                reply,
                policy=listener.policy,
                path=str(source.file or source.folder or ""),
                address=str(address),
                port=address.port,
                served_from=listener.served_from or address.port,
                dialect=listener.dialect,
                clients=CLIENTS_OF[listener.dialect],
            )
            for name, reply, listener, source, address in zip(
                self.names, self.plan.replies, config.listeners, sources, self.addresses, strict=True
            )
        ]
        context = AdminContext(
            self._foundation.status,
            self._foundation.totals,
            self.shared,
            listeners,
            self.routes,
            address=bound_address(self.admin_socket),
            workers_are_root=(user.pw_uid if user else os.geteuid()) == 0,
        )
        if not self.plan.config.server.reload_endpoint:
            self._foundation.bell.close()
            return partial(run, self.admin_socket, context, None)
        return partial(run, self.admin_socket, context, self._foundation.bell.ring)

    # --------------------------------------------------------------------------------------------------------- running

    def observe(self) -> None:
        """Publish what the kernel knows: of the processes, and of the accept queues."""
        for child in self.workers:
            usage = Usage.of(child.pid) if child.pid else None
            if usage:
                status = child.status
                status.cpu_ns, status.resident_bytes = usage.cpu_ns, usage.resident_bytes
                status.started_ms = usage.started_ms
        self._read_queues()

    def end_stalled(self) -> None:
        """Kill the workers that serve and stand still. What waits in their queues is for their successors."""
        server = self.plan.config.server
        timeout = server.stall_timeout
        if not timeout:
            return
        now = time.monotonic()
        for child, pulse in zip(self.workers, self._pulses, strict=True):
            # In this order: until one that starts says that it is up, the beat may be its predecessor's.
            serves = child.pid and child.status.up
            still = pulse.look(child.status.heartbeat_ns, now)
            child.stalled = still >= timeout * STAND_IN_AFTER
            # Told to finish, one may empty its queue for so long without a beat.
            if serves and still >= timeout + (server.shutdown_timeout if child.ending else 0.0):
                fields = {"event": "stalled", "child": child.name, "child_pid": child.pid, "seconds": round(still, 1)}
                text = "%s (pid %d) stands still for %.1f s: it is killed and replaced"
                log.error(text, child.name, child.pid, still, extra=fields)
                child.kill()

    def cover(self) -> None:
        """See that somebody accepts for each worker that does not, from `begin` to `retire`."""
        if self._begun:
            self._stand_ins.arrange()

    def _read_queues(self) -> None:
        seen = set()  # a socket that all workers share counts for the first of them
        for number, sockets in enumerate(self.sockets):
            for slot in range(len(self.workers)):
                own = {sock for sock in sockets[slot :: len(self.workers)] if sock not in seen}
                seen |= own
                queues = [(0, 0), *map(accept_queue, own)]
                status = self.shared.queue(slot, number)
                status.length, status.limit = (sum(column) for column in zip(*queues, strict=True))

    def bury(self, pid: int, status: int) -> bool:
        """`pid` has ended, or stopped, or goes on. If it was one of ours that is noted; False if it was none."""
        child = next((child for child in self.children if child.pid == pid), None)
        if child is None:
            return False
        if os.WIFSTOPPED(status) or os.WIFCONTINUED(status):
            child.stopped = os.WIFSTOPPED(status)
            self.cover()
            return True
        delay = child.on_exit(time.monotonic())
        self.cover()  # first of all: clients wait
        if child in self.workers:
            self.shared.settle(self.workers.index(child))
        if delay is not None:
            code = os.waitstatus_to_exitcode(status)
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
            # 0: somebody sent SIGTERM to it too, as service managers do to the whole group.
            level = logging.ERROR if code else logging.INFO
            fields = {"event": "process-ended", "child": child.name, "child_pid": pid, "status": code}
            text = "%s (pid %d) %s; the next one starts in %.1f s"
            log.log(level, text, child.name, pid, how, delay, extra=fields | {"restart_in": delay})
        return True

    # ---------------------------------------------------------------------------------------------------------- ending

    def retire(self, successor: "Generation") -> None:
        """Finish what is inside: the successor accepts."""
        self._begun = False
        held = set(successor.all_sockets)
        message = Drain(frozenset(i for i, sockets in enumerate(self.sockets) if held.issuperset(sockets)))
        now, config = time.monotonic(), self.plan.config
        for child in self.children:
            patience = config.server.shutdown_timeout if child is self.admin else config.draining
            child.drain(message, now + patience + KILL_AFTER)

    def hurry(self) -> None:
        """Of a generation that finishes: conversations have no longer than if the server ended."""
        deadline = time.monotonic() + self.plan.config.server.shutdown_timeout + KILL_AFTER
        for child in self.children:
            child.stop(deadline)

    @property
    def deadline(self) -> float:
        """When the next of its processes is to be killed."""
        return min((child.deadline for child in self.children if child.pid), default=math.inf)

    def end_overdue(self) -> None:
        """Kill those whose time to finish is over."""
        now = time.monotonic()
        for child in self.children:
            if child.pid and child.deadline <= now:
                child.stop()
                child.kill()
                child.deadline = now + KILL_AFTER
