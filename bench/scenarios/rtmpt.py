"""Tunnel sessions (RTMPT): polls beside nginx's `return 200`, echoes beside plain TCP, memory, publishing, ghosts.

flashpol and nginx have one worker on one CPU; applications and clients share the other CPU. Rounds are interleaved, and
ratios are taken within a round.

- Polls are measured with ``rtmpt_hold = 0`` and no data waiting, and the reply is the interval byte, which is all that
  nginx's reply has. flashpol holds such a poll for 20 ms, since some clients poll again at once. nginx replies at once,
  so its clients pause for 20 ms: both have the same connections and the same polls a second. Sessions are open before,
  begin one after another, and stay open until all turns are over.
- On another worker: two workers share the CPU, and the figure is the CPU of both for a poll. Half of the sessions are
  at each worker, also in the turns on their own. A session polls on the connection that opened a session at the other
  worker. With a connection for each poll it polls from the source address and port of that one, which the kernel hashes
  to the same worker. flashpol's own counter of forwarded requests must confirm it.
- The p50 of echoes counts from /send to the end of the reply with the last byte, on one connection and with the default
  ``rtmpt_hold``: an echo that is not in the reply to /send comes with a held poll. Beside it: the same message through
  the same listener without HTTP.
- Memory counts what both workers have touched, with one held poll on each session; all of them echo once after that.
- Publishing is ffmpeg's, of a clip as fast as it goes, to nginx's RTMP module, which records it. The frames that ffmpeg
  has queued when it closes a tunnel session are dropped by itself; all frames before must be identical.
- Ghosts are sessions whose connections were closed while a poll was held, and which send nothing more.
"""

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import BenchError, publishing, relay_load
from bench.measure import Spread, connections_to, ratios, scrape, user_memory
from bench.report import Figure, Results
from bench.rtmpt_load import Tunnels, Turn
from bench.scenarios.interleave import SETTLE, cpu_used, interleaved
from bench.servers import Server
from bench.servers.rtmpt import (
    NGINX,
    OURS,
    flashpol_tunnel,
    nginx_missing,
    nginx_return,
    nginx_rtmp,
    nginx_rtmp_missing,
    ours_missing,
)
from bench.settings import Settings
from testkit.polling import eventually

FORWARDED = "flashpol_rtmpt_forwarded_total"
POLLS_HELD, SESSIONS_OPEN = "flashpol_rtmpt_polls_held", "flashpol_rtmpt_sessions_open"
POLLING = 256  # sessions: 12,800 polls a second
FLOOR = 0.02  # seconds that flashpol holds a poll at least
SESSIONS = 64  # that echo
POLLS, QUICK_POLLS = 10_000, 500  # of a turn, on kept connections
FRESH_POLLS, QUICK_FRESH_POLLS = 3_000, 200  # with a connection for each
WORKERS = 2
KEPT, FRESH = "a poll", "a poll on a connection of its own"
NGINX_TARGETS = {KEPT: 0.8, FRESH: 0.9}
FOREIGN_TARGETS = {KEPT: 1.8, FRESH: 1.15}  # on another worker than the session's / on its own

SIZE = 100  # bytes of an echo
ECHO_SECONDS, QUICK_SECONDS = 0.5, 0.1
HOLD = 0.5  # seconds: the default
ECHO_TARGET_MS = 1.0

MANY, QUICK_MANY, GROUPS = 10_000, 300, 4  # a process may have 20,000 files
PROCESSES = 2  # of the application
LONG_HOLD, QUICK_HOLD = 4.5, 0.3  # seconds: polls of idle sessions must not take the CPU that clients need
HELD = 0.95  # share of the sessions that have their poll held at any time: the others are between two polls
MEMORY_TARGET_KB = 12.0

PUBLISHING_ROUNDS = 5
PUBLISHING_TARGET = 1.15
RECORDING_SECONDS = 10.0
DROPPED = 20  # frames that ffmpeg may drop at the end of a tunnel session, of two streams

GHOSTS, QUICK_GHOSTS = 200, 20
SESSION_TIMEOUT, QUICK_TIMEOUT = 5.0, 3.0  # above rtmpt_gap
GHOST_SLACK = 1.0


@dataclass(frozen=True)
class Way:
    """One way to poll one server. name: of the figure."""

    server: Server
    name: str
    tunnels: Tunnels
    foreign: bool = False


