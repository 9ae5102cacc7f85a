"""A place for one process: starts it, knows whether it lives, tells it to stop, and when to start the next one.

The arbiter holds one end of a line to each child, a pair of Unix sockets, and the child watches the other. The child
finishes when the line ends: because the arbiter closed it, or because there is no arbiter any more, however it died. A
message before that says that others go on, and with what (`gateway.handover`): then it has more time, until the line
ends. That needs no right to send signals, which an arbiter may lack whose children are another user.
"""

import math
import os
import signal
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from flashpol.counters.status import ProcessStatus
from flashpol.log.handler import log, set_up, tell
from flashpol.process.control import Message, encode
from flashpol.process.privileges import Identity, enter_child

if TYPE_CHECKING:
    from flashpol.hub import Stop

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
        self.stopped = False  # by SIGSTOP or the like; `Generation.bury` hears of it
        self.still = False  # for too long; `Generation.end_stalled` feels its pulse
        self._line: socket.socket | None = None
        self._started = 0.0
        self._delay = 0.0

    def start(self, now: float, others: "Iterable[Child]", identity: Identity) -> None:
        """Fork. `others` have lines that the new process must not keep open. Raises OSError and is due again later."""
        self._started, self.due = now, now + max(FIRST_DELAY, self._delay)
        # In whole messages, and never waiting: a child that does not read is not going to be waited for.
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            its.close()
            raise
        if pid == 0:
            ours.close()
            for other in others:
                other.let_go()
            self._become(its, identity)
        its.close()
        self._line, self.due, self.stopped, self.still = ours, None, False, False
        self.status.accepts_no_more = 0
        self.pid = self.status.pid = pid

    def _become(self, line: socket.socket, identity: Identity) -> None:
        status = 1
        try:
            set_up(self.name.replace(" ", "-"))
            # Modules first, and the hub, which imports more: the user may have no right to read them.
            main = self._load()
            from flashpol.hub import Stop, report_errors

            report_errors(lambda error: log.error("a greenlet failed", exc_info=error, extra={"event": "hub-error"}))
            enter_child(self.name, identity)
            main(Stop.on(line))
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

    @property
    def answering(self) -> bool:
        """It accepts, as far as can be seen: it is up and runs."""
        return bool(self.accepting and self.status.up and not self.stopped and not self.still)

    def send(self, message: Message, sockets: Sequence[socket.socket] = ()) -> bool:
        """Tell it; False if it cannot be told: it has died, and will be buried, or reads nothing any more."""
        if self._line is None:
            return False
        try:
            socket.send_fds(self._line, [encode(message)], [sock.fileno() for sock in sockets])
        except (BrokenPipeError, ConnectionResetError):
            return False
        except OSError as error:
            fields = {"event": "not-told", "child": self.name, "child_pid": self.pid, "errno": error.errno}
            log.error("%s (pid %d) cannot be told: %s", self.name, self.pid, error.strerror, extra=fields)
            return False
        return True

    def retire(self, message: Message | None = None, deadline: float = math.inf) -> None:
        """Tell it to finish by then; nothing takes its place.

        message: what others go on with; none: nobody does.
        """
        self.retired, self.due = True, None
        self.deadline = min(self.deadline, deadline)
        if message is None:
            self.let_go()
        elif not self.send(message):
            self.deadline = 0.0  # it would go on accepting

    def let_go(self) -> None:
        """Close the line: in another child, or because it is gone."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def kill(self) -> None:
        if self.pid:
            with suppress(PermissionError):  # no right to, and the line has told it
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
