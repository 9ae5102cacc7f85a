"""Loads a configuration in a process of its own, so that the arbiter's loop goes on whatever a load waits for.

A load reads files, looks up users and lints policies: a disk that hangs may hold it up for any time, 1,000 listeners
with a policy each take 5 s. The process is a fork of the arbiter and has its rights. It logs the warnings of the load
itself, and writes pickles into a pipe:

    Snapshot …    the files that it is going to read, so that a watch of them knows what was tried
    Plan          or a Refusal, which is the reason as text

The arbiter polls the pipe without blocking; SIGIO wakes it when there is something to read, SIGCHLD when the process
has ended. Killing the process gives the load up.
"""

import io
import os
import pickle
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from flashpol.config import ConfigError
from flashpol.log.handler import log, report_suppressed, set_up
from flashpol.process.privileges import end_with_parent, name_process
from flashpol.serving.file_watch import Snapshot
from flashpol.serving.plan import Loader, Plan
from flashpol.supervisor.child import describe_exit
from flashpol.supervisor.reload_request import signal_when_readable

NAME = "loader"
READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Refusal:
    """Why there is no plan: one line."""

    why: str


class LoadProcess:
    """One load. `close_inherited` is called in the new process: it closes what only the arbiter and its other children
    may hold open. Raises OSError if there can be no process."""

    def __init__(self, loader: Loader, close_inherited: Callable[[], object]) -> None:
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
            _load(loader, writing, arbiter, close_inherited)
        os.close(writing)
        signal_when_readable(self._reading)
        self._data = bytearray()
        self._complete = False
        self._exit_code: int | None = None
        self.snapshot: Snapshot | None = None  # the last one that it sent

    def on_exit(self, status: int) -> None:
        """The process has ended, was stopped, or was continued, as its wait `status` says."""
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            self._exit_code = os.waitstatus_to_exitcode(status)

    def poll(self) -> Plan | Refusal | None:
        """The outcome; None while there is none yet."""
        self._receive()
        if self._exit_code is None or not self._complete:
            return None
        outcome = self._unpickle()
        if outcome is None:
            return Refusal(f"the process that loads it {describe_exit(self._exit_code)}")
        return outcome

    def give_up(self) -> None:
        """Kill the process. `snapshot` is what it sent before."""
        self._receive()
        self._unpickle()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)  # it runs no other program, so the arbiter has the right to

    def close(self) -> None:
        """Close the pipe; also in a child of the arbiter that is forked meanwhile."""
        os.close(self._reading)

    def _receive(self) -> None:
        with suppress(BlockingIOError):
            while not self._complete:
                data = os.read(self._reading, READ_BYTES)
                self._data += data
                self._complete = not data

    def _unpickle(self) -> Plan | Refusal | None:
        outcome = None
        pickles = io.BytesIO(self._data)
        with suppress(EOFError, pickle.UnpicklingError):  # the last one may be cut off
            while True:
                item = pickle.load(pickles)
                if isinstance(item, Snapshot):
                    self.snapshot = item
                else:
                    outcome = item
        return outcome


def _load(loader: Loader, writing: int, arbiter: int, close_inherited: Callable[[], object]) -> None:
    """In the new process, until it ends. The arbiter's signals stay blocked: only SIGKILL ends it."""
    status = 1
    try:
        end_with_parent(signal.SIGKILL)
        if os.getppid() != arbiter:
            return  # it ended before the kernel was asked
        set_up(NAME)
        name_process(NAME)
        close_inherited()
        with open(writing, "wb") as pipe:

            def send(item: Snapshot | Plan | Refusal) -> None:
                pickle.dump(item, pipe)
                pipe.flush()

            outcome: Plan | Refusal
            try:
                outcome = loader.load(send)
            except ConfigError as error:
                outcome = Refusal(str(error))
            except Exception as error:  # a bug, which must not end what serves
                log.exception("the configuration cannot be loaded", extra={"event": "load-failed"})
                outcome = Refusal(f"{type(error).__name__}: {error}")
            send(outcome)
        status = 0
    except BaseException:
        log.exception("the process that loads a configuration failed", extra={"event": "load-failed"})
    finally:
        try:
            report_suppressed(everything=True)
        finally:
            os._exit(status)
