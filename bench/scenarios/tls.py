"""Relays that end TLS: flashpol beside HAProxy, nginx and stunnel, all in front of the same application.

Each server has one worker or thread on one CPU, and the same certificate (ECDSA P-256). The application and its clients
share the other CPU. Rounds are interleaved, and ratios are taken within a round. Clients of an echo have their
handshakes before it is measured; `handshakes` measures those. Memory comes last, on servers that have had few sessions
before; and 10,000 sessions over two workers that all echo, counted while they are open.
"""

import time
from contextlib import ExitStack

from bench import BenchError, build, relay_load
from bench.measure import Spread, ratios, scrape, user_memory
from bench.relay_load import RelayResult
from bench.report import Figure, Results
from bench.scenarios.interleave import SETTLE, cpu_used, interleaved
from bench.servers import Server
from bench.servers.certificate import Certificate, certificate
from bench.servers.certificate import missing as certificate_missing
from bench.servers.relays import flashpol_relay
from bench.servers.tls import HAPROXY, NGINX, OURS, RELAYS, STUNNEL, TlsPeer
from bench.settings import Settings

NEW, OLD = "1.3", "1.2"  # versions of TLS
SIZE = 100  # bytes of a message
CLIENTS = 64
ECHO_SECONDS, QUICK_SECONDS = 0.6, 0.1
STREAMS = 4
STREAM, QUICK_STREAM = 1 << 27, 1 << 21  # bytes of each
WARM_UP = 200  # sessions of an echo
SESSIONS, QUICK_SESSIONS = 8_500, 200  # idle ones; a server that is as large as this has fixed costs that count little
STUNNEL_SESSIONS = 2_000  # each has a thread
MANY, QUICK_MANY, WORKERS, PROCESSES = 10_000, 600, 2, 2
MANY_ROUNDS = 5  # of echoes on all sessions
ECHO, ECHO_OLD, ECHO_P50 = "CPU of an echo", f"CPU of an echo, TLS {OLD}", "echo p50"
DOWNLOAD, UPLOAD = "CPU of a GB to the client", "CPU of a GB to the application"
UNITS = {ECHO: "us", ECHO_OLD: "us", ECHO_P50: "us", DOWNLOAD: "ms", UPLOAD: "ms"}
# Figure -> peer -> the largest ratio to it.
TARGETS = {
    ECHO: {HAPROXY: 0.90, NGINX: 1.0, STUNNEL: 0.30},
    DOWNLOAD: {HAPROXY: 1.0},
    UPLOAD: {HAPROXY: 1.0},
}
MEMORY_TARGETS = {HAPROXY: 1.3, NGINX: 0.6}


def run(settings: Settings, results: Results) -> None:
    """Add the cost of relaying through TLS beside its peers', memory, and many sessions."""
    reason = build.openssl_missing() or certificate_missing()
    if reason:
        results.note(f"tls was not measured: {reason}")
        return
    peers = available(RELAYS, settings, results)
    with certificate() as files, relay_load.application(settings.load_cpus[0]) as application:
        with ExitStack() as stack:
            running = [stack.enter_context(peer.start(settings.server_cpu, files, application)) for peer in peers]
            _compare(running, settings, results)
        memory = {}
        for peer in peers:
            with peer.start(settings.server_cpu, files, application) as server:
                memory[server.name] = _idle(server, settings, results)
        for name, target in MEMORY_TARGETS.items():
            if OURS in memory and name in memory:
                ratio = Spread.of([memory[OURS] / memory[name]])
                results.add(Figure("tls", f"{OURS} / {name}: memory per idle session", "ratio", ratio, target))
        if OURS in memory:
            _many(files, settings, results)


def available(peers: tuple[TlsPeer, ...], settings: Settings, results: Results) -> list[TlsPeer]:
    """Those that can run here; notes why the others cannot."""
    found = []
    for peer in peers:
        if settings.peers_only and peer.name == OURS:
            continue
        reason = peer.missing()
        if reason:
            results.note(f"tls: {peer.name} was not measured: {reason}")
        else:
            found.append(peer)
    return found


