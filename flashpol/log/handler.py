"""Log lines that can never hold up a process. What they look like is in `logformat`, how many there are in `loglimit`.

All of flashpol logs to the one logger here, as `log.warning("%s: …", …, extra={"event": …})`: the text is for people,
the fields are for the JSON format. An embedding program has the same logger, with its own handlers.
"""

import logging
import os
import select

from flashpol.log.format import LINE_BYTES, JsonFormatter, TextFormatter
from flashpol.log.rate_limit import RateLimit

# sys.stderr is None if it was closed when the interpreter started.
STDERR = 2
FORMATTERS = {"text": TextFormatter, "json": JsonFormatter}

log = logging.getLogger("flashpol")
_limit = RateLimit(log.handle)
log.addFilter(_limit)
os.register_at_fork(after_in_child=_limit.forget)


def _own_description(fd: int) -> int:
    """The same pipe, terminal or file again, but non-blocking for us alone: on `fd` itself it would be so for all who
    share it. `fd` where it cannot be opened again: a socket, such as the journal's, or another user's terminal."""
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return fd


class NonBlockingHandler(logging.Handler):
    """Writes lines to what may be a full pipe. What does not fit is dropped, and a later line says how many."""

    def __init__(self, fd: int, log_format: str | None = None, process: str = "", dropped: int = 0) -> None:
        super().__init__()
        self.log_format = log_format
        self.process = process
        self._fd = fd
        self._own = _own_description(fd)
        self._poll = select.poll()
        self._poll.register(self._own, select.POLLOUT)
        self.dropped = dropped

    def emit(self, record: logging.LogRecord) -> None:
        lines = [self._line(record)]
        if self.dropped:
            text = f"log lines that were dropped, because nobody read them: {self.dropped:,}"
            lines.insert(0, self._line(_notice(logging.WARNING, text)))
        together = b"".join(lines)
        try:
            for data in [together] if len(together) <= LINE_BYTES else lines:
                if not any(event & select.POLLOUT for _, event in self._poll.poll(0)):
                    raise BlockingIOError
                os.write(self._own, data)
                self.dropped = 0
        except OSError:
            # Nobody reads our log any more, or not fast enough; that is no reason to stop serving.
            self.dropped += 1

    def _line(self, record: logging.LogRecord) -> bytes:
        try:
            text = self.format(record)
        except Exception:  # a mistake in a log call must not end what it reports on
            text = self.format(_notice(record.levelno, f"cannot be formatted: {record.msg!r} with {record.args!r}"))
        return text.encode(errors="replace")[: LINE_BYTES - 1] + b"\n"

    def close(self) -> None:
        if self._own != self._fd:
            os.close(self._own)
            self._own = self._fd
        super().close()


def _notice(level: int, text: str) -> logging.LogRecord:
    return logging.makeLogRecord({"levelno": level, "levelname": logging.getLevelName(level), "msg": text})


def set_up(process: str, log_format: str | None = None) -> logging.Logger:
    """Make flashpol log to stderr under the name of this process. Called again after a fork.

    log_format: a key of FORMATTERS; None keeps the one that was set up before, at first "text".
    """
    before = [old for old in log.handlers if isinstance(old, NonBlockingHandler)]
    chosen = next(filter(None, [log_format, *(old.log_format for old in before), "text"]))
    # After a fork they are the parent's, which tells of them itself.
    dropped = sum(old.dropped for old in before if old.process == process)
    while log.handlers:
        old = log.handlers[0]
        log.removeHandler(old)
        old.close()
    handler = NonBlockingHandler(STDERR, chosen, process, dropped)
    handler.setFormatter(FORMATTERS[chosen](process))
    log.addHandler(handler)
    log.propagate = False
    log.setLevel(logging.INFO)
    return log


def tell(*, everything: bool = False) -> None:
    """Say how many lines were left out, if it is time: for a process to call now and then, as cheap as a comparison.

    everything: it is about to end, so it is time.
    """
    _limit.tell(everything=everything)
