"""Run the application behind a relay, and its clients (``loadgen/relay``), and read what they say."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType

from bench import BenchError, build
from bench.servers import Server
from bench.servers.running import preparation, running, said_port, workplace

RUN_SECONDS = 120.0  # no run is longer: the clients themselves give up when nothing comes for 10 s
END_SECONDS = 10.0


@dataclass(frozen=True)
class Conversed:
    """What clients did without an error. rounds: answers that were complete. Times in seconds, latencies in µs."""

    rounds: int
    bytes: int  # received, all of them compared
    seconds: float
    p50_us: float
    p99_us: float


@contextmanager
def application(cpu: int | None) -> Iterator[int]:
    """The application: it echoes, or sends as many bytes as it is asked for. Yields its port."""
    with workplace() as place, running("application", [str(build.relay_load()), "application"], place, cpu) as process:
        yield said_port("application", process, place)


@contextmanager
def applications(count: int, cpu: int | None = None) -> Iterator[tuple[int, ...]]:
    """Several: one may not have the files for all conversations."""
    with ExitStack() as stack:
        yield tuple([stack.enter_context(application(cpu)) for _ in range(count)])


def echo(server: Server, cpu: int | None, *, connections: int, size: int, seconds: float) -> Conversed:
    """Each connection sends `size` bytes and waits for them, again and again."""
    return _converse(server, cpu, "echo", connections, size, seconds)


def short(server: Server, cpu: int | None, *, connections: int, size: int, total: int) -> Conversed:
    """Connect, `size` bytes there and back, close: `total` times, so many connections at once."""
    return _converse(server, cpu, "short", connections, size, total)


def bulk(server: Server, cpu: int | None, *, connections: int, size: int) -> Conversed:
    """`size` bytes from the application on each connection."""
    return _converse(server, cpu, "bulk", connections, size)


def _converse(server: Server, cpu: int | None, mode: str, *arguments: float) -> Conversed:
    result = subprocess.run(
        _command(server, mode, *arguments), check=False, capture_output=True, text=True, timeout=RUN_SECONDS,
        preexec_fn=preparation(cpu),
    )  # fmt: skip
    if result.returncode:
        raise BenchError(f"{server.name}: {mode} through the relay failed: {result.stderr.strip()}")
    return Conversed(**json.loads(result.stdout))


def _command(server: Server, mode: str, *arguments: float) -> list[str]:
    return [str(build.relay_load()), mode, str(server.port), *map(str, arguments)]


class HeldConversations:
    """Conversations that are held by some processes: inside, all are open, and each has had one echo."""

    def __init__(self, server: Server, counts: Sequence[int], cpu: int | None, *, size: int = 100) -> None:
        """counts: conversations of each process. size: bytes of an echo."""
        self._name = server.name
        self._commands = [_command(server, "hold", count, size) for count in counts]
        self._cpu = cpu
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "HeldConversations":
        prepare = preparation(self._cpu)
        self._processes = [
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                preexec_fn=prepare,  # noqa: PLW1509 - this program has no threads
            )
            for command in self._commands
        ]  # fmt: skip
        try:
            self._said()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        codes = self._end()
        if any(codes) and error is None:
            raise BenchError(f"{self._name}: conversations were closed while they were held")

    def echo(self) -> int:
        """One more echo on every conversation, at the same time. Returns how many had echoes so far, added up."""
        for process in self._processes:
            assert process.stdin
            process.stdin.write("\n")
            process.stdin.flush()
        return sum(one.rounds for one in self._said())

    def _said(self) -> list[Conversed]:
        said = []
        for process in self._processes:
            assert process.stdout
            assert process.stderr
            line = process.stdout.readline()  # bounded: the clients end when nothing comes for 10 s
            if not line:
                raise BenchError(f"{self._name}: a conversation that was held failed: {process.stderr.read().strip()}")
            said.append(Conversed(**json.loads(line)))
        return said

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
