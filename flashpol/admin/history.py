"""Samples of the counters over the last minutes, from which rates are computed.

The admin process takes them from shared memory, which costs a worker nothing. A reload starts a new admin process, and
with it a new history.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import gevent

from flashpol.admin.context import AdminContext
from flashpol.counters.layout import Block, HandshakeBlock, RelayBlock, TunnelBlock, WebSocketBlock
from flashpol.counters.totals import PathLabel, Route

# Seconds between two samples, and how many are kept: five minutes.
INTERVAL = 2.0
KEPT = 150
# Summing up a thousand listeners takes long. The pause is this many times as long as the sample took: 2 % of a CPU.
PAUSE = 50
# The shortest time that a rate is taken over, in seconds: in less, one reply more or less would double it.
SHORTEST = 1.0


@dataclass(frozen=True)
class Sample:
    """The counters at one moment. `at`: seconds, CLOCK_MONOTONIC."""

    at: float
    total: Block  # over all listeners
    replies: Mapping[str, int]  # by listener
    cpu_seconds: Mapping[int, float]  # by the worker's pid
    relayed: Mapping[Route, RelayBlock] = field(default_factory=dict)
    restarts: Mapping[int, int] = field(default_factory=dict)  # by the worker's slot
    handshakes: Mapping[str, HandshakeBlock] = field(default_factory=dict)  # by listener, of those that speak TLS
    websocket: Mapping[PathLabel, WebSocketBlock] = field(default_factory=dict)
    tunnels: Mapping[str, TunnelBlock] = field(default_factory=dict)  # by listener, of those with tunnel sessions

    @classmethod
    def of(cls, context: AdminContext) -> "Sample":
        return cls.taken(context, {each.listener: context.totals.total(each.listener) for each in context.listeners})

    @classmethod
    def taken(cls, context: AdminContext, blocks: Mapping[str, Block]) -> "Sample":
        """The sample of this moment; blocks: the counters of each listener."""
        workers = [context.shared.process(slot) for slot in range(context.shared.slots)]
        return cls(
            time.monotonic(),
            Block.total(blocks.values()),
            {name: block.replies for name, block in blocks.items()},
            {status.pid: status.cpu_ns / 1e9 for status in workers if status.observed},
            {route: context.totals.relayed(route) for route in context.routes},
            {slot: context.totals.restarts(slot) for slot in range(context.shared.slots)},
            {each.listener: HandshakeBlock.of(blocks[each.listener]) for each in context.tls_listeners},
            {path: context.totals.websocket(path).packed() for path in context.paths},
            {name: context.totals.tunnels(name).packed() for name in context.tunnels},
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
    """The youngest sample of at least that age, in seconds, else the oldest; None if that is too young for a rate."""
    for sample in reversed(samples):
        if now - sample.at >= seconds:
            return sample
    oldest = samples[0] if samples else None
    return oldest if oldest and now - oldest.at >= SHORTEST else None
