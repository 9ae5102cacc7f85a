"""Read what a process has used, and condense repeated measurements. Linux /proc only."""

import os
import socket
import statistics
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import BenchError

REQUEST = b"<policy-file-request/>\0"
NS = 1_000_000_000


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
    """Round by round: noise that lasts longer than a round is in both and cancels."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def cpu_ns(pid: int) -> int:
    """CPU time used so far by all threads of a process, in nanoseconds.

    From schedstat, which is exact. Kernels without it give /proc/PID/stat, which counts ticks (usually 10 ms).
    """
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)
    except FileNotFoundError:
        if not Path(f"/proc/{pid}").exists():
            raise BenchError(f"process {pid} ended while it was measured") from None
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    utime, stime = int(fields[11]), int(fields[12])
    return (utime + stime) * NS // os.sysconf("SC_CLK_TCK")


def status(pid: int) -> dict[str, int]:
    """The numbers of /proc/PID/status by name: sizes in bytes, counts as they are."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        raise BenchError(f"process {pid} ended while it was measured") from None
    numbers: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if len(words) == 2 and words[1] == "kB":
            numbers[name] = int(words[0]) * 1024
        elif len(words) == 1 and words[0].isdigit():
            numbers[name] = int(words[0])
    return numbers


def user_memory(pid: int) -> int:
    """Memory a process has touched that is not a file, in bytes: anonymous and shared, so neither hides the other."""
    numbers = status(pid)
    return numbers["RssAnon"] + numbers["RssShmem"]


def sleeps(pid: int) -> int:
    """How often a process has gone to sleep so far: few per answer means that it was saturated."""
    return status(pid)["voluntary_ctxt_switches"]


def open_files(pid: int) -> int:
    """Number of file descriptors a process has open."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except FileNotFoundError:
        raise BenchError(f"process {pid} ended while it was measured") from None


def children(pid: int) -> list[int]:
    """Pids of the direct children of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):  # it ended between the listing and the reading
                continue
            if int(fields[1]) == pid:
                found.append(int(entry.name))
    return sorted(found)


def ask(port: int, timeout: float = 2.0, request: bytes = REQUEST) -> bytes:
    """One request to a port of 127.0.0.1, and everything that came back until the end. `timeout` in seconds."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.sendall(request)
        reply = b""
        while piece := connection.recv(65536):
            reply += piece
        return reply


def wait_until_open(pid: int, files: int, seconds: float) -> None:
    """Wait until a process has so many files open: the kernel completes connections before they are accepted."""
    wait_until_all_open([pid], files, seconds)


def wait_until_all_open(pids: Sequence[int], files: int, seconds: float) -> None:
    """The same for several processes, which have so many together."""
    deadline = time.monotonic() + seconds
    while (now := sum(map(open_files, pids))) < files:
        if time.monotonic() > deadline:
            raise BenchError(f"the server holds {now} files, expected {files}: it did not accept everyone")
        time.sleep(0.02)


def scrape(port: int, timeout: float = 10.0) -> tuple[float, dict[str, float]]:
    """GET /metrics of 127.0.0.1: (seconds it took, samples by name and labels)."""
    begin = time.perf_counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=timeout) as answer:
        text = answer.read().decode()
    seconds = time.perf_counter() - begin
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    pairs = (line.rpartition(" ") for line in lines)
    return seconds, {name: float(value) for name, _, value in pairs}
