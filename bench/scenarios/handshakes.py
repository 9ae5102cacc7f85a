"""Full handshakes of TLS: what one costs with a policy reply inside, and what plain clients notice of them.

- A handshake and a reply: flashpol beside nginx's stream `return` and HAProxy's Lua service, one worker or thread each
  on one CPU, with the same certificate (ECDSA P-256); no session is resumed. The client's part of a handshake takes
  more CPU than the server's, so servers have idle time between.
- The p99 of plain policy replies, in an open loop, in turns with and without 1,000 handshakes a second in the same
  worker. Their load generator has idle priority, so that it delays the other one as little as possible, and the other
  one's own lag is reported. nginx has another port for plain clients.
- A plain policy reply on a listener that also speaks TLS, beside one that does not. `off again` does not either: the
  distance of its ratio from 1 is the error of the measurement.
"""

import time
from contextlib import ExitStack
from dataclasses import replace

from bench import BenchError, build, load, servers
from bench.compare import of_medians
from bench.load import Open
from bench.measure import Spread, ratios
from bench.report import Figure, Results
from bench.scenarios.interleave import WARM_UP, interleaved, measure
from bench.scenarios.tls import NEW, OLD, available
from bench.servers import Server
from bench.servers.certificate import Certificate, certificate
from bench.servers.certificate import missing as certificate_missing
from bench.servers.tls import NGINX, OURS, POLICIES
from bench.settings import Settings

CLIENTS = 64
HANDSHAKES, QUICK_HANDSHAKES = 400, 100
TARGETS = {NEW: {NGINX: 1.0}}

RATE = 1_000.0  # handshakes a second
ADDRESSES = 250  # of their clients: as few as never hold more connections than one address may
AT_ONCE = 400  # of them, the most: a server that is late by 0.4 s is too slow for the rate
LEAD = 0.3  # seconds of handshakes before plain clients come
REPLY_RATE, SECONDS, TURNS = 5_000.0, 0.5, 11  # of plain replies
REACHED = 0.9  # share of the rate: with fewer handshakes the p99 says little
BESIDE_TARGET = 2.0

PLAIN_CLIENTS = 256
REPLIES = 5_000
PLAIN_TURNS = 5  # per round: a difference of a few per cent needs the median of many short turns
PLAIN_TARGET = 1.02


def run(settings: Settings, results: Results) -> None:
    """Add CPU of a handshake with a reply, the p99 of plain clients beside handshakes, and the cost of TLS to them."""
    reason = build.openssl_missing() or certificate_missing()
    if reason:
        results.note(f"handshakes were not measured: {reason}")
        return
    with certificate() as files:
        with ExitStack() as stack:
            peers = available(POLICIES, settings, results)
            running = [stack.enter_context(peer.start(settings.server_cpu, files)) for peer in peers]
            for version in (NEW, OLD):
                _cost(running, version, settings, results)
            for server in running:
                if server.name in (OURS, NGINX):
                    _beside(server, settings, results)
        if OURS in [peer.name for peer in peers]:
            _plain(files, settings, results)


def _options(version: str) -> list[str]:
    return ["--tls", version, "--addresses", str(ADDRESSES)]


def _cost(running: list[Server], version: str, settings: Settings, results: Results) -> None:
    count = settings.either(HANDSHAKES, QUICK_HANDSHAKES)
    cpu: dict[str, list[float]] = {server.name: [] for server in running}
    for server in running:
        measure(server, CLIENTS, QUICK_HANDSHAKES, settings.load_cpus, _options(version))
    for server in interleaved(running, settings.rounds):
        one = measure(server, CLIENTS, count, settings.load_cpus, _options(version))
        cpu[server.name].append(one.cpu_per_reply / 1e3)
    words = f"CPU of a handshake of TLS {version} and a reply"
    for name, samples in cpu.items():
        results.add_spread("handshakes", f"{name}: {words}", "us", samples, digits=1)
    for name, samples in cpu.items():
        if OURS in cpu and name != OURS:
            target = TARGETS.get(version, {}).get(name)
            results.add_spread(
                "handshakes", f"{OURS} / {name}: {words}", "ratio", ratios(cpu[OURS], samples), at_most=target
            )


