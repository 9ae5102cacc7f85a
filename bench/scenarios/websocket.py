"""WebSocket sessions: flashpol beside its own plain relay, and beside HAProxy, nginx and websockify.

Each server has one worker or thread on one CPU, websockify a process for each session on that CPU. The applications and
the clients share the other CPU. Rounds are interleaved, and ratios are taken within a round, of servers whose clients
have TLS and of those whose clients have none. Sessions of an echo are open before it is measured, and after it;
`upgrade` is what opens them, from the connect to status 101. Memory comes last, on servers that have had few sessions
before; and 20,000 sessions through TLS over four workers that all echo, counted while they are open.
"""

import time
from contextlib import ExitStack

from bench import BenchError, build, relay_load
from bench.measure import Spread, ratios, scrape, user_memory
from bench.report import Figure, Results
from bench.scenarios.interleave import SETTLE, cpu_used, interleaved
from bench.servers import Server
from bench.servers.certificate import Certificate, certificate
from bench.servers.certificate import missing as certificate_missing
from bench.servers.relays import flashpol_relay
from bench.servers.websocket import (
    HAPROXY,
    NGINX,
    NGINX_TLS,
    OURS,
    OURS_TLS,
    PEERS,
    PLAIN,
    PLAIN_TLS,
    TLS,
    WEBSOCKET,
    WEBSOCKIFY,
    Applications,
    WebSocketPeer,
)
from bench.settings import Settings

SIZE = 100  # bytes of a message
CLIENTS = 64
ECHO_SECONDS, QUICK_SECONDS = 0.6, 0.1
UPGRADES, QUICK_UPGRADES = 1_000, 64  # sessions that are open at the same time
STREAMS = 4
STREAM, QUICK_STREAM = 1 << 26, 1 << 20  # bytes of each
WARM_UP = 200  # sessions of an echo
SESSIONS, QUICK_SESSIONS = 8_000, 200  # idle ones; nginx accepts few more with its 18,000 connections
MANY, QUICK_MANY, WORKERS, PROCESSES = 20_000, 600, 4, 2  # a process may have 20,000 files
MANY_ROUNDS = 5  # of echoes on all sessions
ECHO, ECHO_P50, UPGRADE = "CPU of an echo", "echo p50", "CPU of an upgrade"
DOWNLOAD, UPLOAD = "CPU of a GB to the client", "CPU of a GB to the application"
UNITS = {ECHO: "us", ECHO_P50: "us", UPGRADE: "us", DOWNLOAD: "ms", UPLOAD: "ms"}
# Figure -> server -> peer -> the largest ratio to it.
TARGETS = {
    ECHO: {OURS: {PLAIN: 1.10, HAPROXY: 1.0, NGINX: 1.1, WEBSOCKIFY: 0.20}, OURS_TLS: {NGINX_TLS: 1.1}},
    UPGRADE: {OURS: {NGINX: 1.5}},
}
MEMORY = {OURS: PLAIN, OURS_TLS: PLAIN_TLS}  # by WebSocket: beside the same without it
MEMORY_TARGET_KB = 0.3


def run(settings: Settings, results: Results) -> None:
    """Add the cost of WebSocket sessions beside peers, of opening them, their memory, and many sessions."""
    reason = build.openssl_missing() or certificate_missing()
    if reason:
        results.note(f"websocket was not measured: {reason}")
        return
    peers = _available(settings, results)
    with (
        certificate() as files,
        relay_load.application(settings.load_cpus[0]) as plain,
        relay_load.application(settings.load_cpus[0], websocket=True) as framed,
    ):
        applications = Applications(plain, framed)
        with ExitStack() as stack:
            running = [stack.enter_context(peer.start(settings.server_cpu, files, applications)) for peer in peers]
            _compare(dict(zip(running, peers, strict=True)), settings, results)
        _idle(peers, files, applications, settings, results)
        if any(peer.name == OURS_TLS for peer in peers):
            _many(files, settings, results)


def _available(settings: Settings, results: Results) -> list[WebSocketPeer]:
    found = []
    for peer in PEERS:
        if settings.peers_only and peer.ours:
            continue
        reason = peer.missing()
        if reason:
            results.note(f"websocket: {peer.name} was not measured: {reason}")
        else:
            found.append(peer)
    return found


def _compare(running: dict[Server, WebSocketPeer], settings: Settings, results: Results) -> None:
    samples: dict[str, dict[str, list[float]]] = {server.name: {} for server in running}
    for server, peer in running.items():
        total = CLIENTS if peer.name == WEBSOCKIFY else WARM_UP
        relay_load.short(server, settings.load_cpus[-1], connections=CLIENTS, size=SIZE, total=total,
                         tls=peer.tls, websocket=peer.websocket)  # fmt: skip
    for turn in (_echo, _upgrade, _download, _upload):
        for server in interleaved(list(running), settings.rounds):
            for figure, value in turn(server, running[server], settings).items():
                samples[server.name].setdefault(figure, []).append(value)
    for figure, unit in UNITS.items():
        measured = {name: of_server[figure] for name, of_server in samples.items() if figure in of_server}
        for name, values in measured.items():
            results.add_spread("websocket", f"{name}: {figure}", unit, values, digits=1)
        for ours, peer in ((server.name, peer) for server, peer in running.items() if server.name in (OURS, OURS_TLS)):
            for other in (one for one in running.values() if one.tls == peer.tls and one.name in measured):
                if other.name != ours:
                    target = TARGETS.get(figure, {}).get(ours, {}).get(other.name)
                    quotients = ratios(measured[ours], measured[other.name])
                    results.add_spread("websocket", f"{ours} / {other.name}: {figure}", "ratio", quotients,
                                       at_most=target)  # fmt: skip


