"""Server CPU per answer at 256 concurrent clients: flashpol beside what the kernel allows and what others use.

All servers are up at the same time, on one CPU, and the load goes to one at a time. Rounds are interleaved and each
begins with another server, so that a disturbance hits all of them, and figures are ratios within a round. The time is
what the scheduler charged the serving process, the kernel's work on its behalf included. Softirq work is charged to who
triggers it: the handshake to the client, the sending of reply and FIN to the server, alike for all servers.

It is measured in two placements, because the cost of an answer falls with the number that one wake-up finds waiting:

- apart: the load runs on another CPU. A connection costs the client more than the server (the handshake is the
  client's), so a cheap server waits for it, and pays for more wake-ups than a dear one: sleeps per answer 0.0 to 0.4,
  moving with whatever else the machine does.
- saturated: the load runs on the servers' CPU, and neither side interrupts the other (SCHED_BATCH), so all 256 wait
  whenever a server gets its turn: sleeps per answer 0.01 for every server. What an answer costs when CPU is scarce.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from bench.load import CPUs
from bench.measure import ratios
from bench.report import Results
from bench.scenarios.turns import Sample, all_up, in_turn, measure, warm_up
from bench.servers import OURS, PLAIN, Server
from bench.settings import Settings

CLIENTS = 256
ANSWERS = 10_000  # per round and server at most: a fifth of a second
TARGETS = {PLAIN: 0.85, "C epoll, one segment": 1.12, "nginx": 0.75, "HAProxy": 0.50, "gevent StreamServer": 0.33}
CHART = "cpu"
PLACEMENTS = ("apart", "saturated")


def run(settings: Settings, results: Results) -> None:
    """Add CPU per answer of every server, and the ratios that have targets, in both placements."""
    with all_up(settings, results) as running:
        if settings.apart:
            _report(0, in_rounds(running, settings, settings.load_cpus), results)
        with not_interrupting(running):
            _report(1, in_rounds(running, settings, (settings.server_cpu,)), results)


@contextmanager
def not_interrupting(running: list[Server]) -> Iterator[None]:
    """SCHED_BATCH for the servers and for this process, from which the load generator inherits it."""
    ordinary = os.sched_getscheduler(0)
    for pid in [0, *(server.pid for server in running)]:
        os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, ordinary, os.sched_param(0))


def in_rounds(running: list[Server], settings: Settings, load_cpus: CPUs) -> dict[str, list[Sample]]:
    """Samples by name of server, in the order of the rounds."""
    samples: dict[str, list[Sample]] = {server.name: [] for server in running}
    counts = {server.name: warm_up(server, CLIENTS, load_cpus, ANSWERS) for server in running}
    for server in in_turn(running, settings.rounds):
        samples[server.name].append(measure(server, CLIENTS, counts[server.name], load_cpus))
    return samples


def _report(number: int, samples: dict[str, list[Sample]], results: Results) -> None:
    scenario = f"cpu, {PLACEMENTS[number]}"
    cpu = {name: [sample.cpu_per_answer for sample in of_server] for name, of_server in samples.items()}
    for name, used in cpu.items():
        results.add_spread(scenario, f"{name}: CPU per answer", "ns", used, digits=0)
        results.add_point(CHART, name, number, used)
    for name, of_server in samples.items():
        results.add_spread(
            scenario, f"{name}: sleeps per answer", "", [s.sleeps_per_answer for s in of_server], better=""
        )
    for name, used in cpu.items():
        if name not in (OURS, PLAIN):
            results.add_spread(scenario, f"{name} / {PLAIN}", "ratio", ratios(used, cpu[PLAIN]), digits=3, better="")
    for name, used in cpu.items():
        if OURS in cpu and name != OURS:
            quotients = ratios(cpu[OURS], used)
            results.add_spread(scenario, f"{OURS} / {name}", "ratio", quotients, at_most=TARGETS.get(name), digits=3)
