"""The parent process: binds, forks, reloads, restarts, stops. It runs no gevent and reads no client's bytes.

Signals are blocked and taken one at a time by sigtimedwait, so there is no signal handler that could interrupt work:

    SIGTERM, SIGINT    stop: accept no more, finish open connections within shutdown_timeout, exit with 0;
                       a second one kills what is left
    SIGQUIT            drain: the same, but open connections have drain_timeout; then SIGTERM stops
    SIGHUP             reload the configuration (`reload`); stop, if it comes because the terminal was closed
    SIGIO              the admin process asks for a reload, or a load has sent something
    SIGCHLD            a child ended, was stopped or was continued; an ended one is replaced, after a pause if it failed
    SIGUSR1            open the log file again, after a rename; nothing without log_file

The arbiter holds all listen sockets open. Each worker slot has one of its own on each address (SO_REUSEPORT), so the
clients in the queue of a worker that ends are served by its successor, or by a sibling meanwhile (`queue_failover`).
"""

import math
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from flashpol.counters.status import DRAINING, STARTING, ServerStatus
from flashpol.counters.totals import CounterTotals
from flashpol.log.file import LogFile
from flashpol.log.handler import log, report_suppressed
from flashpol.log.rate_limit import ONCE_A_MINUTE
from flashpol.serving.file_watch import FileWatch
from flashpol.serving.plan import Loader
from flashpol.supervisor.certificate_expiry import CHECK_EVERY, CertificateExpiry
from flashpol.supervisor.child import Child
from flashpol.supervisor.generation import KILL_AFTER, Generation, ServerRuntime
from flashpol.supervisor.listen_sockets import ListenSockets
from flashpol.supervisor.reload import Reloader, State
from flashpol.supervisor.reload_request import SIGNAL, ReloadRequest
from flashpol.supervisor.systemd import Notifier

# Seconds between looks at accept queues and processes; scrape intervals are seldom below 5.
TICK = 1.0
# The same while children start, which cannot signal that they are up: a child may be another user by then.
STARTING_TICK = 0.01
# Seconds until systemd's watchdog is due again if no worker serves.
WATCHDOG_RETRY = 0.1
# A task, in the log.
OBSERVING = "observing workers and accept queues"


def preload() -> None:
    """Import what workers need, once: a successor serves 50 ms sooner, and they share the memory.

    gevent starts nothing here: it makes its hub on first use, in a child.
    """
    import encodings.idna  # noqa: F401

    import gevent.resolver.thread
    import gevent.threadpool  # noqa: F401

    import flashpol.worker.worker  # noqa: F401


def has_terminal() -> bool:
    """This process belongs to a terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY))
    except OSError:
        return False
    return True


@contextmanager
def surviving(task: str) -> Iterator[None]:
    """A periodic task that fails is logged and tried again: it must end neither the server nor the other tasks."""
    try:
        yield
    except Exception:
        fields = {"event": "task-failed", "task": task, "rate": ONCE_A_MINUTE}
        log.exception("%s failed; trying again", task, extra=fields)


class Interval:
    """Something done every so many seconds; `due` is the next time, CLOCK_MONOTONIC."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.due = 0.0

    def take(self) -> bool:
        """True if it is due; then it is due again after `seconds`."""
        now = time.monotonic()
        if now < self.due:
            return False
        self.due = now + self.seconds
        return True


