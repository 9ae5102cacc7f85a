"""What clients that say nothing cost in memory, whether each is held until its deadline, and what the others notice.

The clients are processes of their own, from as many source addresses. Memory is what the workers have touched beyond
what they had after a few answers, while all are held. At 15,000, in one worker: then nobody speaks, and the shortest
and the longest hold tell whether the deadline is kept for every one of them. At 60,000, over four workers, since a
process may have 20,000 files: the p99 of others who ask meanwhile, beside another server that holds nobody.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from bench import BenchError, load, servers
from bench.measure import Spread, open_files, ratios, user_memory, wait_until_all_open
from bench.report import Figure, Results
from bench.scenarios.turns import SETTLE, in_turn
from bench.servers import SILENT_TIMEOUT, Server
from bench.settings import Settings

CLIENTS = 15_000
MANY, WORKERS = 60_000, 4
WARM_UP = 500  # answers, so that what the first connections of all cost is not charged to the silent ones
TARGET_KB = 0.3
MANY_TARGET_KB = 0.2
EARLY = 0.05  # seconds: a loop's clock may be as old as its last wake-up
LATE = 1.0  # seconds: "shortly after" for a sweep over all of them
ACCEPT_SECONDS = 1.0  # by then all must be accepted; opening took 1.5 s, so the first deadline is still to come
MANY_ACCEPT_SECONDS = 10.0
ASKING = 32  # clients of those who ask beside the many
ANSWERS = 6_000  # of a turn: 60 samples lie above the p99
TURNS = 9
BESIDE_TARGET = 1.2
CHART = "silent"


def run(settings: Settings, results: Results) -> None:
    """Add memory per silent connection, the shortest and longest hold, and the p99 beside very many."""
    cpu = settings.server_cpu
    if not settings.peers_only:
        _hold(servers.flashpol(cpu), settings, results, target=TARGET_KB)
    for peer in servers.PEERS:
        if peer.name in ("nginx", "HAProxy") and not peer.missing():
            _hold(peer.start(cpu), settings, results, target=None)
        elif peer.name in ("nginx", "HAProxy"):
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
            wait_until_all_open(server.pids, files + count, ACCEPT_SECONDS)
            grown = user_memory(server.pid) - memory
            still = open_files(server.pid) - files  # all of them at once: the memory was read while they were held
            said = clients.wait_until_closed()
    if still < count or said["closed"] != count:
        raise BenchError(f"{server.name}: {still} of {count} silent clients were held; in the end: {said}")
    name, held = server.name, said["held_seconds"]
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
            wait_until_all_open(holding.pids, files + count, MANY_ACCEPT_SECONDS)
            grown = sum(map(user_memory, holding.pids)) - memory
            p99: dict[int, list[float]] = {quiet.pid: [], holding.pid: []}
            for server in in_turn([quiet, holding], settings.either(TURNS, 1)):
                one = load.closed(server, connections=ASKING, count=ANSWERS, cpu=settings.load_cpus,
                                  options=["--first", "61000"])  # fmt: skip
                p99[server.pid].append(one.p99)
            said = clients.release()
    if said["open"] != count:
        raise BenchError(f"{holding.name}: the silent clients were not held until the end: {said}")
    name, per_client = holding.name, grown / count / 1024
    results.add(
        Figure("silent", f"{name}: memory per client of {count:,} over {WORKERS} workers", "KB",
               Spread.of([per_client]), MANY_TARGET_KB, digits=3)
    )  # fmt: skip
    results.add_point(CHART, f"{name}, {WORKERS} workers", count, [per_client])
    beside, without = p99[holding.pid], p99[quiet.pid]
    results.add_spread("silent", f"{name}: p99 of others beside {count:,}", "us", beside, digits=0)
    results.add_spread(
        "silent", f"{name}: p99 beside {count:,} / without", "ratio", ratios(beside, without), at_most=BESIDE_TARGET
    )
