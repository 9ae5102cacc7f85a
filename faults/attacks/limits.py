"""Attacks on limits of the whole server by way of one listener: connections, descriptors, memory.

Each has good clients at all four places.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

from bench.measure import status
from faults.attack import AttackGroup, AttackRun
from faults.clients import BadClients
from faults.places import four_places
from faults.server import Listener, Server
from faults.shared import shared, with_files

group = AttackGroup(defaults={"max_ratio": 3.0, "quick": 3.0, "rows": four_places("games")})

CONNECTIONS = 300  # max_connections
FILES = 300  # descriptors of a process
MEMORY_BYTES = 16 << 20  # address space that a process may take in addition to what it starts with
LITTLE_MEMORY_BYTES = 4 << 20  # the same for a worker that serves already
STRANGERS = 4_000  # clients that each send 4,000 bytes for the application
FLOODED = 1_000  # max_connections under a flood from `FLOOD_ADDRESSES`
FLOOD_ADDRESSES = 20


@group.attack(
    "other-timeouts",
    server=shared(max_connections=CONNECTIONS, more=(Listener("patient", options={"request_timeout": 3.5}),)),
    rows=four_places("patient", like="small", others=("small", "slow", "games")),
)
def other_timeouts(run: AttackRun) -> None:
    """Silent clients of a listener with a `request_timeout` of its own, at `max_connections`."""
    port = run.server.ports["patient"]
    with BadClients(port, connections=1_000, rate=200, say="nothing", then="hold", addresses=1):
        run.wait()
    run.load = f"200 silent clients a second of a listener with request_timeout 3.5, max_connections {CONNECTIONS}"


@group.attack(
    "two-idle-timeouts",
    server=shared(
        more=(Listener("hours", options={"idle_timeout": 1800, "upstream": ""}),), under=with_files(FILES)
    ),
)  # fmt: skip
def two_idle_timeouts(run: AttackRun) -> None:
    """Silent sessions of two shared ports with different `idle_timeout` take the descriptors."""
    ports = [run.server.ports[name] for name in ("games", "hours")]
    with BadClients(ports, connections=800, rate=500, say="nothing", then="hold", addresses=1, total=800):
        run.wait()
    run.load = f"400 silent clients of each of two shared ports, one with idle_timeout 1800, {FILES} descriptors"


_AGES = tuple(Listener(f"age{n}", options={"max_duration": 1000 * n, "upstream": ""}) for n in range(1, 5))


@contextmanager
def _little_memory() -> Iterator[Server]:
    """Each process may have little more address space than a worker takes when it starts; five groups of timeouts."""
    with shared(more=_AGES)() as usual:
        limit = max(status(pid)["VmSize"] for pid in usual.workers) + MEMORY_BYTES
    with shared(more=_AGES, max_address_connections=0, under=["prlimit", f"--as={limit}"])() as server:
        yield server


def _strangers(run: AttackRun, ports: list[int]) -> None:
    """Clients whose first 4,000 bytes are for the application, and which then wait."""
    say = run.server.message("stranger")
    with BadClients(ports, connections=STRANGERS, rate=2_000, say=say, then="hold", addresses=1) as bad:
        run.wait()
    run.load = f"{bad.output['opened']:,} clients with 4,000 bytes for the application each, "


@group.attack("five-max-durations", server=_little_memory, rows=four_places("games", alike=("game",)))
def five_max_durations(run: AttackRun) -> None:
    """Strangers of five shared ports with different `max_duration` take the memory."""
    _strangers(run, [run.server.ports[name] for name in ("games", *(each.name for each in _AGES))])
    run.load += f"of five shared ports; {MEMORY_BYTES >> 20} MB for each process (RLIMIT_AS)"


@group.attack("no-memory-later", server=shared(max_address_connections=0))
def no_memory_later(run: AttackRun) -> None:
    """A worker that serves is left with little memory, and strangers take it."""
    for pid in run.server.workers:
        limit = status(pid)["VmSize"] + LITTLE_MEMORY_BYTES
        resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))
    _strangers(run, [run.server.ports["games"]])
    run.load += f"{LITTLE_MEMORY_BYTES >> 20} MB for each worker (RLIMIT_AS), a limit that is set after its start"


@group.attack("no-terminator", server=shared(max_connections=CONNECTIONS))
def no_terminator(run: AttackRun) -> None:
    """Requests without their NUL, each of which waits for `terminator_grace`, at `max_connections`."""
    port, bare = run.server.ports["games"], run.server.message("bare")
    with BadClients(port, connections=800, rate=2_500, say=bare, then="hold", addresses=1) as bad:
        run.wait()
    opened = bad.output["opened"] / run.seconds
    run.load = f"{opened:,.0f} requests without a NUL a second from one address, max_connections {CONNECTIONS}"


@group.attack(
    "late-under-flood", server=shared(max_connections=FLOODED), rows=four_places("small")
)  # fmt: skip
def late_under_flood(run: AttackRun) -> None:
    """Silent clients, so many that each is evicted sooner than a lost segment is sent again."""
    port = run.server.ports["small"]
    with BadClients(
        port, connections=4_000, rate=1_500, say="nothing", then="hold", addresses=FLOOD_ADDRESSES
    ) as bad:  # fmt: skip
        run.wait()
    opened = bad.output["opened"] / run.seconds
    run.load = (
        f"{opened:,.0f} silent clients a second from {FLOOD_ADDRESSES} addresses, max_connections {FLOODED}"
    )  # fmt: skip
