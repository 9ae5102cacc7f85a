"""Log lines that can never hold up a process."""

import logging
import os
import select

# A pipe that polls as writable takes this much without blocking, and in one piece (pipe(7), PIPE_BUF).
LINE_BYTES = 4096
# sys.stderr is None if it was closed when the interpreter started.
STDERR = 2


def _own_description(fd: int) -> int:
    """The same pipe, terminal or file again, but non-blocking for us alone: on `fd` itself it would be so for all who
    share it. `fd` where it cannot be opened again: a socket, such as the journal's, or another user's terminal."""
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return fd


class NonBlockingHandler(logging.Handler):
    """Writes lines to what may be a full pipe. What does not fit is dropped, and a later line says how many."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._own = _own_description(fd)
        self._poll = select.poll()
        self._poll.register(self._own, select.POLLOUT)
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:  # a mistake in a log call must not end what it reports on
            text = f"cannot be formatted: {record.msg!r} with {record.args!r}"
        if self._dropped:
            text = f"({self._dropped} log lines were dropped: nobody read them)\n{text}"
        try:
            if not any(event & select.POLLOUT for _, event in self._poll.poll(0)):
                raise BlockingIOError
            os.write(self._own, text.encode(errors="replace")[: LINE_BYTES - 1] + b"\n")
            self._dropped = 0
        except OSError:
            # Nobody reads our log any more, or not fast enough; that is no reason to stop serving.
            self._dropped += 1

    def close(self) -> None:
        if self._own != self._fd:
            os.close(self._own)
            self._own = self._fd
        super().close()


def set_up(process: str) -> logging.Logger:
    """Make `flashpol` log to stderr under the name of this process. Called again after a fork."""
    logger = logging.getLogger("flashpol")
    handler = NonBlockingHandler(STDERR)
    handler.setFormatter(logging.Formatter(f"%(asctime)s {process}[%(process)d] %(levelname)s: %(message)s"))
    while logger.handlers:
        old = logger.handlers[0]
        logger.removeHandler(old)
        old.close()
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.INFO)
    return logger
