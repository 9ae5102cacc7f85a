"""Server CPU per reply at 256 concurrent clients: flashpol beside C servers, which show the kernel's limit, and peers.

All servers run at the same time, on one CPU, and the load goes to one at a time. Rounds are interleaved and each begins
with another server, so that a disturbance hits all of them, and figures are ratios within a round. The time is what the
scheduler charged the serving process, including the kernel's work for it. Softirq work is charged to the process that
triggers it: the handshake to the client, the sending of reply and FIN to the server, alike for all servers.

There are two placements, because the cost of a reply falls with the number of requests that one wake-up finds waiting:

- apart: the load runs on another CPU. A connection costs the client more than the server (the handshake is the
  client's), so a cheap server waits for it, and pays for more wake-ups than an expensive one: sleeps per reply are 0.0
  to 0.4, and vary with the machine's other work.
- saturated: the load runs on the servers' CPU, and neither side interrupts the other (SCHED_BATCH), so all 256 requests
  wait when a server gets its turn: sleeps per reply are 0.01 for every server. This is the cost when CPU is scarce.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from bench.load import CPUs
from bench.measure import ratios
from bench.report import Results
from bench.scenarios.interleave import Sample, all_started, interleaved, measure, warm_up
from bench.servers import OURS, PLAIN, Server
from bench.settings import Settings

CLIENTS = 256
REPLIES = 10_000  # per round and server, at most: a fifth of a second
TARGETS = {PLAIN: 0.85, "nginx": 0.75, "HAProxy": 0.50, "gevent StreamServer": 0.33}
ONE_SEGMENT, ONE_SEGMENT_TARGETS = "C epoll, one segment", (1.00, 1.10)  # by placement
CHART = "cpu"
PLACEMENTS = ("apart", "saturated")


def run(settings: Settings, results: Results) -> None:
    """Add CPU per reply of every server, and the ratios that have targets, in both placements."""
    with all_started(settings, results) as running:
        if settings.apart:
            _report(0, in_rounds(running, settings, settings.load_cpus), results)
        with not_interrupting(running):
            _report(1, in_rounds(running, settings, (settings.server_cpu,)), results)


@contextmanager
def not_interrupting(running: list[Server]) -> Iterator[None]:
    """Use SCHED_BATCH for the servers and this process, from which the load generator inherits it."""
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
    counts = {server.name: warm_up(server, CLIENTS, load_cpus, REPLIES) for server in running}
    for server in interleaved(running, settings.rounds):
        samples[server.name].append(measure(server, CLIENTS, counts[server.name], load_cpus))
    return samples


def _report(number: int, samples: dict[str, list[Sample]], results: Results) -> None:
    scenario = f"cpu, {PLACEMENTS[number]}"
    cpu = {name: [sample.cpu_per_reply for sample in of_server] for name, of_server in samples.items()}
    for name, used in cpu.items():
        results.add_spread(scenario, f"{name}: CPU per reply", "ns", used, digits=0)
        results.add_point(CHART, name, number, used)
    for name, of_server in samples.items():
        results.add_spread(
            scenario, f"{name}: sleeps per reply", "", [s.sleeps_per_reply for s in of_server], better=""
        )
    for name, used in cpu.items():
        if name not in (OURS, PLAIN):
            results.add_spread(scenario, f"{name} / {PLAIN}", "ratio", ratios(used, cpu[PLAIN]), digits=3, better="")
    for name, used in cpu.items():
        if OURS in cpu and name != OURS:
            quotients = ratios(cpu[OURS], used)
            target = ONE_SEGMENT_TARGETS[number] if name == ONE_SEGMENT else TARGETS.get(name)
            results.add_spread(scenario, f"{OURS} / {name}", "ratio", quotients, at_most=target, digits=3)
