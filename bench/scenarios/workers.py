"""Replies per second of one worker, two, one for each CPU and twice that; and whether their counters are exact.

No process is pinned, and the load generator shares the CPUs, as on a host with other work. It takes a whole CPU, so on
a machine with two cores a second worker can gain little; it must not lose. The C server with one and two processes, in
the same rounds, shows what the machine itself costs.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from bench import BenchError, load, servers
from bench.measure import ratios, scrape
from bench.report import Results
from bench.scenarios.interleave import WARM_UP, cpu_used, interleaved
from bench.servers import OURS, Server
from bench.servers.baselines import processes
from bench.settings import Settings

CLIENTS = 256
REPLIES = 20_000
TARGET = 1.0  # two workers / one: no loss
ROUNDS = 7
CHART = "workers"


@dataclass(frozen=True)
class Turn:
    """One turn of one server. CPU in ns."""

    server: Server
    rate: float
    cost: float


def run(settings: Settings, results: Results) -> None:
    """Add replies per second and CPU per reply by number of workers; their counts must be exact."""
    if settings.peers_only:
        results.note("workers: only flashpol is measured")
        return
    cores = len(os.sched_getaffinity(0))
    levels = sorted({1, 2, cores, 2 * cores})
    replies = settings.either(REPLIES, WARM_UP)
    with ExitStack() as stack:
        ours = {level: stack.enter_context(servers.flashpol(None, workers=level)) for level in levels}
        baseline = {count: stack.enter_context(processes(count)) for count in (1, 2)}
        turns = list(_turns([*ours.values(), *baseline.values()], replies, settings.turns(ROUNDS)))
    rates = {level: [turn.rate for turn in turns if turn.server is server] for level, server in ours.items()}
    for level, server in ours.items():
        results.add_point(CHART, OURS, level, rates[level])
        results.add_spread("workers", f"{level} workers", "replies/s", rates[level], digits=0, better="more")
        costs = [turn.cost for turn in turns if turn.server is server]
        results.add_spread("workers", f"{level} workers: CPU per reply", "ns", costs, digits=0)
    gain = ratios(rates[2], rates[1])
    results.add_spread(
        "workers", "2 workers / 1: replies per second", "ratio", gain, at_least=TARGET, digits=3, better="more"
    )
    one, two = ([turn.rate for turn in turns if turn.server is baseline[count]] for count in (1, 2))
    name = "the same, C epoll, one segment, 2 processes / 1"
    results.add_spread("workers", name, "ratio", ratios(two, one), digits=3, better="more")


def _turns(running: list[Server], replies: int, rounds: int) -> Iterator[Turn]:
    for server in running:
        load.closed(server, connections=CLIENTS, count=WARM_UP, cpu=None)
    for server in interleaved(running, rounds):
        before, cpu = _replies(server), cpu_used(server)
        one = load.closed(server, connections=CLIENTS, count=replies, cpu=None)
        counted = _replies(server) - before
        if server.admin and counted != replies:
            raise BenchError(f"{server.name}: {counted} replies are counted of {replies} that were received")
        yield Turn(server, one.replies / one.seconds, (cpu_used(server) - cpu) / replies)


def _replies(server: Server) -> int:
    if not server.admin:
        return 0
    _, samples = scrape(server.admin)
    return int(sum(value for name, value in samples.items() if name.startswith("flashpol_replies_total")))
