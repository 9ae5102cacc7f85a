"""Looks around while something runs that may wait for ever, such as for a file that is a pipe."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# Seconds from one look to the next.
EVERY = 0.1


class Interrupted(BaseException):
    """Ends what runs. No Exception: whoever catches mistakes in there must not take it for one."""


@contextmanager
def lookout(look: Callable[[], None]) -> Iterator[None]:
    """Calls `look` every EVERY seconds while the block runs; what it raises ends the block, also in a system call."""

    def alarm(_number: int, _frame: FrameType | None) -> None:
        try:
            look()
        except BaseException:
            signal.setitimer(signal.ITIMER_REAL, 0)  # once, wherever this comes: nothing else is interrupted
            raise

    before = signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, EVERY, EVERY)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
