"""One worker, two, as many as there are CPUs and twice that: what they answer together, and whether they count exactly.

Nobody is pinned and the load generator runs beside them, as on a host that does other work too. It takes a CPU's worth,
so on a machine with two cores a second worker can gain little; it must not lose. What such a machine itself takes is
what a second process of the C server loses in the same rounds.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from bench import BenchError, load, servers
from bench.measure import ratios, scrape
from bench.report import Results
from bench.scenarios.turns import WARM_UP, in_turn, used
from bench.servers import OURS, Server
from bench.servers.yardsticks import processes
from bench.settings import Settings

CLIENTS = 256
ANSWERS = 20_000
TARGET = 1.0  # two workers against one: no loss
ROUNDS = 7
CHART = "workers"


@dataclass(frozen=True)
class Turn:
    """What one server did in one turn. CPU in ns."""

    server: Server
    rate: float
    cost: float


def run(settings: Settings, results: Results) -> None:
    """Add answers per second and CPU per answer by number of workers; their counts must be exact."""
    if settings.peers_only:
        results.note("workers: only flashpol is measured")
        return
    cores = len(os.sched_getaffinity(0))
    levels = sorted({1, 2, cores, 2 * cores})
    answers = settings.either(ANSWERS, WARM_UP)
    with ExitStack() as stack:
        ours = {level: stack.enter_context(servers.flashpol(None, workers=level)) for level in levels}
        yardstick = {count: stack.enter_context(processes(count)) for count in (1, 2)}
        turns = list(_turns([*ours.values(), *yardstick.values()], answers, settings.either(ROUNDS, 1)))
    rates = {level: [turn.rate for turn in turns if turn.server is server] for level, server in ours.items()}
    for level, server in ours.items():
        results.add_point(CHART, OURS, level, rates[level])
        results.add_spread("workers", f"{level} workers", "answers/s", rates[level], digits=0, better="more")
        costs = [turn.cost for turn in turns if turn.server is server]
        results.add_spread("workers", f"{level} workers: CPU per answer", "ns", costs, digits=0)
    gain = ratios(rates[2], rates[1])
    results.add_spread(
        "workers", "2 workers / 1: answers per second", "ratio", gain, at_least=TARGET, digits=3, better="more"
    )
    one, two = ([turn.rate for turn in turns if turn.server is yardstick[count]] for count in (1, 2))
    name = "the same, C epoll, one segment, 2 processes / 1"
    results.add_spread("workers", name, "ratio", ratios(two, one), digits=3, better="more")


def _turns(running: list[Server], answers: int, rounds: int) -> Iterator[Turn]:
    for server in running:
        load.closed(server, connections=CLIENTS, count=WARM_UP, cpu=None)
    for server in in_turn(running, rounds):
        before, cpu = _replies(server), used(server)
        one = load.closed(server, connections=CLIENTS, count=answers, cpu=None)
        counted = _replies(server) - before
        if server.admin and counted != answers:
            raise BenchError(f"{server.name}: {counted} replies are counted of {answers} that were received")
        yield Turn(server, one.answered / one.seconds, (used(server) - cpu) / answers)


def _replies(server: Server) -> int:
    if not server.admin:
        return 0
    _, samples = scrape(server.admin)
    return int(sum(value for name, value in samples.items() if name.startswith("flashpol_replies_total")))
