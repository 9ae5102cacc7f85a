"""One configuration at work: its workers, its admin process, its counters. A reload makes the next generation."""

import dataclasses
import logging
import math
import os
import socket
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from flashpol.config import MAX_LISTENERS, ConfigError
from flashpol.counters.mapping import protect_all
from flashpol.counters.shared import SharedCounters
from flashpol.counters.status import ServerStatus
from flashpol.counters.totals import CounterTotals
from flashpol.log.file import LogFile
from flashpol.log.handler import log
from flashpol.process.control import Drain, StartAccepting
from flashpol.process.lines import needs_lines
from flashpol.process.sockets import accept_queue, bound_address
from flashpol.serving.plan import Plan
from flashpol.serving.policies import CLIENTS_OF
from flashpol.supervisor.child import Child, describe_exit
from flashpol.supervisor.listen_sockets import ListenSockets
from flashpol.supervisor.proc_stats import Usage
from flashpol.supervisor.queue_failover import QueueFailover
from flashpol.supervisor.reload_request import ReloadRequest
from flashpol.supervisor.stall_detector import StallDetector
from flashpol.supervisor.worker_lines import WorkerLines

if TYPE_CHECKING:
    from flashpol.process.lifecycle import ChildControl

# Seconds after a child's own time limit, before it is killed; and again before it is left alone.
KILL_AFTER = 1.0
# The share of stall_timeout after which a worker without a heartbeat is not ready, and a sibling adopts its queues.
FAILOVER_AFTER = 0.5
# Heartbeats are observed so often within stall_timeout, but no more often than MIN_OBSERVE_INTERVAL seconds.
OBSERVATIONS, MIN_OBSERVE_INTERVAL = 8, 0.05
# The admin process has a lower priority than the workers: with this niceness it gets a quarter of a CPU that all want.
ADMIN_NICENESS = 5
# Failed starts of the admin process, or seconds, after which the server is ready without it.
ADMIN_ATTEMPTS, ADMIN_TIMEOUT = 5, 30.0
# The longest pause between starts of an admin process that fails, in seconds: each failure is a traceback in the log.
ADMIN_LAST_DELAY = 60.0


def preload_admin() -> None:
    """Import what the admin process needs, before it is another user. At the start this comes once the workers accept:
    it takes a third of the time of a start."""
    import flashpol.admin.context
    import flashpol.admin.endpoint  # noqa: F401


@dataclass(frozen=True)
class ServerRuntime:
    """What outlives every generation."""

    listen_sockets: ListenSockets
    totals: CounterTotals
    status: ServerStatus
    reload_request: ReloadRequest
    log_file: LogFile
    lines: WorkerLines = field(default_factory=WorkerLines)