def _echo(server: Server, peer: WebSocketPeer, settings: Settings) -> dict[str, float]:
    result, cpu = relay_load.steady_echo(
        server, settings.load_cpus[-1], connections=CLIENTS, size=SIZE,
        seconds=settings.either(ECHO_SECONDS, QUICK_SECONDS), tls=peer.tls, websocket=peer.websocket,
    )  # fmt: skip
    return {ECHO: cpu / result.rounds / 1e3, ECHO_P50: result.p50_us}


def _upgrade(server: Server, peer: WebSocketPeer, settings: Settings) -> dict[str, float]:
    if not peer.websocket:
        return {}
    count = settings.either(UPGRADES, QUICK_UPGRADES)
    if peer.name == WEBSOCKIFY:  # a process for each
        count = CLIENTS
    cpu = relay_load.opening(server, settings.load_cpus[-1], connections=count, tls=peer.tls, websocket=peer.websocket)
    time.sleep(SETTLE)
    return {UPGRADE: cpu / count / 1e3}


def _download(server: Server, peer: WebSocketPeer, settings: Settings) -> dict[str, float]:
    return _stream(server, peer, settings, upload=False)


def _upload(server: Server, peer: WebSocketPeer, settings: Settings) -> dict[str, float]:
    return _stream(server, peer, settings, upload=True)


def _stream(server: Server, peer: WebSocketPeer, settings: Settings, *, upload: bool) -> dict[str, float]:
    if peer.name == WEBSOCKIFY:  # its processes have ended when the last byte is there
        return {}
    before, size = cpu_used(server), settings.either(STREAM, QUICK_STREAM)
    stream = relay_load.upload if upload else relay_load.bulk
    result = stream(
        server, settings.load_cpus[-1], connections=STREAMS, size=size, tls=peer.tls, websocket=peer.websocket
    )
    return {UPLOAD if upload else DOWNLOAD: (cpu_used(server) - before) / 1e6 / (result.bytes / 1e9)}


def _idle(
    peers: list[WebSocketPeer],
    files: Certificate,
    applications: Applications,
    settings: Settings,
    results: Results,
) -> None:
    each: dict[str, float] = {}
    count, cpu = settings.either(SESSIONS, QUICK_SESSIONS), settings.load_cpus[-1]
    for peer in peers:
        if peer.name == WEBSOCKIFY or (settings.quick and peer.name not in (OURS, PLAIN)):
            continue
        with peer.start(settings.server_cpu, files, applications) as server:
            relay_load.short(server, cpu, connections=1, size=SIZE, total=20, tls=peer.tls, websocket=peer.websocket)
            time.sleep(SETTLE)
            memory = user_memory(server.pid)
            with relay_load.HeldSessions(server, [count], cpu, size=SIZE, tls=peer.tls, websocket=peer.websocket):
                each[peer.name] = (user_memory(server.pid) - memory) / count / 1024
        name = f"{peer.name}: memory per idle session of {count:,}"
        results.add(Figure("websocket", name, "KB", Spread.of([each[peer.name]])))
    for name, without in MEMORY.items():
        if name in each and without in each:
            words = f"{name} - {without}: memory per idle session"
            difference = Spread.of([each[name] - each[without]])
            results.add(Figure("websocket", words, "KB", difference, MEMORY_TARGET_KB))


def _many(files: Certificate, settings: Settings, results: Results) -> None:
    count, rounds = settings.either(MANY, QUICK_MANY), settings.either(MANY_ROUNDS, 1)
    with (
        relay_load.applications(PROCESSES) as ports,
        flashpol_relay(None, ports, workers=WORKERS, certificate=files, listener=WEBSOCKET) as server,
        relay_load.HeldSessions(
            server, [count // PROCESSES] * PROCESSES, None, size=SIZE, tls=TLS, websocket=True
        ) as held,
    ):
        counted = [_open(server)]
        for number in range(rounds):
            echoes = held.echo()
            if echoes != count * (number + 2):
                raise BenchError(f"{server.name}: {echoes} echoes of {count * (number + 2)}")
            counted.append(_open(server))
    if set(counted) != {count}:
        raise BenchError(f"{server.name} counts {counted} sessions while {count} are held")
    name = f"{count:,} wss sessions over {WORKERS} workers: open after each of {rounds + 1} echoes"
    results.add(Figure("websocket", name, "", Spread.of(counted), at_least=count, digits=0, better="more"))


def _open(server: Server) -> int:
    _, samples = scrape(server.admin)
    gauge = "flashpol_websocket_open{"
    return int(sum(value for name, value in samples.items() if name.startswith(gauge)))
