"""Server CPU per answer at 256 concurrent clients: flashpol beside a plain C server and nginx.

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
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from bench import load, servers
from bench.measure import cpu_ns, ratios, sleeps
from bench.report import Results
from bench.servers import Server
from bench.settings import Settings

CLIENTS = 256
WARM_UP = 4_000  # answers: fills slabs, caches and the branch predictor; a tenth of a second
ANSWERS = 10_000  # per round and server: a fifth of a second, far above the 4 ms in which the scheduler accounts
SETTLE = 0.05  # seconds until the last closes are done and accounted
PLAIN_TARGET = 0.90
NGINX_TARGET = 0.80
PLAIN, ONE_SEGMENT, NGINX, OURS = "C epoll", "C epoll, one segment", "nginx", "flashpol"


@dataclass(frozen=True)
class Sample:
    """One server under one run of the load."""

    cpu_per_answer: float  # ns
    sleeps_per_answer: float


def run(settings: Settings, results: Results) -> None:
    """Add CPU per answer of every server, and the ratios that have targets, in both placements."""
    with ExitStack() as stack:
        running = [stack.enter_context(start) for start in _servers(settings, results)]
        if settings.load_cpu != settings.server_cpu:
            _report("apart", _rounds(running, settings.rounds, settings.load_cpu), results)
        with _not_interrupting(running):
            _report("saturated", _rounds(running, settings.rounds, settings.server_cpu), results)


def _servers(settings: Settings, results: Results) -> list[AbstractContextManager[Server]]:
    cpu = settings.server_cpu
    starts: list[AbstractContextManager[Server]] = [] if settings.peers_only else [servers.flashpol(cpu)]
    starts += [servers.epoll(cpu), servers.epoll(cpu, one_segment=True)]
    if servers.nginx_program():
        starts.append(servers.nginx(cpu))
    else:
        results.notes.append("cpu: nginx is not installed, its ratio was not measured")
    return starts


@contextmanager
def _not_interrupting(running: list[Server]) -> Iterator[None]:
    """SCHED_BATCH for the servers and for this process, from which the load generator inherits it."""
    ordinary = os.sched_getscheduler(0)
    for pid in [0, *(server.pid for server in running)]:
        os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, ordinary, os.sched_param(0))


def _rounds(running: list[Server], rounds: int, load_cpu: int) -> dict[str, list[Sample]]:
    """Samples by name of server, in the order of the rounds."""
    samples: dict[str, list[Sample]] = {server.name: [] for server in running}
    for server in running:
        load.closed(server, connections=CLIENTS, count=WARM_UP, cpu=load_cpu)
    for number in range(rounds):
        first = number % len(running)
        for server in running[first:] + running[:first]:
            samples[server.name].append(_measure(server, load_cpu))
    return samples


def _measure(server: Server, load_cpu: int) -> Sample:
    cpu, slept = cpu_ns(server.pid), sleeps(server.pid)
    answered = load.closed(server, connections=CLIENTS, count=ANSWERS, cpu=load_cpu).answered
    time.sleep(SETTLE)
    return Sample((cpu_ns(server.pid) - cpu) / answered, (sleeps(server.pid) - slept) / answered)


def _report(placement: str, samples: dict[str, list[Sample]], results: Results) -> None:
    scenario = f"cpu, {placement}"
    cpu = {name: [sample.cpu_per_answer for sample in of_server] for name, of_server in samples.items()}
    for name, used in cpu.items():
        results.add_spread(scenario, f"{name}: CPU per answer", "ns", used, digits=0)
    for name, of_server in samples.items():
        results.add_spread(scenario, f"{name}: sleeps per answer", "", [s.sleeps_per_answer for s in of_server])
    for name, used in cpu.items():
        if name not in (OURS, PLAIN):
            results.add_spread(scenario, f"{name} / {PLAIN}", "ratio", ratios(used, cpu[PLAIN]), digits=3)
    targets = {ONE_SEGMENT: None, PLAIN: PLAIN_TARGET, NGINX: NGINX_TARGET}
    for name, target in targets.items():
        if OURS in cpu and name in cpu:
            quotients = ratios(cpu[OURS], cpu[name])
            results.add_spread(scenario, f"{OURS} / {name}", "ratio", quotients, at_most=target, digits=3)
