"""The state of the server, of one process and of one accept queue, as words of shared memory."""

import time

from flashpol.counters.layout import WORD, WORD_MASK, Words, word
from flashpol.counters.mapping import PAGE, Part, SharedMapping

# Seconds between two heartbeats of a worker, and how long it may miss them and still count as serving.
BEAT = 0.5
STALLED_AFTER = 3.0

STARTING, READY, DRAINING = range(3)


class ServerStatus(Words):
    """The state of the server and of its last reload, in a mapping of its own that outlives every generation.

    The arbiter writes it, except for `reloads_asked` on a page of its own, which the admin process writes.
    """

    state = word(0)  # STARTING, READY or DRAINING
    reload_successful = word(1)  # 0 or 1
    reload_timestamp = word(2)  # of the last successful one, seconds since the epoch
    reloads_answered = word(3)  # the value of `reloads_asked` when the last one that has ended began
    _length = word(4)
    reloads_asked = word(0, "asked")  # over HTTP, modulo 2^64
    _WORDS = 5
    TEXT_BYTES = 1000

    __slots__ = ("_mapping", "_text", "asked")

    def __init__(self) -> None:
        self._mapping = SharedMapping(2 * PAGE)
        whole = self._mapping.memory
        self._text = whole[self._WORDS * WORD : self._WORDS * WORD + self.TEXT_BYTES]
        self.asked = whole[PAGE : PAGE + WORD].cast("Q")
        super().__init__(whole[: self._WORDS * WORD].cast("Q"))

    @property
    def written_by_admin(self) -> Part:
        return self._mapping.part(PAGE, PAGE)

    def ask_for_reload(self) -> int:
        """Count a request, and return its number for `is_answered`. Only the admin process may call it."""
        self.reloads_asked = (self.reloads_asked + 1) & WORD_MASK
        return int(self.reloads_asked)

    def is_answered(self, ticket: int) -> bool:
        """A reload has ended that began after this request."""
        return int(self.reloads_answered - ticket) & WORD_MASK < 1 << 63

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
    """A worker or the admin process. The arbiter writes `words`; the process writes `reported`, and the arbiter when it
    has ended."""

    pid = word(0)
    restarts = word(1)
    cpu_ns = word(2)
    resident_bytes = word(3)
    started_ms = word(4)  # milliseconds since the epoch; 0: not known yet
    stalled = word(5)  # 0 or 1: it has not proved that it serves for so long that a sibling accepts for it
    SIZE = 6

    up = word(0, "reported")  # 0 or 1
    loop_lag_ns = word(1, "reported")
    heartbeat_ns = word(2, "reported")  # when it last proved that it serves (`worker.self_check`), CLOCK_MONOTONIC
    base_files = word(3, "reported")  # descriptors that are open without any connection
    max_files = word(4, "reported")  # RLIMIT_NOFILE
    draining = word(5, "reported")  # 0 or 1: it has stopped accepting for good
    REPORTED_SIZE = 6

    __slots__ = ("reported",)

    def __init__(self, words: memoryview, reported: memoryview) -> None:
        super().__init__(words)
        self.reported = reported

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
