"""A worker proves that it serves. Its heartbeat in shared memory is the time of the last proof.

A main greenlet that wakes proves only that the event loop turns. Clients need more: that the loop calls back for each
descriptor on which they are served. So each proof asks all of them a question, and the next one looks for the answers:

    waiting clients, sessions     the timer in the epoll set of the table and of the pump is set to fire at once
    accept queues, messages       the kernel is asked which of them is readable
                                        │ the loop turns
                                        ▼
    a proof: every callback that had something to do has returned since, or there is nothing to do any more; and the
    loop watches every descriptor, or will after a pause for want of descriptors

Without a proof there is no heartbeat. After half of stall_timeout the worker is not ready (`/-/ready`, systemd's
watchdog) and a sibling accepts from its queues; after stall_timeout it is killed, and its successor serves.

**Why no connection to itself.** A client of our own would need a listener of our own, and would prove that listener's
watcher, through which no client comes. It would also take two descriptors, a place and an entry in the counters, and
so fail, or be in the way, just when there are too few of them. The questions here concern the very watchers that
clients depend on, and take nothing. Under a flood they are answered by the flood itself. They cost 0.1 ms of CPU a
proof, twice a second, most of it for the kernel's timers; with 1,000 listeners 1.5 ms.

What this does not prove: that the replies are right. `flashpol probe` asks as a client does.
"""

import select
import time
from collections.abc import Sequence

import gevent

from flashpol.hub import Readable, started
from flashpol.log.handler import log
from flashpol.log.rate_limit import ONCE_A_MINUTE

# Seconds that give the loop one more turn before a proof fails: a client may have come in this very moment.
ONE_TURN = 0.001
# Seconds without a proof after which the log says what does not answer.
LOG_AFTER = 1.0


class SelfCheck:
    """Of the process that makes it."""

    def __init__(self) -> None:
        self._asked: list[tuple[Readable, int]] = []  # and how often its callback had returned then
        self._proved_at = time.monotonic()
        self._poll = select.poll()
        self._polled: dict[int, Readable] = {}  # by descriptor

    def passed(self) -> bool:
        """Whether everything asked in the last call that passed is answered. If so, ask again. Blocks this greenlet for
        ONE_TURN if not."""
        missing = self._find_missing()
        if missing:
            gevent.sleep(ONE_TURN)
            gevent.sleep(0)  # callbacks that were due in the same turn may come after this greenlet's
            missing = self._find_missing()
        now = time.monotonic()
        if missing:
            if now - self._proved_at >= LOG_AFTER:
                self._log(missing, now - self._proved_at)
            return False
        self._proved_at = now
        self._ask()
        return True

    def _ask(self) -> None:
        for each in self._polled.values():
            if each.wake:
                each.wake()
        # A paused one has nothing to prove until it goes on.
        self._asked = [(each, each.returned) for each in self._find_readable() if not each.is_paused]

    def _find_missing(self) -> list[Readable]:
        self._update(started())
        stopped = [each for each in self._polled.values() if not each.is_watching]
        unanswered = {
            each for each, returned in self._asked
            if each.returned == returned and each.is_started and not each.is_paused
        }  # fmt: skip
        if stopped or not unanswered:
            return stopped
        return [each for each in self._find_readable() if each in unanswered]

    def _update(self, readables: Sequence[Readable]) -> None:
        wanted = {each.fd: each for each in readables}
        if wanted != self._polled:
            self._poll, self._polled = select.poll(), wanted
            for fd in wanted:
                self._poll.register(fd, select.POLLIN)

    def _find_readable(self) -> list[Readable]:
        try:
            return [self._polled[fd] for fd, _ in self._poll.poll(0)]
        except OSError:  # RLIMIT_NOFILE was lowered below their number: only those that were woken are known to be
            return [each for each in self._polled.values() if each.wake]

    @staticmethod
    def _log(missing: Sequence[Readable], seconds: float) -> None:
        what = ", ".join(sorted(each.what for each in missing)[:3])
        text = "this worker has not served for %.1f s: no callback for %s"
        fields = {"event": "not-serving", "what": what, "seconds": round(seconds, 1), "rate": ONCE_A_MINUTE}
        log.error(text, seconds, what, extra=fields)
