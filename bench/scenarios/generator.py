"""The load generator itself: its CPU per reply, and how busy it keeps each server. It should be the faster side.

On loopback the process that starts a handshake is charged for both ends of it, and the client for the end that it
sends: the generator pays for most of the kernel's work for the server too. With one CPU it therefore cannot keep the
cheapest servers busy, as these figures show. With one process on each CPU it can: then the limit is the server, which
is busy whenever it can run.
"""

import os

from bench import load
from bench.report import Results
from bench.scenarios.interleave import WARM_UP, all_started, cpu_used, interleaved
from bench.servers import OURS, PLAIN
from bench.settings import Settings

NAMES = (OURS, PLAIN, "C epoll, one segment", "C io_uring", "nginx")
CLIENTS = 256
REPLIES = 20_000
ROUNDS = 5


def run(settings: Settings, results: Results) -> None:
    """Add replies per second, the generator's CPU per reply and the server's share, with one process and several."""
    cores = len(os.sched_getaffinity(0))
    replies = settings.either(REPLIES, WARM_UP)
    with all_started(settings, results, NAMES) as running:
        for processes in sorted({1, cores}):
            rates: dict[str, list[float]] = {}
            costs: dict[str, list[float]] = {}
            busy: dict[str, list[float]] = {}
            for server in interleaved(running, settings.turns(ROUNDS)):
                cpu = cpu_used(server)
                one = load.closed(
                    server, connections=CLIENTS, count=replies, cpu=settings.load_cpus if processes == 1 else None,
                    processes=processes,
                )  # fmt: skip
                rates.setdefault(server.name, []).append(one.replies / one.seconds)
                costs.setdefault(server.name, []).append(one.generator_cpu / replies * 1e9)
                busy.setdefault(server.name, []).append((cpu_used(server) - cpu) / one.seconds / 1e9)
            words = f"{processes} generator{'s' if processes > 1 else ''}"
            for name, rate in rates.items():
                results.add_spread("generator", f"{name}, {words}", "replies/s", rate, digits=0, better="more")
                results.add_spread("generator", f"{name}, {words}: its CPU per reply", "ns", costs[name], digits=0)
                results.add_spread("generator", f"{name}, {words}: server busy", "share", busy[name], better="")
