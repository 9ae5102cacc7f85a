"""The parent process: binds, forks, reloads, restarts, stops. It runs no gevent and never reads a client's byte.

Signals are blocked and taken one at a time by sigtimedwait, so a handler cannot interrupt anything:

    SIGCHLD            a child ended: replace it, after a back-off if it did not live long; or it stopped, or goes on
    SIGHUP             load everything anew; if our terminal was closed: the same as SIGTERM
    SIGIO              the admin process asks for that
    SIGTERM, SIGINT    stop accepting, let the workers finish, exit 0; the second one does not wait

What is served is the current generation. A reload starts the next one beside it; when that is up, the other is told to
finish: until then it serves as before, and if the next one does not come up, it goes on. Each worker slot has a socket
of its own on each address (SO_REUSEPORT). The arbiter keeps them all open, so what waits in the queue of a worker that
ends is there for the next one.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence

from flashpol.config import ConfigError
from flashpol.counters.layout import Block
from flashpol.counters.status import DRAINING, READY, STARTING, ServerStatus
from flashpol.counters.totals import CounterTotals
from flashpol.log.handler import log, set_up, tell
from flashpol.process.limits import raise_file_limit
from flashpol.serving.file_watch import FileWatch
from flashpol.serving.plan import Loader, Plan
from flashpol.supervisor import activation
from flashpol.supervisor.anomalies import Anomalies
from flashpol.supervisor.child import Child
from flashpol.supervisor.generation import KILL_AFTER, Foundation, Generation
from flashpol.supervisor.listen_sockets import Listening
from flashpol.supervisor.lookout import Interrupted, lookout
from flashpol.supervisor.reload_request import ReloadRequest
from flashpol.supervisor.systemd import Notifier

# How often accept queues and processes are looked at, in seconds; a scrape interval is seldom below 5.
TICK = 1.0
# How often to look whether all children are up, while starting. A child cannot signal: it may be another user's by now.
STARTING_TICK = 0.01
# Children that end before the server was ever ready, or the next generation: after so many it is not going to be.
START_ATTEMPTS = 5
# A generation that is not up by then never will be.
START_TIMEOUT = 30.0
# A configuration that takes longer to load is refused: until then nobody hears signals or replaces a worker. 1,000
# listeners with a policy each take 5 s; one of the files may be a pipe that nobody writes, or on a disk that hangs.
LOAD_TIMEOUT = 30.0
# Generations that finish at the same time. With so many, a reload hurries the oldest and waits for it to end: memory
# stays bounded.
MAX_FINISHING = 3


def preload() -> None:
    """Load what the children need, once: a successor serves 50 ms sooner, and they share its memory.

    Nothing of gevent runs here: it makes its hub when it is first asked for one, in a child.
    """
    import flashpol.admin.context
    import flashpol.admin.endpoint
    import flashpol.worker.worker  # noqa: F401


def has_terminal() -> bool:
    """This process belongs to a terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY))
    except OSError:
        return False
    return True


