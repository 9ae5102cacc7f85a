"""The generations of processes, and how a reload goes from one to the next.

                       the first plan
                             │
                        ┌────▼─────┐  START_ATTEMPTS deaths, START_TIMEOUT
                ┌──────►│ STARTING ├────────────────┬──────────────────► FAILED: the arbiter exits
        a plan, │       └────┬─────┘                │ (of the first generation)
        bound   │            │ all workers are up   │ (of a reload) the new processes drain
   ┌─────────┐  │       ┌────▼──────┐               │
   │ LOADING ├──┘       │ SWITCHING │               │
   └─▲─────┬─┘          └────┬──────┘               │
     │     │ ConfigError,    │ no old process       │
     │     │ LOAD_TIMEOUT    │ accepts: done        │
     │     │                 │                      │
     │   ┌─▼─────────────────▼──┐                   │
     └───┤       SERVING        │◄──────────────────┘
 request └──────────────────────┘  refused: the running generation goes on

LOADING     a process of its own reads the configuration (`loading`).
STARTING    the new processes start beside the running ones, and accept nothing until all workers are up, so that a
            configuration that is refused has served no client.
SWITCHING   the new workers accept, the old ones drain. The reload is done when no old process accepts, the
            admin process included: two that reply in turn would let counters jump back and forth. So the new admin
            process starts after the old one has closed its socket.
SERVING     one generation accepts. Older ones may still drain, for drain_timeout at most. With MAX_DRAINING of them a
            request waits here and shortens the drain of the oldest, so that memory stays bounded.

A request that comes in another state waits until SERVING. The first generation goes through the same states; it is
READY when SWITCHING is over, which waits for its admin process ADMIN_TIMEOUT at most.
"""

import time
from collections.abc import Callable
from enum import Enum, auto

from flashpol.config import ConfigError, log_file_error
from flashpol.counters.status import READY
from flashpol.log.handler import log, set_up
from flashpol.process.control import FollowLog
from flashpol.process.core_dumps import forbid_core_dumps
from flashpol.process.lines import MAX_GENERATIONS
from flashpol.serving.file_watch import FileWatch
from flashpol.serving.plan import Loader, Plan
from flashpol.supervisor.child import Child
from flashpol.supervisor.file_checks import FileChecks
from flashpol.supervisor.generation import Generation, ServerRuntime
from flashpol.supervisor.loading import LoadProcess, Refusal
from flashpol.supervisor.socket_repair import SocketRepair
from flashpol.supervisor.systemd import Notifier

# Deaths of new workers, after which the generation is given up.
START_ATTEMPTS = 5
# Seconds after which a generation that is not up is given up.
START_TIMEOUT = 30.0
# Seconds after which a load is given up: 1,000 listeners with a policy each take 5 s, and a disk may hang.
LOAD_TIMEOUT = 30.0
# Generations that drain at the same time.
MAX_DRAINING = MAX_GENERATIONS - 1


class State(Enum):
    STARTING = auto()
    SWITCHING = auto()
    SERVING = auto()
    LOADING = auto()
    FAILED = auto()


