"""One worker, two, as many as there are CPUs and twice that: what they answer together, and whether they count exactly.

Nobody is pinned and the load generator runs beside them, as on a host that does other work too. It takes a CPU's worth,
so on a machine with two cores a second worker can gain little; it must not lose.
"""

import os
from contextlib import ExitStack

from bench import BenchError, load, servers
from bench.measure import ratios, scrape
from bench.report import Results
from bench.scenarios.turns import WARM_UP, in_turn, used
from bench.servers import OURS, Server
from bench.settings import Settings

CLIENTS = 256
ANSWERS = 20_000
TARGET = 1.0  # two workers against one: no loss
ROUNDS = 7
CHART = "workers"


def run(settings: Settings, results: Results) -> None:
    """Add answers per second and CPU per answer by number of workers; their counts must be exact."""
    if settings.peers_only:
        results.note("workers: only flashpol is measured")
        return
    cores = len(os.sched_getaffinity(0))
    levels = sorted({1, 2, cores, 2 * cores})
    answers = settings.either(ANSWERS, WARM_UP)
    rates: dict[int, list[float]] = {level: [] for level in levels}
    costs: dict[int, list[float]] = {level: [] for level in levels}
    for level, rate, cost in _rounds(levels, answers, settings.either(ROUNDS, 1)):
        rates[level].append(rate)
        costs[level].append(cost)
    for level in levels:
        results.add_point(CHART, OURS, level, rates[level])
        results.add_spread("workers", f"{level} workers", "answers/s", rates[level], digits=0, better="more")
        results.add_spread("workers", f"{level} workers: CPU per answer", "ns", costs[level], digits=0)
    gain = ratios(rates[2], rates[1])
    results.add_spread(
        "workers", "2 workers / 1: answers per second", "ratio", gain, at_least=TARGET, digits=3, better="more"
    )


def _rounds(levels: list[int], answers: int, rounds: int) -> list[tuple[int, float, float]]:
    measured = []
    for_level: dict[int, int] = {}
    with ExitStack() as stack:
        running = []
        for level in levels:
            server = stack.enter_context(servers.flashpol(None, workers=level))
            for_level[server.pid] = level
            running.append(server)
            load.closed(server, connections=CLIENTS, count=WARM_UP, cpu=None)
        for server in in_turn(running, rounds):
            before, cpu = _replies(server), used(server)
            one = load.closed(server, connections=CLIENTS, count=answers, cpu=None)
            counted = _replies(server) - before
            if counted != answers:
                raise BenchError(f"{server.name}: {counted} replies are counted of {answers} that were received")
            rate = one.answered / one.seconds
            measured.append((for_level[server.pid], rate, (used(server) - cpu) / answers))
    return measured


def _replies(server: Server) -> int:
    _, samples = scrape(server.admin)
    return int(sum(value for name, value in samples.items() if name.startswith("flashpol_replies_total")))
