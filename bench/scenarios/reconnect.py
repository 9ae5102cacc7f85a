"""Everybody comes back at once: sessions are cut and as many policy clients ask, in the same moment.

There are three cuts: the server is restarted (SIGTERM, then started), one of its workers is killed (SIGKILL), and the
applications behind it are restarted (away for a second). The clients try as players' programs do: at once, then after
a random time of half of a delay to all of it, which doubles from 250 ms to 4 s; a try ends after 10 s. When all are
served, every session echoes once more, so a session that was lost without a word would be found. No process is pinned,
and the clients share the CPUs.

Last, a slow application with an accept queue of 128 is behind flashpol with and without `connect_rate`.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import BenchError
from bench.report import Results
from bench.returning_load import Returned, Returning
from bench.scenarios.interleave import interleaved
from bench.servers.certificate import Certificate, certificate
from bench.servers.fleets import (
    HAPROXY,
    NGINX,
    OURS,
    PLAIN,
    PROTOCOLS,
    TLS,
    WEBSOCKET,
    Applications,
    Fleet,
    fleet,
    missing,
)
from bench.servers.tls import ours_missing
from bench.settings import Settings

CLIENTS = {"TCP": 20_000, "TLS": 5_000, "WebSocket": 20_000}  # sessions, and as many policy clients
QUICK_CLIENTS = 200
WORKERS, APPLICATIONS = 4, 4  # a process may have 20,000 files, and an address 28,232 local ports to each application
ROUNDS = 3
RESTART, KILL, UPSTREAM = CUTS = ("server restarted", "worker killed", "upstream restarted")
OPTIONS = {PLAIN: [], TLS: ["--tls", "1.3"], WEBSOCKET: ["--ws"]}
SETTLE = 0.2  # seconds until the clients have seen the line, and until a cut has reached them
SLOW_CLIENTS, QUICK_SLOW_CLIENTS, SLOW_WORKERS = 2_000, 100, 2
SLOW_COST = 2_000  # µs of an accept: 500 a second at most
SLOW_RATE = 200  # a second, of each worker
SAMPLE = 0.02  # seconds between two looks at the accept queue


@dataclass
class Turns:
    """What was measured of a server, a protocol, a cut and a kind of client: a value for each turn."""

    seconds: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)
    tries: list[float] = field(default_factory=list)
    left: list[float] = field(default_factory=list)

    def add(self, begin: int, one: Returned) -> None:
        """A turn that began at this time of the monotonic clock."""
        self.seconds.append(max(0, one.last_ns - begin) / 1e9)
        self.p50.append(one.percentile(0.5))
        self.p99.append(one.percentile(0.99))
        self.again.append(100 * one.again / max(1, one.served))
        self.tries.append(one.tries / max(1, one.served))
        self.left.append(one.left)


Measured = dict[tuple[str, str, str], Turns]  # by cut, kind of client, and server


def run(settings: Settings, results: Results) -> None:
    """Add the time until all are served, failures, further tries and percentiles; and what connect_rate does."""
    names = [name for name in (OURS, HAPROXY, NGINX) if not (name == OURS and settings.peers_only)]
    for name in list(names):
        without = missing(name)
        if without:
            results.note(f"reconnect: {name} was not measured: {without}")
            names.remove(name)
    with certificate() as files:
        for protocol in PROTOCOLS:
            if protocol == TLS and OURS in names and ours_missing():
                results.note(f"reconnect: no TLS: {ours_missing()}")
                continue
            measured: Measured = {}
            if settings.quick:  # nginx finds applications again after 10 s
                names = [name for name in names if name == OURS or (name == HAPROXY and protocol == PLAIN)]
            for name in interleaved(names, settings.either(min(settings.rounds, ROUNDS), 1)):
                _turn(name, protocol, files, settings, measured)
            _add(protocol, names, measured, results)
        if not settings.peers_only:
            _slow_upstream(files, settings, results)


def _turn(name: str, protocol: str, files: Certificate, settings: Settings, measured: Measured) -> None:
    count = settings.either(CLIENTS[protocol], QUICK_CLIENTS)
    applications = Applications(APPLICATIONS, websocket=protocol == WEBSOCKET and name != OURS)
    try:
        applications.start()
        with (
            fleet(name, protocol, WORKERS, applications, files) as server,
            Returning(name, server.port, count, options=OPTIONS[protocol]) as sessions,
            Returning(name, server.policy_port, count, first=count, policy=server.expected) as policies,
        ):
            for cut in CUTS:
                begin, of_sessions, of_policies = _cut(cut, server, applications, sessions, policies)
                if (cut != KILL and of_sessions.cut < count) or of_sessions.cut == 0:
                    raise BenchError(f"{name}, {protocol}, {cut}: only {of_sessions.cut} of {count} sessions were cut")
                measured.setdefault((cut, "sessions", name), Turns()).add(begin, of_sessions)
                measured.setdefault((cut, "policy clients", name), Turns()).add(begin, of_policies)
                if of_sessions.left or of_policies.left:
                    return  # the next cut would begin with clients that still try
                server.wait_for_workers(WORKERS)
    finally:
        applications.stop()


def _cut(
    cut: str, server: Fleet, applications: Applications, sessions: Returning, policies: Returning
) -> tuple[int, Returned, Returned]:
    sessions.begin()
    time.sleep(SETTLE)
    begin = time.monotonic_ns()
    policies.begin()
    if cut == RESTART:
        server.restart()
    elif cut == KILL:
        server.kill_worker()
    else:
        applications.restart()
    time.sleep(SETTLE)
    return begin, sessions.result(), policies.result()


def _add(protocol: str, names: list[str], measured: Measured, results: Results) -> None:
    for cut in CUTS:
        for kind in ("sessions", "policy clients"):
            for name in names:
                turns = measured.get((cut, kind, name))
                if turns is None:
                    results.note(f"reconnect: {name}, {protocol}: no figures of '{cut}', since clients were not served")
                    continue
                what = f"{protocol}, {cut}, {kind}, {name}"
                ours = name == OURS
                results.add_spread("reconnect", f"{what}: all served after", "s", turns.seconds)
                results.add_spread("reconnect", f"{what}: p50", "ms", turns.p50, digits=0)
                results.add_spread("reconnect", f"{what}: p99", "ms", turns.p99, digits=0)
                results.add_spread("reconnect", f"{what}: served by a further try", "%", turns.again, digits=1)
                results.add_spread("reconnect", f"{what}: failed tries each", "", turns.tries)
                results.add_spread(
                    "reconnect", f"{what}: never served", "", turns.left, at_most=0 if ours else None, digits=0
                )


def _slow_upstream(files: Certificate, settings: Settings, results: Results) -> None:
    count = settings.either(SLOW_CLIENTS, QUICK_SLOW_CLIENTS)
    for words, listener in (
        ("without connect_rate", ""),
        (f"connect_rate = {SLOW_RATE}, {SLOW_WORKERS} workers", f"connect_rate = {SLOW_RATE}"),
    ):
        applications = Applications(1, cost=SLOW_COST)
        try:
            applications.start()
            with (
                fleet(OURS, PLAIN, SLOW_WORKERS, applications, files, listener) as server,
                Returning(OURS, server.port, count) as sessions,
            ):
                sessions.begin()
                time.sleep(SETTLE)
                before = time.monotonic_ns()
                with _queue(applications.ports[0]) as lengths:
                    server.restart()
                    time.sleep(SETTLE)
                    returned = sessions.result()
                time.sleep(SETTLE)
                accepts = {k: n for k, n in applications.accepts().items() if k >= before // 100_000_000}
        finally:
            applications.stop()
        turns = Turns()
        turns.add(before, returned)
        peak = max((sum(accepts.get(k + i, 0) for i in range(10)) for k in accepts), default=0)
        what = f"slow upstream, {count:,} sessions, {words}"
        results.add_spread("reconnect", f"{what}: accepts in a second", "", [float(peak)], digits=0, better="")
        longest = [float(max(lengths, default=0))]
        results.add_spread("reconnect", f"{what}: longest accept queue (of 128)", "", longest, digits=0)
        results.add_spread("reconnect", f"{what}: all served after", "s", turns.seconds)
        results.add_spread("reconnect", f"{what}: p50", "ms", turns.p50, digits=0)
        results.add_spread("reconnect", f"{what}: p99", "ms", turns.p99, digits=0)
        results.add_spread("reconnect", f"{what}: failed tries each", "", turns.tries)
        results.add_spread("reconnect", f"{what}: never served", "", turns.left, at_most=0, digits=0)


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
