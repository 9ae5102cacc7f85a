"""The state of the server, of one process and of one accept queue, as words of shared memory."""

import mmap
import time

from flashpol.counters.layout import WORD, Words, word

# Seconds between two heartbeats of a worker, and how long it may miss them and still count as serving.
BEAT = 0.5
STALLED_AFTER = 3.0

STARTING, READY, DRAINING = range(3)


class ServerStatus(Words):
    """The state of the server and of its last reload, in a mapping of its own that outlives every generation.

    The arbiter writes it, except for `reloads_asked`, which the admin process writes.
    """

    state = word(0)  # STARTING, READY or DRAINING
    reload_successful = word(1)  # 0 or 1
    reload_timestamp = word(2)  # of the last successful one, seconds since the epoch
    reloads_asked = word(3)  # over HTTP
    reloads_answered = word(4)  # how many of those have ended, successfully or not
    _length = word(5)
    _WORDS = 6
    TEXT_BYTES = 1000

    def __init__(self) -> None:
        self._mapping = mmap.mmap(-1, self._WORDS * WORD + self.TEXT_BYTES)
        whole = memoryview(self._mapping)
        self._text = whole[self._WORDS * WORD :]
        super().__init__(whole[: self._WORDS * WORD].cast("Q"))

    @property
    def reload_error(self) -> str:
        """Why the last reload failed, cut to `TEXT_BYTES`; empty if it succeeded."""
        return bytes(self._text[: min(self._length, self.TEXT_BYTES)]).decode(errors="replace")

    @reload_error.setter
    def reload_error(self, text: str) -> None:
        data = text.encode(errors="replace")[: self.TEXT_BYTES]
        self._text[: len(data)] = data
        self._length = len(data)


class ProcessStatus(Words):
    """A worker or the admin process. The arbiter writes pid, restarts, CPU, memory and whether it has stalled; the
    process itself writes the rest."""

    pid = word(0)
    restarts = word(1)
    up = word(2)  # 0 or 1
    loop_lag_ns = word(3)
    heartbeat_ns = word(4)  # when it last proved that it serves (`worker.self_check`), CLOCK_MONOTONIC
    cpu_ns = word(5)
    resident_bytes = word(6)
    started_ms = word(7)  # milliseconds since the epoch; 0: not known yet
    base_files = word(8)  # descriptors that are open without any connection
    max_files = word(9)  # RLIMIT_NOFILE
    draining = word(10)  # 0 or 1: it has stopped accepting for good
    stalled = word(11)  # 0 or 1: it has not proved that it serves for so long that a sibling accepts for it
    SIZE = 12

    @property
    def observed(self) -> bool:
        """The process exists, and the arbiter has read its usage from the kernel."""
        return bool(self.pid and self.started_ms)

    def silent_for(self) -> float:
        """Seconds by which the next heartbeat is overdue."""
        late: float = (time.monotonic_ns() - self.heartbeat_ns) / 1e9 - BEAT
        return max(0.0, late)

    @property
    def lag(self) -> float:
        """Seconds by which its last timer was late, or by which its next heartbeat is overdue."""
        last: float = self.loop_lag_ns / 1e9
        return max(last, self.silent_for() if self.up else 0.0)

    @property
    def serving(self) -> bool:
        """It is up, and has proved lately that it serves."""
        return bool(self.up) and not self.stalled and self.silent_for() < STALLED_AFTER


class QueueStatus(Words):
    """The accept queue of one worker slot and listener. The arbiter writes it."""

    length = word(0)  # connections waiting to be accepted
    limit = word(1)
    SIZE = 2