class Every:
    """Something that is done once in so many seconds; `due`: when next, CLOCK_MONOTONIC."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.due = 0.0

    def take(self) -> bool:
        """True if it is time; then not again before the next time."""
        now = time.monotonic()
        if now < self.due:
            return False
        self.due = now + self.seconds
        return True


class Arbiter:
    """Runs what `loader` makes of the configuration, now and later.

    Raises ConfigError while it is being made: the configuration cannot be loaded, an address cannot be bound, or
    systemd hands over no such socket.
    """

    def __init__(self, loader: Loader, on_ready: Callable[[Generation], None]) -> None:
        raise_file_limit()
        preload()
        self._loader = loader
        self._watch = FileWatch()
        plan = loader.load(self._watch.adopt)
        self._on_ready = on_ready
        self._status = ServerStatus()
        self._foundation = Foundation(Listening(activation.take()), CounterTotals(), self._status, ReloadRequest())
        self._notifier = Notifier()
        self._anomalies = Anomalies()
        self._set_state(STARTING)
        self._current: Generation | None = None
        self._starting: Generation | None = None
        self._finishing: list[Generation] = []
        self._replaced: Generation | None = None  # what the current one takes over from, until that accepts no more
        self._begin(plan)
        self._reload_wanted = False
        self._answering = 0  # as many reloads had been asked for when this one began
        self._tick, self._look = Every(TICK), Every(TICK)
        self._pulse = Every(TICK)
        self._alive = Every(self._notifier.watchdog_interval or TICK)
        # Under nohup a closed terminal is to be ignored; without one SIGHUP cannot mean that.
        self._terminal = has_terminal() and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
        self._ending = {signal.SIGTERM, signal.SIGINT}
        self._signals = {*self._ending, signal.SIGHUP, signal.SIGCHLD, ReloadRequest.SIGNAL}

    def _set_state(self, state: int) -> None:
        self._state = self._status.state = state

    @property
    def _generations(self) -> list[Generation]:
        return [each for each in (*self._finishing, self._current, self._starting) if each]

    @property
    def _children(self) -> list[Child]:
        return [child for generation in self._generations for child in generation.children]

    # ------------------------------------------------------------------------------------------------------- the loop

    def run(self) -> int:
        """Serve until a signal ends it; returns the exit status."""
        try:
            return self._run()
        except Exception:
            # 1: not the 2 of a mistake in the configuration, after which a service manager starts nothing again.
            text = "the arbiter failed: the others finish what is inside and end"
            log.exception(text, extra={"event": "arbiter-failed"})
            return 1

    def _run(self) -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # what is ignored is not even blocked
        while True:
            for generation in self._generations:
                generation.start_due(self._children)
            received = signal.sigtimedwait(self._signals, self._patience())
            number = received.si_signo if received else None
            self._reap()
            if self._current:
                self._current.cover()
            if number in self._ending or (number == signal.SIGHUP and self._terminal and not has_terminal()):
                name = signal.Signals(number).name
                log.info("%s: finishing", name, extra={"event": "stopping", "signal": name})
                self._stop()
                return 0
            if not self._advance():
                text = "giving up: the processes end before they serve; the lines above say why"
                log.error(text, extra={"event": "giving-up"})
                self._stop()
                return 1
            self._look_around()
            if self._foundation.bell.rung() or number == signal.SIGHUP:
                self._reload_wanted = True
            if self._reload_wanted and self._settled:
                if len(self._finishing) < MAX_FINISHING:
                    self._reload()
                else:
                    self._finishing[0].hurry()

    @property
    def _settled(self) -> bool:
        """The current generation is complete, and alone in accepting."""
        return self._state == READY and not self._starting and not self._replaced

    def _patience(self) -> float:
        now = time.monotonic()
        due = [child.due for child in self._children if child.due is not None]
        due += [generation.deadline for generation in self._finishing]
        if self._current:
            due += [each.due for each in (self._tick, self._look, self._pulse, self._alive)]
        due.append(now + (TICK if self._settled and self._current and self._current.attended else STARTING_TICK))
        return max(0.0, min(due) - now)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            any(generation.bury(pid, status) for generation in self._generations)

    def _look_around(self) -> None:
        """What is done now and then."""
        if not self._current:
            return
        if self._tick.take():
            self._current.observe()
            self._anomalies.report(time.monotonic(), self._totals)
            tell()
        self._pulse.seconds = self._current.pulse_interval
        if self._pulse.take():
            # Also of those that are to finish: as long as one does not, there is no other reload.
            for generation in (*self._finishing, self._current):
                generation.end_stalled()
        self._say_alive()
        watch = self._current.plan.config.server.watch
        self._look.seconds = watch or TICK
        if self._look.take() and watch and self._watch.changed():
            log.info("a watched file has changed", extra={"event": "file-changed"})
            self._reload_wanted = True

    def _say_alive(self) -> None:
        if self._alive.take() and self._notifier.watchdog_interval and self._current and self._current.serving:
            self._notifier.alive()

    def _totals(self) -> dict[str, Block]:
        """What each listener has counted, by name."""
        names = self._current.names if self._current else ()
        return {name: self._foundation.totals.total(name) for name in names}

    # ---------------------------------------------------------------------------------------------------- generations

    def _begin(self, plan: Plan) -> None:
        """Start a generation. Raises ConfigError."""
        self._starting = Generation(plan, self._foundation)
        set_up("arbiter", plan.config.server.log_format)  # its children go on with it
        if not self._current:
            self._starting.add_admin()  # nobody else's answers can come after its own
        self._start_deadline = time.monotonic() + START_TIMEOUT

    def _advance(self) -> bool:
        """See how far the generations are. False if there is nothing to serve with, and will not be."""
        for generation in [each for each in self._finishing if each.ended]:
            self._finishing.remove(generation)
            self._foundation.totals.close(generation.shared)
        for generation in self._finishing:
            generation.end_overdue()
        if self._starting and self._starting.up:
            self._commit(self._starting)
        if self._replaced and self._current and not any(child.accepting for child in self._replaced.children):
            self._replaced = None
            self._reload_done()
            log.info("reloaded: %s", self._current.summary, extra={"event": "reloaded"} | self._current.fields)
        if self._current and not any(each.admin and each.admin.accepting for each in self._finishing):
            self._current.add_admin()
        if self._state == STARTING and self._current and self._current.attended and self._current.up:
            self._set_state(READY)
            self._reload_done()
            log.info("ready: %s", self._current.summary, extra={"event": "ready"} | self._current.fields)
            self._on_ready(self._current)
        beginner = self._starting or (self._current if self._state == STARTING else None)
        if beginner and (beginner.deaths >= START_ATTEMPTS or time.monotonic() >= self._start_deadline):
            if not self._current or self._current is beginner:
                return False
            self._abort(beginner, self._current)
        return True

    def _commit(self, new: Generation) -> None:
        """The new generation serves: the other one finishes."""
        old, self._current, self._starting = self._current, new, None
        new.begin()
        if old:
            self._give_way(old, new)
            self._replaced = old

    def _give_way(self, one: Generation, other: Generation) -> None:
        """`one` finishes, `other` serves."""
        # Ours first: the last copy a worker closes must be the one that ends its queue.
        self._foundation.listening.release(other.all_sockets)
        one.retire(other)
        self._finishing.append(one)

    def _abort(self, new: Generation, current: Generation) -> None:
        self._starting = None
        self._give_way(new, current)
        set_up("arbiter", current.plan.config.server.log_format)
        self._reload_done("the new workers end before they serve, or do not start; the lines above say why")

    def _reload(self) -> None:
        self._reload_wanted = False
        self._answering = self._status.reloads_asked
        self._notifier.reloading()
        try:
            self._begin(self._load())
            return
        except ConfigError as error:
            why = str(error)
        except Exception as error:  # whatever it is, what runs is well
            log.exception("the configuration cannot be loaded", extra={"event": "load-failed"})
            why = f"{type(error).__name__}: {error}"
        if self._current:
            self._foundation.listening.release(self._current.all_sockets)
        self._reload_done(why)

    def _load(self) -> Plan:
        """Not for ever, and not when the server is to end. Raises ConfigError."""
        deadline = time.monotonic() + LOAD_TIMEOUT

        def look() -> None:
            self._say_alive()
            self._reap()  # clients of a worker that is gone are not to wait for the disk
            if signal.sigpending() & self._ending:
                raise Interrupted("the server is to end")
            if time.monotonic() >= deadline:
                raise Interrupted(
                    f"loading takes longer than {LOAD_TIMEOUT:.0f} s: is a file a pipe, or its disk gone?"
                )

        try:
            with lookout(look):
                return self._loader.load(self._watch.adopt)
        except Interrupted as error:
            raise ConfigError(str(error)) from None

    def _reload_done(self, error: str = "") -> None:
        """Tell everybody who wants to know."""
        self._status.reload_successful = not error
        self._status.reload_error = error
        if error:
            fields = {"event": "not-reloaded", "error": error}
            log.error("not reloaded, the running configuration stays: %s", error, extra=fields)
        else:
            self._status.reload_timestamp = int(time.time())
        self._status.reloads_answered = self._answering
        if self._current:
            self._notifier.ready(f"{self._current.summary}{'; the last reload failed' if error else ''}")

    # -------------------------------------------------------------------------------------------------------- the end

    def _stop(self) -> None:
        # A slot without a worker may have connections in its queue.
        for generation in self._generations:
            for child in generation.workers:
                if not child.ending:
                    child.due = None if child.pid else 0.0
            generation.start_due(self._children)
        self._set_state(DRAINING)
        self._notifier.stopping()
        # Ours first, as in a reload.
        self._foundation.listening.keep_only([])
        workers = [child for generation in self._generations for child in generation.workers]
        timeout = max(generation.plan.config.server.shutdown_timeout for generation in self._generations)
        self._finish(workers, timeout + KILL_AFTER)
        self._finish(self._children, KILL_AFTER)
        tell(everything=True)
        log.info("stopped", extra={"event": "stopped"})

    def _finish(self, children: Sequence[Child], timeout: float) -> None:
        """Tell them to stop and wait; killed after `timeout` seconds, or at the next signal to end."""
        for child in children:
            child.stop()
        for patience in (timeout, KILL_AFTER):
            self._await(children, time.monotonic() + patience)
            for child in children:
                child.kill()
        for child in children:
            if child.pid:
                fields = {"event": "left-behind", "child": child.name, "child_pid": child.pid}
                log.error("%s (pid %d) does not end and is left behind", child.name, child.pid, extra=fields)

    def _await(self, children: Iterable[Child], deadline: float) -> None:
        """Until they have ended, the deadline has come, or a signal to end."""
        while any(child.pid for child in children):
            received = signal.sigtimedwait(self._signals, max(0.0, deadline - time.monotonic()))
            self._reap()
            if received is None or received.si_signo in self._ending:
                return
