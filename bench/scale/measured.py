"""Model against measurement: `python -m bench.scale measure`, which writes `measured.json`.

Few clients are measured first, which gives what one of them costs on this machine. The model makes predictions for many
of it, and beside that of the published figures, which other machines have. Then many are measured.
"""

import json
import os
import select
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bench import BenchError, build, isolation, load, machine, relay_load, servers
from bench.measure import open_files, user_memory, wait_until_open
from bench.scale import kernel
from bench.scenarios.interleave import SETTLE, cpu_used, measure
from bench.servers import Server
from bench.servers.certificate import Certificate, certificate
from bench.servers.relays import SESSIONS, flashpol_relay
from bench.servers.running import STOP_SECONDS, child_setup, free_port, work_folder
from bench.servers.websocket import OURS, OURS_TLS, PEERS, PLAIN, PLAIN_TLS, TLS, Applications
from bench.settings import Settings
from testkit.polling import eventually

__all__ = ["FILE", "SESSIONS", "TINY", "Sizes", "echoes", "load_last", "medians", "run", "write"]

FILE = Path(__file__).with_name("measured.json")
CLIENTS, TLS_CLIENTS = 256, 64
SIZE = 100  # bytes of an echo
FRESH = ("--fresh", "1")
PATIENT = 60.0  # seconds of the deadlines of clients that wait here
SECONDS = 30.0
STOPPED = 0.3  # seconds that a worker does not run, less than half of stall_timeout
CONNECT_RATE = 100.0
GREETING = b"e" * 20  # the application sends it back
# What becomes of the sessions, by their names here and in the figures.
WAYS = {"session": PLAIN, "session_tls": PLAIN_TLS, "session_websocket": OURS, "session_websocket_tls": OURS_TLS}
# As a service manager does between fork and exec: the listening socket becomes descriptor 3.
PASS_SOCKET = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="main")
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True)
class Sizes:
    """Numbers of clients. few_…: for what one costs. storm: that wait for a restart. queue: places of an accept queue,
    for `overflow` clients. at_rate: sessions at once for connect_rate. rounds: of each."""

    rounds: int = 3
    few_replies: int = 4_000
    replies: int = 60_000
    few_handshakes: int = 200
    handshakes: int = 2_000
    few_silent: int = 3_000
    silent: int = 15_000
    few_sessions: int = 1_000
    sessions: int = 8_000
    storm: int = 10_000
    queue: int = 500
    overflow: int = 1_000
    at_rate: int = 600
    tracked: int = 2_000


TINY = Sizes(
    rounds=1, few_replies=200, replies=400, few_handshakes=20, handshakes=40, few_silent=50, silent=100,
    few_sessions=20, sessions=40, storm=50, queue=20, overflow=40, at_rate=450, tracked=40,
)  # fmt: skip


class Samples:
    """Measurements by name, one for each round."""

    def __init__(self) -> None:
        self.few: dict[str, list[float]] = {}
        self.many: dict[str, list[float]] = {}

    def add(self, where: dict[str, list[float]], name: str, value: float) -> None:
        where.setdefault(name, []).append(value)


def run(sizes: Sizes) -> dict[str, Any]:
    """Measure. Returns what `measured.json` has."""
    about = machine.describe()
    missing = isolation.isolate()
    settings = Settings.on_this_machine(sizes.rounds, peers_only=False)
    if not settings.apart:
        raise BenchError("the comparison needs two CPUs")
    samples, notes = Samples(), [missing] if missing else []
    with certificate() as files:
        for number in range(sizes.rounds):
            for part in (_replies, _handshakes, _silent, _sessions, _storm, _overflow, _connect_rate, _tracked):
                print(f"round {number + 1}: {part.__name__.strip('_')} …", file=sys.stderr)
                note = part(sizes, settings, samples, files)
                if note and note not in notes:
                    notes.append(note)
    return {
        "machine": about,
        "sizes": {field.name: getattr(sizes, field.name) for field in fields(sizes)},
        "few": samples.few,
        "many": samples.many,
        "notes": notes,
    }


