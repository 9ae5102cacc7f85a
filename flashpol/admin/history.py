"""The last minutes: what was counted at one moment after another, so that rates can be shown.

The admin process takes the samples. It reads shared memory, so that a worker has nothing to do with it; a reload
begins a new admin process, and with it a new history.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import gevent

from flashpol.admin.context import AdminContext
from flashpol.counters.layout import Block, RelayBlock
from flashpol.counters.totals import Route

# Seconds between two samples, and how many are kept: five minutes.
INTERVAL = 2.0
KEPT = 150
# A thousand listeners take long to sum up. So many times as long as a sample took it is waited: 2 % of a CPU at most.
PAUSE = 50
# No rate is given of less time than this, in seconds: one answer more or less would double it.
SHORTEST = 1.0


@dataclass(frozen=True)
class Sample:
    """What had been counted at one moment. `at`: seconds, CLOCK_MONOTONIC."""

    at: float
    total: Block  # over all listeners
    replies: Mapping[str, int]  # by listener
    cpu_seconds: Mapping[int, float]  # by the worker's pid
    relayed: Mapping[Route, RelayBlock] = field(default_factory=dict)

    @classmethod
    def of(cls, view: AdminContext) -> "Sample":
        return cls.taken(view, {facts.listener: view.totals.total(facts.listener) for facts in view.facts})

    @classmethod
    def taken(cls, view: AdminContext, blocks: Mapping[str, Block]) -> "Sample":
        """Now, of listeners whose counters are these."""
        workers = [view.shared.process(slot) for slot in range(view.shared.slots)]
        return cls(
            time.monotonic(),
            Block.total(blocks.values()),
            {name: block.replies for name, block in blocks.items()},
            {status.pid: status.cpu_ns / 1e9 for status in workers if status.observed},
            {route: view.totals.relayed(route) for route in view.routes},
        )


class History:
    """The samples of the last minutes, oldest first."""

    def __init__(self, take: Callable[[], Sample]) -> None:
        self._take = take
        self.samples: deque[Sample] = deque(maxlen=KEPT)

    def run(self) -> None:
        """Take samples until the greenlet is killed."""
        while True:
            began = time.monotonic()
            self.samples.append(self._take())
            gevent.sleep(max(INTERVAL, PAUSE * (time.monotonic() - began)))


def since(samples: Sequence[Sample], now: float, seconds: float) -> Sample | None:
    """The youngest sample that is so many seconds old, or else the oldest; None if that is too young for a rate."""
    for sample in reversed(samples):
        if now - sample.at >= seconds:
            return sample
    oldest = samples[0] if samples else None
    return oldest if oldest and now - oldest.at >= SHORTEST else None
