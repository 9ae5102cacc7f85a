"""The logger, and a handler that never blocks a process. `format` makes the lines, `rate_limit` limits their number.

All of flashpol logs to the one logger here, as `log.warning("%s: …", …, extra={"event": …})`: the text is for people,
the fields are for the JSON format. An embedding program has the same logger, with its own handlers.
"""

import fcntl
import logging
import os
import select
import stat
from contextlib import suppress

from flashpol.log.format import LINE_BYTES, JsonFormatter, TextFormatter
from flashpol.log.rate_limit import RateLimit

# By number: sys.stderr is None if it was closed when the interpreter started.
STDOUT, STDERR = 1, 2
FORMATTERS = {"text": TextFormatter, "json": JsonFormatter}

log = logging.getLogger("flashpol")
_limit = RateLimit(log.handle)
log.addFilter(_limit)
os.register_at_fork(after_in_child=_limit.reset)


def _is_file(fd: int) -> bool:
    with suppress(OSError):
        return stat.S_ISREG(os.fstat(fd).st_mode)
    return False


def append_to_files() -> None:
    """Let writes to stdout and stderr go to the end of their files.

    `> flashpol.log 2>&1` makes both one open file with one offset. O_APPEND is a flag of that open file, so that every
    process that shares it appends, the shell's other commands too, and no line overwrites another.
    """
    for fd in (STDOUT, STDERR):
        if _is_file(fd):
            with suppress(OSError):
                fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)


def is_journal(fd: int) -> bool:
    """`fd` is the stream to systemd's journal that JOURNAL_STREAM names (systemd.exec(5))."""
    with suppress(OSError):
        found = os.fstat(fd)
        return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
    return False


def _open_again(fd: int) -> int:
    """The same pipe or terminal, opened again without blocking: O_NONBLOCK on `fd` itself would apply to all processes
    that share it. `fd` itself for a file, whose writes do not wait for a reader, and where it cannot be opened again:
    a socket, such as the journal's, or another user's terminal."""
    if _is_file(fd):
        return fd
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return fd


class NonBlockingHandler(logging.Handler):
    """Writes lines to `fd`, which may be a full pipe: then they are dropped, and a later line counts them."""

    def __init__(self, fd: int, log_format: str | None = None, process: str = "", dropped: int = 0) -> None:
        super().__init__()
        self.log_format = log_format
        self.process = process
        self._fd = fd
        self._own = _open_again(fd)
        self._poll = select.poll()
        self._poll.register(self._own, select.POLLOUT)
        self.dropped = dropped

    def emit(self, record: logging.LogRecord) -> None:
        if not self._write([self._line(record)]):
            self.dropped += 1

    def report_dropped(self) -> None:
        """Write how many lines were dropped, if the reader has made room."""
        if self.dropped:
            self.acquire()
            try:
                self._write([])
            finally:
                self.release()

    def _write(self, lines: list[bytes]) -> bool:
        """False: the pipe is full, or its reader is gone, which must not stop the server."""
        if self.dropped:
            text = f"{self.dropped:,} log lines dropped: stderr was not being read"
            lines.insert(0, self._line(_notice(logging.WARNING, text)))
        together = b"".join(lines)
        try:
            for data in [together] if len(together) <= LINE_BYTES else lines:
                if not any(event & select.POLLOUT for _, event in self._poll.poll(0)):
                    raise BlockingIOError
                os.write(self._own, data)
                self.dropped = 0
        except OSError:
            return False
        return True

    def _line(self, record: logging.LogRecord) -> bytes:
        try:
            text = self.format(record)
        except Exception:  # a mistake in a log call must not stop what it reports
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
    """Make flashpol log to stderr under the name of this process. A child calls it again after the fork.

    log_format: a key of FORMATTERS; None keeps the present one, at first "text".
    """
    append_to_files()
    before = [old for old in log.handlers if isinstance(old, NonBlockingHandler)]
    chosen = next(filter(None, [log_format, *(old.log_format for old in before), "text"]))
    # After a fork the dropped lines are the parent's, which reports them itself.
    dropped = sum(old.dropped for old in before if old.process == process)
    while log.handlers:
        old = log.handlers[0]
        log.removeHandler(old)
        old.close()
    handler = NonBlockingHandler(STDERR, chosen, process, dropped)
    handler.setFormatter(FORMATTERS[chosen](process, journal=is_journal(STDERR)))
    log.addHandler(handler)
    log.propagate = False
    log.setLevel(logging.INFO)
    return log


def redirect(fd: int) -> None:
    """Let descriptor 2 lead to what `fd` leads to, and the log follow it."""
    os.dup2(fd, STDERR)
    for old in [old for old in log.handlers if isinstance(old, NonBlockingHandler)]:
        set_up(old.process)


def report_suppressed(*, everything: bool = False) -> None:
    """Log how many lines the rate limit suppressed, if it is time, and how many a full pipe dropped. A process calls it
    regularly; it is as cheap as a comparison. everything: whether it is time or not, since the process is about to end.
    """
    _limit.report(everything=everything)
    for handler in log.handlers:
        if isinstance(handler, NonBlockingHandler):
            handler.report_dropped()