def _compare(running: list[Server], settings: Settings, results: Results) -> None:
    samples: dict[str, dict[str, list[float]]] = {server.name: {} for server in running}
    for server in running:
        relay_load.short(server, settings.load_cpus[-1], connections=CLIENTS, size=SIZE, total=WARM_UP, tls=NEW)
    for turn in (_echo, _echo_old, _download, _upload):
        for server in interleaved(running, settings.rounds):
            for figure, value in turn(server, settings).items():
                samples[server.name].setdefault(figure, []).append(value)
    for figure, unit in UNITS.items():
        for name, of_server in samples.items():
            results.add_spread("tls", f"{name}: {figure}", unit, of_server[figure], digits=1)
        for name, of_server in samples.items():
            if OURS in samples and name != OURS:
                target = TARGETS.get(figure, {}).get(name)
                quotients = ratios(samples[OURS][figure], of_server[figure])
                results.add_spread("tls", f"{OURS} / {name}: {figure}", "ratio", quotients, at_most=target)


def _echo(server: Server, settings: Settings) -> dict[str, float]:
    result, cpu = _echoes(server, settings, NEW)
    return {ECHO: cpu / result.rounds / 1e3, ECHO_P50: result.p50_us}


def _echo_old(server: Server, settings: Settings) -> dict[str, float]:
    result, cpu = _echoes(server, settings, OLD)
    return {ECHO_OLD: cpu / result.rounds / 1e3}


def _echoes(server: Server, settings: Settings, version: str) -> tuple[RelayResult, int]:
    seconds = settings.either(ECHO_SECONDS, QUICK_SECONDS)
    return relay_load.steady_echo(
        server, settings.load_cpus[-1], connections=CLIENTS, size=SIZE, seconds=seconds, tls=version
    )


def _download(server: Server, settings: Settings) -> dict[str, float]:
    before, size = cpu_used(server), settings.either(STREAM, QUICK_STREAM)
    result = relay_load.bulk(server, settings.load_cpus[-1], connections=STREAMS, size=size, tls=NEW)
    return {DOWNLOAD: (cpu_used(server) - before) / 1e6 / (result.bytes / 1e9)}


def _upload(server: Server, settings: Settings) -> dict[str, float]:
    before, size = cpu_used(server), settings.either(STREAM, QUICK_STREAM)
    result = relay_load.upload(server, settings.load_cpus[-1], connections=STREAMS, size=size, tls=NEW)
    return {UPLOAD: (cpu_used(server) - before) / 1e6 / (result.bytes / 1e9)}


def _idle(server: Server, settings: Settings, results: Results) -> float:
    """KB of user memory per session."""
    most, cpu = STUNNEL_SESSIONS if server.name == STUNNEL else SESSIONS, settings.load_cpus[-1]
    count = settings.either(most, QUICK_SESSIONS)
    relay_load.short(server, cpu, connections=1, size=SIZE, total=20, tls=NEW)
    time.sleep(SETTLE)
    memory = user_memory(server.pid)
    with relay_load.HeldSessions(server, [count], cpu, size=SIZE, tls=NEW):
        each = (user_memory(server.pid) - memory) / count / 1024
    results.add(
        Figure("tls", f"{server.name}: memory per idle session of {count:,}", "KB", Spread.of([each]), digits=1)
    )
    return each


def _many(files: Certificate, settings: Settings, results: Results) -> None:
    count, rounds = settings.either(MANY, QUICK_MANY), settings.either(MANY_ROUNDS, 1)
    with (
        relay_load.applications(PROCESSES) as ports,
        flashpol_relay(None, ports, workers=WORKERS, certificate=files) as server,
        relay_load.HeldSessions(server, [count // PROCESSES] * PROCESSES, None, size=SIZE, tls=NEW) as held,
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
    results.add(Figure("tls", name, "", Spread.of(counted), at_least=count, digits=0, better="more"))


def _open(server: Server) -> int:
    _, samples = scrape(server.admin)
    gauge = "flashpol_relay_sessions_open{"  # all of them through TLS
    return int(sum(value for name, value in samples.items() if name.startswith(gauge)))
