"""Does a worker serve? Seen from outside, by its heartbeats in shared memory: it leaves one whenever it has proved that
it serves (`worker.self_check`)."""

# An observation that comes later than this many intervals was itself delayed: the machine slept, or a terminal stopped
# all processes. At most this much of a gap counts as stall time.
MAX_GAP = 2.0


class StallDetector:
    """For one worker, observed every `interval` seconds."""

    def __init__(self, interval: float) -> None:
        self._max_gap = MAX_GAP * interval
        self._heartbeat = -1
        self._observed_at = 0.0
        self._stalled = 0.0

    def observe(self, heartbeat: int, now: float) -> float:
        """Seconds for which the heartbeat has been the same, as far as it was observed. `now` must not go back."""
        gap = now - self._observed_at
        self._stalled = self._stalled + min(gap, self._max_gap) if heartbeat == self._heartbeat else 0.0
        self._heartbeat, self._observed_at = heartbeat, now
        return self._stalled