def write(found: dict[str, Any]) -> None:
    """Into the file that `load_last` reads."""
    FILE.write_text(json.dumps(found, indent=1) + "\n")


def load_last() -> dict[str, Any]:
    """The last run that was committed."""
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


def medians(samples: dict[str, list[float]]) -> dict[str, float]:
    """By name."""
    return {name: statistics.median(values) for name, values in samples.items()}


# -------------------------------------------------------------------------------------------------------------- replies


def _replies(sizes: Sizes, settings: Settings, samples: Samples, files: Certificate) -> None:
    del files
    cpu = settings.server_cpu
    with servers.flashpol(cpu) as server:
        for words, where in (("apart", settings.load_cpus[:1]), ("one_cpu", (cpu,))):
            measure(server, CLIENTS, sizes.few_replies, where)  # the first ones
            few = measure(server, CLIENTS, sizes.few_replies, where)
            samples.add(samples.few, f"reply_{words}", few.cpu_per_reply / 1e3)
            samples.add(samples.few, f"generator_{words}", few.load.generator_cpu / sizes.few_replies * 1e6)
            many = load.closed(server, connections=CLIENTS, count=sizes.replies, cpu=where)
            samples.add(samples.many, f"replies_{words}", many.replies / many.seconds)


def _handshakes(sizes: Sizes, settings: Settings, samples: Samples, files: Certificate) -> None:
    options = ["--tls", TLS, "--addresses", "250"]
    with servers.flashpol(settings.server_cpu, PATIENT, certificate=files) as server:
        where = (settings.server_cpu,)
        measure(server, TLS_CLIENTS, sizes.few_handshakes, where, options)
        few = measure(server, TLS_CLIENTS, sizes.few_handshakes, where, options)
        samples.add(samples.few, "handshake", few.cpu_per_reply / 1e3)
        samples.add(samples.few, "generator_handshake", few.load.generator_cpu / sizes.few_handshakes * 1e6)
        many = load.closed(server, connections=TLS_CLIENTS, count=sizes.handshakes, cpu=where, options=options)
        samples.add(samples.many, "handshakes", many.replies / many.seconds)


# --------------------------------------------------------------------------------------------------------------- memory


def _silent(sizes: Sizes, settings: Settings, samples: Samples, files: Certificate) -> None:
    del files
    ends = 2  # of each connection, both on this machine
    with servers.flashpol(settings.server_cpu, PATIENT) as server:
        memory, slab, opened = _warm(server, settings), kernel.slab_bytes(), open_files(server.pid)
        grown = []
        with ExitStack() as held:
            for number in (0, 1):
                options = ("--first", str(number * sizes.few_silent))
                held.enter_context(load.SilentClients(
                    server, sizes.few_silent, seconds=SECONDS, cpu=settings.load_cpus, options=options,
                ))  # fmt: skip
                wait_until_open(server.pids, opened + (number + 1) * sizes.few_silent, PATIENT)
                grown.append(user_memory(server.pid) - memory)
            of_kernel = kernel.slab_bytes() - slab
    _add_memory(samples, "silent", grown, sizes.few_silent)
    samples.add(samples.few, "socket", of_kernel / (2 * sizes.few_silent) / ends / 1024)
    with servers.flashpol(settings.server_cpu, PATIENT) as server:
        memory, slab, opened = _warm(server, settings), kernel.slab_bytes(), open_files(server.pid)
        with load.SilentClients(server, sizes.silent, seconds=SECONDS, cpu=settings.load_cpus):
            wait_until_open(server.pids, opened + sizes.silent, PATIENT)
            samples.add(samples.many, "silent", (user_memory(server.pid) - memory) / 2**20)
            samples.add(samples.many, "sockets", (kernel.slab_bytes() - slab) / ends / 2**20)


def _warm(server: Server, settings: Settings) -> int:
    """A few replies; the memory after them."""
    load.closed(server, connections=50, count=500, cpu=settings.load_cpus)
    time.sleep(SETTLE)
    return user_memory(server.pid)


