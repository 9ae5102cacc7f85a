"""The end of a child process in whose hub memory has run out.

A MemoryError in a callback of the event loop, or when a greenlet starts, may leave anything half done: a connection
without a greenlet, a watcher that is stopped. To go on would mean to serve a part of the clients, for an unknown time.
So the process ends at once. The kernel closes its connections, the arbiter counts them as `crashed`, and its successor
serves some 15 ms later. Where a MemoryError leaves nothing half done, it is handled there: a hook of a ConnectionTable
that fails refuses one client.
"""

import mmap
import os
import signal
from typing import NoReturn

from flashpol.log.handler import STDERR, log, report_suppressed

# The exit status: EX_OSERR of sysexits.h, which no other end of a child has.
OUT_OF_MEMORY = 71
_TEXT = "out of memory; this process exits, and its successor starts"
# What is freed for the last log line. Address space, which costs nothing until it is used: a limit on it (RLIMIT_AS) is
# why memory runs out. And 75 KB in small pieces, which help if the limit was lowered below what is in use.
_RESERVED_SPACE = 1 << 20
_RESERVED_PIECES, _PIECE = 160, 440
# Seconds after which the kernel ends the process by SIGALRM. CPython 3.11 and 3.12 loop without end in an exception
# handler if there is no memory for the number of an instruction.
_ALARM = 1


class LastWords:
    """Made in a new child; calling it logs one line and ends the process with OUT_OF_MEMORY, or by SIGALRM.

    name: of the process, in the line that is written if there is no memory even to log.
    """

    def __init__(self, name: str) -> None:
        self._line = f"{name}[{os.getpid()}] ERROR: {_TEXT}\n".encode()
        self._space = mmap.mmap(-1, _RESERVED_SPACE)
        self._pieces = [bytes(_PIECE) for _ in range(_RESERVED_PIECES)]

    def __call__(self) -> NoReturn:
        try:
            signal.alarm(_ALARM)
            self._space.close()
            self._pieces.clear()
            try:
                log.error(_TEXT, extra={"event": "out-of-memory"})
                report_suppressed(everything=True)
            except BaseException:
                os.write(STDERR, self._line)
        finally:
            os._exit(OUT_OF_MEMORY)
