"""Interleaved rounds, as most scenarios use them: all servers run at once, and the load goes to one at a time."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from bench import load, servers
from bench.load import Closed, CPUs
from bench.measure import cpu_ns, sleeps
from bench.report import Results
from bench.servers import Server
from bench.settings import Settings

T = TypeVar("T")
WARM_UP = 4_000  # replies, a tenth of a second: fills slabs, caches and the branch predictor
TURN_SECONDS = 0.2  # length of a turn: far above the 4 ms in which the scheduler accounts
SETTLE = 0.05  # seconds until the last connections are closed and accounted


@dataclass(frozen=True)
class Sample:
    """One turn of one server. CPU in ns."""

    cpu_per_reply: float
    sleeps_per_reply: float
    busy: float  # share of the time that the server ran
    load: Closed


@contextmanager
def all_started(settings: Settings, results: Results, names: Sequence[str] = ()) -> Iterator[list[Server]]:
    """Start the peers that can run here, all or the named ones; note those that cannot."""
    with ExitStack() as stack:
        running = []
        for peer in servers.PEERS:
            if (names and peer.name not in names) or (settings.peers_only and peer.name == servers.OURS):
                continue
            missing = peer.missing()
            if missing:
                results.note(f"{peer.name} was not measured: {missing}")
            else:
                running.append(stack.enter_context(peer.start(settings.server_cpu)))
        yield running


def interleaved(running: list[T], rounds: int) -> Iterator[T]:
    """Yield each server, or each way to use one, once a round.

    Each round begins with another, so that a disturbance hits all of them alike.
    """
    for number in range(rounds):
        first = number % len(running)
        yield from running[first:] + running[:first]


def measure(server: Server, connections: int, count: int, load_cpus: CPUs, options: Sequence[str] = ()) -> Sample:
    """One turn: what the server used for `count` replies."""
    cpu, slept = cpu_used(server), sum(map(sleeps, server.pids))
    closed = load.closed(server, connections=connections, count=count, cpu=load_cpus, options=options)
    time.sleep(SETTLE)
    cpu, slept = cpu_used(server) - cpu, sum(map(sleeps, server.pids)) - slept
    return Sample(cpu / count, slept / count, cpu / 1e9 / closed.seconds, closed)


def cpu_used(server: Server) -> int:
    """CPU time of all the server's processes so far, in ns."""
    return sum(map(cpu_ns, server.pids))


def warm_up(server: Server, connections: int, load_cpus: CPUs, at_most: int) -> int:
    """Warm the server up. Returns the number of replies of a turn, by the speed that was seen."""
    count = max(WARM_UP, connections) if at_most >= WARM_UP else at_most
    first = load.closed(server, connections=connections, count=count, cpu=load_cpus)
    return int(min(at_most, max(count / 2, connections, first.replies / first.seconds * TURN_SECONDS)))