def run(settings: Settings, results: Results) -> None:
    """Add the cost of polls and echoes, memory, the time to publish, and the time until ghosts are gone."""
    without = ours_missing()
    if without:
        results.note(f"rtmpt: flashpol was not measured: {without}")
    ours = not (without or settings.peers_only)
    with relay_load.application(settings.load_cpus[0]) as application:
        _polls(application, settings, results, ours=ours)
        if ours:
            _echo(application, settings, results)
            _ghosts(application, settings, results)
    if ours:
        _memory(settings, results)
    _publish(settings, results, ours=ours)
    if ours:
        with relay_load.application(settings.load_cpus[0]) as application:
            _on_another_worker(application, settings, results)


# ---------------------------------------------------------------------------------------------------------------- polls


def _polls(application: int, settings: Settings, results: Results, *, ours: bool) -> None:
    with ExitStack() as stack:
        running = []
        if ours:
            running.append(stack.enter_context(flashpol_tunnel(settings.server_cpu, (application,))))
        if nginx_missing():
            results.note(f"rtmpt: nginx was not measured: {nginx_missing()}")
        else:
            running.append(stack.enter_context(nginx_return(settings.server_cpu)))
        for name in (KEPT, FRESH) if running else ():
            with ExitStack() as sessions:
                ways = [
                    Way(server, server.name, sessions.enter_context(
                        _tunnels(server, name, settings, made_up=server.name == NGINX)))
                    for server in running
                ]  # fmt: skip
                cpu = _measure(ways, settings)
            for server_name, samples in cpu.items():
                results.add_spread("rtmpt", f"{server_name}: CPU of {name}", "us", samples, digits=1)
            if OURS in cpu and NGINX in cpu:
                quotients = ratios(cpu[OURS], cpu[NGINX])
                target = NGINX_TARGETS[name]
                results.add_spread("rtmpt", f"{OURS} / {NGINX}: CPU of {name}", "ratio", quotients, at_most=target)


def _on_another_worker(application: int, settings: Settings, results: Results) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(flashpol_tunnel(settings.server_cpu, (application,), workers=WORKERS))
        for name in (KEPT, FRESH):
            _has(server, FORWARDED, results)
            with ExitStack() as sessions:
                ways = []
                for foreign, where in ((False, "on the session's worker"), (True, "on another worker")):
                    tunnels = _tunnels(server, name, settings, workers=WORKERS, foreign=foreign)
                    ways.append(Way(server, where, sessions.enter_context(tunnels), foreign))
                cpu = _measure(ways, settings)
            for where, samples in cpu.items():
                results.add_spread("rtmpt", f"{name}, {where}: CPU of {WORKERS} workers", "us", samples, digits=1)
            own, other = (cpu[way.name] for way in ways)
            target = FOREIGN_TARGETS[name]
            words = f"{name}: on another worker / on the session's, CPU"
            results.add_spread("rtmpt", words, "ratio", ratios(other, own), at_most=target)


def _tunnels(
    server: Server, name: str, settings: Settings, *, made_up: bool = False, workers: int = 1, foreign: bool = False
) -> Tunnels:
    fresh = name == FRESH
    count = settings.either(FRESH_POLLS if fresh else POLLS, QUICK_FRESH_POLLS if fresh else QUICK_POLLS)
    return Tunnels(
        server, "poll", settings.load_cpus[-1], sessions=POLLING, count=count, fresh=fresh, made_up=made_up,
        workers=workers, foreign=foreign, first=POLLING * 100 * foreign, pace=FLOOR if made_up else 0.0, ramp=FLOOR,
    )  # fmt: skip


def _measure(ways: list[Way], settings: Settings) -> dict[str, list[float]]:
    """CPU of a poll, in µs, by way."""
    cpu: dict[str, list[float]] = {way.name: [] for way in ways}
    for way in ways:
        way.tunnels.turn()  # fills caches
    for way in interleaved(ways, settings.rounds):
        forwarded, before = _sum(way.server, FORWARDED), cpu_used(way.server)
        turn = way.tunnels.turn()
        time.sleep(SETTLE)
        cpu[way.name].append((cpu_used(way.server) - before) / turn.replies / 1e3)
        _check(way, turn, _sum(way.server, FORWARDED) - forwarded)
    return cpu


