"""Do 15,000 silent clients slow the others down? p99 of 32 clients in a closed loop, with them and without.

Two servers, one of them holding the silent clients, on one CPU; the load alternates between them, so a ratio is of two
neighbouring runs. The loop is closed and the server saturated on purpose. At half the load the p99 of the C server was
made of the machine's own pauses: ratios of two equal servers went from 0.3 to 40. In saturation it is made of the
server's work, 32 deep (0.8 to 1.15), and whatever the silent ones add to that work shows at full size.
"""

from contextlib import AbstractContextManager

from bench import BenchError, load, servers
from bench.measure import open_files, ratios, wait_until_open
from bench.report import Results
from bench.servers import Server
from bench.settings import Settings

SILENT = 15_000
CLIENTS = 32
WARM_UP = 2_000  # answers
ANSWERS = 6_000  # per turn and server: 60 samples lie above the p99
TURNS = 3  # per round: another process on the CPU for 4 ms spoils a p99, so many short turns, and their median
TARGET = 1.2
ROUND_SECONDS = 5  # the silent ones are allowed to stay this long for each round; it takes one or two
ACCEPT_SECONDS = 5.0


def run(settings: Settings, results: Results) -> None:
    """Add the p99 with and without silent clients, and their ratio."""
    seconds = 60.0 + ROUND_SECONDS * settings.rounds
    with _start(settings, seconds) as quiet, _start(settings, seconds) as holding:
        for server in (quiet, holding):
            load.closed(server, connections=CLIENTS, count=WARM_UP, cpu=settings.load_cpu)
        files = open_files(holding.pid)
        with load.SilentClients(holding, SILENT, seconds=seconds, cpu=settings.load_cpu) as clients:
            wait_until_open(holding.pid, files + SILENT, ACCEPT_SECONDS)
            without, beside = _alternate(quiet, holding, settings)
            said = clients.release()
    if said["open"] != SILENT:
        raise BenchError(f"{holding.name}: the silent clients were not held until the end: {said}")
    target = None if settings.peers_only else TARGET
    name = quiet.name
    results.add_spread("latency", f"{name}: p99 without silent", "us", without, digits=0)
    results.add_spread("latency", f"{name}: p99 beside {SILENT}", "us", beside, digits=0)
    results.add_spread("latency", f"{name}: beside / without", "ratio", ratios(beside, without), at_most=target)


def _start(settings: Settings, seconds: float) -> AbstractContextManager[Server]:
    """Of the peers, the C server: it has no deadline, and shows what the kernel alone makes of so many sockets."""
    if settings.peers_only:
        return servers.epoll(settings.server_cpu)
    return servers.flashpol(settings.server_cpu, request_timeout=seconds)


def _alternate(quiet: Server, holding: Server, settings: Settings) -> tuple[list[float], list[float]]:
    """p99 in microseconds of both servers, turn by turn; who comes first changes every time."""
    p99: dict[int, list[float]] = {quiet.pid: [], holding.pid: []}
    for number in range(settings.rounds * TURNS):
        for server in (quiet, holding) if number % 2 else (holding, quiet):
            result = load.closed(server, connections=CLIENTS, count=ANSWERS, cpu=settings.load_cpu)
            p99[server.pid].append(result.p99)
    return p99[quiet.pid], p99[holding.pid]
