"""What all servers under test have in common: a workplace, a process that is ended whatever happens, a first answer."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench import BenchError
from bench.measure import REQUEST, ask, children

HERE = Path(__file__).parent.parent
POLICY = HERE / "policy.xml"
ROOT = HERE.parent
SILENT_TIMEOUT = 3.0  # seconds: the default deadline of flashpol, given to nginx and HAProxy too
START_SECONDS = 10.0
STOP_SECONDS = 10.0
BACKLOG = 65535  # accept queue for every server; the kernel lowers it to net.core.somaxconn
FILES = 18_000  # connections of one worker: above the silent ones, below the usual limit of files
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Server:
    """A running server.

    pid: the process that is measured, the first if there are `more`. expected: a file with the exact reply. started_in:
    seconds from exec to the first answer. parent: the process that was started. ports: all that it answers on.
    """

    name: str
    port: int
    pid: int
    expected: Path
    started_in: float
    more: tuple[int, ...] = ()
    parent: int = 0
    ports: tuple[int, ...] = ()
    admin: int = 0

    @property
    def pids(self) -> tuple[int, ...]:
        """All processes that answer."""
        return (self.pid, *self.more)


@dataclass(frozen=True)
class Peer:
    """A server that can be measured. missing: what is not installed here, or None."""

    name: str
    start: Callable[..., AbstractContextManager[Server]]
    missing: Callable[[], str | None]


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on. If another program takes it before the server does, the run fails."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def workplace(policy: bytes | None = None) -> Iterator[Path]:
    """A folder of its own for each server, with the policy and the exact reply that is expected: policy and NUL."""
    with tempfile.TemporaryDirectory(prefix="flashpol-bench-") as name:
        place = Path(name)
        policy = POLICY.read_bytes() if policy is None else policy
        (place / "policy.xml").write_bytes(policy)
        (place / "expected").write_bytes(policy + b"\0")
        yield place


@contextmanager
def running(name: str, command: list[str], place: Path, cpu: int | None) -> Iterator[subprocess.Popen[bytes]]:
    """A process and what it forks, in a session of their own, so that all of it can be ended whatever happens."""
    with (place / "stdout").open("wb") as out, (place / "stderr").open("ab") as err:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=ROOT,  # where `-m flashpol` finds the package that belongs to this suite
            start_new_session=True,
            preexec_fn=preparation(cpu),  # noqa: PLW1509 - this program has no threads
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"bench: {name} did not end on SIGTERM, killed", file=sys.stderr)
        _kill_session(process.pid)
        process.wait(STOP_SECONDS)


def preparation(cpu: int | None) -> Callable[[], None]:
    """What a child does before exec: take its CPU, and ask to be ended when this program dies, however it dies."""
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})

    return prepare


def _kill_session(leader: int) -> None:
    with suppress(ProcessLookupError):  # the usual case: nothing was left
        os.killpg(leader, signal.SIGKILL)


def wait_for_answer(
    name: str,
    process: subprocess.Popen[bytes],
    port: int,
    place: Path,
    patience: float = START_SECONDS,
    hello: bytes = REQUEST,
) -> float:
    """Ask until the exact reply comes. Returns the seconds since the call, which follows the exec at once."""
    begin = time.monotonic()
    expected = (place / "expected").read_bytes()
    while True:
        if process.poll() is not None:
            raise BenchError(f"{name} ended at once, exit {process.returncode}: {last_words(place)}")
        try:
            reply = ask(port, request=hello)
        except OSError as error:
            if time.monotonic() - begin > patience:
                raise BenchError(f"{name} does not answer on port {port}: {error}; {last_words(place)}") from None
            time.sleep(0.001)
            continue
        if reply != expected:
            raise BenchError(f"{name} answers {reply!r} instead of {expected!r}")
        return time.monotonic() - begin


@contextmanager
def that_says_its_port(name: str, command: list[str], cpu: int | None, policy: bytes | None = None) -> Iterator[Server]:
    """A program of one process that takes the policy's file as its last argument and prints "port N"."""
    with workplace(policy) as place, running(name, [*command, str(place / "policy.xml")], place, cpu) as process:
        begin = time.monotonic()
        port = said_port(name, process, place)
        wait_for_answer(name, process, port, place)
        seconds = time.monotonic() - begin
        yield Server(name, port, process.pid, place / "expected", seconds, parent=process.pid, ports=(port,))


def said_port(name: str, process: subprocess.Popen[bytes], place: Path) -> int:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        words = (place / "stdout").read_text().split()
        if len(words) >= 2 and words[0] == "port":
            return int(words[1])
        time.sleep(0.001)
    raise BenchError(f"{name} did not say its port: {last_words(place)}")


def only_child(name: str, parent: int) -> int:
    """The one worker of a server that was told to have one."""
    found = children(parent)
    if len(found) != 1:
        raise BenchError(f"{name}: expected one worker process, found {len(found)}")
    return found[0]


def last_words(place: Path) -> str:
    lines = (place / "stderr").read_text(errors="replace").strip().splitlines()
    return " / ".join(lines[-3:]) or "it said nothing"
