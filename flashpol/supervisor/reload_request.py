"""How the admin process wakes the arbiter."""

import fcntl
import os
import signal
from contextlib import suppress


class ReloadRequest:
    """A pipe that makes the kernel send SIGNAL to the process that made it. The one that rings needs no right to."""

    SIGNAL = signal.SIGIO

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.fcntl(self._reading, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(self._reading, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)

    def ring(self) -> None:
        with suppress(BlockingIOError):  # it is full of rings that nobody has heard yet
            os.write(self._writing, b"!")

    def rung(self) -> bool:
        """Whether it was rung since this was last asked."""
        try:
            return bool(os.read(self._reading, 65536))
        except BlockingIOError:
            return False

    def close(self) -> None:
        """In a process that has no business with it."""
        os.close(self._reading)
        os.close(self._writing)
