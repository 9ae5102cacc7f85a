"""One child process at a time: starts it, controls it, knows whether it answers, and when its successor is due.

The arbiter holds one end of a control socket to each child, a pair of Unix sockets, and the child watches the other.
The child stops when its end reads as closed: the arbiter closed it, or the arbiter is gone, however it died. Messages
come before that (`process.control`). None of this needs the right to send signals, which an arbiter may lack whose
children are another user.
"""

import math
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from flashpol.counters.status import ProcessStatus
from flashpol.log.handler import log, report_suppressed, set_up
from flashpol.process.control import AdoptSockets, Message, encode
from flashpol.process.out_of_memory import OUT_OF_MEMORY, LastWords
from flashpol.process.privileges import Privileges

if TYPE_CHECKING:
    from flashpol.process.lifecycle import ChildControl

# Seconds after which a child counts as healthy: its successor starts at once.
HEALTHY_AFTER = 10.0
# A successor of a child that had come up starts at once too, but at most one in FIRST_DELAY seconds: a child that
# comes up and dies must not keep a CPU busy with forks. A child that never came up waits longer each time: not at all,
# FIRST_DELAY, then twice as long up to LAST_DELAY.
FIRST_DELAY, LAST_DELAY = 0.1, 5.0


def describe_exit(code: int) -> str:
    """What happened to a process, by its exit code as `os.waitstatus_to_exitcode` returns it."""
    if code >= 0:
        return f"exited with {code}{' (out of memory)' if code == OUT_OF_MEMORY else ''}"
    # Python has no names for most real-time signals.
    names = {each.value: each.name for each in signal.Signals}
    return f"was killed by {names.get(-code, f'signal {-code}')}"


class HasFileno(Protocol):
    def fileno(self) -> int: ...


