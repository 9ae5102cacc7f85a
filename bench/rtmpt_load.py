"""Run the clients of RTMPT (``loadgen/rtmpt``), and read their results."""

import json
import subprocess
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from bench import BenchError, build, stepwise
from bench.servers import Server

TIMEOUT = 10.0  # seconds of one request


@dataclass(frozen=True)
class Turn:
    """What sessions did in one turn, without a failure. replies: complete polls or echoes. Latencies in µs."""

    replies: int
    seconds: float
    p50_us: float
    p99_us: float


class Tunnels:
    """Tunnel sessions: within the context they are open, and each call of `turn` lets them poll, or echo.

    With ``hold`` each has a poll under way all the time, and a turn is one echo on each.
    """

    def __init__(
        self, server: Server, manner: str, cpu: int | None, *, sessions: int, seconds: float = 0.0, count: int = 0,
        size: int = 100, fresh: bool = False, spread: int = 1, workers: int = 1, foreign: bool = False,
        made_up: bool = False, abandon: bool = False, first: int = 0, timeout: float = TIMEOUT,
        pace: float = 0.0, ramp: float = 0.0,
    ) -> None:  # fmt: skip
        """The options of the load generator, with their names: see ``loadgen/rtmpt/rtmpt.h``."""
        self._name = server.name
        options = {
            "port": server.port, "sessions": sessions, "size": size, "spread": spread, "workers": workers,
            "first": first, "timeout": timeout, "pace": pace, "ramp": ramp,
            "fresh": int(fresh), "foreign": int(foreign), "made-up": int(made_up),
            "abandon": int(abandon), **({"count": count} if count else {}), **({"seconds": seconds} if seconds else {}),
        }  # fmt: skip
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self._command = [str(build.load_generator()), "rtmpt", manner, *words]
        self._cpu = cpu
        self._process: subprocess.Popen[str] | None = None
        self.opened = 0  # in all; those that a worker did not need are closed

    def __enter__(self) -> "Tunnels":
        self._process = stepwise.start(self._command, self._cpu)
        try:
            self.opened = self._line()["opened"]
        except BaseException:
            stepwise.end(self._process)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process
        if stepwise.end(self._process) and error is None:
            raise BenchError(f"{self._name}: a tunnel session failed, or was not closed")

    def turn(self) -> Turn:
        """One turn. A failure raises."""
        self.begin()
        return self.result()

    def begin(self) -> None:
        """Begin a turn, beside those of others."""
        assert self._process
        stepwise.go_on(self._process)

    def result(self) -> Turn:
        """Wait for the end of the turn that has begun."""
        line = self._line()
        if line["failed"]:
            raise BenchError(f"{self._name}: requests of tunnel sessions failed: {json.dumps(line)}")
        latency = line["latency_us"]
        return Turn(line["ok"], line["seconds"], latency["p50"], latency["p99"])

    def _line(self) -> dict[str, Any]:
        assert self._process
        return stepwise.read_line(self._name, self._process)