def _add_memory(samples: Samples, name: str, grown: list[int], count: int) -> None:
    """What so many clients took, and what twice as many took: the difference is that of one, the rest is taken once."""
    first, both = grown
    samples.add(samples.few, name, (both - first) / count / 1024)
    samples.add(samples.few, f"{name}_once", (2 * first - both) / 2**20)


def _sessions(sizes: Sizes, settings: Settings, samples: Samples, files: Certificate) -> None:
    peers = {peer.name: peer for peer in PEERS}
    cpu = settings.load_cpus[-1]
    with relay_load.application(settings.load_cpus[0]) as port:
        for name, way in WAYS.items():
            peer = peers[way]
            for counts in ([sizes.few_sessions] * 2, [sizes.sessions]):
                with (
                    peer.start(settings.server_cpu, files, Applications(port, 0)) as server,
                    ExitStack() as held,
                ):
                    relay_load.short(server, cpu, connections=1, size=SIZE, total=20, tls=peer.tls,
                                     websocket=peer.websocket)  # fmt: skip
                    time.sleep(SETTLE)
                    memory, before = user_memory(server.pid), cpu_used(server)
                    grown = []
                    for count in counts:
                        held.enter_context(relay_load.HeldSessions(
                            server, [count], cpu, size=SIZE, tls=peer.tls, websocket=peer.websocket,
                        ))  # fmt: skip
                        grown.append(user_memory(server.pid) - memory)
                    used = cpu_used(server) - before
                if len(counts) > 1:
                    _add_memory(samples, name, grown, sizes.few_sessions)
                    samples.add(samples.few, f"open_{name}", used / sum(counts) / 1e3)
                else:
                    samples.add(samples.many, name, grown[0] / 2**20)
                    samples.add(samples.many, f"open_{name}", used / 1e9)


# --------------------------------------------------------------------------------------------------------------- storms


def _storm(sizes: Sizes, settings: Settings, samples: Samples, files: Certificate) -> None:
    """Clients wait in the accept queue of a server that is not there yet."""
    del files
    with servers.flashpol(settings.server_cpu) as server:
        load.closed(server, connections=CLIENTS, count=sizes.few_replies, cpu=settings.load_cpus[:1])
    for where, count in ((samples.few, 1), (samples.many, sizes.storm)):
        samples.add(where, "start" if count == 1 else "storm", _until_all_are_served(count, settings))


def _until_all_are_served(count: int, settings: Settings) -> float:
    with work_folder() as folder, socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(65_535)
        port = listening.getsockname()[1]
        server = Server("flashpol", port, 0, folder / "expected", 0.0)
        command = [str(build.load_generator()), "closed", "--port", str(port), "--expect", str(server.expected)]
        command += ["--connections", str(count), "--count", str(count), "--seconds", str(SECONDS)]
        command += ["--timeout", str(SECONDS), "--cpu", str(settings.load_cpus[0])]
        clients = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            eventually(lambda: kernel.accept_queue(port) >= count, f"{count} clients wait", SECONDS, error=BenchError)
            time.sleep(SETTLE)
            begin = time.monotonic()
            with _activated(listening, folder, settings.server_cpu):
                output, _ = clients.communicate(timeout=2 * SECONDS)
                seconds = time.monotonic() - begin
        finally:
            clients.kill()
            clients.communicate()
    result = json.loads(output)
    if result["ok"] != count:
        raise BenchError(f"{result['ok']} of {count} clients that waited for the start were served")
    return seconds


@contextmanager
def _activated(listening: socket.socket, folder: Path, cpu: int) -> Iterator[None]:
    """flashpol on a socket that it inherits, with one worker."""
    serve = [sys.executable, "-m", "flashpol", "serve", "--policy", str(folder / "policy.xml"), "--workers", "1"]
    serve += ["--listen", "systemd:main", "--admin", f"127.0.0.1:{free_port()}"]
    process = subprocess.Popen(
        [sys.executable, "-c", PASS_SOCKET, str(listening.fileno()), *serve], cwd=servers.ROOT,
        pass_fds=[listening.fileno()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        preexec_fn=child_setup(cpu),  # noqa: PLW1509 - this program has no threads
    )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_SECONDS)