class Arbiter:
    """Runs what `loader` loads. Raises ConfigError while it is made: the configuration cannot be loaded, an address
    cannot be bound, or systemd did not pass a socket.

    listen_sockets: those that are open already."""

    def __init__(
        self,
        loader: Loader,
        log_file: LogFile,
        on_ready: Callable[[Generation], object],
        listen_sockets: ListenSockets,
    ) -> None:
        preload()
        self._watch = FileWatch()
        plan = loader.load(self._watch.adopt)
        self._status = ServerStatus()
        self._status.state = STARTING
        self._runtime = ServerRuntime(listen_sockets, CounterTotals(), self._status, ReloadRequest(), log_file)
        self._notifier = Notifier()
        self._reloader = Reloader(loader, self._watch, self._runtime, self._notifier, on_ready)
        self._reloader.start(plan)
        self._observe = Interval(TICK)
        self._heartbeats = Interval(TICK)
        self._files = Interval(TICK)
        self._expiry = CertificateExpiry()
        self._certificates = Interval(CHECK_EVERY)
        self._watchdog = Interval(self._notifier.watchdog_interval or math.inf)
        # Under nohup a closed terminal is to be ignored; a process without a terminal cannot lose one.
        self._terminal = has_terminal() and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
        self._stop_signals = {signal.SIGTERM, signal.SIGINT}
        others = {signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, SIGNAL}
        self._signals = self._stop_signals | others

    # ------------------------------------------------------------------------------------------------------- the loop

    def run(self) -> int:
        """Serve until a signal stops the server; returns the exit status."""
        try:
            return self._run()
        except Exception:
            # 1, not the 2 of a mistake in the configuration, after which a service manager starts nothing again.
            text = "the arbiter crashed; workers are draining and will exit"
            log.exception(text, extra={"event": "arbiter-failed"})
            return 1

    def _run(self) -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # an ignored signal would not be queued
        while True:
            if self._reloader.advance() is State.FAILED:
                self._stop()
                return 1
            received = signal.sigtimedwait(self._signals, self._next_timeout())
            number = received.si_signo if received else 0
            self._reap()
            if self._reloader.current:
                self._reloader.current.update_failover()
            if self._stops(number):
                self._log_signal(number, "stopping", {"event": "stopping"})
                self._stop()
                return 0
            if number == signal.SIGQUIT:
                self._log_signal(number, "draining open connections, then stopping", {"event": "draining"})
                self._drain()
                self._stop()
                return 0
            if number == signal.SIGUSR1:
                self._reopen_log()
            if number == signal.SIGHUP or self._runtime.reload_request.pending():
                self._reloader.request()
            self._run_periodic()

    def _stops(self, number: int) -> bool:
        closed = number == signal.SIGHUP and self._terminal and not has_terminal()
        return closed or number in self._stop_signals

    @staticmethod
    def _log_signal(number: int, text: str, event: dict[str, object]) -> None:
        name = signal.Signals(number).name
        log.info("%s: %s", name, text, extra=event | {"signal": name})

    def _reopen_log(self) -> None:
        try:
            reopened = self._reloader.reopen_log()
        except OSError as error:
            fields = {"event": "log-not-reopened", "errno": error.errno}
            text = "SIGUSR1: %s: cannot be opened: %s; the log stays in the file that is open"
            log.error(text, self._runtime.log_file.path, error.strerror, extra=fields)
            return
        if reopened:
            self._log_signal(signal.SIGUSR1, "log file reopened", {"event": "log-reopened"})
        else:
            text = "flashpol logs to stderr; nothing to reopen"
            self._log_signal(signal.SIGUSR1, text, {"event": "signal-ignored"})

    def _next_timeout(self) -> float:
        """Seconds for which there is nothing to do unless a signal comes."""
        now = time.monotonic()
        due = [child.due for child in self._reloader.children if child.due is not None]
        due.append(self._reloader.deadline)
        if self._reloader.current:
            due += [each.due for each in (self._observe, self._heartbeats, self._files, self._watchdog)]
        due.append(now + (STARTING_TICK if self._reloader.needs_polling else TICK))
        return max(0.0, min(due) - now)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._reloader.on_child_exit(pid, status)

    def _run_periodic(self) -> None:
        """Do what is due."""
        current = self._reloader.current
        if not current:
            return
        if self._observe.take():
            with surviving(OBSERVING):
                current.observe()
                report_suppressed()
        self._heartbeats.seconds = current.observe_interval
        if self._heartbeats.take():
            with surviving("looking for stalled workers"):
                # Also of generations that drain: as long as a stalled worker seems to accept, a reload is not done.
                for generation in (*self._reloader.draining, current):
                    generation.kill_stalled()
        if self._certificates.take():
            with surviving("looking for certificates that expire"):
                self._expiry.check(current.plan.certificates, time.time())
        if self._watchdog.take() and self._notifier.watchdog_interval:
            if current.serving:
                self._notifier.alive()
            else:  # the successor of a worker is up long before systemd gives the server up
                self._watchdog.due = time.monotonic() + min(WATCHDOG_RETRY, self._notifier.watchdog_interval)
        watch = current.plan.config.server.watch
        self._files.seconds = watch or TICK
        with surviving("looking for changed files"):
            self._check_files(self._files.take() and bool(watch))

    def _check_files(self, due: bool) -> None:
        """Reload if they have changed. due: it is time for another check."""
        checks, loading = self._reloader.checks, self._reloader.state is State.LOADING
        if due and not loading:
            checks.start()
        if checks.poll(loading=loading):
            names = self._watch.names
            log.info("%s changed; reloading", ", ".join(names), extra={"event": "file-changed", "files": names})
            self._reloader.request()

    # -------------------------------------------------------------------------------------------------------- the end

    def _drain(self) -> None:
        """Have all workers finish their open connections, until they end or a signal stops the server."""
        generations = self._reloader.generations
        # A successor of the admin process needs its socket.
        self._end_accepting(kept=[each.admin_socket for each in generations if each.admin_socket])
        self._notifier.draining()
        for generation in generations:
            if generation not in self._reloader.draining:
                generation.drain_all()
        workers = [child for generation in generations for child in generation.workers]
        while any(child.pid for child in workers):
            timeout = min([TICK, self._notifier.watchdog_interval or TICK])
            received = signal.sigtimedwait(self._signals, timeout)
            self._reap()
            if received and self._stops(received.si_signo):
                self._log_signal(received.si_signo, "stopping", {"event": "stopping"})
                return
            if received and received.si_signo == signal.SIGUSR1:
                self._reopen_log()
            for generation in generations:
                generation.start_due(self._reloader.close_inherited)
                generation.kill_overdue()
            if self._observe.take():
                with surviving(OBSERVING):
                    for generation in generations:
                        generation.observe_processes()
                    report_suppressed()
            if self._watchdog.take() and self._notifier.watchdog_interval:
                self._notifier.alive()

    def _stop(self) -> None:
        self._end_accepting()
        self._notifier.stopping()
        generations = self._reloader.generations
        workers = [child for generation in generations for child in generation.workers]
        timeout = max(generation.plan.config.server.shutdown_timeout for generation in generations)
        self._finish(workers, timeout + KILL_AFTER)
        self._finish(self._reloader.children, KILL_AFTER)
        report_suppressed(everything=True)
        log.info("stopped", extra={"event": "stopped"})

    def _end_accepting(self, kept: Sequence[socket.socket] = ()) -> None:
        """Close the arbiter's sockets, except `kept`: the last copy of each must be a worker's, which empties its
        queue."""
        self._reloader.cancel("the server is stopping")
        for generation in self._reloader.generations:
            for child in generation.workers:
                if not child.ending:
                    child.due = None if child.pid else 0.0  # the slot may have clients in its queue
            generation.start_due(self._reloader.close_inherited)
        self._status.state = DRAINING
        self._runtime.listen_sockets.keep_only(kept)

    def _finish(self, children: Sequence[Child], timeout: float) -> None:
        """Stop them and wait. They are killed after `timeout` seconds, or at the next signal to stop."""
        for child in children:
            child.stop()
        for seconds in (timeout, KILL_AFTER):
            self._await(children, time.monotonic() + seconds)
            for child in children:
                child.kill()
        for child in children:
            if child.pid:
                fields = {"event": "left-behind", "child": child.name, "child_pid": child.pid}
                log.error("%s (pid %d) still runs after SIGKILL; leaving it", child.name, child.pid, extra=fields)

    def _await(self, children: Iterable[Child], deadline: float) -> None:
        """Wait until all have ended, the deadline, or a signal to stop."""
        while any(child.pid for child in children):
            received = signal.sigtimedwait(self._signals, max(0.0, deadline - time.monotonic()))
            self._reap()
            if received is None or received.si_signo in self._stop_signals:
                return
