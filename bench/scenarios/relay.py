"""A shared port beside HAProxy in TCP mode with the same inspection, both in front of the same application.

Each has one thread on one CPU; the application and its clients share another. Rounds are interleaved, and ratios are
taken within a round. Then the scenario measures the memory of idle sessions, on servers that have had few before; and
20,000 sessions over four workers that all echo, counted while they are open. Last comes the cost of a policy request on
a shared port, beside that on a policy port.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

from bench import BenchError, relay_load, servers
from bench.measure import Spread, ratios, scrape, user_memory
from bench.report import Figure, Results
from bench.scenarios.interleave import SETTLE, WARM_UP, cpu_used, interleaved, measure
from bench.servers import OURS, Server
from bench.servers.haproxy import missing
from bench.servers.relays import SESSIONS, flashpol_relay, haproxy_relay
from bench.settings import Settings

SIZE = 100  # bytes of a message
CLIENTS = 64
SHORT, QUICK_SHORT = 10_000, 1_000
ECHO_SECONDS, ALONE_SECONDS, QUICK_SECONDS = 1.0, 0.5, 0.1
STREAMS = 4
STREAM, QUICK_STREAM = 1 << 28, 1 << 22  # bytes of each
QUICK_SESSIONS = 500
MANY, QUICK_MANY, WORKERS, PROCESSES = 20_000, 1_000, 4, 2  # a process may have 20,000 files
MANY_ROUNDS = 5  # of echoes on all sessions
POLICY_CLIENTS, POLICY_REPLIES = 256, 5_000
POLICY_TURNS = 3  # per round: a difference of a few per cent needs many short turns
SHORT_CPU, ECHO_CPU, BULK_CPU = "CPU of a short session", "CPU of an echo", "CPU of a GB"
ECHO_P50, ALONE_P50 = f"echo p50, {CLIENTS} connections", "echo p50, one connection"
UNITS = {SHORT_CPU: "us", ECHO_CPU: "us", ECHO_P50: "us", ALONE_P50: "us", BULK_CPU: "ms"}
TARGETS = {SHORT_CPU: 1.0, ECHO_P50: 1.2, ALONE_P50: 1.2, BULK_CPU: 1.0}  # ratios to HAProxy
MEMORY_TARGET_KB = 6.2
POLICY_TARGET = 1.1

Start = Callable[[], AbstractContextManager[Server]]


def run(settings: Settings, results: Results) -> None:
    """Add the cost of relaying beside HAProxy's, memory, many sessions, and policy requests on a shared port."""
    without = missing()
    if without:
        results.note(f"relay: no peer: {without}")
        if settings.peers_only:
            return
    with relay_load.application(settings.load_cpus[0]) as application:
        starts = _relays(settings, application, with_haproxy=not without)
        with ExitStack() as stack:
            running = [stack.enter_context(start()) for start in starts]
            if not without:
                running.append(stack.enter_context(haproxy_relay(settings.server_cpu, application, splice=True)))
            _compare(running, settings, results)
        for start in starts:
            with start() as server:
                _idle(server, settings, results)
        if not settings.peers_only:
            _policies(application, settings, results)
    if not settings.peers_only:
        _many(settings, results)


def _relays(settings: Settings, application: int, *, with_haproxy: bool) -> list[Start]:
    cpu = settings.server_cpu
    starts: list[Start] = []
    if not settings.peers_only:
        starts.append(lambda: flashpol_relay(cpu, (application,)))
    if with_haproxy:
        starts.append(lambda: haproxy_relay(cpu, application))
    return starts


def _compare(running: list[Server], settings: Settings, results: Results) -> None:
    samples: dict[str, dict[str, list[float]]] = {server.name: {} for server in running}
    for server in running:
        relay_load.short(server, settings.load_cpus[-1], connections=CLIENTS, size=SIZE, total=QUICK_SHORT)
    for turn in (_short, _echo, _bulk):
        for server in interleaved(running, settings.rounds):
            for figure, value in turn(server, settings).items():
                samples[server.name].setdefault(figure, []).append(value)
    for figure, unit in UNITS.items():
        for name, of_server in samples.items():
            results.add_spread("relay", f"{name}: {figure}", unit, of_server[figure], digits=1)
        for name, of_server in samples.items():
            if OURS in samples and name != OURS:
                target = TARGETS.get(figure) if name == "HAProxy" else None
                quotients = ratios(samples[OURS][figure], of_server[figure])
                results.add_spread("relay", f"{OURS} / {name}: {figure}", "ratio", quotients, at_most=target)


