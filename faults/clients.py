"""Run the good clients and the bad ones, and read what the good ones say."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from faults import FaultsError, build

TIMEOUT = 3.0  # seconds a good client waits: Flash Player gives up then
END_SECONDS = TIMEOUT + 10.0


@dataclass(frozen=True)
class Asked:
    """One good client: when it began (seconds, CLOCK_MONOTONIC), how many seconds it took, what became of it."""

    began: float
    took: float
    outcome: str

    @property
    def well(self) -> bool:
        return self.outcome == "ok"


class Good:
    """Well-behaved clients of the server on `port` of loopback, `rate` a second, from first to last of the context."""

    def __init__(self, port: int, expected: Path, rate: float, said: Path) -> None:
        """said: a file for what they say; a pipe would have to be read meanwhile."""
        self._command = [str(build.program("good")), "--port", str(port), "--expect", str(expected)]
        self._command += ["--rate", str(rate), "--timeout", str(TIMEOUT)]
        self._said = said

    def __enter__(self) -> Self:
        with self._said.open("wb") as out:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=out)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        try:
            code = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait(END_SECONDS)
        if code and error is None:
            raise FaultsError(f"the good clients ended with {code}")

    def asked(self) -> list[Asked]:
        """All of them, in the order in which they began. After the context."""
        lines = (line.split() for line in self._said.read_text().splitlines())
        found = [Asked(int(began) / 1e9, int(took) / 1e9, outcome) for began, took, outcome in lines]
        return sorted(found, key=lambda each: each.began)


class Bad:
    """`connections` bad clients at a time, opened `rate` a second, see native/attack.c; inside the context."""

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
        self._command = [str(build.program("attack")), "--port", str(port), "--connections", str(connections)]
        self._command += ["--rate", str(rate), "--say", say, "--then", then]
        self._command += ["--every", str(every), "--deaf", str(int(deaf)), "--addresses", str(addresses)]
        self.done: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.stdin = None  # or communicate would flush it
        try:
            said, _ = self._process.communicate(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            said, _ = self._process.communicate(timeout=END_SECONDS)
        if self._process.returncode and error is None:
            raise FaultsError(f"the attackers ended with {self._process.returncode}")
        self.done = json.loads(said) if said else {}


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` of them do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