def _beside(server: Server, settings: Settings, results: Results) -> None:
    plain = replace(server, port=server.plain, ports=(server.plain,)) if server.plain else server
    load.closed(plain, connections=PLAIN_CLIENTS, count=WARM_UP, cpu=settings.load_cpus)
    turns: dict[bool, list[Open]] = {True: [], False: []}
    reached: list[float] = []
    for number in range(settings.turns(TURNS)):
        for beside in (number % 2 == 0, number % 2 != 0):
            one, rate = _turn(server, plain, settings, beside=beside)
            turns[beside].append(one)
            if beside:
                reached.append(rate)
    if Spread.of(reached).median < REACHED * RATE:
        results.note(f"handshakes: the machine was too busy for {RATE:,.0f} a second beside plain clients")
    results.add_spread("handshakes", f"{server.name}: handshakes a second", "", reached, digits=0, better="")
    words = {True: f"beside {RATE:,.0f} handshakes a second", False: "without handshakes"}
    for beside, samples in turns.items():
        for name in ("p50", "p99"):
            values = [one.latency[name] for one in samples]
            results.add_spread("handshakes", f"{server.name}: {name} of plain replies {words[beside]}", "us", values,
                               digits=0)  # fmt: skip
        lag = [one.lag_p99 for one in samples]
        results.add_spread("handshakes", f"{server.name}: p99 of the generator's own lag {words[beside]}", "us", lag,
                           digits=0, better="")  # fmt: skip
    ratio = of_medians(*([one.latency["p99"] for one in turns[beside]] for beside in (True, False)))
    target = BESIDE_TARGET if server.name == OURS else None
    name = f"{server.name}: p99 of plain replies beside handshakes / without, of medians (and 95 % interval)"
    results.add(Figure("handshakes", name, "ratio", ratio, target))


def _turn(server: Server, plain: Server, settings: Settings, *, beside: bool) -> tuple[Open, float]:
    """A turn of plain clients; and the handshakes per second beside it."""
    with ExitStack() as stack:
        results: list[Open] = []
        if beside:
            options = _options(NEW)
            handshakes = load.background(
                server, rate=RATE, cpu=settings.load_cpus, connections=AT_ONCE, options=options
            )
            results = stack.enter_context(handshakes)
        time.sleep(LEAD)
        seconds = settings.either(SECONDS, 0.2)
        one = load.open_loop(plain, rate=REPLY_RATE, seconds=seconds, cpu=settings.load_cpus)
    for other in [one, *results]:
        if other.failed:
            raise BenchError(f"{server.name}: {other.failed} clients failed, beside handshakes: {beside}")
    return one, sum(other.replies / other.seconds for other in results)


def _plain(files: Certificate, settings: Settings, results: Results) -> None:
    names = ("off", "off again", "on")
    cpu: dict[str, list[float]] = {name: [] for name in names}
    with ExitStack() as stack:
        running = []
        for name in names:
            start = servers.flashpol(settings.server_cpu, certificate=files if name == "on" else None)
            running.append(replace(stack.enter_context(start), name=name))
            measure(running[-1], PLAIN_CLIENTS, WARM_UP, settings.load_cpus)
        for server in interleaved(running, settings.rounds * settings.either(PLAIN_TURNS, 1)):
            one = measure(server, PLAIN_CLIENTS, settings.either(REPLIES, 1_000), settings.load_cpus)
            cpu[server.name].append(one.cpu_per_reply)
    for name in names:
        results.add_spread("handshakes", f"TLS {name}: CPU of a plain reply", "ns", cpu[name], digits=0)
        if name != "off":
            target = PLAIN_TARGET if name == "on" else None
            quotients = ratios(cpu[name], cpu["off"])
            results.add_spread("handshakes", f"plain reply: TLS {name} / off", "ratio", quotients, at_most=target,
                               digits=3)  # fmt: skip
