"""The parent process: binds, forks, restarts, stops. It runs no gevent and never reads a client's byte.

Signals are blocked and taken one at a time by sigtimedwait, so a handler cannot interrupt anything:

    SIGCHLD                    a child ended: replace it, after a back-off if it did not live long
    SIGTERM, SIGINT, SIGHUP    stop accepting, let the workers finish, exit 0; the second one does not wait

Each worker slot has a socket of its own on each address (SO_REUSEPORT). The arbiter keeps them all open, so what waits
in the queue of a worker that died is there for the next one.
"""

import logging
import os
import pwd
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from flashpol.config import Config
from flashpol.counters import DRAINING, READY, STARTING, SharedCounters
from flashpol.server.child import Child
from flashpol.server.log import log, tell
from flashpol.server.process import find_user, raise_file_limit
from flashpol.server.sockets import accept_queue, bind, bound_address

if TYPE_CHECKING:
    from gevent.event import Event

# How often the accept queues are read, in seconds; a scrape interval is seldom below 5.
TICK = 1.0
# How often to look whether all children are up, while starting. A child cannot signal: it may be another user's by now.
STARTING_TICK = 0.01
# Children that end before the server was ever ready: after so many it is not going to be.
START_ATTEMPTS = 5
# Beyond shutdown_timeout, before a child that does not end is killed; and again before it is left alone.
KILL_AFTER = 1.0


