"""The log file: descriptor 2 of every process leads to it, so that all that is written to stderr goes there."""

import os
import stat
from pathlib import Path

from flashpol.log.handler import STDERR, redirect

# Access logs contain the addresses of clients.
MODE = 0o640


class LogFile:
    """In the arbiter: the file that stderr leads to, and the stderr that the server was started with.

    `fileno` is what a child is sent to follow.
    """

    def __init__(self) -> None:
        self.path: Path | None = None
        self._stderr = -1  # a duplicate, made when a file takes its place

    def use(self, path: Path | None) -> bool:
        """Log to this file from now on; None: to the first stderr. True if that is a change. Raises OSError."""
        if path == self.path:
            return False
        if path is None:
            redirect(self._stderr)
        else:
            if self._stderr < 0:
                self._stderr = os.dup(STDERR)
            self._open(path)
        self.path = path
        return True

    def reopen(self) -> bool:
        """Open the file by its name again, after it was renamed. False if there is none. Raises OSError."""
        if self.path is None:
            return False
        self._open(self.path)
        return True

    def fileno(self) -> int:
        return STDERR

    @staticmethod
    def _open(path: Path) -> None:
        # O_NONBLOCK: a FIFO without a reader is an error instead of a server that hangs.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
        fd = os.open(path, flags, MODE)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(0, "not a regular file", str(path))
            redirect(fd)
        finally:
            os.close(fd)