def _short(server: Server, settings: Settings) -> dict[str, float]:
    total = settings.either(SHORT, QUICK_SHORT)
    before = cpu_used(server)
    relay_load.short(server, settings.load_cpus[-1], connections=CLIENTS, size=SIZE, total=total)
    time.sleep(SETTLE)
    return {SHORT_CPU: (cpu_used(server) - before) / total / 1e3}


def _echo(server: Server, settings: Settings) -> dict[str, float]:
    cpu, before = settings.load_cpus[-1], cpu_used(server)
    seconds = settings.either(ECHO_SECONDS, QUICK_SECONDS)
    many = relay_load.echo(server, cpu, connections=CLIENTS, size=SIZE, seconds=seconds)
    cost = (cpu_used(server) - before) / many.rounds / 1e3
    alone = relay_load.echo(
        server, cpu, connections=1, size=SIZE, seconds=settings.either(ALONE_SECONDS, QUICK_SECONDS)
    )
    return {ECHO_CPU: cost, ECHO_P50: many.p50_us, ALONE_P50: alone.p50_us}


def _bulk(server: Server, settings: Settings) -> dict[str, float]:
    before = cpu_used(server)
    size = settings.either(STREAM, QUICK_STREAM)
    result = relay_load.bulk(server, settings.load_cpus[-1], connections=STREAMS, size=size)
    return {BULK_CPU: (cpu_used(server) - before) / 1e6 / (result.bytes / 1e9)}


def _idle(server: Server, settings: Settings, results: Results) -> None:
    count, cpu = settings.either(SESSIONS, QUICK_SESSIONS), settings.load_cpus[-1]
    relay_load.short(server, cpu, connections=1, size=SIZE, total=100)
    time.sleep(SETTLE)
    memory = user_memory(server.pid)
    with relay_load.HeldSessions(server, [count], cpu, size=SIZE):
        each = (user_memory(server.pid) - memory) / count / 1024
    target = MEMORY_TARGET_KB if server.name == OURS else None
    name = f"{server.name}: memory per idle session of {count:,}"
    results.add(Figure("relay", name, "KB", Spread.of([each]), target))


def _many(settings: Settings, results: Results) -> None:
    count, rounds = settings.either(MANY, QUICK_MANY), settings.either(MANY_ROUNDS, 1)
    with (
        relay_load.applications(PROCESSES) as ports,
        flashpol_relay(None, ports, workers=WORKERS) as server,
        relay_load.HeldSessions(server, [count // PROCESSES] * PROCESSES, None, size=SIZE) as held,
    ):
        counted = [_open(server)]
        for number in range(rounds):
            echoes = held.echo()
            if echoes != count * (number + 2):
                raise BenchError(f"{server.name}: {echoes} echoes of {count * (number + 2)}")
            counted.append(_open(server))
    if set(counted) != {count}:
        raise BenchError(f"{server.name} counts {counted} sessions while {count} are held")
    name = f"{count:,} over {WORKERS} workers: open after each of {rounds + 1} echoes"
    results.add(Figure("relay", name, "", Spread.of(counted), at_least=count, digits=0, better="more"))


def _open(server: Server) -> int:
    _, samples = scrape(server.admin)
    gauge = "flashpol_relay_sessions_open{"
    return int(sum(value for name, value in samples.items() if name.startswith(gauge)))


def _policies(application: int, settings: Settings, results: Results) -> None:
    cpu: dict[int, list[float]] = {}
    with (
        flashpol_relay(settings.server_cpu, (application,)) as shared,
        servers.flashpol(settings.server_cpu) as policy,
    ):
        for server in (shared, policy):
            measure(server, POLICY_CLIENTS, WARM_UP, settings.load_cpus)
        for server in interleaved([shared, policy], settings.rounds * settings.either(POLICY_TURNS, 1)):
            one = measure(server, POLICY_CLIENTS, settings.either(POLICY_REPLIES, 1_000), settings.load_cpus)
            cpu.setdefault(server.pid, []).append(one.cpu_per_reply)
    for server, words in ((shared, "a shared port"), (policy, "a policy port")):
        results.add_spread("relay", f"CPU of a policy reply on {words}", "ns", cpu[server.pid], digits=0)
    quotients = ratios(cpu[shared.pid], cpu[policy.pid])
    name = "policy reply: shared port / policy port"
    results.add_spread("relay", name, "ratio", quotients, at_most=POLICY_TARGET, digits=3)
