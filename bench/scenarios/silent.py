"""What 15,000 clients that say nothing cost one worker in memory, and whether each is held until its deadline.

The clients are a process of their own, from 15,000 source addresses. Memory is what the worker has touched beyond what
it had after a few answers, while all are held. Then nobody speaks: the shortest and the longest hold tell whether the
deadline is kept for every one of them.
"""

from contextlib import AbstractContextManager

from bench import BenchError, load, servers
from bench.measure import Spread, open_files, user_memory, wait_until_open
from bench.report import Figure, Results
from bench.servers import SILENT_TIMEOUT, Server
from bench.settings import Settings

CLIENTS = 15_000
WARM_UP = 500  # answers, so that what the first connections of all cost is not charged to the silent ones
TARGET_KB = 0.3
EARLY = 0.05  # seconds: a loop's clock may be as old as its last wake-up
LATE = 1.0  # seconds: "shortly after" for a sweep over all of them
ACCEPT_SECONDS = 1.0  # by then all must be accepted; opening took 1.5 s, so the first deadline is still to come


def run(settings: Settings, results: Results) -> None:
    """Add memory per silent connection and the shortest and longest time one was held."""
    if not settings.peers_only:
        _measure(servers.flashpol(settings.server_cpu), settings, results, target=TARGET_KB)
    if servers.nginx_program():
        _measure(servers.nginx(settings.server_cpu), settings, results, target=None)
    else:
        results.notes.append("silent: nginx is not installed, its memory was not measured")


def _measure(
    start: AbstractContextManager[Server], settings: Settings, results: Results, *, target: float | None
) -> None:
    with start as server:
        load.closed(server, connections=50, count=WARM_UP, cpu=settings.load_cpu)
        files, memory = open_files(server.pid), user_memory(server.pid)
        seconds = SILENT_TIMEOUT + 20
        with load.SilentClients(server, CLIENTS, seconds=seconds, cpu=settings.load_cpu) as clients:
            wait_until_open(server.pid, files + CLIENTS, ACCEPT_SECONDS)
            grown = user_memory(server.pid) - memory
            still = open_files(server.pid) - files  # all of them at once: the memory was read while they were held
            said = clients.wait_until_closed()
    if still < CLIENTS or said["closed"] != CLIENTS:
        raise BenchError(f"{server.name}: {still} of {CLIENTS} silent clients were held; in the end: {said}")
    name, held = server.name, said["held_seconds"]
    per_client = Spread.of([grown / CLIENTS / 1024])
    results.add(Figure("silent", f"{name}: memory per client", "KB", per_client, at_most=target, digits=3))
    shortest, longest = Spread.of([held["min"]]), Spread.of([held["max"]])
    early, late = SILENT_TIMEOUT - EARLY, SILENT_TIMEOUT + LATE
    is_ours = target is not None
    results.add(Figure("silent", f"{name}: shortest hold", "s", shortest, at_least=early if is_ours else None))
    results.add(Figure("silent", f"{name}: longest hold", "s", longest, at_most=late if is_ours else None))
