"""A pipe by which the admin process asks the arbiter for a reload."""

import fcntl
import os
import signal
from contextlib import suppress

# The signal that the kernel sends for a pipe with `signal_when_readable`.
SIGNAL = signal.SIGIO


def signal_when_readable(fd: int) -> None:
    """Make `fd` non-blocking, and have the kernel send this process SIGNAL whenever it becomes readable."""
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)


class ReloadRequest:
    """The kernel signals the process that made it, so the sender needs no right to send signals."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal_when_readable(self._reading)

    def send(self) -> None:
        with suppress(BlockingIOError):  # the pipe is full of requests that were not read yet
            os.write(self._writing, b"!")

    def pending(self) -> bool:
        """Whether a request was sent since the last call."""
        try:
            return bool(os.read(self._reading, 65536))
        except BlockingIOError:
            return False

    def close(self) -> None:
        """In a process that neither sends nor receives requests."""
        os.close(self._reading)
        os.close(self._writing)
