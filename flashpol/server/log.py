"""Log lines that can never hold up a process."""

import logging
import select
import sys

# A pipe that polls as writable takes this much without blocking, and in one piece (pipe(7), PIPE_BUF).
LINE_BYTES = 4096


class NonBlockingHandler(logging.Handler):
    """Writes lines to a descriptor that may be a full pipe. What does not fit is dropped; a later line says how many.

    Setting O_NONBLOCK would do it to the terminal or pipe of everyone who shares it; asking first does not.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if not any(event & select.POLLOUT for _, event in self._poll.poll(0)):
                self._dropped += 1
                return
            text = self.format(record)
            if self._dropped:
                text = f"({self._dropped} log lines were dropped: nobody read them)\n{text}"
            with open(self._fd, "wb", buffering=0, closefd=False) as stream:
                stream.write(text.encode(errors="replace")[: LINE_BYTES - 1] + b"\n")
            self._dropped = 0
        except OSError:
            # Nobody reads our log any more; that is no reason to stop serving.
            self._dropped += 1


def set_up(process: str) -> logging.Logger:
    """Make `flashpol` log to stderr under the name of this process. Called again after a fork."""
    logger = logging.getLogger("flashpol")
    handler = NonBlockingHandler(sys.stderr.fileno())
    handler.setFormatter(logging.Formatter(f"%(asctime)s {process}[%(process)d] %(levelname)s: %(message)s"))
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO)
    return logger
