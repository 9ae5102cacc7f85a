"""CPU and latency of a reply with 1 to 10,000 clients at once.

One client alone shows the cost of a wake-up, ten thousand show the effect on caches and tables. The load has a CPU of
its own if there are two. Latency at one client is the round trip: connect, request, reply, end of stream.
"""

from bench.measure import ratios
from bench.report import Results
from bench.scenarios.interleave import Sample, all_started, interleaved, measure, warm_up
from bench.servers import OURS, PLAIN, Server
from bench.settings import Settings

LEVELS = (1, 8, 64, 256, 1_000, 4_000, 10_000)
QUICK_LEVELS = (1, 1_000)
NAMES = (OURS, PLAIN, "C epoll, one segment", "C io_uring", "nginx", "HAProxy", "gevent StreamServer", "Go")
ROUNDS = 5
REPLIES = 10_000
ALONE = 3_000  # replies at one client: also a fifth of a second
USUAL, MANY = 256, 10_000
TARGET_ALONE = 1.15
TARGET_MANY = 1.2
CHART, LATENCY_CHART = "concurrency", "concurrency latency"


def run(settings: Settings, results: Results) -> None:
    """Add CPU per reply and p50 of each server at each level, and the ratios that have targets."""
    samples: dict[tuple[str, int], list[Sample]] = {}
    with all_started(settings, results, NAMES) as running:
        for level in settings.either(LEVELS, QUICK_LEVELS):
            for server, one in _level(running, settings, level):
                samples.setdefault((server.name, level), []).append(one)
    for (name, level), of_level in samples.items():
        cpu, p50 = [s.cpu_per_reply for s in of_level], [s.load.p50 for s in of_level]
        results.add_point(CHART, name, level, cpu)
        results.add_point(LATENCY_CHART, name, level, p50)
        results.add_spread("concurrency", f"{name}: CPU per reply at {level:,}", "ns", cpu, digits=0)
    if not settings.peers_only:
        _judge(samples, results)


def _level(running: list[Server], settings: Settings, level: int) -> list[tuple[Server, Sample]]:
    at_most = ALONE if level == 1 else max(REPLIES, 2 * level)
    counts = {server.name: warm_up(server, level, settings.load_cpus, at_most) for server in running}
    return [
        (server, measure(server, level, counts[server.name], settings.load_cpus))
        for server in interleaved(running, settings.turns(ROUNDS))
    ]


def _judge(samples: dict[tuple[str, int], list[Sample]], results: Results) -> None:
    alone = ratios([s.load.p50 for s in samples[OURS, 1]], [s.load.p50 for s in samples[PLAIN, 1]])
    name = f"{OURS} / {PLAIN}: p50 at 1 client"
    results.add_spread("concurrency", name, "ratio", alone, at_most=TARGET_ALONE, digits=3)
    for server in (OURS, PLAIN, "nginx"):
        if (server, MANY) in samples:
            many = [s.cpu_per_reply for s in samples[server, MANY]]
            quotients = ratios(many, [s.cpu_per_reply for s in samples[server, USUAL]])
            name = f"{server}: cost at {MANY:,} / at {USUAL}"
            target = TARGET_MANY if server == OURS else None
            results.add_spread("concurrency", name, "ratio", quotients, at_most=target, digits=3)