def _check(way: Way, turn: Turn, forwarded: int) -> None:
    if _has(way.server, FORWARDED) and forwarded != turn.replies * way.foreign:
        raise BenchError(f"{way.server.name}: {forwarded} of {turn.replies} polls {way.name} were forwarded")


def _has(server: Server, metric: str, results: Results | None = None) -> bool:
    """Whether the server has this metric; notes that it has not."""
    found = bool(server.admin) and any(name.startswith(metric + "{") for name in scrape(server.admin)[1])
    if results and not found:
        results.note(f"rtmpt: not confirmed: there is no {metric}")
    return found


def _sum(server: Server, metric: str) -> int:
    """Of all listeners; 0 if the server has no metrics."""
    samples = scrape(server.admin)[1] if server.admin else {}
    return int(sum(value for name, value in samples.items() if name.startswith(metric + "{")))


# ----------------------------------------------------------------------------------------------------------------- echo


def _echo(application: int, settings: Settings, results: Results) -> None:
    seconds, cpu = settings.either(ECHO_SECONDS, QUICK_SECONDS), settings.load_cpus[-1]
    p50: dict[str, list[float]] = {"RTMPT": [], "TCP": []}
    cost: dict[str, list[float]] = {"RTMPT": [], "TCP": []}
    with ExitStack() as stack:
        server = stack.enter_context(flashpol_tunnel(settings.server_cpu, (application,), hold=HOLD))
        alone, many = (
            stack.enter_context(
                Tunnels(server, "echo", cpu, sessions=sessions, seconds=seconds, size=SIZE, first=first)
            )
            for sessions, first in ((1, 0), (SESSIONS, 1))
        )
        alone.turn()
        relay_load.echo(server, cpu, connections=1, size=SIZE, seconds=seconds)
        for name in interleaved(list(p50), settings.rounds):
            if name == "RTMPT":
                p50[name].append(alone.turn().p50_us)
                before = cpu_used(server)
                replies = many.turn().replies
                cost[name].append((cpu_used(server) - before) / replies / 1e3)
            else:
                echoes = relay_load.echo(server, cpu, connections=1, size=SIZE, seconds=seconds)
                p50[name].append(echoes.p50_us)
                together, used = relay_load.steady_echo(server, cpu, connections=SESSIONS, size=SIZE, seconds=seconds)
                cost[name].append(used / together.rounds / 1e3)
    for name, samples in p50.items():
        results.add_spread("rtmpt", f"{name}: echo p50, one session", "us", samples, digits=1)
    for name, samples in cost.items():
        results.add_spread("rtmpt", f"{name}: CPU of an echo, {SESSIONS} sessions", "us", samples, digits=1)
    more = [(ours - theirs) / 1e3 for ours, theirs in zip(p50["RTMPT"], p50["TCP"], strict=True)]
    results.add_spread("rtmpt", "RTMPT - TCP: echo p50", "ms", more, at_most=ECHO_TARGET_MS)


# --------------------------------------------------------------------------------------------------------------- memory


def _memory(settings: Settings, results: Results) -> None:
    count, hold = settings.either(MANY, QUICK_MANY), settings.either(LONG_HOLD, QUICK_HOLD)
    with ExitStack() as stack:
        ports = stack.enter_context(relay_load.applications(PROCESSES))
        server = stack.enter_context(flashpol_tunnel(None, ports, workers=WORKERS, hold=hold))
        with Tunnels(server, "hold", None, sessions=2, first=count):
            time.sleep(SETTLE)
        before = sum(map(user_memory, server.pids))
        held = []
        # Sessions that say nothing may be half of all at most, so each group has had an echo when the next one comes.
        for number in range(GROUPS):
            each_of = count // GROUPS
            tunnels = Tunnels(server, "hold", None, sessions=each_of, size=SIZE, first=number * each_of)
            held.append(stack.enter_context(tunnels))
            held[-1].turn()
        if _has(server, POLLS_HELD, results):
            eventually(
                lambda: _sum(server, POLLS_HELD) >= HELD * count, "polls are held", 2 * hold + 10.0, error=BenchError
            )
        each = (sum(map(user_memory, server.pids)) - before) / count / 1024
        for one in held:
            one.begin()
        echoes = sum(one.result().replies for one in held)
        opened = _sum(server, SESSIONS_OPEN) if _has(server, SESSIONS_OPEN, results) else count
    if (echoes, opened) != (count, count):
        raise BenchError(f"{OURS}: {echoes} echoes on {opened} open sessions of {count}")
    name = f"memory per session of {count:,} over {WORKERS} workers, with a held poll"
    results.add(Figure("rtmpt", name, "KB", Spread.of([each]), MEMORY_TARGET_KB))
    name = f"{count:,} sessions over {WORKERS} workers: echoes after that"
    results.add(Figure("rtmpt", name, "", Spread.of([echoes]), at_least=count, digits=0, better="more"))


