"""Run the application behind a relay, and its clients (``loadgen/relay``), and read their results."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from bench import BenchError, build
from bench.measure import cpu_ns
from bench.servers import Server
from bench.servers.running import child_setup, printed_port, running, work_folder

RUN_SECONDS = 120.0  # no run is longer: the clients give up when no byte comes for 10 s
END_SECONDS = 10.0


@dataclass(frozen=True)
class RelayResult:
    """What clients did without an error. rounds: complete echoes or streams. Times in seconds, latencies in µs."""

    rounds: int
    bytes: int  # received, all of them compared
    seconds: float
    p50_us: float
    p99_us: float


@contextmanager
def application(cpu: int | None) -> Iterator[int]:
    """The application: it echoes, or sends the number of bytes that a client requests. Yields its port."""
    with (
        work_folder() as folder,
        running("application", [str(build.load_generator()), "relay", "application"], folder, cpu) as process,
    ):
        yield printed_port("application", process, folder)


@contextmanager
def applications(count: int, cpu: int | None = None) -> Iterator[tuple[int, ...]]:
    """Several applications, since one may not have enough files for all sessions."""
    with ExitStack() as stack:
        yield tuple([stack.enter_context(application(cpu)) for _ in range(count)])


def echo(server: Server, cpu: int | None, *, connections: int, size: int, seconds: float) -> RelayResult:
    """Each connection sends `size` bytes and waits for them, repeatedly."""
    return _run(server, cpu, "", "echo", connections, size, seconds)


def short(server: Server, cpu: int | None, *, connections: int, size: int, total: int, tls: str = "") -> RelayResult:
    """Connect, exchange `size` bytes each way, close: `total` times, so many connections at once.

    tls: here and below the version of TLS, "1.2" or "1.3"; empty: none.
    """
    return _run(server, cpu, tls, "short", connections, size, total)


def bulk(server: Server, cpu: int | None, *, connections: int, size: int, tls: str = "") -> RelayResult:
    """The application sends `size` bytes on each connection."""
    return _run(server, cpu, tls, "bulk", connections, size)


def upload(server: Server, cpu: int | None, *, connections: int, size: int, tls: str = "") -> RelayResult:
    """The application receives `size` bytes on each connection."""
    return _run(server, cpu, tls, "upload", connections, size)


def tls_echo(
    server: Server, cpu: int | None, *, connections: int, size: int, seconds: float, tls: str
) -> tuple[RelayResult, int]:
    """As `echo`, through TLS. Returns also the CPU time, in ns, that the server took after the handshakes."""
    clients = _popen(_command(server, tls, "echo", connections, size, seconds), cpu)
    try:
        _line(server.name, clients)  # all are connected
        before = sum(map(cpu_ns, server.pids))
        _go_on(clients)
        result = RelayResult(**_line(server.name, clients))
        return result, sum(map(cpu_ns, server.pids)) - before
    finally:
        _end(clients)


def _run(server: Server, cpu: int | None, tls: str, mode: str, *arguments: float) -> RelayResult:
    result = subprocess.run(
        _command(server, tls, mode, *arguments), check=False, capture_output=True, text=True, timeout=RUN_SECONDS,
        preexec_fn=child_setup(cpu),
    )  # fmt: skip
    if result.returncode:
        raise BenchError(f"{server.name}: {mode} through the relay failed: {result.stderr.strip()}")
    return RelayResult(**json.loads(result.stdout))


def _command(server: Server, tls: str, mode: str, *arguments: float) -> list[str]:
    options = ["--tls", tls] if tls else []
    return [str(build.load_generator()), "relay", *options, mode, str(server.port), *map(str, arguments)]


def _popen(command: list[str], cpu: int | None) -> "subprocess.Popen[str]":
    """Clients that wait for lines of stdin."""
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=child_setup(cpu),  # noqa: PLW1509 - this program has no threads
    )  # fmt: skip


def _line(name: str, clients: "subprocess.Popen[str]") -> dict[str, Any]:
    assert clients.stdout
    assert clients.stderr
    line = clients.stdout.readline()  # returns in time: the clients end when no byte comes for 10 s
    if not line:
        raise BenchError(f"{name}: a held session failed: {clients.stderr.read().strip()}")
    result: dict[str, Any] = json.loads(line)
    return result


def _go_on(clients: "subprocess.Popen[str]") -> None:
    assert clients.stdin
    clients.stdin.write("\n")
    clients.stdin.flush()


def _end(clients: "subprocess.Popen[str]") -> int:
    """Wait for their end; returns their exit status."""
    assert clients.stdin
    assert clients.stdout
    assert clients.stderr
    clients.stdin.close()
    try:
        code = clients.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        clients.kill()
        code = clients.wait(END_SECONDS)
    clients.stdout.close()
    clients.stderr.close()
    return code


class HeldSessions:
    """Sessions that several processes hold: within the context all are open, and each has had one echo."""

    def __init__(
        self, server: Server, counts: Sequence[int], cpu: int | None, *, size: int = 100, tls: str = ""
    ) -> None:
        """counts: sessions of each process. size: bytes of an echo."""
        self._name = server.name
        self._commands = [_command(server, tls, "hold", count, size) for count in counts]
        self._cpu = cpu
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "HeldSessions":
        self._processes = [_popen(command, self._cpu) for command in self._commands]
        try:
            self._results()
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
            _go_on(process)
        return sum(one.rounds for one in self._results())

    def _results(self) -> list[RelayResult]:
        return [RelayResult(**_line(self._name, process)) for process in self._processes]

    def _end(self) -> list[int]:
        for process in self._processes:  # all of them before the first is waited for
            assert process.stdin
            process.stdin.close()
        return [_end(process) for process in self._processes]
