"""How fast something may be done."""

import time
from collections.abc import Callable


class RateLimiter:
    """So many times a second at most, evenly, with up to a second's worth at once after a pause. 0: no limit.

    The generic cell rate algorithm (ITU-T I.371): one number, no timer.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1 / rate if rate else 0.0
        self._clock = clock
        self._next = 0.0  # when the next one would be due, if there were no pauses

    def reserve(self, patience: float) -> float | None:
        """Take a turn. How many seconds to wait for it; None, and no turn, if it would be longer than `patience`."""
        if not self._interval:
            return 0.0
        now = self._clock()
        due = max(self._next, now - 1.0)
        delay = max(0.0, due - now)
        if delay > patience:
            return None
        self._next = due + self._interval
        return delay
