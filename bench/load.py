"""Run the load generator and read what it says."""

import json
import subprocess
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from bench import BenchError, build
from bench.servers import Server

RUN_SECONDS = 60.0  # no closed run is longer: the servers here need less than a second for what is asked of them
OPEN_RATE = 10_000  # silent connections opened per second: slower than any server here accepts, so no queue overflows


@dataclass(frozen=True)
class Closed:
    """One closed-loop run without errors. Times in seconds, latencies in microseconds from connect to end of stream."""

    answered: int
    seconds: float
    p50: float
    p99: float


def closed(server: Server, *, connections: int, count: int, cpu: int | None) -> Closed:
    """Ask `count` times from `connections` concurrent clients; anything but the exact reply is an error."""
    command = [str(build.load_generator()), "closed", "--port", str(server.port), "--expect", str(server.expected)]
    command += ["--connections", str(connections), "--count", str(count), "--seconds", str(RUN_SECONDS)]
    command += _pinned(cpu)
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=RUN_SECONDS + 30)
    if result.returncode != 0:
        raise BenchError(f"{server.name}: the load was not answered without error: {result.stdout}{result.stderr}")
    said = json.loads(result.stdout)
    if said["answered"] != count:
        raise BenchError(f"{server.name}: {said['answered']} answers of {count} within {RUN_SECONDS:.0f} s")
    return Closed(said["answered"], said["seconds"], said["latency_us"]["p50"], said["latency_us"]["p99"])


class SilentClients:
    """Connections that say nothing, held by a process of their own: one process may not have the files for both ends.

    A context manager: inside, all are established. `wait_until_closed` and `release` say what became of them.
    """

    def __init__(self, server: Server, count: int, *, seconds: float, cpu: int | None) -> None:
        """Hold `count` connections to `server` for at most `seconds`."""
        self._name = server.name
        self._command = [str(build.load_generator()), "silent", "--port", str(server.port)]
        self._command += ["--connections", str(count), "--rate", str(OPEN_RATE), "--seconds", str(seconds)]
        self._command += _pinned(cpu)
        self._count = count

    def __enter__(self) -> "SilentClients":
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        said = self._line()
        if (said["event"], said["established"], said["ended"]) != ("established", self._count, 0):
            self.__exit__(None, None, None)
            raise BenchError(f"{self._name}: {self._count} silent clients were to be held, but: {said}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def wait_until_closed(self) -> dict[str, Any]:
        """What became of them, once the server has closed all of them or the time is over."""
        return self._line()

    def release(self) -> dict[str, Any]:
        """Let go of them now; what had become of them until now."""
        assert self._process.stdin
        self._process.stdin.close()
        return self._line()

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()  # bounded: the generator ends by itself after its --seconds
        if not line:
            raise BenchError(f"{self._name}: the silent clients ended without a word, exit {self._process.wait(10)}")
        said: dict[str, Any] = json.loads(line)
        return said


def _pinned(cpu: int | None) -> list[str]:
    return [] if cpu is None else ["--cpu", str(cpu)]
