"""A slow application behind flashpol, to which all sessions come back at once, with and without `connect_rate`.

It accepts 500 connections a second, one at a time, and its accept queue has 511 places, as those of Node.js, nginx and
Redis have by default. The kernel drops a SYN that arrives at a full queue. Linux before 6.5 sends it again after 1, 3
and 7 seconds, later ones after each of the first five seconds (`net.ipv4.tcp_syn_linear_timeouts`).
After a pause `connect_rate` lets a second's worth through at once, which has to fit into the queue.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.measure import Spread
from bench.report import Results
from bench.returning_load import Returned, Returning
from bench.scenarios.interleave import interleaved
from bench.servers.certificate import Certificate
from bench.servers.fleets import OURS, PLAIN, Applications, fleet
from bench.settings import Settings

ROUNDS = 1  # a turn takes eight seconds
CLIENTS, QUICK_CLIENTS, WORKERS = 1_200, 100, 2
COST = 2_000  # µs of an accept: 500 a second at most
QUEUE = 511  # as the load generator's application has it
RATE = 200  # a second, of each worker
SAMPLE = 0.02  # seconds between two looks at the accept queue
SETTLE = 0.2  # seconds until the clients have seen a line


@dataclass
class Seen:
    """What the application and its clients saw: a value for each turn."""

    peak: list[float] = field(default_factory=list)
    longest: list[float] = field(default_factory=list)
    drops: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    tries: list[float] = field(default_factory=list)
    left: list[float] = field(default_factory=list)


def run(files: Certificate, settings: Settings, results: Results) -> None:
    """Add what the application sees, and how long clients wait."""
    count = settings.either(CLIENTS, QUICK_CLIENTS)
    ways = {"without connect_rate": "", f"connect_rate = {RATE}, {WORKERS} workers": f"connect_rate = {RATE}"}
    seen = {words: Seen() for words in ways}
    for words in interleaved(list(ways), settings.either(min(settings.rounds, ROUNDS), 1)):
        turn(count, ways[words], files, seen[words])
    for words, one in seen.items():
        what = f"slow upstream, {count:,} sessions, {words}"
        add = results.add_spread
        add("reconnect", f"{what}: accepts in the busiest second", "", one.peak, digits=0, better="")
        add("reconnect", f"{what}: longest accept queue (of {QUEUE})", "", one.longest, digits=0)
        add("reconnect", f"{what}: connections dropped at the full queue", "", one.drops, digits=0)
        add("reconnect", f"{what}: all served after", "s", one.seconds)
        add("reconnect", f"{what}: p50", "ms", one.p50, digits=0)
        add("reconnect", f"{what}: p99", "ms", one.p99, digits=0)
        add("reconnect", f"{what}: failed tries each", "", one.tries)
        add("reconnect", f"{what}: never served", "", one.left, at_most=0, digits=0)
    results.tables.append(_table(count, seen))


def turn(count: int, listener: str, files: Certificate, seen: Seen) -> None:
    """Cut all sessions, by a restart of flashpol, and wait until all are back. listener: more lines of its table."""
    applications = Applications(1, cost=COST)
    try:
        applications.start()
        with (
            fleet(OURS, PLAIN, WORKERS, applications, files, listener) as server,
            Returning(OURS, server.port, count) as sessions,
        ):
            sessions.begin()
            time.sleep(SETTLE)
            before, dropped = time.monotonic_ns(), applications.drops()
            with _queue(applications.ports[0]) as lengths:
                server.restart()
                time.sleep(SETTLE)
                returned = sessions.result()
            time.sleep(SETTLE)
            dropped = applications.drops() - dropped
            accepts = {k: n for k, n in applications.accepts().items() if k >= before // 100_000_000}
    finally:
        applications.stop()
    _note(seen, returned, before, accepts, lengths, dropped)


def _note(
    seen: Seen, returned: Returned, before: int, accepts: dict[int, int], lengths: list[int], dropped: int
) -> None:
    peak = max((sum(accepts.get(k + i, 0) for i in range(10)) for k in accepts), default=0)
    seen.peak.append(peak)
    seen.longest.append(max(lengths, default=0))
    seen.drops.append(dropped)
    seen.seconds.append(max(0, returned.last_ns - before) / 1e9)
    seen.p50.append(returned.percentile(0.5))
    seen.p99.append(returned.percentile(0.99))
    seen.tries.append(returned.tries / max(1, returned.served))
    seen.left.append(returned.left)


def _table(count: int, seen: dict[str, Seen]) -> str:
    rows = (
        ("accepts in the busiest second", "peak", 0, 1.0),
        (f"longest accept queue (of {QUEUE})", "longest", 0, 1.0),
        ("connections dropped at the full queue", "drops", 0, 1.0),
        ("all served after, s", "seconds", 2, 1.0),
        ("p50 of a client's wait, s", "p50", 2, 1e3),
        ("p99, s", "p99", 2, 1e3),
        ("failed tries of each client", "tries", 2, 1.0),
        ("never served", "left", 0, 1.0),
    )
    lines = [f"| {count:,} sessions to a slow application | {' | '.join(seen)} |", "|---|" + "--:|" * len(seen)]
    for name, attribute, digits, unit in rows:
        cells = [f"{Spread.of(getattr(one, attribute)).median / unit:,.{digits}f}" for one in seen.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


@contextmanager
def _queue(port: int) -> Iterator[list[int]]:
    """Lengths of a port's accept queue within the context."""
    lengths: list[int] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(SAMPLE):
            lengths.append(accept_queue(port))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield lengths
    finally:
        over.set()
        thread.join()


def accept_queue(port: int) -> int:
    """How many connections wait in the accept queue of a port of 127.0.0.1."""
    local, listening = f"0100007F:{port:04X}", "0A"
    for line in Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[1] == local and words[3] == listening:
            return int(words[4].split(":")[1], 16)
    return 0
