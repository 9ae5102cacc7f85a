"""Run the good and the bad clients, each in a process of its own, and read their results."""

import json
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench import build as bench_build
from faults import FaultsError, build
from faults.hello import SERVER_NAME
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

    @property
    def output(self) -> dict[str, Any]:
        """What it counted. Empty before the end of the context."""
        return json.loads(self.text) if self.text else {}


class GoodClients:
    """Well-behaved clients of a server, as long as the context lasts.

    Those with TLS are a process of their own, in which others would wait for handshakes.
    """

    def __init__(self, server: Server, trace: Path, rows: Sequence[Row] = ONE_PLACE) -> None:
        """trace: a file to write results to, and the begin of the names of others."""
        self._rows = rows
        self._parts: list[tuple[Path, list[Row], _Clients]] = []
        for part, own in (
            (trace, [row for row in rows if not row.kind.tls]),
            (trace.with_name(f"{trace.name}-tls"), [row for row in rows if row.kind.tls]),
        ):
            if own:
                words = [self._words(server, row) for row in own]
                self._parts.append((part, own, _Clients([build.good_clients(), part, GOOD_NICE, *words])))

    @staticmethod
    def _words(server: Server, row: Row) -> str:
        kind = row.kind
        return (
            f"port={server.ports[row.listener]} source={row.source} addresses={row.addresses} rate={kind.rate} "
            f"count={kind.count} window={kind.window} "
            + (f"tls={server.authority} name={SERVER_NAME} " if kind.tls else "")
            + f"script={server.script(row.listener, kind.script)}"
        )

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for _, _, clients in self._parts:
                stack.enter_context(clients)
            self._running = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.__exit__(kind, error, trace)

    def results(self) -> dict[str, list[RequestResult]]:
        """By place, in the order of their start. Call it after the context."""
        found: dict[str, list[RequestResult]] = {row.place: [] for row in self._rows}
        for trace, rows, _ in self._parts:
            for line in trace.read_text().splitlines():
                number, started, took, waited, outcome = line.split()
                kind = rows[int(number)].kind
                times = (int(started) / 1e9, int(took) / 1e9)
                found[rows[int(number)].place].append(
                    RequestResult(*times, outcome, kind.name, kind.prompt, int(waited) / 1e9)
                )
        return {place: sorted(results, key=lambda each: each.started) for place, results in found.items()}


class BadClients(_Clients):
    """`connections` bad clients at a time, opened `rate` a second, as long as the context lasts.

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


class HostileClients(_Clients):
    """`connections` TLS attackers at a time that follow a script, opened `rate` a second, as long as the context lasts.

    script: its steps (native/hostile.c); {NAME} is the message of that name. vary: the eight bytes at this place of the
    first message are other ones for each attacker. small_window: take the smallest window and segments. The others:
    as of `BadClients`.
    """

    def __init__(
        self,
        server: Server,
        listeners: str | Sequence[str],
        script: str,
        *,
        connections: int,
        rate: float,
        addresses: int = 1,
        first: int = 0,
        total: int = 0,
        vary: int = 0,
        small_window: bool = False,
    ) -> None:
        names = [listeners] if isinstance(listeners, str) else listeners
        super().__init__([
            build.hostile_clients(),
            f"ports={'+'.join(str(server.ports[name]) for name in names)} source={BAD_SOURCE} first={first} "
            f"addresses={addresses} connections={connections} rate={rate} total={total} vary={vary} "
            f"small-window={int(small_window)} seconds={RUN_SECONDS} nice={BAD_NICE} "
            f"script={server.script(names[0], script)}",
        ])  # fmt: skip


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` of them do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
