"""How many sessions and slow replies a worker has at once: one count of each, for all its connection groups."""

import math
import resource
from collections.abc import Callable

from flashpol.config import ConnectionLimits
from flashpol.process.limits import spare_memory

# A session of a shared port has two descriptors. This share of all descriptors, and at most so many, is kept for policy
# requests: a silent client of a shared port becomes a session, which is never evicted.
SESSION_FILES = 2
KEPT_FILES_SHARE, MAX_KEPT_FILES = 0.25, 1000
# Where memory is limited (RLIMIT_AS), a slow reply may take so many bytes at the worst, and all of them this share of
# what is left. Without memory, a greenlet that cannot be made refuses one client, but neither gevent nor CPython
# survives that everywhere.
SLOW_REPLY_BYTES = 16 << 10
SLOW_REPLIES_MEMORY_SHARE = 0.5


class GreenletLimit:
    """Starts greenlets, but no more than `maximum` at the same time. `count`: how many there are now."""

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.count = 0

    def start(self, spawn: Callable[[], object]) -> bool:
        """Call `spawn`, which starts a greenlet that calls `release` when it ends. False, and no call, at the maximum.

        What `spawn` raises passes through; then no greenlet was started, and none is counted.
        """
        if self.count >= self.maximum:
            return False
        self.count += 1
        try:
            spawn()
        except BaseException:
            self.release()
            raise
        return True

    def release(self) -> None:
        self.count -= 1


class WorkerLimits:
    """The two limits of a worker that its listeners share, whatever their timeouts.

    sessions: `max_sessions`, or as many as descriptors allow (RLIMIT_NOFILE). slow_replies: `max_slow_replies`, or as
    many as memory allows.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self._settings = limits
        self.sessions = GreenletLimit(int(min(limits.max_sessions, _sessions_within_descriptors())))
        self.slow_replies = GreenletLimit(int(min(limits.max_slow_replies, _slow_replies_within_memory())))

    def describe(self, reason: str) -> str:
        """The settings behind a reason of a refusal, with the values in force: "max_sessions (10,000)"."""
        effective = {"max_sessions": self.sessions.maximum, "max_slow_replies": self.slow_replies.maximum}
        if reason in effective:
            return f"{reason} ({effective[reason]:,})"
        names = ("max_connections", "max_worker_connections") if reason == "max_connections" else (reason,)
        values = {name: getattr(self._settings, name) for name in names}
        return " or ".join(f"{name} ({value:,})" for name, value in values.items() if value)


def _sessions_within_descriptors() -> float:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return math.inf
    return (files - min(files * KEPT_FILES_SHARE, MAX_KEPT_FILES)) // SESSION_FILES


def _slow_replies_within_memory() -> float:
    spare = spare_memory()
    return math.inf if spare is None else spare * SLOW_REPLIES_MEMORY_SHARE // SLOW_REPLY_BYTES