class Generation:
    """Raises ConfigError while it is made, if an address cannot be bound; then nothing has changed.

    sockets: [listener][…], of which slot s of n serves s, s + n, …; usually there is one for each slot.
    """

    def __init__(self, plan: Plan, runtime: ServerRuntime) -> None:
        self.plan = plan
        self._runtime = runtime
        server, listeners = plan.config.server, plan.config.listeners
        count = server.worker_count
        acquired = runtime.listen_sockets.acquire_for(plan.config)
        self.sockets = acquired[: len(listeners)]
        self.admin_socket: socket.socket | None = acquired[-1][0] if server.admin else None
        # The kernel chose the port where the configuration says 0.
        self.addresses = [bound_address(sockets[0]) for sockets in self.sockets]
        self.names = [
            listener.name or str(address) for listener, address in zip(listeners, self.addresses, strict=True)
        ]
        if sum(-(-len(sockets) // count) for sockets in self.sockets) > MAX_LISTENERS:
            raise ConfigError(f"{count} workers cannot take over the sockets of so many more; restart the server")
        self.shared = SharedCounters(
            count,
            len(listeners),
            len(plan.config.upstreams),
            len(plan.config.websocket_paths),
            len(plan.config.tunnels),
            connection_limits=server.connection_limits,
        )
        self.routes = [(self.names[number], str(remote)) for number, remote in plan.config.upstreams]
        self.paths = [(self.names[number], path.path) for number, path in plan.config.websocket_paths]
        self.tunnels = [self.names[number] for number in plan.config.tunnels]
        runtime.totals.open(self.names, self.shared, self.routes, self.paths, self.tunnels)
        # A cycle of references would keep the shared memory until a garbage collection, which the arbiter seldom needs.
        self._self: Generation = weakref.proxy(self)
        self.workers = [
            Child(f"worker {slot}", partial(Generation._prepare_worker, self._self, slot), self.shared.process(slot))
            for slot in range(count)
        ]
        self.admin: Child | None = None
        self._admin_deadline = math.inf
        self._admin_missing = False  # the log says that metrics are unavailable
        self._accepting = False
        self.observe_interval = max(MIN_OBSERVE_INTERVAL, server.stall_timeout / OBSERVATIONS)
        self._stall_detectors = [StallDetector(self.observe_interval) for _ in self.workers]
        self._failover = QueueFailover(self.workers, self.sockets)

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
    def workers_up(self) -> bool:
        return all(child.status.up for child in self.workers)

    @property
    def serving(self) -> bool:
        """At least one worker is up and has proved lately that it serves."""
        return any(child.status.serving for child in self.workers)

    @property
    def accepting(self) -> bool:
        """A process of it accepts connections, or will."""
        return any(child.accepting for child in self.children)

    @property
    def worker_deaths(self) -> int:
        return sum(child.restarts for child in self.workers)

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

    def start_due(self, close_inherited: Callable[[], object]) -> None:
        """Fork the children that are due. `close_inherited` is called in each: see `Reloader.close_inherited`."""
        now = time.monotonic()
        for child in self.children:
            if child.due is not None and child.due <= now:
                privileges = self.plan.privileges
                if child in self.workers:
                    self._runtime.lines.enter(child)
                else:  # only sessions have clients
                    privileges = dataclasses.replace(privileges, transparent=False)
                try:
                    child.start(now, close_inherited, privileges)
                except OSError as error:
                    fields = {"event": "process-not-started", "child": child.name, "errno": error.errno}
                    log.error("cannot start %s: %s; trying again", child.name, error.strerror, extra=fields)
                    self._runtime.lines.leave(child)
                else:
                    if child in self.workers:
                        self._introduce(child)

    def _introduce(self, worker: Child) -> None:
        """It has started. It gets its lines first: its clients may ask for sessions of other workers."""
        if needs_lines(self.plan.config):
            self._runtime.lines.connect(worker)
        if self._accepting:
            worker.send(StartAccepting())

    def start_accepting(self) -> None:
        """Let the workers accept, now that all are up. A later successor accepts as soon as it is up."""
        self._accepting = True
        for child in self.workers:
            if not child.send(StartAccepting()):
                child.kill()  # it would never accept

    def _prepare_worker(self, slot: int) -> Callable[["ChildControl"], None]:
        from flashpol.worker.worker import run

        own = [sockets[slot :: len(self.workers)] for sockets in self.sockets]
        self._runtime.listen_sockets.keep_only(sock for sockets in own for sock in sockets)
        self._runtime.reload_request.close()
        protect_all(self.shared.written_by(slot))
        return partial(run, slot, own, self.plan, self.shared)

    # ---------------------------------------------------------------------------------------------------- admin process

    def add_admin(self) -> None:
        """Have an admin process from now on, if the configuration wants one."""
        if self.admin_socket and not self.admin:
            try:
                preload_admin()
            except Exception:  # the child imports it again; policies are served without it
                log.exception("cannot import the admin process", extra={"event": "process-failed"})
            self.admin = Child(
                "admin", partial(Generation._prepare_admin, self._self), self.shared.admin, ADMIN_LAST_DELAY
            )
            self._admin_deadline = time.monotonic() + ADMIN_TIMEOUT

    @property
    def has_admin(self) -> bool:
        """It has its admin process, or needs none."""
        return self.admin is not None or self.admin_socket is None

    @property
    def admin_settled(self) -> bool:
        """Its admin process is up, or is not waited for any longer, or it needs none."""
        return self.has_admin and (self.admin is None or bool(self.admin.status.up) or self._admin_missing)

    def check_admin(self) -> None:
        """Policies are served without an admin process too, so one that does not start is logged and tried again."""
        if self.admin is None:
            return
        if self.admin.status.up:
            if self._admin_missing:
                log.info("metrics are available again", extra={"event": "metrics-available"})
            self._admin_missing, self._admin_deadline = False, math.inf
        elif not self._admin_missing and not self.admin.ending:
            failures = self.admin.failed_starts
            if failures >= ADMIN_ATTEMPTS or time.monotonic() >= self._admin_deadline:
                self._admin_missing = True
                how = f"failed to start {failures} times" if failures else f"is not up after {ADMIN_TIMEOUT:.0f} s"
                text = "metrics are unavailable: the admin process %s; policies are served, and it is tried again"
                log.error(text, how, extra={"event": "metrics-unavailable", "failures": failures})

    def _prepare_admin(self) -> Callable[["ChildControl"], None]:
        from flashpol.admin.context import AdminContext, ListenerInfo
        from flashpol.admin.endpoint import run

        if self.admin_socket is None:
            raise AssertionError("add_admin makes an admin process only if there is a socket for it")
        with suppress(OSError):  # a seccomp filter may refuse setpriority; metrics matter more than their priority
            os.nice(ADMIN_NICENESS)
        # Other copies here would keep accept queues alive that no worker empties.
        self._runtime.listen_sockets.keep_only([self.admin_socket])
        protect_all([*self.shared.written_by_admin, self._runtime.status.written_by_admin])
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
                certificates=listener.tls,
                tls_profile=listener.tls_profile if listener.tls else "",
                tls_only=listener.tls_only,
            )
            for name, reply, listener, source, address in zip(
                self.names, self.plan.replies, config.listeners, sources, self.addresses, strict=True
            )
        ]
        context = AdminContext(
            self._runtime.status,
            self._runtime.totals,
            self.shared,
            listeners,
            self.routes,
            paths=self.paths,
            tunnels=self.tunnels,
            address=bound_address(self.admin_socket),
            workers_are_root=(user.pw_uid if user else os.geteuid()) == 0,
            certificates=[each.facts for each in self.plan.certificates.values()],
            websocket_listeners=[
                dataclasses.replace(listener, name=name, served_from=listener.served_from or address.port)
                for name, listener, address in zip(self.names, config.listeners, self.addresses, strict=True)
                if listener.websocket
            ],
            websocket_findings=[
                (name, text)
                for name, found in zip(self.names, self.plan.websocket_findings, strict=True)
                for text in found
            ],
        )
        if not config.server.reload_endpoint:
            self._runtime.reload_request.close()
            return partial(run, self.admin_socket, context, None)
        return partial(run, self.admin_socket, context, self._runtime.reload_request.send)

    # --------------------------------------------------------------------------------------------------------- running

    def observe(self) -> None:
        """Publish what the kernel knows of processes and accept queues."""
        self.observe_processes()
        self._observe_queues()

    def observe_processes(self) -> None:
        for child in self.workers:
            usage = Usage.of(child.pid) if child.pid else None
            if usage:
                status = child.status
                status.cpu_ns, status.resident_bytes = usage.cpu_ns, usage.resident_bytes
                status.started_ms = usage.started_ms

    def _observe_queues(self) -> None:
        seen = set()  # a socket that all workers share counts for the first of them
        for number, sockets in enumerate(self.sockets):
            for slot in range(len(self.workers)):
                own = {sock for sock in sockets[slot :: len(self.workers)] if sock not in seen}
                seen |= own
                queues = [(0, 0), *map(accept_queue, own)]
                queue = self.shared.queue(slot, number)
                queue.length, queue.limit = (sum(column) for column in zip(*queues, strict=True))

    def kill_stalled(self) -> None:
        """Kill workers that have not proved for stall_timeout that they serve. Their successors serve the clients in
        their queues."""
        server = self.plan.config.server
        timeout = server.stall_timeout
        if not timeout:
            return
        now = time.monotonic()
        for child, detector in zip(self.workers, self._stall_detectors, strict=True):
            # Read `up` first: until a successor sets it, the heartbeat may be its predecessor's.
            is_up = bool(child.pid and child.status.up)
            seconds = detector.observe(child.status.heartbeat_ns, now)
            child.stalled = is_up and seconds >= timeout * FAILOVER_AFTER
            child.status.stalled = int(child.stalled)
            # A worker that drains may empty its queue for shutdown_timeout without a heartbeat.
            overdue = seconds >= timeout + (server.shutdown_timeout if child.ending else 0.0)
            if is_up and overdue and (child.given_up or not child.killed):
                fields = {"event": "stalled", "child": child.name, "child_pid": child.pid, "seconds": round(seconds, 1)}
                text = "%s (pid %d) stalled: it has not served for %.1f s; killing and restarting it"
                log.error(text, child.name, child.pid, seconds, extra=fields)
                child.kill()

    def update_failover(self) -> None:
        """See that a sibling accepts for each worker that does not, from `start_accepting` to `drain`."""
        if self._accepting:
            self._failover.update()

    def on_child_exit(self, pid: int, status: int) -> Child | None:
        """`pid` has exited, was stopped, or was continued, as its wait `status` says. None if it is no child here."""
        child = next((child for child in self.children if child.pid == pid), None)
        if child is None:
            return None
        if os.WIFSTOPPED(status) or os.WIFCONTINUED(status):
            child.stopped = os.WIFSTOPPED(status)
            self.update_failover()
            return child
        delay = child.on_exit(time.monotonic())
        self._runtime.lines.leave(child)
        self.update_failover()  # before anything else: clients wait
        if child in self.workers:
            self.shared.settle(self.workers.index(child))
        if delay is not None:
            code = os.waitstatus_to_exitcode(status)
            # 0: SIGTERM was sent to it too, as service managers do to the whole group.
            level = logging.ERROR if code else logging.INFO
            fields = {"event": "process-ended", "child": child.name, "child_pid": pid, "status": code}
            successor = f"; its successor starts in {delay:.1f} s" if code else ""  # after 0 the server mostly stops
            text = "%s (pid %d) %s%s"
            log.log(level, text, child.name, pid, describe_exit(code), successor, extra=fields | {"restart_in": delay})
        return child

    # ---------------------------------------------------------------------------------------------------------- ending

    def drain(self, successor: "Generation") -> None:
        """Stop accepting and finish open connections; `successor` accepts."""
        held = set(successor.all_sockets)
        self._drain(frozenset(i for i, sockets in enumerate(self.sockets) if held.issuperset(sockets)))

    def drain_all(self) -> None:
        """The same for workers that have no successor: they empty all their queues. The admin process goes on."""
        self._drain(frozenset(), admin=False)

    def _drain(self, kept: frozenset[int], *, admin: bool = True) -> None:
        self._accepting = False
        now, config = time.monotonic(), self.plan.config
        for child in self.children if admin else self.workers:
            leave_by = now + config.server.shutdown_timeout + KILL_AFTER
            child.drain(Drain(kept), leave_by, leave_by if child is self.admin else now + config.draining + KILL_AFTER)

    def shorten_drain(self) -> None:
        """Open connections have only shutdown_timeout left, as if the server stopped."""
        deadline = time.monotonic() + self.plan.config.server.shutdown_timeout + KILL_AFTER
        for child in self.children:
            child.stop(deadline)

    @property
    def deadline(self) -> float:
        """When the next of its processes is to be killed."""
        running = [child for child in self.children if child.pid]
        times = [child.deadline for child in running]
        times += [child.leave_by for child in running if child.accepting and not child.killed]
        return min(times, default=math.inf)

    def kill_overdue(self) -> None:
        """Kill the processes whose time to drain is over, or to stop accepting."""
        now = time.monotonic()
        for child in self.children:
            if child.accepting and not child.killed and child.leave_by <= now < child.deadline:
                fields = {"event": "drain-ignored", "child": child.name, "child_pid": child.pid}
                text = "%s (pid %d) goes on accepting although it is to drain; killing it"
                log.error(text, child.name, child.pid, extra=fields)
                child.deadline = now
            if child.pid and child.deadline <= now:
                again = child.killed
                child.given_up |= again
                child.stop()
                if not child.kill() and again:
                    child.abandon()
                    self._runtime.lines.leave(child)
                child.deadline = now + KILL_AFTER
