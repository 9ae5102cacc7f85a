"""A process that does one piece of work for the arbiter, so that the arbiter's loop goes on whatever it waits for.

It is a fork of the arbiter and has its rights. It writes pickles into a pipe; the arbiter polls that without blocking.
SIGIO wakes the arbiter when there is something to read, SIGCHLD when the process has ended.
"""

import io
import os
import pickle
import signal
from collections.abc import Callable
from contextlib import suppress

from flashpol.log.handler import log, report_suppressed, set_up
from flashpol.process.privileges import end_with_parent, name_process
from flashpol.supervisor.reload_request import signal_when_readable

READ_BYTES = 1 << 20

# Called with what the arbiter is to know.
Send = Callable[[object], None]


class ForkedTask:
    """Runs `work` in a process of this name. `close_inherited` is called there first: it closes what only the arbiter
    and its other children may hold open. Raises OSError if there can be no process."""

    def __init__(self, name: str, work: Callable[[Send], None], close_inherited: Callable[[], object]) -> None:
        arbiter = os.getpid()
        self._reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            self.pid = os.fork()
        except OSError:
            self.close()
            os.close(writing)
            raise
        if self.pid == 0:
            self.close()
            _run(name, work, writing, arbiter, close_inherited)
        os.close(writing)
        signal_when_readable(self._reading)
        self._data = bytearray()
        self._complete = False
        self.exit_code: int | None = None  # None while it runs

    def on_exit(self, status: int) -> None:
        """The process has ended, was stopped, or was continued, as its wait `status` says."""
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            self.exit_code = os.waitstatus_to_exitcode(status)

    @property
    def ended(self) -> bool:
        """The process is gone, and `received` has all that it sent."""
        return self.exit_code is not None and self._complete

    def received(self) -> list[object]:
        """What it has sent so far."""
        with suppress(BlockingIOError):
            while not self._complete:
                data = os.read(self._reading, READ_BYTES)
                self._data += data
                self._complete = not data
        found: list[object] = []
        pickles = io.BytesIO(self._data)
        with suppress(EOFError, pickle.UnpicklingError):  # the last one may be cut off
            while True:
                found.append(pickle.load(pickles))
        return found

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)  # it runs no other program, so the arbiter has the right to

    def close(self) -> None:
        """Close the pipe; also in a child of the arbiter that is forked meanwhile."""
        os.close(self._reading)


def _run(
    name: str, work: Callable[[Send], None], writing: int, arbiter: int, close_inherited: Callable[[], object]
) -> None:
    """In the new process, until it ends. The arbiter's signals stay blocked: only SIGKILL ends it."""
    status = 1
    try:
        end_with_parent(signal.SIGKILL)
        if os.getppid() != arbiter:
            return  # it ended before the kernel was asked
        set_up(name)
        name_process(name)
        close_inherited()
        with open(writing, "wb") as pipe:

            def send(item: object) -> None:
                pickle.dump(item, pipe)
                pipe.flush()

            work(send)
        status = 0
    except BaseException:
        log.exception("the process %s failed", name, extra={"event": "load-failed"})
    finally:
        try:
            report_suppressed(everything=True)
        finally:
            os._exit(status)