def _overflow(sizes: Sizes, settings: Settings, samples: Samples, files: Certificate) -> None:
    """More clients than an accept queue holds, while the worker does not run."""
    del files
    with servers.flashpol(settings.server_cpu, settings=f"backlog = {sizes.queue}") as server:
        command = [str(build.load_generator()), "closed", "--port", str(server.port), "--expect", str(server.expected)]
        command += ["--connections", str(sizes.overflow), "--count", str(sizes.overflow), "--seconds", str(SECONDS)]
        command += ["--cpu", str(settings.load_cpus[0])]
        os.kill(server.pid, signal.SIGSTOP)
        try:
            begin = time.monotonic()
            clients = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            time.sleep(STOPPED)
            queued = kernel.accept_queue(server.port)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        output, _ = clients.communicate(timeout=2 * SECONDS)
        seconds = time.monotonic() - begin
    result = json.loads(output)
    if result["ok"] != sizes.overflow:
        raise BenchError(f"{result['ok']} of {sizes.overflow} clients of a full accept queue were served")
    samples.add(samples.many, "queued", queued)
    samples.add(samples.many, "next_syn", seconds)


def _connect_rate(sizes: Sizes, settings: Settings, samples: Samples, files: Certificate) -> None:
    """Sessions that begin at one moment, in front of an application that is to get so many a second."""
    del files
    with (
        relay_load.application(settings.load_cpus[0]) as port,
        flashpol_relay(settings.server_cpu, (port,), listener=f"connect_rate = {CONNECT_RATE}") as server,
    ):
        time.sleep(1.0)  # the limit gives a second's worth at once after a pause
        served, seconds = echoes(server.port, sizes.at_rate)
    samples.add(samples.many, "connected", served)
    samples.add(samples.many, "connected_seconds", seconds)


def echoes(port: int, count: int, seconds: float = SECONDS) -> tuple[int, float]:
    """Connect so many clients at once, which send and wait. Returns how many got an echo, and the seconds until the
    last of these. Raises BenchError if some are neither served nor closed within `seconds`."""
    poll = select.epoll()
    clients: dict[int, socket.socket] = {}
    served, last, begin = 0, 0.0, time.monotonic()
    try:
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", port), SECONDS)
            client.sendall(GREETING)
            client.setblocking(False)
            clients[client.fileno()] = client
            poll.register(client, select.EPOLLIN)
        waiting = set(clients)
        while waiting and time.monotonic() < begin + seconds:
            for fd, _ in poll.poll(0.1):
                waiting.discard(fd)
                poll.unregister(fd)
                with suppress(ConnectionResetError):
                    if clients[fd].recv(100):
                        served, last = served + 1, time.monotonic() - begin
    finally:
        for client in clients.values():
            client.close()
        poll.close()
    if waiting:
        raise BenchError(f"{len(waiting)} of {count} sessions were neither connected nor closed")
    return served, last


def _tracked(sizes: Sizes, settings: Settings, samples: Samples, files: Certificate) -> str | None:
    """What connections leave behind in the kernel."""
    del files
    missing = kernel.tracking_missing()
    if missing:
        return f"connection tracking was not measured: {missing}"
    with kernel.tracking(), servers.flashpol(settings.server_cpu) as server:
        before = kernel.tracked(), kernel.time_waits()
        load.closed(server, connections=TLS_CLIENTS, count=sizes.tracked, cpu=settings.load_cpus, options=FRESH)
        time.sleep(SETTLE)
        samples.add(samples.many, "tracked", kernel.tracked() - before[0])
        samples.add(samples.many, "time_waits", kernel.time_waits() - before[1])
    return None
