"""Is the load generator faster than what it measures? What an answer costs it, and how busy it keeps each server.

On loopback the handshake of both ends is done by whoever begins it, and so is the end that the client sends: the
generator is charged for most of what the kernel does for the server too. Alone on a CPU it therefore cannot keep the
cheapest servers busy, and says so here. With as many processes as there are CPUs it can: a server that is busy all of
the time that it can get is the limit, not who asks it.
"""

import os

from bench import load
from bench.report import Results
from bench.scenarios.turns import WARM_UP, all_up, in_turn, used
from bench.servers import OURS, PLAIN
from bench.settings import Settings

NAMES = (OURS, PLAIN, "C epoll, one segment", "C io_uring", "nginx")
CLIENTS = 256
ANSWERS = 20_000
ROUNDS = 5


def run(settings: Settings, results: Results) -> None:
    """Add answers per second, the generator's CPU per answer and the server's share, with one process and several."""
    cores = len(os.sched_getaffinity(0))
    answers = settings.either(ANSWERS, WARM_UP)
    with all_up(settings, results, NAMES) as running:
        for processes in sorted({1, cores}):
            rates: dict[str, list[float]] = {}
            costs: dict[str, list[float]] = {}
            busy: dict[str, list[float]] = {}
            for server in in_turn(running, settings.either(ROUNDS, 1)):
                cpu = used(server)
                one = load.closed(
                    server, connections=CLIENTS, count=answers, cpu=settings.load_cpus if processes == 1 else None,
                    processes=processes,
                )  # fmt: skip
                rates.setdefault(server.name, []).append(one.answered / one.seconds)
                costs.setdefault(server.name, []).append(one.generator_cpu / answers * 1e9)
                busy.setdefault(server.name, []).append((used(server) - cpu) / one.seconds / 1e9)
            words = f"{processes} generator{'s' if processes > 1 else ''}"
            for name, rate in rates.items():
                results.add_spread("generator", f"{name}, {words}", "answers/s", rate, digits=0, better="more")
                results.add_spread("generator", f"{name}, {words}: its CPU per answer", "ns", costs[name], digits=0)
                results.add_spread("generator", f"{name}, {words}: server busy", "share", busy[name], better="")
