"""Run the application behind a relay, and its clients (``loadgen/relay``), and read their results."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType

from bench import BenchError, build, stepwise
from bench.measure import children, cpu_ns
from bench.servers import Server
from bench.servers.running import child_setup, printed_port, running, work_folder
from testkit.polling import eventually

RUN_SECONDS = 120.0  # no run is longer: the clients give up when no byte comes for 10 s
END_SECONDS = 10.0
GROUP = 2_500  # sessions that begin at the same time, so that few have said nothing yet: flashpol evicts those
SMALL = 100  # bytes of a message that is not sent


@dataclass(frozen=True)
class RelayResult:
    """What clients did without an error. rounds: complete echoes or streams. Times in seconds, latencies in µs."""

    rounds: int
    bytes: int  # received, all of them compared
    seconds: float
    p50_us: float
    p99_us: float


@contextmanager
def application(cpu: int | None, *, websocket: bool = False) -> Iterator[int]:
    """The application: it echoes, or sends the number of bytes that a client requests. Yields its port.

    websocket: it speaks WebSocket, for relays that pass frames on as they are.
    """
    mode = "ws-application" if websocket else "application"
    with (
        work_folder() as folder,
        running(mode, [str(build.load_generator()), "relay", mode], folder, cpu) as process,
    ):
        yield printed_port(mode, process, folder)


@contextmanager
def applications(count: int, cpu: int | None = None) -> Iterator[tuple[int, ...]]:
    """Several applications, since one may not have enough files for all sessions."""
    with ExitStack() as stack:
        yield tuple([stack.enter_context(application(cpu)) for _ in range(count)])


def echo(server: Server, cpu: int | None, *, connections: int, size: int, seconds: float) -> RelayResult:
    """Each connection sends `size` bytes and waits for them, repeatedly."""
    return _run(server, cpu, [], "echo", connections, size, seconds)


def short(
    server: Server, cpu: int | None, *, connections: int, size: int, total: int, tls: str = "", websocket: bool = False
) -> RelayResult:
    """Connect, exchange `size` bytes each way, close: `total` times, so many connections at once.

    tls: here and below the version of TLS, "1.2" or "1.3"; empty: none. websocket: clients speak it, also in TLS.
    """
    return _run(server, cpu, _options(tls, websocket), "short", connections, size, total)


def bulk(
    server: Server, cpu: int | None, *, connections: int, size: int, tls: str = "", websocket: bool = False
) -> RelayResult:
    """The application sends `size` bytes on each connection."""
    return _run(server, cpu, _options(tls, websocket), "bulk", connections, size)


def upload(
    server: Server, cpu: int | None, *, connections: int, size: int, tls: str = "", websocket: bool = False
) -> RelayResult:
    """The application receives `size` bytes on each connection."""
    return _run(server, cpu, _options(tls, websocket), "upload", connections, size)


def steady_echo(
    server: Server, cpu: int | None, *, connections: int, size: int, seconds: float,
    tls: str = "", websocket: bool = False,
) -> tuple[RelayResult, int]:  # fmt: skip
    """As `echo`, on sessions that are open before and after. Returns also the server's CPU time meanwhile, in ns."""
    clients = _together(server, cpu, connections, size, seconds, tls, websocket)
    try:
        stepwise.read_line(server.name, clients)  # all are connected
        before = _cpu_used(server)
        stepwise.go_on(clients)
        result = RelayResult(**stepwise.read_line(server.name, clients))
        return result, _cpu_used(server) - before
    finally:
        stepwise.end(clients)


def opening(server: Server, cpu: int | None, *, connections: int, tls: str = "", websocket: bool = False) -> int:
    """The server's CPU time, in ns, from the first connect until all these sessions are open."""
    before = sum(map(cpu_ns, server.pids))
    clients = _together(server, cpu, connections, SMALL, 1.0, tls, websocket)
    try:
        stepwise.read_line(server.name, clients)
        return _cpu_used(server) - before
    finally:
        stepwise.end(clients)  # without an echo


def _together(
    server: Server, cpu: int | None, connections: int, size: int, seconds: float, tls: str, websocket: bool
) -> "subprocess.Popen[str]":
    options = ["--together", *_options(tls, websocket)]
    eventually(
        lambda: not _session_processes(server), "processes of earlier sessions have ended", END_SECONDS,
        error=BenchError,
    )  # fmt: skip
    return stepwise.start(_command(server, options, "echo", connections, size, seconds), cpu)


def _cpu_used(server: Server) -> int:
    return sum(map(cpu_ns, [*server.pids, *_session_processes(server)]))


def _session_processes(server: Server) -> list[int]:
    """Those that it has started for the sessions that are open."""
    return children(server.pid) if server.forks else []


def _options(tls: str, websocket: bool) -> list[str]:
    return [*(["--tls", tls] if tls else []), *(["--ws"] if websocket else [])]


def _run(server: Server, cpu: int | None, options: list[str], mode: str, *arguments: float) -> RelayResult:
    result = subprocess.run(
        _command(server, options, mode, *arguments), check=False, capture_output=True, text=True, timeout=RUN_SECONDS,
        preexec_fn=child_setup(cpu),
    )  # fmt: skip
    if result.returncode:
        raise BenchError(f"{server.name}: {mode} through the relay failed: {result.stderr.strip()}")
    return RelayResult(**json.loads(result.stdout))


def _command(server: Server, options: list[str], mode: str, *arguments: float) -> list[str]:
    return [str(build.load_generator()), "relay", *options, mode, str(server.port), *map(str, arguments)]


class HeldSessions:
    """Sessions that several processes hold: within the context all are open, and each has had one echo."""

    def __init__(
        self, server: Server, counts: Sequence[int], cpu: int | None, *, size: int = 100, tls: str = "",
        websocket: bool = False,
    ) -> None:  # fmt: skip
        """counts: sessions of each process, or of each group of processes. size: bytes of an echo."""
        self._name = server.name
        groups = [min(GROUP, count - begin) for count in counts for begin in range(0, count, GROUP)]
        self._commands = [_command(server, _options(tls, websocket), "hold", count, size) for count in groups]
        self._cpu = cpu
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "HeldSessions":
        try:
            for command in self._commands:
                self._processes.append(stepwise.start(command, self._cpu))
                self._result(self._processes[-1])
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        codes = self._end()
        if any(codes) and error is None:
            raise BenchError(f"{self._name}: sessions were closed while they were held")

    def echo(self) -> int:
        """Echo once more on every session, at the same time. Returns the number of echoes so far, of all sessions."""
        for process in self._processes:
            stepwise.go_on(process)
        return sum(one.rounds for one in self._results())

    def _results(self) -> list[RelayResult]:
        return [self._result(process) for process in self._processes]

    def _result(self, process: "subprocess.Popen[str]") -> RelayResult:
        return RelayResult(**stepwise.read_line(self._name, process))

    def _end(self) -> list[int]:
        for process in self._processes:  # all of them before the first is waited for
            assert process.stdin
            process.stdin.close()
        return [stepwise.end(process) for process in self._processes]
