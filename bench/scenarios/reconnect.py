"""Everybody comes back at once: sessions are cut and as many policy clients ask, in the same moment.

There are three cuts: the server is restarted (SIGTERM, then started), one of its workers is killed (SIGKILL), and the
applications behind it are restarted (away for a second). The clients try as players' programs do: at once, then after
a random time of half of a delay to all of it, which doubles from 250 ms to 4 s; a try ends after 10 s. When all are
served, every session echoes once more, so a session that was lost without a word would be found. No process is pinned,
and the clients share the CPUs.

Last, a slow application with an accept queue of 511 is behind flashpol with and without `connect_rate`
(`slow_upstream`). A quick run has one round, few clients, and fewer servers and cuts.
"""

import resource
import time
from dataclasses import dataclass, field

from bench import BenchError
from bench.measure import Spread
from bench.report import Results
from bench.returning_load import Returned, Returning
from bench.scenarios import slow_upstream
from bench.scenarios.interleave import interleaved
from bench.servers.certificate import Certificate, certificate
from bench.servers.fleets import (
    DOWN_SECONDS,
    HAPROXY,
    NGINX,
    OURS,
    PLAIN,
    PROTOCOLS,
    TLS,
    WEBSOCKET,
    Applications,
    Fleet,
    compile_package,
    fleet,
    missing,
)
from bench.servers.tls import ours_missing
from bench.settings import Settings

CLIENTS = {"TCP": 20_000, "TLS": 1_000, "WebSocket": 1_000}  # sessions, and as many policy clients
QUICK_CLIENTS, QUICK_AWAY = 200, 0.3
WORKERS, APPLICATIONS = 4, 4  # a process may have 20,000 files, and an address 28,232 local ports to each application
ROUNDS = 3
RESTART, KILL, UPSTREAM = CUTS = ("server restarted", "worker killed", "upstream restarted")
OPTIONS = {PLAIN: [], TLS: ["--tls", "1.3"], WEBSOCKET: ["--ws"]}
SETTLE = 0.2  # seconds until the clients have seen the line, and until a cut has reached them


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
        compile_package()
        for protocol in PROTOCOLS:
            if protocol == TLS and OURS in names and ours_missing():
                results.note(f"reconnect: no TLS: {ours_missing()}")
                continue
            measured: Measured = {}
            count = settings.either(_most(CLIENTS[protocol], results), QUICK_CLIENTS)
            if settings.quick:
                names = [name for name in names if name == OURS or (name == HAPROXY and protocol == PLAIN)]
            for name in interleaved(names, settings.either(min(settings.rounds, ROUNDS), 1)):
                _turn(name, protocol, count, files, settings, measured)
            _add(protocol, _cuts(protocol, settings), names, measured, results)
            results.tables.append(table(protocol, count, names, measured))
        if not settings.peers_only:
            slow_upstream.run(files, settings, results)


def _most(count: int, results: Results) -> int:
    """As many as the limit of open files lets a worker have when a sibling is gone."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if files == resource.RLIM_INFINITY or count <= files:
        return count
    results.note(f"reconnect: {files:,} instead of {count:,} clients, since a process has so many files at most")
    return files


def _turn(name: str, protocol: str, count: int, files: Certificate, settings: Settings, measured: Measured) -> None:
    applications = Applications(APPLICATIONS, websocket=protocol == WEBSOCKET and name != OURS)
    try:
        applications.start()
        with (
            fleet(name, protocol, WORKERS, applications, files) as server,
            Returning(name, server.port, count, options=OPTIONS[protocol]) as sessions,
            Returning(name, server.policy_port, count, first=count, policy=server.expected) as policies,
        ):
            for cut in _cuts(protocol, settings):
                begin, of_sessions, of_policies = _cut(
                    cut, server, applications, sessions, policies, settings.either(DOWN_SECONDS, QUICK_AWAY)
                )
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
    cut: str, server: Fleet, applications: Applications, sessions: Returning, policies: Returning, away: float
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
        applications.restart(away)
    time.sleep(SETTLE)
    return begin, sessions.result(), policies.result()


def _cuts(protocol: str, settings: Settings) -> tuple[str, ...]:
    return CUTS if protocol == PLAIN else settings.either(CUTS, (RESTART,))


def _add(protocol: str, cuts: tuple[str, ...], names: list[str], measured: Measured, results: Results) -> None:
    for cut in cuts:
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


def table(protocol: str, count: int, names: list[str], measured: Measured) -> str:
    """Markdown: all served after, p50 and p99 of the wait, failed tries of a client, clients never served."""
    lines = [
        f"{protocol}: {count:,} sessions and as many policy clients. Seconds until all were served (p50, p99 of a "
        "client's wait; failed tries of each), medians.",
        "",
        "| | " + " | ".join(names) + " |",
        "|---|" + "--:|" * len(names),
    ]
    for cut in CUTS:
        for kind in ("sessions", "policy clients"):
            cells = [_cell(measured.get((cut, kind, name))) for name in names]
            if any(cells):
                lines.append(f"| {cut}, {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(turns: Turns | None) -> str:
    if turns is None:
        return ""
    whole, p50, p99, tries, left = (
        Spread.of(one).median for one in (turns.seconds, turns.p50, turns.p99, turns.tries, turns.left)
    )
    never = f"; {left:,.0f} never" if left else ""
    return f"{whole:.2f} ({p50 / 1e3:.2f}, {p99 / 1e3:.2f}; {tries:.2f}{never})"
