"""CPU per reply by number of listeners: one worker on 1 to 500 addresses, which clients use in turn."""

from contextlib import ExitStack

from bench import servers
from bench.measure import ratios
from bench.report import Results
from bench.scenarios.interleave import interleaved, measure, warm_up
from bench.servers import OURS
from bench.settings import Settings

LEVELS = (1, 10, 100, 500)
QUICK_LEVELS = (1, 20)
CLIENTS = 256
REPLIES = 10_000
ROUNDS = 5
CHART = "listeners"


def run(settings: Settings, results: Results) -> None:
    """Add CPU per reply by number of listeners, and the ratio to one listener."""
    if settings.peers_only:
        results.note("listeners: only flashpol is measured")
        return
    levels = settings.either(LEVELS, QUICK_LEVELS)
    cpu: dict[int, list[float]] = {level: [] for level in levels}
    with ExitStack() as stack:
        running = [stack.enter_context(servers.flashpol(settings.server_cpu, listeners=level)) for level in levels]
        counts = [warm_up(server, CLIENTS, settings.load_cpus, REPLIES) for server in running]
        for server in interleaved(running, settings.turns(ROUNDS)):
            one = measure(server, CLIENTS, min(counts), settings.load_cpus)
            cpu[len(server.ports)].append(one.cpu_per_reply)
    for level, samples in cpu.items():
        results.add_point(CHART, OURS, level, samples)
        results.add_spread("listeners", f"CPU per reply on {level:,}", "ns", samples, digits=0)
        if level > 1:
            quotients = ratios(samples, cpu[1])
            results.add_spread("listeners", f"on {level:,} / on 1", "ratio", quotients, digits=3)
