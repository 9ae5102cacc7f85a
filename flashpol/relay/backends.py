"""Where conversations go: the upstreams of a shared port, their addresses, and whether they are well.

An upstream is what the configuration names; a name stands for all its addresses. They are looked up in gevent's thread
pool, so the hub never waits for DNS, and again now and then; while that fails those known last are used.

Nobody asks an upstream how it is. One that could not be reached a few times in a row is left out for a while, then one
conversation tries it. If all are left out, they are tried all the same: a refusal costs nothing, and whoever came back
a second ago need not wait.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import gevent
import gevent.event
from gevent.socket import SOCK_STREAM, getaddrinfo

from flashpol._pump import Destination
from flashpol.config import LEAST_CONNECTIONS, UpstreamAddress

# As often in a row, before an address is left out; and for so long, in seconds. One lost SYN is no sign of anything.
FAILURES = 3
OUT_FOR = 10.0
# How often names are looked up, in seconds: as long as short-lived DNS records usually live.
LOOK_UP_EVERY = 30.0

Resolved = tuple[str, int] | tuple[str, int, int, int]


class Address:
    """One address of an upstream. `destination` counts conversations, and failures in a row."""

    def __init__(self, destination: Destination) -> None:
        self.destination = destination
        self._try_at = 0.0

    def well(self, now: float) -> bool:
        return self.destination.failures < FAILURES or now >= self._try_at

    def chosen(self, now: float) -> None:
        """Nobody else tries it before it is known how that went."""
        if self.destination.failures >= FAILURES:
            self._try_at = now + OUT_FOR

    def failed(self, now: float) -> None:
        self._try_at = now + OUT_FOR


class Upstream:
    """One that the configuration names. block: where its conversations are counted (see `Destination`)."""

    def __init__(self, remote: UpstreamAddress, block: memoryview, keepalive: int) -> None:
        self.remote = remote
        self._block = block
        self._keepalive = keepalive
        self.addresses: list[Address] = []
        if remote.path:
            self.use([remote.path])
        elif remote.is_ip and "%" not in remote.host:  # the number of its interface is to be looked up
            self.use([(remote.host, remote.port)])

    def use(self, found: Iterable[Resolved | str]) -> None:
        """From now on it has these addresses; those that it had stay as they are."""
        known = {address.destination.address: address for address in self.addresses}
        self.addresses = [
            known.get(each) or Address(Destination(each, self._block, keepalive=self._keepalive))
            for each in dict.fromkeys(found)
        ]

    def count_failure(self, why: str) -> None:
        """Also of one that has no address."""
        Destination(("0.0.0.0", 0), self._block).count_failure(why)

    def look_up(self) -> None:
        """Blocks this greenlet. Raises OSError if the name has no address now."""
        found = getaddrinfo(self.remote.host, self.remote.port, type=SOCK_STREAM)
        self.use(each[4] for each in found)


class Upstreams:
    """Those of one listener, and which is next.

    balance: "round-robin" or "least-connections". on_error(upstream, error): its name could not be looked up.
    """

    def __init__(
        self,
        remotes: Sequence[UpstreamAddress],
        blocks: Sequence[memoryview],
        *,
        balance: str,
        keepalive: int = 0,
        on_error: Callable[[UpstreamAddress, OSError], object] = lambda remote, error: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._all = [Upstream(*each, keepalive) for each in zip(remotes, blocks, strict=True)]
        self._named = [each for each in self._all if not each.addresses]
        self._least = balance == LEAST_CONNECTIONS
        self._on_error = on_error
        self._clock = clock
        self._turn = 0
        self._looked_up = gevent.event.Event()
        self._resolver: gevent.Greenlet | None = None

    def start(self) -> None:
        """Look names up, now and then."""
        if self._named and not self._resolver:
            self._resolver = gevent.spawn(self._look_up)

    def stop(self) -> None:
        if self._resolver:
            self._resolver.kill(block=False)
            self._resolver = None
        self._looked_up.set()

    def _look_up(self) -> None:
        while True:
            for upstream in self._named:
                try:
                    upstream.look_up()
                    self._looked_up.set()  # the others may take long
                # Besides OSError: a label that is too long for DNS, no memory, no room for the pool's thread.
                except Exception as error:
                    self._on_error(upstream.remote, error if isinstance(error, OSError) else OSError(str(error)))
            self._looked_up.set()
            gevent.sleep(LOOK_UP_EVERY)

    def wait(self, timeout: float) -> bool:
        """Until a name was found, or none was at the first look. False if no address is known then."""
        if len(self._named) == len(self._all) and not self._looked_up.is_set():
            self._looked_up.wait(timeout)
        return any(each.addresses for each in self._all)

    def __iter__(self) -> Iterator[Address]:
        for upstream in self._all:
            yield from upstream.addresses

    def choose(self, tried: Collection[Address] = ()) -> Address | None:
        """The next one that was not tried; None if there is none."""
        now = self._clock()
        left = [address for address in self if address not in tried]
        candidates = [address for address in left if address.well(now)] or left
        if not candidates:
            return None
        # From the next one in turn, so that those with equally many conversations take turns too.
        self._turn += 1
        start = self._turn % len(candidates)
        candidates = candidates[start:] + candidates[:start]
        address = min(candidates, key=lambda each: each.destination.open) if self._least else candidates[0]
        address.chosen(now)
        return address

    def unresolved(self) -> None:
        """No name has an address: count a conversation that failed for it."""
        for upstream in self._named[:1]:
            upstream.count_failure("unresolved")

    def failed(self, address: Address) -> None:
        address.failed(self._clock())
