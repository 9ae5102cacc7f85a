"""Measure single techniques on the C baseline, where no other code has an effect. Not part of `all`.

First the options of the baseline, one at a time, as a ratio to none: CPU per reply at 256 clients in both placements,
and p50 at one client. Then two servers on one port, with a CPU and a generator each: unpinned, pinned, and pinned with
SO_INCOMING_CPU, so that a connection stays on the CPU where it arrived.
"""

from contextlib import ExitStack

from bench import load
from bench.measure import ratios
from bench.report import Results
from bench.scenarios.cpu import CLIENTS, in_rounds, not_interrupting
from bench.scenarios.interleave import WARM_UP, cpu_used, interleaved, measure
from bench.servers import free_port
from bench.servers.baselines import variant
from bench.settings import Settings

VARIANTS: tuple[tuple[str, ...], ...] = (
    (),
    ("--epoll-first",),
    ("--shutdown",),
    ("--defer-accept",),
    ("--one-segment",),
    ("--one-segment", "--shutdown"),
    ("--one-segment", "--shutdown", "--look"),
    ("--one-segment", "--shutdown", "--look-ioctl"),
    ("--one-segment", "--shutdown", "--look-together"),
    ("--one-segment", "--shutdown", "--look-together", "--close-range"),
    ("--one-segment", "--with-address"),
    ("--one-segment", "--defer-accept"),
)
ALONE = 3_000
PAIR_REPLIES = 30_000


def run(settings: Settings, results: Results) -> None:
    """Add each option's ratio to none, and the effect of placement."""
    _options(settings, results)
    _spinning(settings, results)
    if settings.apart:
        _placement(settings, results)


def _options(settings: Settings, results: Results) -> None:
    with ExitStack() as stack:
        running = [stack.enter_context(variant(settings.server_cpu, *options)) for options in VARIANTS]
        plain = running[0].name
        for placement in ("apart", "saturated") if settings.apart else ("saturated",):
            if placement == "saturated":
                stack.enter_context(not_interrupting(running))
            cpus = settings.load_cpus if placement == "apart" else (settings.server_cpu,)
            samples = in_rounds(running, settings, cpus)
            base = [one.cpu_per_reply for one in samples[plain]]
            for server in running[1:]:
                quotients = ratios([one.cpu_per_reply for one in samples[server.name]], base)
                results.add_spread(f"options, {placement}", server.name, "ratio", quotients, digits=3)


def _spinning(settings: Settings, results: Results) -> None:
    """Busy polling; one server at a time, since it leaves no CPU to others."""
    for options in ((), ("--spin",)):
        with variant(settings.server_cpu, *options) as server:
            runs = [measure(server, 1, ALONE, settings.load_cpus) for _ in range(settings.rounds + 1)][1:]
        results.add_spread("one client", f"{server.name}: p50", "us", [one.load.p50 for one in runs], digits=1)
        cpu = [one.cpu_per_reply for one in runs]
        results.add_spread("one client", f"{server.name}: CPU per reply", "ns", cpu, digits=0)


def _placement(settings: Settings, results: Results) -> None:
    cpus = (settings.load_cpus[0], settings.server_cpu)
    for words, pinned, incoming in (
        ("anywhere", False, False),
        ("pinned", True, False),
        ("pinned, SO_INCOMING_CPU", True, True),
    ):
        port = free_port()
        rates: list[float] = []
        costs: list[float] = []
        with ExitStack() as stack:
            pair = []
            for cpu in cpus:
                options = ["--one-segment", f"--port={port}", *([f"--incoming-cpu={cpu}"] if incoming else [])]
                pair.append(stack.enter_context(variant(cpu if pinned else None, *options)))
            for server in interleaved(pair[:1], settings.rounds + 1):
                before = sum(map(cpu_used, pair))
                one = load.closed(
                    server, connections=CLIENTS, count=settings.either(PAIR_REPLIES, WARM_UP),
                    cpu=cpus if pinned else None, processes=len(cpus),
                )  # fmt: skip
                rates.append(one.replies / one.seconds)
                costs.append((sum(map(cpu_used, pair)) - before) / one.replies)
        results.add_spread("two servers", words, "replies/s", rates[1:], digits=0, better="more")
        results.add_spread("two servers", f"{words}: CPU per reply", "ns", costs[1:], digits=0)
