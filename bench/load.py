"""Run the load generator and read its results."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from bench import BenchError, build
from bench.servers.running import Server

WARM_UP = 0.2  # seconds of an open loop: new sockets, cold caches, the queue that the first clients cause
RUN_SECONDS = 60.0  # no closed run is longer; the servers here need less than a second for one
OPEN_CLIENTS = 4_000  # connections of an open loop at once
OPEN_RATE = 10_000  # silent connections per second: every server here accepts faster, so no queue overflows
HELD_BY_ONE = 15_000  # connections held by one process of the generator: below the usual limit of open files
GRACE = 30.0  # seconds that a run may take longer than planned

# Where the generator runs: on one CPU; with a process on each of several; or None, on any CPU.
CPUs = int | Sequence[int] | None


@dataclass(frozen=True)
class Closed:
    """One closed-loop run without errors. Times in seconds, latencies in microseconds from connect to end of stream."""

    replies: int
    seconds: float
    p50: float
    p99: float
    p999: float = math.nan
    generator_cpu: float = math.nan  # seconds, of all its processes


@dataclass(frozen=True)
class Open:
    """One open-loop run. Latencies in microseconds from the time at which a client was to start to end of stream.

    lag_p99: microseconds by which the generator itself was late; a latency near it says little about the server.
    """

    replies: int
    failed: int
    seconds: float
    latency: dict[str, float]  # p50, p90, p99, p999, p9999, max
    lag_p99: float


def closed(
    server: Server, *, connections: int, count: int, cpu: CPUs, options: Sequence[str] = (), processes: int = 0
) -> Closed:
    """Send `count` requests from `connections` concurrent clients; anything but the exact reply is an error.

    options: further options of the generator (see loadgen/main.c). processes: of the generator; 0: one for each CPU.
    """
    processes = min(processes or len(_cpus(cpu)) or 1, connections)
    result = _run(
        "closed", server, cpu, RUN_SECONDS, ["--connections", str(connections), "--count", str(count),
        "--processes", str(processes), *options],
    )  # fmt: skip
    if result["failed"]:
        raise BenchError(f"{server.name}: requests failed: {json.dumps(result)}")
    if result["ok"] != count:
        raise BenchError(f"{server.name}: {result['ok']} replies of {count} within {RUN_SECONDS:.0f} s")
    latency = result["latency_us"]
    return Closed(count, result["seconds"], latency["p50"], latency["p99"], latency["p999"], result["cpu_seconds"])


def open_loop(
    server: Server,
    *,
    rate: float,
    seconds: float,
    cpu: CPUs,
    connections: int = OPEN_CLIENTS,
    options: Sequence[str] = (),
) -> Open:
    """Start `rate` clients a second at fixed times for so many seconds, at most `connections` at once.

    A warm-up of `WARM_UP` seconds comes first, which the latencies and the lag leave out. Errors are counted, not
    raised, since there are some above saturation.
    """
    arguments = ["--connections", str(connections), "--rate", f"{rate:.1f}", "--warm-up", str(WARM_UP)]
    arguments += ["--processes", str(len(_cpus(cpu)) or 1), *options]
    return _opened(_run("open", server, cpu, WARM_UP + seconds, arguments))


def _opened(result: dict[str, Any]) -> Open:
    return Open(result["ok"], result["failed"], result["seconds"], result["latency_us"], result["lag_us"]["p99"])


@contextmanager
def background(
    server: Server, *, rate: float, cpu: CPUs, connections: int, options: Sequence[str] = ()
) -> Iterator[list[Open]]:
    """An open loop with idle priority, for as long as the context. The list has its result after the context.

    Idle priority: a generator of another load on the same CPU is not delayed by this one.
    """
    command = _command("open", server, cpu, RUN_SECONDS)
    command += ["--connections", str(connections), "--rate", f"{rate:.1f}", "--warm-up", str(WARM_UP)]
    results: list[Open] = []
    with subprocess.Popen(
        [*command, *options, "--until-input-ends", "1"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0)),  # noqa: PLW1509 - no threads
    ) as process:  # fmt: skip
        try:
            yield results
        finally:
            try:
                output, errors = process.communicate("", GRACE)  # the end of its stdin
            except subprocess.TimeoutExpired:
                process.kill()
                raise BenchError(f"{server.name}: the load generator in the background did not end") from None
    if process.returncode not in (0, 1):
        raise BenchError(f"{server.name}: the load generator failed: {errors or process.returncode}")
    results.append(_opened(json.loads(output)))


def _run(mode: str, server: Server, cpu: CPUs, seconds: float, arguments: Sequence[str]) -> dict[str, Any]:
    # On a terminal the generator shows its progress.
    errors = None if sys.stderr.isatty() else subprocess.PIPE
    done = subprocess.run(
        [*_command(mode, server, cpu, seconds), *arguments],
        check=False, stdout=subprocess.PIPE, stderr=errors, text=True, timeout=seconds + GRACE,
    )  # fmt: skip
    if done.returncode not in (0, 1):
        raise BenchError(f"{server.name}: the load generator failed: {done.stderr or done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _command(mode: str, server: Server, cpu: CPUs, seconds: float) -> list[str]:
    command = [str(build.load_generator()), mode, "--expect", str(server.expected), "--seconds", str(seconds)]
    for port in server.ports or (server.port,):
        command += ["--port", str(port)]
    return command + _pinned(cpu)


class SilentClients:
    """Silent connections, held by several processes, since one may not have enough files for all.

    Within the context all are established. `wait_until_closed` and `release` return how they ended.
    """

    def __init__(
        self, server: Server, count: int, *, seconds: float, cpu: CPUs, options: Sequence[str] = (),
        rate: float = OPEN_RATE,
    ) -> None:  # fmt: skip
        """Hold `count` connections to `server` for at most `seconds`."""
        self._name = server.name
        self._count = count
        processes = -(-count // HELD_BY_ONE)
        self._commands = []
        for k in range(processes):
            mine = count // processes + (k < count % processes)
            command = [str(build.load_generator()), "silent", "--connections", str(mine), "--seconds", str(seconds)]
            command += ["--rate", str(rate / processes), "--first", str(k * HELD_BY_ONE), *options]
            command += _pinned(_cpus(cpu)[k % len(_cpus(cpu))] if _cpus(cpu) else None)
            for port in server.ports or (server.port,):
                command += ["--port", str(port)]
            self._commands.append(command)
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "SilentClients":
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for command in self._commands
        ]
        try:
            result = self._sum()
            if (result["established"], result["ended"]) != (self._count, 0):
                raise BenchError(f"{self._name}: {self._count} silent clients were to be held, got {result}")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            assert process.stdin
            assert process.stdout
            process.stdin.close()
            process.wait(10)
            process.stdout.close()

    def wait_until_closed(self) -> dict[str, Any]:
        """How they ended, once the server has closed all of them or the time is over."""
        return self._sum()

    def release(self) -> dict[str, Any]:
        """Close them, and return how they ended or that they were open."""
        for process in self._processes:
            assert process.stdin
            process.stdin.close()
        return self._sum()

    def _sum(self) -> dict[str, Any]:
        lines = [self._line(process) for process in self._processes]
        numbers = [name for name, value in lines[0].items() if isinstance(value, int)]
        result: dict[str, Any] = {name: sum(line[name] for line in lines) for name in numbers}
        held = [line["held_seconds"] for line in lines if line.get("held_seconds")]
        shortest, longest = min((h["min"] for h in held), default=0.0), max((h["max"] for h in held), default=0.0)
        result["held_seconds"] = {"min": shortest, "max": longest} if held else None
        return result

    def _line(self, process: "subprocess.Popen[str]") -> dict[str, Any]:
        assert process.stdout
        line = process.stdout.readline()  # returns in time: the generator ends by itself after --seconds
        if not line:
            raise BenchError(f"{self._name}: the silent clients ended without output, status {process.wait(10)}")
        result: dict[str, Any] = json.loads(line)
        return result


def _cpus(cpu: CPUs) -> Sequence[int]:
    if cpu is None:
        return ()
    return (cpu,) if isinstance(cpu, int) else cpu


def _pinned(cpu: CPUs) -> list[str]:
    return [word for one in _cpus(cpu) for word in ("--cpu", str(one))]
