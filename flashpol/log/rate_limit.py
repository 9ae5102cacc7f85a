"""How many lines a log call may write: a burst at once, then a trickle, and a line that counts the suppressed ones.

Each log call (its place in the code, and the listener that it names) has an allowance of its own, so a flood of one
kind hides no line of another. Suppressed lines are counted and reported later, by the next record of any kind or by
`RateLimit.report`, which a process calls regularly: there is no timer.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple


class Rate(NamedTuple):
    """So many lines in so many seconds: all of them at once if need be, then evenly."""

    burst: int
    seconds: float


# All lines about rare events are written; a lasting flood is one line a second, 15 MB a day.
USUAL = Rate(30, 30.0)
ONCE_A_MINUTE = Rate(1, 60.0)
# Seconds between checks for suppressed lines to report.
CHECK_EVERY = 1.0


class _Allowance:
    """Of one log call. `spent_until`: the lines already written use it up to here. `since`: the first suppressed line.
    Both in seconds of the clock."""

    def __init__(self) -> None:
        self.spent_until = 0.0
        self.suppressed = 0
        self.since = 0.0
        self.report_at = 0.0
        self.first: logging.LogRecord | None = None

    def admits(self, rate: Rate, now: float) -> bool:
        step = rate.seconds / rate.burst
        spent_until = max(self.spent_until, now) + step
        if spent_until > now + rate.seconds:
            return False
        self.spent_until = spent_until
        return True

    def suppress(self, record: logging.LogRecord, rate: Rate, now: float) -> None:
        if not self.suppressed:
            self.since, self.report_at = now, now + rate.seconds
            self.first = record
            record.exc_info = None  # its frames would live until the report
        self.suppressed += 1

    def report(self, now: float) -> logging.LogRecord:
        """The line about the suppressed ones; afterwards there are none."""
        first, count = self.first, self.suppressed
        self.first, self.suppressed = None, 0
        if first is None:
            raise AssertionError("a report is made only if lines were suppressed")
        try:
            text = first.getMessage()
        except Exception:  # a mistake in the log call
            text = str(first.msg)
        record: dict[str, object] = {"levelno": first.levelno, "levelname": first.levelname}
        record |= {key: value for key in ("event", "listener") if (value := getattr(first, key, None)) is not None}
        record |= {"rate": None, "suppressed": count}
        record |= {"msg": "%s more in the last %.0f s like: %s", "args": (f"{count:,}", now - self.since, text)}
        return logging.makeLogRecord(record)


class RateLimit(logging.Filter):
    """A filter for a logger or a handler; `write` is given the lines about suppressed ones.

    A log call chooses its rate with `extra={"rate": Rate(…)}`; None if something else limits it. The default is USUAL.
    """

    def __init__(
        self, write: Callable[[logging.LogRecord], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._write = write
        self._clock = clock
        self._lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        """Forget all allowances, as in a process that was forked."""
        self._allowances: dict[tuple[str, int, object], _Allowance] = {}
        self._check_at = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        rate: Rate | None = getattr(record, "rate", USUAL)
        if rate is None:
            return True
        now = self._clock()
        self.report()
        with self._lock:
            # By the place in the code, not by the text: one that quotes a client would be new each time.
            key = (record.pathname, record.lineno, getattr(record, "listener", None))
            allowance = self._allowances.setdefault(key, _Allowance())
            if allowance.admits(rate, now):
                return True
            allowance.suppress(record, rate, now)
            return False

    def report(self, *, everything: bool = False) -> None:
        """Write how many lines were suppressed, where it is time. everything: also where it is not."""
        now = self._clock()
        if now < self._check_at and not everything:
            return
        with self._lock:
            self._check_at = now + CHECK_EVERY
            allowances = self._allowances
            due = [each for each in allowances.values() if each.suppressed and (everything or each.report_at <= now)]
            reports = [each.report(now) for each in due]
            for key in [key for key, a in allowances.items() if not a.suppressed and a.spent_until <= now]:
                del allowances[key]
        for record in reports:
            self._write(record)
