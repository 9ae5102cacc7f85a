"""Checks the watched files, each time in a process of its own (`forked_task`): a disk may hang, also at a stat(2)."""

import time
from collections.abc import Callable

from flashpol.log.handler import log
from flashpol.serving.file_watch import FileWatch, Look, Snapshot
from flashpol.supervisor.forked_task import ForkedTask

NAME = "watcher"
# Seconds after which a check is reported and killed. Until it is gone, which a disk that hangs may prevent, no other
# one begins.
CHECK_TIMEOUT = 30.0


class FileChecks:
    """close_inherited: as for `ForkedTask`."""

    def __init__(self, watch: FileWatch, close_inherited: Callable[[], object]) -> None:
        self._watch = watch
        self._close_inherited = close_inherited
        self._task: ForkedTask | None = None
        self._snapshot: Snapshot | None = None  # with which the running check compares
        self._deadline = 0.0  # CLOCK_MONOTONIC

    def start(self) -> None:
        """Begin a check, unless one is running."""
        if self._task:
            return
        self._snapshot, self._deadline = self._watch.snapshot, time.monotonic() + CHECK_TIMEOUT
        try:
            self._task = ForkedTask(NAME, lambda send: send(self._watch.look()), self._close_inherited)
        except OSError as error:
            text = "cannot start the process that checks the watched files: %s; trying again"
            fields = {"event": "process-not-started", "child": NAME, "errno": error.errno}
            log.error(text, error.strerror, extra=fields)

    def poll(self, *, loading: bool) -> bool:
        """True if the files have changed, once for each change. loading: they are being read again, which makes a
        check that ends now out of date."""
        if not self._task:
            return False
        looks = self._task.received()
        if not self._task.ended:
            if time.monotonic() >= self._deadline:
                self._deadline = float("inf")
                text = "the watched files cannot be read for %.0f s; check that the disks respond"
                log.error(text, CHECK_TIMEOUT, extra={"event": "files-unreadable"})
                self._task.kill()
            return False
        self.close()
        self._task = None
        if loading or self._watch.snapshot is not self._snapshot:
            return False
        return any(self._watch.judge(look) for look in looks if isinstance(look, Look))

    def on_exit(self, pid: int, status: int) -> bool:
        """A child has ended, was stopped, or was continued, as its wait `status` says. False if it is no check."""
        if not self._task or self._task.pid != pid:
            return False
        self._task.on_exit(status)
        return True

    def close(self) -> None:
        """In a child: close what only the arbiter may hold open."""
        if self._task:
            self._task.close()
