"""A place for one process: starts it, knows whether it lives, tells it to stop, and when to start the next one.

The arbiter holds the writing end of a pipe for each child, and the child watches the reading end. The child finishes
when the pipe ends: because the arbiter closed it, or because there is no arbiter any more, however it died. A message
before that says that others go on, and with what (`gateway.handover`): then it has more time, until the pipe ends. That
needs no right to send signals, which an arbiter may lack whose children are another user.
"""

import math
import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from flashpol.counters import ProcessStatus
from flashpol.server.log import log, set_up, tell
from flashpol.server.process import Identity, enter_child

if TYPE_CHECKING:
    from flashpol.gateway.hub import Stop

# A child that lived this long was well: its successor starts at once.
HEALTHY_AFTER = 10.0
# So was one that served, but one that serves and dies at once must not keep a CPU busy with forks: one start in so many
# seconds. A child that never served waits longer each time: not at all, then this, then twice as long up to the second.
FIRST_DELAY, LAST_DELAY = 0.1, 5.0


class Child:
    """What the arbiter knows stays here; `status` in shared memory only publishes it: workers can write there.

    load: imports what the process needs and returns what it does, until the stop it is given comes.
    """

    def __init__(self, name: str, load: Callable[[], Callable[["Stop"], None]], status: ProcessStatus) -> None:
        self.name = name
        self.pid = 0
        self.restarts = 0
        self.due: float | None = 0.0  # when to start it, None while it runs
        self.retired = False
        self.deadline = math.inf  # when it is killed, CLOCK_MONOTONIC
        self.status = status
        self._load = load
        self._pipe = -1
        self._started = 0.0
        self._delay = 0.0

    def start(self, now: float, others: "Iterable[Child]", identity: Identity) -> None:
        """Fork. `others` have pipes that the new process must not keep open. Raises OSError and is due again later."""
        self._started, self.due = now, now + max(FIRST_DELAY, self._delay)
        reading, writing = os.pipe()
        try:
            pid = os.fork()
        except OSError:
            os.close(reading)
            os.close(writing)
            raise
        if pid == 0:
            os.close(writing)
            for other in others:
                other.let_go()
            self._become(reading, identity)
        os.close(reading)
        self._pipe, self.due = writing, None
        self.status.accepts_no_more = 0
        self.pid = self.status.pid = pid

    def _become(self, pipe: int, identity: Identity) -> None:
        status = 1
        try:
            set_up(self.name.replace(" ", "-"))
            # Modules first, and the hub, which imports more: the user may have no right to read them.
            main = self._load()
            from flashpol.gateway.hub import Stop, report_errors

            report_errors(lambda error: log.error("a greenlet failed", exc_info=error, extra={"event": "hub-error"}))
            enter_child(self.name, identity)
            main(Stop.on(pipe))
            status = 0
        except KeyboardInterrupt:
            status = 0
        except BaseException:
            log.exception("%s failed", self.name, extra={"event": "process-failed"})
        finally:
            try:
                tell(everything=True)
            finally:
                os._exit(status)

    @property
    def accepting(self) -> bool:
        """It accepts connections, or will: also one that is told to finish while it starts does so for a moment."""
        return self.pid != 0 and not self.status.accepts_no_more

    def retire(self, message: bytes = b"", deadline: float = math.inf) -> None:
        """Tell it to finish by then; nothing takes its place.

        message: what others go on with; none: nobody does.
        """
        self.retired, self.due = True, None
        self.deadline = min(self.deadline, deadline)
        if not message:
            self.let_go()
        elif self._pipe >= 0:
            with suppress(BrokenPipeError):  # it has died, and will be buried
                os.write(self._pipe, message)

    def let_go(self) -> None:
        """Close the pipe: in another child, or because it is gone."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    def kill(self) -> None:
        if self.pid:
            with suppress(PermissionError):  # no right to, and the pipe has told it
                os.kill(self.pid, signal.SIGKILL)

    def ended(self, now: float) -> float | None:
        """It is gone. The next one is due in the seconds that are returned; None if it was not to be replaced."""
        self.let_go()
        lived, served = now - self._started, bool(self.status.up)
        self.pid = self.status.pid = self.status.up = 0
        if self.retired:
            return None
        self.restarts += 1
        self.status.restarts = self.restarts
        delay = 0.0 if lived >= HEALTHY_AFTER else self._delay
        self._delay = min(LAST_DELAY, max(FIRST_DELAY, delay * 2))
        if served:
            delay, self._delay = max(0.0, FIRST_DELAY - lived), 0.0
        self.due = now + delay
        return delay