class Reloader:
    """Runs what `loader` loads: once by `start`, and again after each `request`.

    The arbiter calls `advance` in every turn of its loop, and `on_child_exit` for every child that waitpid reports.
    on_ready: called when the first generation serves. watch: is given a snapshot of the files that were loaded.
    """

    def __init__(
        self,
        loader: Loader,
        watch: FileWatch,
        runtime: ServerRuntime,
        notifier: Notifier,
        on_ready: Callable[[Generation], object],
    ) -> None:
        self._loader = loader
        self._watch = watch
        self._runtime = runtime
        self._notifier = notifier
        self._on_ready = on_ready
        self.checks = FileChecks(watch, self._close_all)  # of the watched files
        self._repair = SocketRepair(runtime.listen_sockets)
        self._steps: dict[State, Callable[[], State]] = {
            State.STARTING: self._starting,
            State.SWITCHING: self._switching,
            State.SERVING: self._serving,
            State.LOADING: self._loading,
        }
        self.state = State.STARTING
        self.current: Generation | None = None  # it accepts, or did last
        self.draining: list[Generation] = []
        self._next: Generation | None = None  # in STARTING
        self._old: Generation | None = None  # in SWITCHING: the one that `current` replaces
        self._load: LoadProcess | None = None  # in LOADING
        self._deadline = 0.0  # of LOADING and STARTING, CLOCK_MONOTONIC
        self._requested = False
        self._ticket = 0  # as many reloads had been asked for over HTTP when this one began

    @property
    def generations(self) -> list[Generation]:
        return [each for each in (*self.draining, self.current, self._next) if each]

    @property
    def children(self) -> list[Child]:
        return [child for generation in self.generations for child in generation.children]

    def start(self, plan: Plan) -> None:
        """Start the first generation; its admin process follows once the workers accept. Raises ConfigError."""
        self._next = self._make(plan)
        # Sockets were opened before the load, which may have read a newer configuration.
        self._runtime.listen_sockets.release(self._next.all_sockets)

    def request(self) -> None:
        """Load the configuration again, as soon as the state allows it."""
        self._requested = True

    def reopen_log(self) -> bool:
        """Open the log file again, in all processes. False if there is none. Raises OSError."""
        reopened = self._runtime.log_file.reopen()
        if reopened:
            self._send_log()
        return reopened

    def cancel(self, why: str) -> None:
        """The server stops: give a load up."""
        if self._load:
            self._give_up_load()
            self._report(why)

    def close_inherited(self) -> None:
        """In a new child: close what only the arbiter may hold open."""
        for child in self.children:
            child.close_control()
        if self._load:
            self._load.close()
        self.checks.close()

    def on_child_exit(self, pid: int, status: int) -> None:
        if self._load and self._load.pid == pid:
            self._load.on_exit(status)
            return
        if self.checks.on_exit(pid, status):
            return
        for generation in self.generations:
            child = generation.on_child_exit(pid, status)
            if child and not child.pid:
                self._repair.after(child, generation, self.generations)
            if child:
                return

    @property
    def needs_polling(self) -> bool:
        """It waits for what a child says in shared memory, without a signal: the child may be another user by now."""
        return self.state in (State.STARTING, State.SWITCHING) or bool(self.current and not self.current.has_admin)

    @property
    def deadline(self) -> float:
        """When `advance` has to be called at the latest, CLOCK_MONOTONIC."""
        own = [self._deadline] if self.state is State.LOADING else []
        return min([*own, *(generation.deadline for generation in self.draining)], default=float("inf"))

    def advance(self) -> State:
        """Start children that are due, end those whose time is over, and go through the states as far as possible."""
        for generation in self.generations:
            generation.start_due(self.close_inherited)
        self._runtime.lines.retry()
        for generation in [each for each in self.draining if each.ended]:
            self.draining.remove(generation)
            self._runtime.totals.close(generation.shared)
        for generation in self.draining:
            generation.kill_overdue()
        if self.current:
            if not any(each.admin and each.admin.accepting for each in self.draining):
                self.current.add_admin()
            self.current.check_admin()
        while self.state is not State.FAILED and (after := self._steps[self.state]()) is not self.state:
            self.state = after
        return self.state

    # ---------------------------------------------------------------------------------------- one method for each state

    def _serving(self) -> State:
        if not self._requested:
            return State.SERVING
        if len(self.draining) >= MAX_DRAINING:
            self.draining[0].shorten_drain()
            return State.SERVING
        self._requested = False
        self._ticket = self._runtime.status.reloads_asked
        self._notifier.reloading()
        try:
            self._load = LoadProcess(self._loader, self._close_all)
        except OSError as error:
            return self._refuse(f"cannot start the process that loads it: {error.strerror}")
        self._deadline = time.monotonic() + LOAD_TIMEOUT
        return State.LOADING

    def _loading(self) -> State:
        if self._load is None:
            raise AssertionError("LOADING is entered with a load")
        outcome = self._load.poll()
        if outcome is None:
            if time.monotonic() < self._deadline:
                return State.LOADING
            self._give_up_load()
            return self._refuse(f"loading takes longer than {LOAD_TIMEOUT:.0f} s; check that the disks respond")
        self._end_load()
        if isinstance(outcome, Refusal):
            return self._refuse(outcome.why)
        try:
            self._next = self._make(outcome)
        except ConfigError as error:
            why = str(error)
        except Exception as error:  # such as no memory for the counters
            log.exception("the new generation cannot be made", extra={"event": "load-failed"})
            why = f"{type(error).__name__}: {error}"
        else:
            return State.STARTING
        if self.current:
            self._runtime.listen_sockets.release(self.current.all_sockets)
            self._log_as(self.current.plan)
        return self._refuse(why)

    def _starting(self) -> State:
        new = self._next
        if new is None:
            raise AssertionError("STARTING is entered with a generation")
        if new.workers_up:
            self._old, self.current, self._next = self.current, new, None
            self._repair.require(new, self.generations)
            new.start_accepting()
            if self._old:
                self._switch_over(self._old, new)
            return State.SWITCHING
        if new.worker_deaths < START_ATTEMPTS and time.monotonic() < self._deadline:
            return State.STARTING
        if self.current is None:
            text = "giving up: workers exited %d times before becoming ready; see the errors above"
            if new.worker_deaths < START_ATTEMPTS:
                text = f"giving up: the workers are not ready after {START_TIMEOUT:.0f} s, and exited %d times"
            log.error(text, new.worker_deaths, extra={"event": "giving-up"})
            return State.FAILED
        self._next = None
        self._switch_over(new, self.current)
        self._log_as(self.current.plan)
        return self._refuse("the new workers exit before they are ready, or do not become ready; see the errors above")

    def _switching(self) -> State:
        if self.current is None:
            raise AssertionError("SWITCHING is entered with a current generation")
        if self._old is None:
            if not self.current.admin_settled:
                return State.SWITCHING
            self._runtime.status.state = READY
            self._report()
            log.info("ready: %s", self.current.summary, extra={"event": "ready"} | self.current.fields)
            self._on_ready(self.current)
            return State.SERVING
        if self._old.accepting:
            return State.SWITCHING
        self._old = None
        self._report()
        log.info("reloaded: %s", self.current.summary, extra={"event": "reloaded"} | self.current.fields)
        return State.SERVING

    # ------------------------------------------------------------------------------------------------------------ parts

    def _make(self, plan: Plan) -> Generation:
        """Raises ConfigError."""
        if plan.certificates:  # another process loaded them
            forbid_core_dumps()
        self._log_as(plan)  # its children inherit it
        generation = Generation(plan, self._runtime)
        self._deadline = time.monotonic() + START_TIMEOUT
        return generation

    def _log_as(self, plan: Plan) -> None:
        """Log as the plan says; running children follow to another file. Raises ConfigError."""
        server = plan.config.server
        try:
            changed = self._runtime.log_file.use(server.log_file)
        except OSError as error:
            raise log_file_error(server, error) from None
        set_up("arbiter", server.log_format)
        if changed:
            self._send_log()

    def _send_log(self) -> None:
        for child in self.children:
            child.send(FollowLog(), [self._runtime.log_file])

    def _switch_over(self, old: Generation, new: Generation) -> None:
        """`old` drains, `new` serves."""
        # The arbiter's copies are closed first: the last copy of a socket must be a worker's, which empties its queue.
        self._runtime.listen_sockets.release(new.all_sockets)
        old.drain(new)
        self.draining.append(old)

    def _close_all(self) -> None:
        """In the process that loads."""
        self.close_inherited()
        self._runtime.listen_sockets.keep_only([])
        self._runtime.reload_request.close()

    def _give_up_load(self) -> None:
        if self._load:
            self._load.give_up()
            self._end_load()

    def _end_load(self) -> None:
        if self._load:
            self._load.close()
            if self._load.snapshot:
                self._watch.adopt(self._load.snapshot)
            self._load = None

    def _refuse(self, why: str) -> State:
        self._report(why)
        return State.SERVING

    def _report(self, error: str = "") -> None:
        """Publish the outcome of a reload: in the log, in shared memory, to systemd."""
        status = self._runtime.status
        status.reload_successful = not error
        status.reload_error = error
        if error:
            fields = {"event": "not-reloaded", "error": error}
            log.error("not reloaded, the running configuration stays in effect: %s", error, extra=fields)
        else:
            status.reload_timestamp = int(time.time())
        status.reloads_answered = self._ticket
        if self.current:
            self._notifier.ready(f"{self.current.summary}{'; the last reload failed' if error else ''}")
