"""Log records as lines: one line of text or one JSON object, of at most LINE_BYTES.

A file name or a client's bytes that a record quotes can neither end a line nor begin one.

JSON is formatted here and not by python-json-logger: each line must fit LINE_BYTES, so that a pipe takes it whole and
without blocking, and a too long line must still be JSON. That is two thirds of the code, and a dependency has none.
"""

import json
import logging
from bisect import bisect_right
from collections.abc import Callable
from datetime import UTC, datetime

# With the line's end. A pipe that polls as writable takes this much in one piece without blocking (pipe(7), PIPE_BUF).
LINE_BYTES = 4096
CUT = "…"
# Attributes of every record; others came as `extra`. `rate` is for `rate_limit` and says nothing to a reader.
_OWN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "rate"}
# syslog's priorities, which the journal reads as `<N>` at the start of a line (sd-daemon(3)).
PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}


def fields(record: logging.LogRecord) -> dict[str, object]:
    """The `extra` of the log call."""
    return {key: value for key, value in vars(record).items() if key not in _OWN}


def shorten(text: str, room: int, size: Callable[[str], int], *, keep_end: bool = False) -> str:
    """As much of the beginning, or of the end, as fits into `room` by `size`, and CUT for the rest."""
    if size(text) <= room:
        return text

    def piece(n: int) -> str:
        return CUT + text[len(text) - n :] if keep_end else text[:n] + CUT

    longest = bisect_right(range(max(0, min(len(text), room))), room, key=lambda n: size(piece(n))) - 1
    return piece(longest) if longest >= 0 else ""


def _bytes(text: str) -> int:
    return len(text.encode())


def printable(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _priority(record: logging.LogRecord) -> str:
    return f"<{PRIORITIES.get(record.levelno, 6)}>"


class TextFormatter(logging.Formatter):
    """For people. A traceback is folded into the line; of one that is too long the end is kept, which names the error.

    journal: for systemd's journal, with a priority and without the time, which the journal adds itself.
    """

    def __init__(self, process: str, *, journal: bool = False) -> None:
        super().__init__(f"{'' if journal else '%(asctime)s '}{process}[%(process)d] %(levelname)s: %(message)s")
        self._journal = journal

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Local time with its offset from UTC."""
        return datetime.fromtimestamp(record.created, UTC).astimezone().isoformat(" ", "milliseconds")

    def format(self, record: logging.LogRecord) -> str:
        record.message = record.getMessage()
        record.asctime = self.formatTime(record)
        prefix = _priority(record) if self._journal else ""
        room = LINE_BYTES - 1 - len(prefix)
        text, trace = printable(self.formatMessage(record)), ""
        if record.exc_info:
            lines = self.formatException(record.exc_info).splitlines()
            trace = printable(" | ".join(["", *(line.strip() for line in lines)]))
            text = shorten(text, room // 2, _bytes)
        return prefix + shorten(text, room, _bytes) + shorten(trace, room - _bytes(text), _bytes, keep_end=True)


class JsonFormatter(logging.Formatter):
    """For programs, in ASCII. docs/reference.md lists the keys: time, level, process, pid and message always; then the
    record's fields; `exception`, if there is one. journal: a priority precedes the object, and the journal removes it.
    """

    ALWAYS = ("time", "level", "process", "pid", "message")

    def __init__(self, process: str, *, journal: bool = False) -> None:
        super().__init__()
        self._process = process
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        created = datetime.fromtimestamp(record.created, UTC).replace(tzinfo=None)
        entry: dict[str, object] = {
            "time": created.isoformat(timespec="milliseconds") + "Z",
            "level": record.levelname,
            "process": self._process,
            "pid": record.process,
            "message": record.getMessage(),
        }
        entry = entry | fields(record) | entry
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        prefix = _priority(record) if self._journal else ""
        return prefix + _fit({key: _encode(value) for key, value in entry.items()}, LINE_BYTES - 1 - len(prefix))


def _encode(value: object) -> str:
    try:
        return json.dumps(value, default=str, allow_nan=False)
    except (ValueError, TypeError, RecursionError):  # NaN, keys that are not strings, a list that contains itself
        return json.dumps(repr(value))


def _inner(text: str) -> int:
    return len(json.dumps(text)) - 2


def _fit(whole: dict[str, str], room: int) -> str:
    """One object of the values, which are JSON already. The longest are cut first, so that names and numbers remain."""
    values = dict(whole)
    for key in sorted(values.keys() - set(JsonFormatter.ALWAYS[:-1]), key=lambda key: len(values[key]), reverse=True):
        excess = len(_object(values)) - room
        if excess <= 0:
            return _object(values)
        value = json.loads(values[key])
        text = value if isinstance(value, str) else values[key]
        left = len(values[key]) - 2 - excess
        values[key] = json.dumps(shorten(text, left, _inner, keep_end=key == "exception"))
    if len(_object(values)) > room:  # the names alone are too long
        return _fit({key: whole[key] for key in JsonFormatter.ALWAYS}, room)
    return _object(values)


def _object(values: dict[str, str]) -> str:
    return "{" + ", ".join(f"{json.dumps(key)}: {value}" for key, value in values.items()) + "}"
