"""A limit to how often something is done per second."""

import time
from collections.abc import Callable


class RateLimiter:
    """Spreads turns evenly: `rate` per second, and after a pause up to one second's worth at once. 0: no limit.

    The generic cell rate algorithm (ITU-T I.371): one number, no timer.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1 / rate if rate else 0.0
        self.limits = rate > 0
        self._clock = clock
        self._next = 0.0  # when the next turn would be due without pauses

    def reserve(self, patience: float) -> float | None:
        """Take a turn, and return the seconds to wait for it. None, and no turn, if they are more than `patience`."""
        if not self._interval:
            return 0.0
        now = self._clock()
        due = max(self._next, now - 1.0)
        delay = max(0.0, due - now)
        if delay > patience:
            return None
        self._next = due + self._interval
        return delay
