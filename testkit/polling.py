"""The poller of tests, bench and faults: wait for a condition, and fail with a sentence when its time is up."""

import time
from collections.abc import Callable
from typing import TypeVar

# Seconds for whatever is waited for. A condition takes that long only if it is broken, also on a busy machine.
DEADLINE = 20.0
# Seconds between two looks: from the first to the last, each half as long again as the one before. A condition that is
# true in a moment is seen at once, and one that is expensive, such as a scrape, does not slow down what it waits for.
FIRST_PAUSE, LAST_PAUSE = 0.001, 0.02

T = TypeVar("T")


def eventually(
    condition: Callable[[], T | None],
    what: object = "",
    seconds: float = DEADLINE,
    *,
    error: type[Exception] = AssertionError,
    wait: Callable[[float], object] = time.sleep,
) -> T:
    """Call `condition` until it returns something true, and return that.

    what: named by the error, which is raised after `seconds`. wait: called with the seconds until the next look; a test
    that turns its own event loop passes the function that turns it.
    """
    deadline = time.monotonic() + seconds
    pause = FIRST_PAUSE
    while not (found := condition()):
        if time.monotonic() >= deadline:
            raise error(f"not within {seconds:g} s: {what or condition}")
        wait(pause)
        pause = min(pause * 1.5, LAST_PAUSE)
    return found