@dataclass
class Arbiter:
    """Runs one configuration. `replies` holds the bytes that `config.listeners` serve, in their order.

    Raises ConfigError while it is being made: an address cannot be bound, a user cannot be had.
    """

    config: Config
    replies: Sequence[bytes]
    on_ready: Callable[["Arbiter"], None]
    shared: SharedCounters = field(init=False)
    sockets: list[list[socket.socket]] = field(init=False)  # [listener][slot]
    admin_socket: socket.socket | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        raise_file_limit()
        server = self.config.server
        self._user: pwd.struct_passwd | None = find_user(server.user) if server.user is not None else None
        count = server.worker_count
        self.sockets = [bind(listener.address, count, server.backlog) for listener in self.config.listeners]
        if server.admin:
            [self.admin_socket] = bind(server.admin, 1, server.backlog)
        # The port is the one the kernel chose where the configuration says 0.
        self._names = [
            listener.name or str(bound_address(sockets[0]))
            for listener, sockets in zip(self.config.listeners, self.sockets, strict=True)
        ]
        self.shared = SharedCounters(count, len(self.sockets))
        self.shared.server.reload_successful = 1
        self.shared.server.reload_timestamp = int(time.time())
        self._set_state(STARTING)
        self._workers = [
            Child(f"worker {slot}", partial(self._work, slot), self.shared.process(slot)) for slot in range(count)
        ]
        self._children = list(self._workers)
        if self.admin_socket:
            self._children.append(Child("admin", self._administer, self.shared.admin))
        # Under nohup a closed terminal is to be ignored.
        ignored = {number for number in (signal.SIGHUP,) if signal.getsignal(number) == signal.SIG_IGN}
        self._ending = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP} - ignored
        self._signals = {*self._ending, signal.SIGCHLD}
        self._queues_due = 0.0

    def _set_state(self, state: int) -> None:
        self._state = self.shared.server.state = state

    def run(self) -> int:
        """Serve until a signal ends it; returns the exit status."""
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        while True:
            self._start_due()
            received = signal.sigtimedwait(self._signals, self._patience())
            self._reap()
            self._read_queues()
            tell()
            if self._state == STARTING and all(child.status.up for child in self._children):
                self._set_state(READY)
                names = ", ".join(self._names)
                fields = {"event": "ready", "workers": len(self._workers), "listeners": self._names}
                log.info("ready: %d worker processes, listeners %s", len(self._workers), names, extra=fields)
                self.on_ready(self)
            if received and received.si_signo in self._ending:
                name = signal.Signals(received.si_signo).name
                log.info("%s: finishing", name, extra={"event": "stopping", "signal": name})
                self._stop()
                return 0
            if self._state == STARTING and sum(child.restarts for child in self._children) >= START_ATTEMPTS:
                text = "giving up: the processes end before they serve; the lines above say why"
                log.error(text, extra={"event": "giving-up"})
                self._stop()
                return 1

    def _patience(self) -> float:
        now = time.monotonic()
        tick = STARTING_TICK if self._state == STARTING else TICK
        return max(0.0, min([tick, *(child.due - now for child in self._children if child.due is not None)]))

    def _read_queues(self) -> None:
        now = time.monotonic()
        if now < self._queues_due:
            return
        self._queues_due = now + TICK
        for listener, sockets in enumerate(self.sockets):
            for slot, sock in enumerate(sockets):
                queue = self.shared.queue(slot, listener)
                queue.length, queue.limit = accept_queue(sock)

    # ------------------------------------------------------------------------------------------------------- children

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.due is not None and child.due <= now:
                try:
                    child.start(now, self._children, self._user)
                except OSError as error:
                    fields = {"event": "process-not-started", "child": child.name, "errno": error.errno}
                    text = "%s cannot be started: %s; it is tried again"
                    log.error(text, child.name, error.strerror, extra=fields)

    def _work(self, slot: int) -> Callable[["Event"], None]:
        from flashpol.server.worker import run

        for sockets in self.sockets:
            for other, sock in enumerate(sockets):
                if other != slot:
                    sock.close()
        if self.admin_socket:
            self.admin_socket.close()
        own = [sockets[slot] for sockets in self.sockets]
        return partial(run, slot, own, self.replies, self.config, self.shared)

    def _administer(self) -> Callable[["Event"], None]:
        from flashpol.admin.endpoint import run
        from flashpol.admin.metrics import PolicyFacts

        if self.admin_socket is None:
            raise AssertionError("the admin process is only among the children when there is a socket for it")
        # Its copies would keep an accept queue alive that no worker empties.
        self._close_listeners()
        facts = [PolicyFacts(name, reply) for name, reply in zip(self._names, self.replies, strict=True)]
        return partial(run, self.admin_socket, self.shared, facts)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self._children:
                if child.pid == pid:
                    self._bury(child, status)

    def _bury(self, child: Child, status: int) -> None:
        pid = child.pid
        delay = child.ended(time.monotonic())
        if child in self._workers:
            self.shared.settle(self._workers.index(child))
        if self._state == DRAINING:
            child.due = None
            return
        code = os.waitstatus_to_exitcode(status)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        # 0: somebody sent SIGTERM to it too, as service managers do to the whole group.
        level = logging.ERROR if code else logging.INFO
        fields = {"event": "process-ended", "child": child.name, "child_pid": pid, "status": code, "restart_in": delay}
        text = "%s (pid %d) %s; the next one starts in %.1f s"
        log.log(level, text, child.name, pid, how, delay, extra=fields)

    # ------------------------------------------------------------------------------------------------------- the end

    def _close_listeners(self) -> None:
        for sockets in self.sockets:
            for sock in sockets:
                sock.close()

    def _stop(self) -> None:
        # A slot without a worker may have connections in its queue.
        for child in self._workers:
            child.due = None if child.pid else 0.0
        self._start_due()
        for child in self._children:
            child.due = None
        self._set_state(DRAINING)
        # Ours first: the last copy a worker closes must be the one that ends its queue.
        self._close_listeners()
        self._finish(self._workers, self.config.server.shutdown_timeout + KILL_AFTER)
        self._finish(self._children, KILL_AFTER)
        tell(everything=True)
        log.info("stopped", extra={"event": "stopped"})

    def _finish(self, children: Sequence[Child], timeout: float) -> None:
        """Tell them to stop and wait; killed after `timeout` seconds, or at the next signal to end."""
        for child in children:
            child.let_go()
        for patience in (timeout, KILL_AFTER):
            deadline = time.monotonic() + patience
            while any(child.pid for child in children):
                received = signal.sigtimedwait(self._signals, max(0.0, deadline - time.monotonic()))
                self._reap()
                if received is None or received.si_signo in self._ending:
                    break
            for child in children:
                child.kill()
        for child in children:
            if child.pid:
                fields = {"event": "left-behind", "child": child.name, "child_pid": child.pid}
                log.error("%s (pid %d) does not end and is left behind", child.name, child.pid, extra=fields)
