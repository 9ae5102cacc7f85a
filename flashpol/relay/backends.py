"""Where sessions go: the upstreams of a shared port, their backends, and which of those are available.

An upstream is what the configuration names. Each of its addresses is a backend; a name can have several. Names are
looked up in gevent's thread pool, so that the hub never waits for DNS, and again every LOOKUP_INTERVAL seconds; while a
look-up fails, the addresses known last are used.

Health is learnt from sessions alone, there are no checks. After MAX_FAILS connects in a row failed, a backend is down:
it gets no sessions for FAIL_TIMEOUT seconds, then one session tries it; sooner if another backend is reached again,
since what fails together often returns together. If all backends are down, every session tries
them in turn: a refusal costs nothing, and clients do not wait for a backend that came back a second ago.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import gevent
import gevent.event
from gevent.pool import Group
from gevent.socket import SOCK_STREAM, getaddrinfo

from flashpol._pump import Destination
from flashpol.config import LEAST_CONNECTIONS, UpstreamAddress
from flashpol.hub import run_again
from flashpol.log.handler import log
from flashpol.log.rate_limit import ONCE_A_MINUTE

# A backend is down after so many failures in a row, for so many seconds. One lost SYN is no sign of anything.
MAX_FAILS = 3
FAIL_TIMEOUT = 10.0
# How often names are looked up, in seconds: as long as short-lived DNS records usually live.
LOOKUP_INTERVAL = 30.0
# How often, in seconds, a trial of a backend that is down is looked at. The pump counts a success at once and tells the
# session only when it has ended, which may be hours later.
TRIAL_POLL = 0.1
# What the log calls the failures for which a backend is to blame.
_CAUSES = {"refused": "connection refused", "unreachable": "unreachable", "timeout": "connection timed out"}

Resolved = tuple[str, int] | tuple[str, int, int, int]


def version_of(host: str) -> int:
    """Of an IP address: an IPv4-mapped IPv6 address is one of IPv4."""
    return 4 if "." in host else 6


class Backend:
    """One address of an upstream. `destination` counts its sessions, and its failures in a row.

    `down_since`: when it was marked down, on the clock of its Upstreams; None while it is up. `ports_low`: the log has
    said that local ports towards it are scarce.
    """

    def __init__(self, remote: UpstreamAddress, destination: Destination) -> None:
        self.remote = remote
        self.destination = destination
        self.down_since: float | None = None
        self.is_watched = False
        self.ports_low = False
        self._try_at = 0.0

    @property
    def version(self) -> int:
        """The IP version of its address, 0 for a Unix socket."""
        address = self.destination.address
        return 0 if isinstance(address, str) else version_of(address[0])

    @property
    def address(self) -> str:
        """As the configuration writes addresses."""
        address = self.destination.address
        return str(UpstreamAddress("", 0, address) if isinstance(address, str) else UpstreamAddress(*address[:2]))

    def __str__(self) -> str:
        """For log lines: the address, and the upstream's name if it has one."""
        return self.address if self.address == str(self.remote) else f"{self.address} ({self.remote})"

    @property
    def is_well(self) -> bool:
        return self.down_since is None and self.destination.failures < MAX_FAILS

    def is_available(self, now: float) -> bool:
        return self.destination.failures < MAX_FAILS or now >= self._try_at

    def mark_trial(self, now: float) -> None:
        """A session goes there. If it is down, no other session does before the outcome is known."""
        if self.destination.failures >= MAX_FAILS:
            self._try_at = now + FAIL_TIMEOUT

    def mark_failed(self, now: float) -> None:
        self._try_at = now + FAIL_TIMEOUT

    def mark_due(self, now: float) -> None:
        """If it is down, the next session may try it."""
        self._try_at = min(self._try_at, now)


class Upstream:
    """An upstream of the configuration. block: memory in which its sessions are counted (see `Destination`).

    make_destination: called with an address and that block.
    """

    def __init__(
        self, remote: UpstreamAddress, block: memoryview, make_destination: Callable[..., Destination]
    ) -> None:
        self.remote = remote
        self._block = block
        self._make_destination = make_destination
        self.backends: list[Backend] = []
        if remote.path:
            self.use([remote.path])
        elif remote.is_ip and "%" not in remote.host:  # the number of the interface has to be looked up
            self.use([(remote.host, remote.port)])

    def use(self, found: Iterable[Resolved | str]) -> None:
        """Replace the addresses; a backend whose address was known keeps its state."""
        known = {backend.destination.address: backend for backend in self.backends}
        self.backends = [
            known.get(each) or Backend(self.remote, self._make_destination(each, self._block))
            for each in dict.fromkeys(found)
        ]

    def count_failure(self, why: str) -> None:
        """Count a failure of the upstream, which may have no backend."""
        Destination(("0.0.0.0", 0), self._block).count_failure(why)

    def look_up(self) -> None:
        """Look the name up; blocks this greenlet. Raises OSError if it has no address now."""
        found = getaddrinfo(self.remote.host, self.remote.port, type=SOCK_STREAM)
        self.use(each[4] for each in found)


