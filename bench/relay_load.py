"""Run the application behind a relay, and its clients (``loadgen/relay``), and read their results."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType

from bench import BenchError, build
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
    return _run(server, cpu, "echo", connections, size, seconds)


def short(server: Server, cpu: int | None, *, connections: int, size: int, total: int) -> RelayResult:
    """Connect, exchange `size` bytes each way, close: `total` times, so many connections at once."""
    return _run(server, cpu, "short", connections, size, total)


def bulk(server: Server, cpu: int | None, *, connections: int, size: int) -> RelayResult:
    """The application sends `size` bytes on each connection."""
    return _run(server, cpu, "bulk", connections, size)


def _run(server: Server, cpu: int | None, mode: str, *arguments: float) -> RelayResult:
    result = subprocess.run(
        _command(server, mode, *arguments), check=False, capture_output=True, text=True, timeout=RUN_SECONDS,
        preexec_fn=child_setup(cpu),
    )  # fmt: skip
    if result.returncode:
        raise BenchError(f"{server.name}: {mode} through the relay failed: {result.stderr.strip()}")
    return RelayResult(**json.loads(result.stdout))


def _command(server: Server, mode: str, *arguments: float) -> list[str]:
    return [str(build.load_generator()), "relay", mode, str(server.port), *map(str, arguments)]


class HeldSessions:
    """Sessions that several processes hold: within the context all are open, and each has had one echo."""

    def __init__(self, server: Server, counts: Sequence[int], cpu: int | None, *, size: int = 100) -> None:
        """counts: sessions of each process. size: bytes of an echo."""
        self._name = server.name
        self._commands = [_command(server, "hold", count, size) for count in counts]
        self._cpu = cpu
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "HeldSessions":
        prepare = child_setup(self._cpu)
        self._processes = [
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                preexec_fn=prepare,  # noqa: PLW1509 - this program has no threads
            )
            for command in self._commands
        ]  # fmt: skip
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
            assert process.stdin
            process.stdin.write("\n")
            process.stdin.flush()
        return sum(one.rounds for one in self._results())

    def _results(self) -> list[RelayResult]:
        results = []
        for process in self._processes:
            assert process.stdout
            assert process.stderr
            line = process.stdout.readline()  # returns in time: the clients end when no byte comes for 10 s
            if not line:
                raise BenchError(f"{self._name}: a held session failed: {process.stderr.read().strip()}")
            results.append(RelayResult(**json.loads(line)))
        return results

    def _end(self) -> list[int]:
        for process in self._processes:
            assert process.stdin
            process.stdin.close()
        codes = []
        for process in self._processes:
            assert process.stdout
            assert process.stderr
            try:
                codes.append(process.wait(END_SECONDS))
            except subprocess.TimeoutExpired:
                process.kill()
                codes.append(process.wait(END_SECONDS))
            process.stdout.close()
            process.stderr.close()
        return codes