class Child:
    """A worker or the admin process, and its successors.

    What the arbiter decides by is kept here; `status`, in shared memory that workers can write, only publishes it.

    prepare: imports what the process needs and returns its main function, which runs until its ChildControl says
    `draining`. last_delay: the longest pause before a start, in seconds.
    """

    def __init__(
        self,
        name: str,
        prepare: Callable[[], Callable[["ChildControl"], None]],
        status: ProcessStatus,
        last_delay: float = LAST_DELAY,
    ) -> None:
        self.name = name
        self.pid = 0
        self.restarts = 0
        self.failed_starts = 0  # in a row: it ended before it had come up
        self.due: float | None = 0.0  # when to start it, CLOCK_MONOTONIC; None while it runs
        self.ending = False  # the arbiter has it drain or stop, and starts no successor
        self.deadline = math.inf  # when it is killed, CLOCK_MONOTONIC
        self.leave_by = math.inf  # when it is killed if it still accepts, CLOCK_MONOTONIC
        self.incarnation = 0  # of a worker: set before each start by WorkerLines
        self.status = status
        self.stopped = False  # by SIGSTOP or the like; set by Generation.on_child_exit
        self.stalled = False  # it has not proved that it serves; set by Generation.kill_stalled
        self.killed = False  # SIGKILL was sent, or would have been with the right to
        self.given_up = False  # that does not end it, or not soon
        self.lent: set[socket.socket] = set()  # listen sockets of siblings that it was sent (queue failover)
        self._prepare = prepare
        self._last_delay = last_delay
        self._control: socket.socket | None = None
        self._started = 0.0
        self._delay = 0.0

    def start(self, now: float, close_inherited: Callable[[], object], privileges: Privileges) -> None:
        """Fork. `close_inherited` is called in the new process, to close what it must not hold open, such as the
        control sockets of other children. Raises OSError, and is due again later."""
        self._started, self.due = now, now + max(FIRST_DELAY, self._delay)
        # Non-blocking, so that a child that does not read cannot hold up the arbiter.
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            its.close()
            raise
        if pid == 0:
            ours.close()
            close_inherited()
            self._run(its, privileges)
        its.close()
        self._control, self.due = ours, None
        self.stopped = self.stalled = self.killed = self.given_up = False
        self.status.draining = self.status.stalled = 0
        self.pid = self.status.pid = pid

    def _run(self, control: socket.socket, privileges: Privileges) -> None:
        """In the new process, until it ends."""
        status = 1
        try:
            set_up(self.name.replace(" ", "-"))
            # All imports come first: afterwards the user may have no right to read modules, or a chroot hides them.
            main = self._prepare()
            from flashpol.hub import import_late_modules, report_errors
            from flashpol.process.lifecycle import ChildControl, enter_child

            last_words = LastWords(self.name.replace(" ", "-"))
            report_errors(last_words)
            import_late_modules()
            enter_child(self.name, privileges)
            try:
                main(ChildControl.on(control, self.incarnation))
            except MemoryError:
                last_words()
            status = 0
        except KeyboardInterrupt:
            status = 0
        except BaseException:
            log.exception("%s failed", self.name, extra={"event": "process-failed"})
        finally:
            try:
                report_suppressed(everything=True)
            finally:
                os._exit(status)

    @property
    def accepting(self) -> bool:
        """It accepts connections, or will: a child that gets Drain while it starts accepts for a moment. Only the child
        itself says so, which is why nothing waits for it longer than until `leave_by`."""
        return self.pid != 0 and not self.status.draining and not self.given_up

    @property
    def answering(self) -> bool:
        """It is up and runs, as far as can be seen from outside."""
        return bool(self.accepting and self.status.up and not self.stopped and not self.stalled)

    @property
    def reachable(self) -> bool:
        """It runs, and was not stopped: it can be sent messages."""
        return self._control is not None

    def send(self, message: Message, files: Sequence[HasFileno] = ()) -> bool:
        """False if the message was not sent: the child has ended, or does not read any more."""
        if self._control is None:
            return False
        if isinstance(message, AdoptSockets):
            self.lent.update(file for file in files if isinstance(file, socket.socket))
        try:
            socket.send_fds(self._control, [encode(message)], [file.fileno() for file in files])
        except (BrokenPipeError, ConnectionResetError):
            return False
        except OSError as error:
            fields = {"event": "control-failed", "child": self.name, "child_pid": self.pid, "errno": error.errno}
            text = "cannot send a control message to %s (pid %d): %s"
            log.error(text, self.name, self.pid, error.strerror, extra=fields)
            return False
        return True

    def drain(self, message: Message, leave_by: float, deadline: float) -> None:
        """Have it stop accepting by `leave_by` and finish its open connections by `deadline`; it gets no successor.
        `message`: what it is to do."""
        self._end_by(deadline)
        self.leave_by = min(self.leave_by, leave_by)
        if not self.send(message):
            self.deadline = 0.0  # it would go on accepting

    def stop(self, deadline: float = math.inf) -> None:
        """Have it stop within shutdown_timeout; it gets no successor."""
        self._end_by(deadline)
        self.close_control()

    def _end_by(self, deadline: float) -> None:
        self.ending, self.due = True, None
        self.deadline = min(self.deadline, deadline)

    def close_control(self) -> None:
        """Close the arbiter's end: to stop the child, because it has ended, or in another child."""
        if self._control is not None:
            self._control.close()
            self._control = None

    def kill(self) -> bool:
        """False without the right to: then the closed control socket has to do."""
        if self.pid:
            self.killed = True
            try:
                os.kill(self.pid, signal.SIGKILL)
            except PermissionError:
                self.given_up = True
                return False
        return True

    def abandon(self) -> None:
        """It does not end, and cannot be killed."""
        fields = {"event": "left-behind", "child": self.name, "child_pid": self.pid}
        log.error("%s (pid %d) does not end, and there is no right to kill it", self.name, self.pid, extra=fields)
        self.pid = self.status.pid = 0

    def on_exit(self, now: float) -> float | None:
        """The process has ended. Returns the seconds until its successor starts; None if it gets none."""
        self.close_control()
        lived, came_up = now - self._started, bool(self.status.up)
        self.pid = self.status.pid = self.status.up = 0
        if self.ending:
            return None
        self.restarts += 1
        self.failed_starts = 0 if came_up else self.failed_starts + 1
        self.status.restarts = self.restarts
        delay = 0.0 if lived >= HEALTHY_AFTER else self._delay
        self._delay = min(self._last_delay, max(FIRST_DELAY, delay * 2))
        if came_up:
            delay, self._delay = max(0.0, FIRST_DELAY - lived), 0.0
        self.due = now + delay
        return delay
