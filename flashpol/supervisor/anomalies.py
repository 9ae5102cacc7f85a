"""What an operator acts on, out of the counters: once a minute at most, a line for each listener where failures rose.

Scanners and broken clients are always there, so a minute is compared with the minutes before it, and one like those is
silent. What the server itself should not do, such as refusing for want of room, is told whenever it happens.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flashpol._fastpath import REASONS
from flashpol.counters.layout import Block
from flashpol.log.handler import log

# Seconds from one look to the next.
WINDOW = 60.0
# A rise below this many in a window is a scanner or two.
FLOOR = 100
# A rise is markedly more than usual from this factor on.
FACTOR = 3.0
# How much of the usual is the newest window. Above 1 / FACTOR, so that a level that stays is told once.
WEIGHT = 0.4
# Told from the first one on: the server's own limits and mishap.
OURS = ("capacity", "crashed", "max_connections", "max_sessions", "max_slow_replies")
# Its operator did that.
NO_FAILURE = ("shutdown",)

Counts = dict[str, int]


@dataclass(frozen=True)
class Anomaly:
    """One listener's window, `seconds` long: how many ended in which way."""

    listener: str
    seconds: float
    counts: Counts
    replies: int

    def __str__(self) -> str:
        refused = sorted(((self.counts[reason], reason) for reason in REASONS if self.counts[reason]), reverse=True)
        parts = [f"{count:,} {kind}" for kind, count in self.counts.items() if count and kind not in REASONS]
        if refused:
            reasons = ", ".join(f"{reason} {count:,}" for count, reason in refused)
            parts.insert(0, f"{sum(count for count, _ in refused):,} refused ({reasons})")
        what = ", ".join(parts)
        return f"listener {self.listener}: in the last {self.seconds:.0f} s {what}; {self.replies:,} answered"

    @property
    def fields(self) -> dict[str, object]:
        counts = {kind.replace(" ", "_"): count for kind, count in self.counts.items()}
        return {"listener": self.listener, "window": round(self.seconds, 1), "replies": self.replies} | counts


def _counts(block: Block) -> Counts:
    found = dict(zip(REASONS, block.all("refused"), strict=True))
    return found | {
        "timeouts": block["timeouts"],
        "resets": block["resets"],
        "accept errors": block["accept_errors"],
        "replies": block.replies,
    }


class Anomalies:
    """Feed it with the time, in seconds of any clock that only rises, and with all listeners' counters by name."""

    def __init__(self) -> None:
        self._looked_at: float | None = None
        self._last: dict[str, Counts] = {}
        self._usual: dict[str, dict[str, float]] = {}

    def look(self, now: float, read: Callable[[], Mapping[str, Block]]) -> list[Anomaly]:
        """What is to be told now. `read` is only called when a window is over, once for each.

        A listener that appears is new: its counters begin at its first window. One that disappears is forgotten.
        """
        if self._looked_at is not None and now < self._looked_at + WINDOW:
            return []
        seconds = 0.0 if self._looked_at is None else now - self._looked_at
        self._looked_at = now
        last, usual = self._last, self._usual
        self._last, self._usual = {}, {}
        found = []
        for name, block in read().items():
            self._last[name] = counts = _counts(block)
            window = _since(last.get(name, counts), counts)
            replies = window.pop("replies")
            levels = usual.get(name, {})
            if _marked(window, levels):
                found.append(Anomaly(name, seconds, window, replies))
            self._usual[name] = {
                kind: (1 - WEIGHT) * levels.get(kind, 0.0) + WEIGHT * count for kind, count in window.items()
            }
        return found

    def report(self, now: float, read: Callable[[], Mapping[str, Block]]) -> None:
        """Log what `look` finds."""
        for anomaly in self.look(now, read):
            log.warning("%s", anomaly, extra={"event": "anomaly"} | anomaly.fields)


def _since(last: Counts, now: Counts) -> Counts:
    # Counters that fell were begun anew.
    return {kind: count - last[kind] if count >= last[kind] else count for kind, count in now.items()}


def _marked(window: Counts, usual: Mapping[str, float]) -> bool:
    """Something in it is worth a line."""
    return any(
        kind in OURS or (count >= FLOOR and count >= FACTOR * usual.get(kind, 0.0))
        for kind, count in window.items()
        if count and kind not in NO_FAILURE
    )
