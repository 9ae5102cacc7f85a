"""Run the good and the bad clients, each in a process of its own, and read their results."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench import build as bench_build
from faults import FaultsError, build
from faults.places import BAD_SOURCE, ONE_PLACE, Row
from faults.server import Server

TIMEOUT = 3.0  # seconds that a good client waits (TIMEOUT_MS in native/good.c): Flash Player gives up then
END_SECONDS = TIMEOUT + 10.0
RUN_SECONDS = 600.0  # no run is longer: the clients stop by themselves if this process cannot stop them
GOOD_NICE, BAD_NICE = -20, 19
FAILED = 1  # exit status of the load generator: it ran, and some requests failed


@dataclass(frozen=True)
class RequestResult:
    """One good client, or one turn of a session: its start (seconds, CLOCK_MONOTONIC), its seconds, its outcome.

    kind: the name of its kind. prompt: its seconds say how fast the server is. waited: seconds of its own waits, which
    are not in `seconds`.
    """

    started: float
    seconds: float
    outcome: str
    kind: str = "policy"
    prompt: bool = True
    waited: float = 0.0

    @property
    def ended(self) -> float:
        return self.started + self.seconds + self.waited

    @property
    def ok(self) -> bool:
        return self.outcome == "ok"


class _Clients:
    """A program that runs inside the context, and ends with its input. `text`: its output, after the context."""

    def __init__(self, command: Sequence[object]) -> None:
        self._command = [str(word) for word in command]
        self.text = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.text, messages = self._process.communicate(timeout=END_SECONDS)  # closes its input
        except subprocess.TimeoutExpired:
            self._process.kill()
            self.text, messages = self._process.communicate(timeout=END_SECONDS)
        if self._process.returncode not in (0, FAILED) and error is None:
            program = Path(self._command[0]).name
            raise FaultsError(f"{program} ended with {self._process.returncode}: {messages.strip()}")


class GoodClients(_Clients):
    """Well-behaved clients of a server, as long as the context lasts."""

    def __init__(self, server: Server, trace: Path, rows: Sequence[Row] = ONE_PLACE) -> None:
        """trace: a file to write results to."""
        words = [
            f"port={server.ports[row.listener]} source={row.source} addresses={row.addresses} rate={row.kind.rate} "
            f"count={row.kind.count} window={row.kind.window} script={server.script(row.listener, row.kind.script)}"
            for row in rows
        ]
        super().__init__([build.good_clients(), trace, GOOD_NICE, *words])
        self._rows = rows
        self._trace = trace

    def results(self) -> dict[str, list[RequestResult]]:
        """By place, in the order of their start. Call it after the context."""
        found: dict[str, list[RequestResult]] = {row.place: [] for row in self._rows}
        for line in self._trace.read_text().splitlines():
            number, started, took, waited, outcome = line.split()
            row = self._rows[int(number)]
            times = (int(started) / 1e9, int(took) / 1e9)
            found[row.place].append(RequestResult(*times, outcome, row.kind.name, row.kind.prompt, int(waited) / 1e9))
        return {place: sorted(results, key=lambda each: each.started) for place, results in found.items()}


class BadClients(_Clients):
    """`connections` bad clients at a time, opened `rate` a second, as long as the context lasts. `output`: its counts.

    say, then, deaf: see bench/loadgen/misbehaving.c; say may be a file with the bytes. every: seconds between two bytes
    of a drip. ports: one, or several in turn. first: skip so many addresses. total: open so many in all; 0: open each
    again when it has ended.
    """

    def __init__(
        self,
        ports: int | Sequence[int],
        *,
        connections: int,
        rate: float,
        say: str | Path,
        then: str,
        every: float = 1.0,
        deaf: bool = False,
        addresses: int = 60_000,
        first: int = 0,
        total: int = 0,
    ) -> None:
        command: list[object] = [bench_build.load_generator(), "misbehaving", "--seconds", RUN_SECONDS]
        for port in [ports] if isinstance(ports, int) else ports:
            command += ["--port", port]
        command += ["--send" if isinstance(say, Path) else "--say", say, "--then", then, "--pace", every]
        super().__init__([
            *command, "--connections", connections, "--rate", rate, "--deaf", int(deaf), "--count", total,
            "--source", BAD_SOURCE, "--first", first, "--addresses", addresses, "--nice", BAD_NICE,
        ])  # fmt: skip

    @property
    def output(self) -> dict[str, Any]:
        """What it counted. Empty before the end of the context."""
        return json.loads(self.text) if self.text else {}


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` of them do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
