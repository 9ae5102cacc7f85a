"""Does a worker's loop turn? Seen from outside, by the beats that it leaves in shared memory."""

# A look that comes later than this many of its intervals was held up itself: by a machine that slept, or a terminal
# that stopped all of us. No more than that is held against the worker.
PUNCTUAL = 2.0


class StallDetector:
    """One worker's, as whoever looks at it every `interval` seconds sees it."""

    def __init__(self, interval: float) -> None:
        self._patience = PUNCTUAL * interval
        self._beat = -1
        self._looked = 0.0
        self._still = 0.0

    def look(self, beat: int, now: float) -> float:
        """For how many seconds the beat has been the same, as far as we were there to see it. `now` only rises."""
        since = now - self._looked
        self._still = self._still + min(since, self._patience) if beat == self._beat else 0.0
        self._beat, self._looked = beat, now
        return self._still