# ----------------------------------------------------------------------------------------------------------- publishing


def _publish(settings: Settings, results: Results, *, ours: bool) -> None:
    reason = publishing.missing() or nginx_rtmp_missing()
    if reason:
        results.note(f"rtmpt: publishing was not measured: {reason}")
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flashpol-bench-")))
        clip = publishing.make_clip(folder)
        media = stack.enter_context(nginx_rtmp(settings.load_cpus[0], folder))
        urls = {"RTMP": f"rtmp://127.0.0.1:{media.port}/live"}
        if ours:
            tunnel = stack.enter_context(flashpol_tunnel(settings.server_cpu, (media.port,), hold=HOLD))
            urls["RTMPT"] = f"rtmpt://127.0.0.1:{tunnel.port}/live"
        seconds: dict[str, list[float]] = {name: [] for name in urls}
        recorded: dict[str, list[publishing.Frames]] = {name: [] for name in urls}
        wanted = publishing.frames(clip)
        for name in interleaved(list(urls), settings.turns(PUBLISHING_ROUNDS)):
            stream = f"{name}{len(seconds[name])}"
            seconds[name].append(publishing.publish(clip, f"{urls[name]}/{stream}", settings.load_cpus[-1]))
            eventually(
                lambda: not connections_to(media.port), "the recording is complete", RECORDING_SECONDS, error=BenchError
            )
            recorded[name].append(publishing.frames(folder / f"{stream}.flv"))
    count = sum(map(len, wanted.values()))
    for name, samples in seconds.items():
        words = f"{name}: ffmpeg publishes {publishing.SECONDS} s as fast as it goes"
        results.add_spread("rtmpt", words, "s", samples)
        wrong = [float(publishing.differences(found, wanted)) for found in recorded[name]]
        results.add_spread("rtmpt", f"{name}: of {count} frames, other ones", "", wrong, at_most=0.0, digits=0)
        missing = [float(publishing.missing_at_the_end(found, wanted)) for found in recorded[name]]
        at_most = float(DROPPED if name == "RTMPT" else 0)
        words = f"{name}: of {count} frames, missing at the end"
        results.add_spread("rtmpt", words, "", missing, at_most=at_most, digits=0)
    if ours:
        quotients = ratios(seconds["RTMPT"], seconds["RTMP"])
        results.add_spread("rtmpt", "RTMPT / RTMP: time to publish", "ratio", quotients, at_most=PUBLISHING_TARGET)


# --------------------------------------------------------------------------------------------------------------- ghosts


def _ghosts(application: int, settings: Settings, results: Results) -> None:
    count, timeout = settings.either(GHOSTS, QUICK_GHOSTS), settings.either(SESSION_TIMEOUT, QUICK_TIMEOUT)
    with flashpol_tunnel(settings.server_cpu, (application,), hold=HOLD, session_timeout=timeout) as server:
        with Tunnels(server, "hold", settings.load_cpus[-1], sessions=count, abandon=True):
            time.sleep(SETTLE)
            upstream = connections_to(application)
        left = time.monotonic()
        if upstream < count:
            raise BenchError(f"{OURS} has {upstream} connections to the application for {count} sessions")

        def gone() -> bool:
            return not _sum(server, SESSIONS_OPEN) and not connections_to(application)

        eventually(gone, "the ghosts are gone", timeout + 10.0, error=BenchError)
        seconds = time.monotonic() - left
    name = f"{count} ghosts: gone after their connections, with rtmpt_session_timeout = {timeout:g}"
    results.add(Figure("rtmpt", name, "s", Spread.of([seconds]), timeout + GHOST_SLACK))
