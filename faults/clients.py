"""Run the good and the bad clients, which are modes of the bench suite's load generator, and read their results.

Good clients come from 127.2.0.0/16, bad ones from 127.16.0.0/12, so that a firewall can tell them apart.
"""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench import build
from faults import FaultsError

TIMEOUT = 3.0  # seconds that a good client waits: Flash Player gives up then
END_SECONDS = TIMEOUT + 10.0
RUN_SECONDS = 600.0  # no run is longer: the clients stop by themselves if this process cannot stop them
GOOD_SOURCE, GOOD_ADDRESSES, GOOD_NICE = "127.2.0.1", 60_000, -20
BAD_SOURCE, BAD_NICE = "127.16.0.1", 19
FAILED = 1  # exit status of the load generator: it ran, and some requests failed


@dataclass(frozen=True)
class RequestResult:
    """One good client: when it started (seconds, CLOCK_MONOTONIC), its seconds until the end, its outcome."""

    started: float
    seconds: float
    outcome: str

    @property
    def ok(self) -> bool:
        return self.outcome == "ok"


class _Clients:
    """The load generator as a process: it runs inside the context, and ends with its input. `output`: its JSON."""

    def __init__(self, mode: str, port: int, *arguments: object) -> None:
        self._command = [str(build.load_generator()), mode, "--port", str(port), "--seconds", str(RUN_SECONDS)]
        self._command += map(str, arguments)
        self.output: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            output, messages = self._process.communicate(timeout=END_SECONDS)  # closes its input
        except subprocess.TimeoutExpired:
            self._process.kill()
            output, messages = self._process.communicate(timeout=END_SECONDS)
        if self._process.returncode not in (0, FAILED) and error is None:
            raise FaultsError(f"the load generator ended with {self._process.returncode}: {messages.strip()}")
        self.output = json.loads(output) if output else {}


class GoodClients(_Clients):
    """Well-behaved clients of a port of loopback, `rate` a second, as long as the context lasts."""

    def __init__(self, port: int, expected: Path, rate: float, trace: Path) -> None:
        """expected: the file with the exact reply. trace: a file to write results to."""
        super().__init__(
            "open", port, "--expect", expected, "--rate", rate, "--timeout", TIMEOUT, "--trace", trace,
            "--connections", int(rate * TIMEOUT * 2) + 64,  # more than are under way when each waits for its timeout
            "--fresh", 1, "--until-input-ends", 1, "--nice", GOOD_NICE,
            "--source", GOOD_SOURCE, "--addresses", GOOD_ADDRESSES,
        )  # fmt: skip
        self._trace = trace

    def results(self) -> list[RequestResult]:
        """All of them, in the order of their start. Call it after the context."""
        lines = (line.split() for line in self._trace.read_text().splitlines())
        found = [RequestResult(int(started) / 1e9, int(took) / 1e9, outcome) for started, took, outcome in lines]
        return sorted(found, key=lambda each: each.started)


class BadClients(_Clients):
    """`connections` bad clients at a time, opened `rate` a second, as long as the context lasts.

    say, then, deaf: see bench/loadgen/misbehaving.c. every: seconds between two bytes of a drip.
    """

    def __init__(
        self,
        port: int,
        *,
        connections: int,
        rate: float,
        say: str,
        then: str,
        every: float = 1.0,
        deaf: bool = False,
        addresses: int = 60_000,
    ) -> None:
        super().__init__(
            "misbehaving", port, "--connections", connections, "--rate", rate, "--say", say, "--then", then,
            "--pace", every, "--deaf", int(deaf), "--source", BAD_SOURCE, "--addresses", addresses, "--nice", BAD_NICE,
        )  # fmt: skip


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` of them do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
