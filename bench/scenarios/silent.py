"""Silent clients: their memory, whether each is held until its deadline, and what other clients notice.

The clients run in processes of their own, from as many source addresses. Memory is what the workers have touched while
all are held, minus what they had touched after a few replies. With 15,000 in one worker there are no other clients, and
the shortest and the longest hold show whether every deadline was kept. With 60,000 over four workers, since a process
may have 20,000 files, the p99 of other clients is compared with that of a second server without silent clients.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from bench import BenchError, load, servers
from bench.measure import Spread, open_files, ratios, user_memory, wait_until_open
from bench.report import Figure, Results
from bench.scenarios.interleave import SETTLE, interleaved
from bench.servers import SILENT_TIMEOUT, Server
from bench.settings import Settings

CLIENTS = 15_000
MANY, WORKERS = 60_000, 4
WARM_UP = 500  # replies, so that the cost of the very first connections is not charged to the silent clients
TARGET_KB = 0.3
MANY_TARGET_KB = 0.2
EARLY = 0.05  # seconds: a loop's clock may be as old as its last wake-up
LATE = 1.0  # seconds: one sweep over all of them
ACCEPT_SECONDS = 1.0  # until all are accepted; opening took 1.5 s, so the first deadline has not passed
MANY_ACCEPT_SECONDS = 10.0
ASKING = 32  # other clients, which send requests meanwhile
REPLIES = 6_000  # of a turn: 60 samples lie above the p99
TURNS = 9
BESIDE_TARGET = 1.2
PEERS = ("nginx", "HAProxy")
CHART = "silent"


def run(settings: Settings, results: Results) -> None:
    """Add memory per silent connection, the shortest and longest hold, and the p99 beside 60,000."""
    cpu = settings.server_cpu
    if not settings.peers_only:
        _hold(servers.flashpol(cpu), settings, results, target=TARGET_KB)
    for peer in servers.PEERS:
        if peer.name not in PEERS or (settings.quick and not settings.peers_only):  # their deadlines take seconds
            continue
        if not peer.missing():
            _hold(peer.start(cpu), settings, results, target=None)
        else:
            results.note(f"{peer.name} was not measured: {peer.missing()}")
    if not settings.peers_only:
        _hold_many(lambda seconds: servers.flashpol(None, seconds, workers=WORKERS), settings, results)


def _hold(start: AbstractContextManager[Server], settings: Settings, results: Results, *, target: float | None) -> None:
    with start as server:
        count = settings.either(CLIENTS, 3_000) if server.name != "HAProxy" else 8_000  # its maxconn, see haproxy.py
        load.closed(server, connections=50, count=WARM_UP, cpu=settings.load_cpus)
        time.sleep(SETTLE)
        files, memory = open_files(server.pid), user_memory(server.pid)
        seconds = SILENT_TIMEOUT + 20
        with load.SilentClients(server, count, seconds=seconds, cpu=settings.load_cpus) as clients:
            wait_until_open(server.pids, files + count, ACCEPT_SECONDS)
            grown = user_memory(server.pid) - memory
            still = open_files(server.pid) - files  # memory was read while all of them were held
            ends = clients.wait_until_closed()
    if still < count or ends["closed"] != count:
        raise BenchError(f"{server.name}: {still} of {count} silent clients were held; at the end: {ends}")
    name, held = server.name, ends["held_seconds"]
    per_client = grown / count / 1024
    figure = Figure(
        "silent", f"{name}: memory per client of {count:,}", "KB", Spread.of([per_client]), target, digits=3
    )
    results.add(figure)
    results.add_point(CHART, name, count, [per_client])
    shortest, longest = Spread.of([held["min"]]), Spread.of([held["max"]])
    early, late = SILENT_TIMEOUT - EARLY, SILENT_TIMEOUT + LATE
    is_ours = target is not None
    results.add(
        Figure("silent", f"{name}: shortest hold", "s", shortest, at_least=early if is_ours else None, better="")
    )
    results.add(Figure("silent", f"{name}: longest hold", "s", longest, at_most=late if is_ours else None, better=""))


def _hold_many(start: Callable[[float], AbstractContextManager[Server]], settings: Settings, results: Results) -> None:
    count, seconds = settings.either(MANY, 6_000), 120.0
    with start(seconds) as quiet, start(seconds) as holding:
        for server in (quiet, holding):
            load.closed(server, connections=ASKING, count=WARM_UP * WORKERS, cpu=settings.load_cpus)
        time.sleep(SETTLE)
        files = sum(map(open_files, holding.pids))
        memory = sum(map(user_memory, holding.pids))
        with load.SilentClients(holding, count, seconds=seconds, cpu=settings.load_cpus) as clients:
            wait_until_open(holding.pids, files + count, MANY_ACCEPT_SECONDS)
            grown = sum(map(user_memory, holding.pids)) - memory
            p99: dict[int, list[float]] = {quiet.pid: [], holding.pid: []}
            for server in interleaved([quiet, holding], settings.turns(TURNS)):
                one = load.closed(server, connections=ASKING, count=REPLIES, cpu=settings.load_cpus,
                                  options=["--first", "61000"])  # fmt: skip
                p99[server.pid].append(one.p99)
            ends = clients.release()
    if ends["open"] != count:
        raise BenchError(f"{holding.name}: the silent clients were not held until the end: {ends}")
    name, per_client = holding.name, grown / count / 1024
    results.add(
        Figure("silent", f"{name}: memory per client of {count:,} over {WORKERS} workers", "KB",
               Spread.of([per_client]), MANY_TARGET_KB, digits=3)
    )  # fmt: skip
    results.add_point(CHART, f"{name}, {WORKERS} workers", count, [per_client])
    beside, without = p99[holding.pid], p99[quiet.pid]
    results.add_spread("silent", f"{name}: p99 of other clients beside {count:,}", "us", beside, digits=0)
    results.add_spread(
        "silent", f"{name}: p99 beside {count:,} / without", "ratio", ratios(beside, without), at_most=BESIDE_TARGET
    )