class Upstreams:
    """The upstreams of one listener, and the choice of a backend for each session.

    blocks: one for each of `remotes`. listener: its name, for log lines. balance: "round-robin" or "least-connections".
    make_destination: a Destination with its settings filled in; it is called with an address and a block.
    """

    def __init__(
        self,
        remotes: Sequence[UpstreamAddress],
        blocks: Sequence[memoryview],
        *,
        listener: str,
        balance: str,
        make_destination: Callable[..., Destination] = Destination,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._all = [Upstream(*each, make_destination) for each in zip(remotes, blocks, strict=True)]
        self._named = [each for each in self._all if not each.backends]
        self._listener = listener
        self._least = balance == LEAST_CONNECTIONS
        self._clock = clock
        self._turn = 0
        self._looked_up = gevent.event.Event()
        self._greenlets = Group()

    def start(self) -> None:
        """Look the names up, now and every LOOKUP_INTERVAL seconds."""
        if self._named and not self._greenlets:
            self._greenlets.spawn(run_again, self._look_names_up, "the look-up of upstreams")

    def stop(self) -> None:
        """Stop looking names up; a session that waits for a name goes on without it."""
        self._greenlets.kill(block=False)
        self._looked_up.set()

    def _look_names_up(self) -> None:
        while True:
            for upstream in self._named:
                try:
                    upstream.look_up()
                    self._looked_up.set()  # the next name may take long
                # Besides OSError: a label that is too long for DNS, no memory, no room for the pool's thread.
                except Exception as error:
                    self._log_lookup_failure(upstream.remote, error)
            self._looked_up.set()
            gevent.sleep(LOOKUP_INTERVAL)

    def wait(self, timeout: float) -> bool:
        """Wait until a name was found, or the first look-ups have failed. False if no backend is known then."""
        if len(self._named) == len(self._all) and not self._looked_up.is_set():
            self._looked_up.wait(timeout)
        return self.are_known

    @property
    def are_known(self) -> bool:
        """There is a backend."""
        for each in self._all:  # noqa: SIM110 - a generator would cost each session more than the question
            if each.backends:
                return True
        return False

    def __iter__(self) -> Iterator[Backend]:
        for upstream in self._all:
            yield from upstream.backends

    def choose(self, tried: Collection[Backend] = (), version: int | None = None) -> Backend | None:
        """The backend for a session that failed at those in `tried`. None if there is no other.

        version: an IP version; backends that have it come first.
        """
        if len(self._all) == 1 and not tried:
            only = self._all[0].backends
            if len(only) == 1 and only[0].is_well:  # nothing to choose from
                return only[0]
        now = self._clock()
        untried = [backend for backend in self if backend not in tried]
        candidates = [backend for backend in untried if backend.is_available(now)] or untried
        if version is not None:
            candidates = [backend for backend in candidates if backend.version == version] or candidates
        if not candidates:
            return None
        # From the next one in turn, so that backends with equally many sessions take turns too.
        self._turn += 1
        start = self._turn % len(candidates)
        candidates = candidates[start:] + candidates[:start]
        backend = min(candidates, key=lambda each: each.destination.open) if self._least else candidates[0]
        backend.mark_trial(now)
        if backend.down_since is not None and not backend.is_watched:
            self._greenlets.spawn(self._watch_trial, backend)
            backend.is_watched = True
        return backend

    def count_unresolved(self) -> None:
        """Count a session that failed because no name has an address."""
        for upstream in self._named[:1]:
            upstream.count_failure("unresolved")

    def count_failure(self, why: str) -> None:
        """Count a session that failed before a backend was chosen for it."""
        self._all[0].count_failure(why)

    def mark_failed(self, backend: Backend, outcome: str) -> None:
        """A connect to it failed, as the pump says in `outcome`; logs when it goes down."""
        now = self._clock()
        backend.mark_failed(now)
        if backend.destination.failures >= MAX_FAILS and backend.down_since is None:
            backend.down_since = now
            self._log_down(backend, outcome)

    def _watch_trial(self, backend: Backend) -> None:
        """While sessions try a backend that is down: log when it is up again."""
        try:
            while backend.down_since is not None:
                gevent.sleep(TRIAL_POLL)
                if backend.destination.failures < MAX_FAILS:
                    seconds, backend.down_since = self._clock() - backend.down_since, None
                    self._log_up(backend, seconds)
                    for other in self:
                        other.mark_due(self._clock())
                elif not backend.destination.open:
                    return
        finally:
            backend.is_watched = False

    # -------------------------------------------------------------------------------------------------------- log lines

    def _log_lookup_failure(self, remote: UpstreamAddress, error: Exception) -> None:
        log.warning(
            "listener %s: cannot look up the address of upstream %s: %s; trying again every %.0f s",
            self._listener,
            remote,
            (error.strerror if isinstance(error, OSError) else None) or error,
            LOOKUP_INTERVAL,
            extra={
                "event": "upstream-unknown",
                "listener": self._listener,
                "upstream": str(remote),
                "rate": ONCE_A_MINUTE,
            },
        )

    def _log_down(self, backend: Backend, outcome: str) -> None:
        others_are_up = any(each.down_since is None for each in self)
        log.warning(
            "listener %s: backend %s is down: %s (%d failures in a row); %s",
            self._listener,
            backend,
            _CAUSES.get(outcome, outcome),
            backend.destination.failures,
            f"retrying every {FAIL_TIMEOUT:.0f} s"
            if others_are_up
            else "no other backend is up, so sessions still try it",
            extra={"event": "backend-down", "reason": outcome, **self._fields(backend)},
        )

    def _log_up(self, backend: Backend, seconds: float) -> None:
        log.info(
            "listener %s: backend %s is up again after %.0f s",
            self._listener,
            backend,
            seconds,
            extra={"event": "backend-up", "seconds": round(seconds, 3), **self._fields(backend)},
        )

    def _fields(self, backend: Backend) -> dict[str, object]:
        return {"listener": self._listener, "upstream": str(backend.remote), "backend": backend.address}
