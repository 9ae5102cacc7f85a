"""How many lines a log call may write: a burst at once, then a trickle, and a line that says how many were left out.

Each log call (the place in the code, and the listener it speaks of) has an allowance of its own, so a flood of one kind
hides no line of another. What is left out is held as a count and told later, by the next record of any kind or by
`RateLimit.tell`, which a process calls now and then: there is no timer.
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


# Whoever reads along sees all of what happens now and then; a flood that lasts is one line a second, 15 MB a day.
USUAL = Rate(30, 30.0)
ONCE_A_MINUTE = Rate(1, 60.0)
# How often to look for what is to be told, in seconds.
LOOK_EVERY = 1.0


class _Allowance:
    """Of one log call. `spent_until`: lines already written use it up to here. `since`: something is held. Both in
    seconds of the clock."""

    def __init__(self) -> None:
        self.spent_until = 0.0
        self.held = 0
        self.since = 0.0
        self.tell_at = 0.0
        self.first: logging.LogRecord | None = None

    def admits(self, rate: Rate, now: float) -> bool:
        step = rate.seconds / rate.burst
        spent_until = max(self.spent_until, now) + step
        if spent_until > now + rate.seconds:
            return False
        self.spent_until = spent_until
        return True

    def hold(self, record: logging.LogRecord, rate: Rate, now: float) -> None:
        if not self.held:
            self.since, self.tell_at = now, now + rate.seconds
            self.first = record
            record.exc_info = None  # its frames would live until this is told
        self.held += 1

    def summary(self, now: float) -> logging.LogRecord:
        """The line about what was held; nothing is held any more."""
        first, count = self.first, self.held
        self.first, self.held = None, 0
        if first is None:
            raise AssertionError("asked only when something is held")
        try:
            text = first.getMessage()
        except Exception:  # a mistake in the log call
            text = str(first.msg)
        told: dict[str, object] = {"levelno": first.levelno, "levelname": first.levelname}
        told |= {key: value for key in ("event", "listener") if (value := getattr(first, key, None)) is not None}
        told |= {"rate": None, "suppressed": count}
        told |= {"msg": "%s more in the last %.0f s like: %s", "args": (f"{count:,}", now - self.since, text)}
        return logging.makeLogRecord(told)


class RateLimit(logging.Filter):
    """A filter for a logger or a handler; `write` is given the lines about what was left out in a rate's seconds.

    A log call chooses its rate with `extra={"rate": Rate(…)}`; None if something else bounds it. One that says nothing
    has the USUAL.
    """

    def __init__(
        self, write: Callable[[logging.LogRecord], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._write = write
        self._clock = clock
        self._lock = threading.RLock()
        self.forget()

    def forget(self) -> None:
        """Begin anew, as in a process that was forked."""
        self._allowances: dict[tuple[str, int, object], _Allowance] = {}
        self._look_at = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        rate: Rate | None = getattr(record, "rate", USUAL)
        if rate is None:
            return True
        now = self._clock()
        self.tell()
        with self._lock:
            # Not the text: what holds a client's words would be new each time.
            key = (record.pathname, record.lineno, getattr(record, "listener", None))
            allowance = self._allowances.setdefault(key, _Allowance())
            if allowance.admits(rate, now):
                return True
            allowance.hold(record, rate, now)
            return False

    def tell(self, *, everything: bool = False) -> None:
        """Write what is to be said of lines that were left out, if it is time. everything: this is the end."""
        now = self._clock()
        if now < self._look_at and not everything:
            return
        with self._lock:
            self._look_at = now + LOOK_EVERY
            told = [a.summary(now) for a in self._allowances.values() if a.held and (everything or a.tell_at <= now)]
            for key in [key for key, a in self._allowances.items() if not a.held and a.spent_until <= now]:
                del self._allowances[key]
        for summary in told:
            self._write(summary)
