"""Log lines about connections that a limit or a shortage refuses: at once, then once a minute while it lasts.

Alerting by rates, and on anything else, is the task of deploy/prometheus/alerts.yml.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from flashpol._fastpath import REASONS
from flashpol.counters.totals import CounterTotals
from flashpol.log.handler import log

# Seconds between two lines about one listener.
PAUSE = 60.0
# Reading the counters takes this share of a CPU at most: 1,000 listeners of 4 workers take 90 ms.
MAX_CPU_SHARE = 0.01
# The reasons of a limit that the operator may raise. The others are the clients' doing, or were configured as such.
LIMITS = (
    "max_connections",
    "max_address_connections",
    "max_address_rate",
    "max_sessions",
    "max_slow_replies",
    "capacity",
)
_INDICES = {reason: REASONS.index(reason) for reason in LIMITS}

Counts = dict[str, int]


@dataclass
class _Listener:
    logged: Counts  # what was refused up to the last line, or up to the last look that found nothing new
    since: float  # when that was
    next_line: float = 0.0


class RefusalLog:
    """Of all listeners, by name; one that is gone is forgotten."""

    def __init__(self) -> None:
        self._listeners: dict[str, _Listener] = {}
        self._next_look = 0.0

    def update(self, now: float, names: Iterable[str], totals: CounterTotals) -> None:
        """Log what is due at `now`, in seconds of a clock that does not go back."""
        if now < self._next_look:
            return
        began = time.monotonic()
        before, self._listeners = self._listeners, {}
        for name in names:
            refused = totals.total(name).all("refused")
            counts = {reason: refused[index] for reason, index in _INDICES.items()}
            self._listeners[name] = listener = before.get(name) or _Listener(counts, now)
            self._update(name, listener, counts, now)
        self._next_look = now + (time.monotonic() - began) / MAX_CPU_SHARE

    def _update(self, name: str, listener: _Listener, counts: Counts, now: float) -> None:
        new = {reason: count - listener.logged[reason] for reason, count in counts.items()}
        if not any(new.values()):
            listener.since = now
        elif now >= listener.next_line:
            seconds = max(1.0, now - listener.since)
            parts = sorted(((count, reason) for reason, count in new.items() if count), reverse=True)
            reasons = ", ".join(f"{reason} {count:,}" for count, reason in parts)
            text = "listener %s: refused %s connections in the last %.0f s by limits: %s"
            fields = {"event": "refusing", "listener": name, "seconds": round(seconds, 1)} | new
            log.warning(text, name, f"{sum(new.values()):,}", seconds, reasons, extra=fields)
            listener.logged, listener.since, listener.next_line = counts, now, now + PAUSE
