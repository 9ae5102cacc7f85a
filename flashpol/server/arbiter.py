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
from importlib import import_module

from flashpol.config import Config
from flashpol.counters import DRAINING, READY, STARTING, ProcessStatus, SharedCounters
from flashpol.server.log import set_up
from flashpol.server.process import enter_child, find_user, raise_file_limit
from flashpol.server.sockets import accept_queue, bind, bound_address

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SIGNALS = (*_ENDING, signal.SIGCHLD)
# How often the accept queues are read, in seconds; a scrape interval is seldom below 5.
TICK = 1.0
# How often to look whether all children are up, while starting. A child cannot signal: it may be another user's by now.
STARTING_TICK = 0.01
# A child that lived this long was well: its successor starts at once.
HEALTHY_AFTER = 10.0
# Otherwise the successors wait: not at all, then this, then twice as long each time up to the second figure.
FIRST_DELAY, LAST_DELAY = 0.1, 5.0
# Beyond shutdown_timeout, before a child that does not end is killed.
KILL_AFTER = 1.0

log = logging.getLogger("flashpol")


@dataclass
class Child:
    """A place for one process, and who is in it."""

    name: str
    load: Callable[[], Callable[[], None]]  # imports what the process needs, and returns what it does
    status: ProcessStatus
    started: float = 0.0
    delay: float = 0.0
    due: float | None = 0.0  # when to start it, None while it runs

    def schedule(self, now: float) -> float:
        """It ended: start the next one at once, or after a back-off. Returns the seconds until then."""
        delay = 0.0 if now - self.started >= HEALTHY_AFTER else self.delay
        self.due = now + delay
        self.delay = min(LAST_DELAY, max(FIRST_DELAY, delay * 2))
        return delay


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
        self.shared.server.state = STARTING
        self.shared.server.reload_successful = 1
        self.shared.server.reload_timestamp = int(time.time())
        self._workers = [
            Child(f"worker {slot}", partial(self._work, slot), self.shared.process(slot)) for slot in range(count)
        ]
        self._children = list(self._workers)
        if self.admin_socket:
            self._children.append(Child("admin", self._administer, self.shared.admin))

    def run(self) -> int:
        """Serve until a signal ends it; returns the exit status."""
        set_up("arbiter")
        raise_file_limit()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._pid = os.getpid()
        while True:
            self._start_due()
            received = signal.sigtimedwait(_SIGNALS, self._patience())
            self._reap()
            self._read_queues()
            if self.shared.server.state == STARTING and all(child.status.up for child in self._children):
                self.shared.server.state = READY
                self.on_ready(self)
            if received and received.si_signo in _ENDING:
                log.info("%s: finishing", signal.Signals(received.si_signo).name)
                self._stop()
                return 0

    def _patience(self) -> float:
        now = time.monotonic()
        tick = STARTING_TICK if self.shared.server.state == STARTING else TICK
        return max(0.0, min([tick, *(child.due - now for child in self._children if child.due is not None)]))

    # ------------------------------------------------------------------------------------------------------- children

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.due is not None and child.due <= now:
                child.started, child.due = now, None
                child.status.pid = self._fork(child)

    def _fork(self, child: Child) -> int:
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            # Modules first, and the hub, which imports more: the user may have no right to read them.
            main = child.load()
            import_module("gevent").get_hub()
            enter_child(self._pid, self._user)
            set_up(child.name.replace(" ", "-"))
            main()
            status = 0
        except KeyboardInterrupt:
            status = 0
        except BaseException:
            log.exception("%s failed", child.name)
        finally:
            os._exit(status)

    def _work(self, slot: int) -> Callable[[], None]:
        from flashpol.server.worker import run

        for sockets in self.sockets:
            for other, sock in enumerate(sockets):
                if other != slot:
                    sock.close()
        if self.admin_socket:
            self.admin_socket.close()
        own = [sockets[slot] for sockets in self.sockets]
        return partial(run, slot, own, self.replies, self.config.server, self.shared)

    def _administer(self) -> Callable[[], None]:
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
                if child.status.pid == pid:
                    self._bury(child, status)

    def _bury(self, child: Child, status: int) -> None:
        pid, child.status.pid, child.status.up = child.status.pid, 0, 0
        if self.shared.server.state == DRAINING:
            return
        delay = child.schedule(time.monotonic())
        child.status.restarts += 1
        if child in self._workers:
            self.shared.clear_gauges(self._workers.index(child))
        code = os.waitstatus_to_exitcode(status)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        log.error("%s (pid %d) %s; the next one starts in %.1f s", child.name, pid, how, delay)

    def _read_queues(self) -> None:
        for listener, sockets in enumerate(self.sockets):
            for slot, sock in enumerate(sockets):
                queue = self.shared.queue(slot, listener)
                queue.length, queue.limit = accept_queue(sock)

    # ------------------------------------------------------------------------------------------------------- the end

    def _close_listeners(self) -> None:
        for sockets in self.sockets:
            for sock in sockets:
                sock.close()

    def _stop(self) -> None:
        # A slot without a worker may have connections in its queue.
        for child in self._workers:
            child.due = None if child.status.pid else 0.0
        self._start_due()
        self.shared.server.state = DRAINING
        # Ours first: the last copy a worker closes must be the one that ends its queue.
        self._close_listeners()
        self._signal(self._workers, signal.SIGTERM)
        self._wait(self._workers, self.config.server.shutdown_timeout + KILL_AFTER)
        self._signal(self._children, signal.SIGTERM)
        self._wait(self._children, KILL_AFTER)

    def _signal(self, children: Sequence[Child], number: int) -> None:
        for child in children:
            if child.status.pid:
                os.kill(child.status.pid, number)

    def _wait(self, children: Sequence[Child], timeout: float) -> None:
        """Until all have ended; killed after `timeout` seconds, or at the next signal to end."""
        deadline = time.monotonic() + timeout
        while any(child.status.pid for child in children):
            received = signal.sigtimedwait(_SIGNALS, max(0.0, deadline - time.monotonic()))
            if received is None or received.si_signo in _ENDING:
                self._signal(children, signal.SIGKILL)
                deadline = time.monotonic() + KILL_AFTER
            self._reap()
