"""Read what a process has used, and summarise repeated measurements. Linux only: it reads /proc."""

import os
import statistics
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import BenchError
from testkit import processes
from testkit.polling import eventually

CPUCLOCK_SCHED = 2  # linux/posix-timers.h: the scheduler's account, which is exact


@dataclass(frozen=True)
class Spread:
    """The median of repeated measurements, with the smallest and the largest beside it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Spread":
        """Of at least one sample, in the samples' own unit."""
        return cls(statistics.median(samples), min(samples), max(samples))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ratios round by round: noise that lasts longer than a round is in both and cancels."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def cpu_ns(pid: int) -> int:
    """CPU time used so far by all threads of a process, also by those that have ended, in nanoseconds."""
    clock = ~pid << 3 | CPUCLOCK_SCHED  # as clock_getcpuclockid(3) makes it
    try:
        return time.clock_gettime_ns(clock)
    except OSError:
        raise BenchError(f"process {pid} ended while it was measured") from None


def status(pid: int) -> dict[str, int]:
    """The numbers of /proc/PID/status by name: sizes in bytes, counts as they are."""
    try:
        fields = processes.status(pid)
    except FileNotFoundError:
        raise BenchError(f"process {pid} ended while it was measured") from None
    numbers: dict[str, int] = {}
    for name, value in fields.items():
        words = value.split()
        if len(words) == 2 and words[1] == "kB":
            numbers[name] = int(words[0]) * 1024
        elif len(words) == 1 and words[0].isdigit():
            numbers[name] = int(words[0])
    return numbers


def user_memory(pid: int) -> int:
    """Memory that a process has touched and that is not a file, in bytes: anonymous and shared."""
    numbers = status(pid)
    return numbers["RssAnon"] + numbers["RssShmem"]


def sleeps(pid: int) -> int:
    """How often a process has gone to sleep so far: if it sleeps less than once per reply, it is saturated."""
    return status(pid)["voluntary_ctxt_switches"]


def open_files(pid: int) -> int:
    """Number of file descriptors a process has open."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except FileNotFoundError:
        raise BenchError(f"process {pid} ended while it was measured") from None


def children(pid: int, name: str = "") -> list[int]:
    """Pids of the direct children of a process, lowest first; `name`: only those whose name starts so."""
    return [child.pid for child in processes.children(pid) if _name(child.pid).startswith(name)]


def connections_to(port: int) -> int:
    """How many connections a port of 127.0.0.1 has in this network namespace that its server has not closed."""
    local, states = f"0100007F:{port:04X}", {"01", "08"}  # ESTABLISHED, CLOSE_WAIT
    lines = (line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:])
    return sum(1 for words in lines if words[1] == local and words[3] in states)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it ended between the listing and the reading
        return ""


def wait_until_open(pids: Sequence[int], files: int, seconds: float) -> None:
    """Wait until these processes have so many files open: the kernel completes connections before they are accepted."""
    eventually(
        lambda: sum(map(open_files, pids)) >= files, f"{files} files are open in the server", seconds, error=BenchError
    )


def scrape(port: int, timeout: float = 10.0) -> tuple[float, dict[str, float]]:
    """GET /metrics of 127.0.0.1. Returns the seconds that it took, and samples by name and labels."""
    begin = time.perf_counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=timeout) as response:
        text = response.read().decode()
    seconds = time.perf_counter() - begin
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    pairs = (line.rpartition(" ") for line in lines)
    return seconds, {name: float(value) for name, _, value in pairs}
