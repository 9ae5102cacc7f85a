"""Clients that come back when they are cut (``loadgen/relay/returning.c``), in several processes."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from bench import BenchError, build, stepwise

HELD_BY_ONE = 10_000  # clients of one process: below the usual limit of open files


@dataclass(frozen=True)
class Returned:
    """One turn of all clients of a kind.

    cut: that lost their connection, or, of policy clients, that asked. again: those that needed more than
    one try. tries: that failed. left: clients that were not served within a minute. wrong: replies with other bytes.
    last_ns: of the monotonic clock, when the last was served. waited_us: of each, from the cut to its echo or
    reply.
    """

    cut: int
    served: int
    again: int
    tries: int
    left: int
    wrong: int
    last_ns: int
    waited_us: list[int]

    def percentile(self, fraction: float) -> float:
        """In ms. 0.0 if no client was cut."""
        if not self.waited_us:
            return 0.0
        ordered = sorted(self.waited_us)
        return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))] / 1e3


class Returning:
    """Within the context sessions are open, and each has had one echo; policy clients have not begun."""

    def __init__(
        self,
        name: str,
        port: int,
        count: int,
        *,
        first: int = 0,
        policy: Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """name: of the server. first: number of the first source address. policy: the exact reply."""
        self._name, self._count = name, count
        self._processes: list[subprocess.Popen[str]] = []
        self._commands = []
        for begin in range(0, count, HELD_BY_ONE):
            mine = min(HELD_BY_ONE, count - begin)
            command = [str(build.load_generator()), "relay", *options, "return", str(port), str(mine)]
            self._commands.append([*command, str(first + begin), *([str(policy)] if policy else [])])

    def __enter__(self) -> "Returning":
        self._processes = [stepwise.start(command, None) for command in self._commands]
        try:
            for process in self._processes:
                stepwise.read_line(self._name, process)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def begin(self) -> None:
        """Begin a turn: sessions count from now on, policy clients all ask now."""
        self._say("g\n")

    def result(self) -> Returned:
        """Wait until all are served, and, of sessions, have had one more echo."""
        self._say("r\n")
        lines = [stepwise.read_line(self._name, process) for process in self._processes]
        names = ("cut", "served", "again", "tries", "left", "wrong")
        sums = {name: sum(line[name] for line in lines) for name in names}
        waited = [one for line in lines for one in line["waited_us"]]
        return Returned(**sums, last_ns=max(line["last_ns"] for line in lines), waited_us=waited)

    def _say(self, line: str) -> None:
        for process in self._processes:
            assert process.stdin
            try:
                process.stdin.write(line)
                process.stdin.flush()
            except BrokenPipeError:
                assert process.stderr
                raise BenchError(f"{self._name}: clients ended: {process.stderr.read().strip()}") from None

    def _end(self) -> None:
        for process in self._processes:  # all of them before the first is waited for
            assert process.stdin
            process.stdin.close()
        for process in self._processes:
            stepwise.end(process)
