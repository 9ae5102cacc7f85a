"""What all servers under test share: a folder, a process that always ends with its context, a first reply."""

import ctypes
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench import BenchError
from bench.measure import children
from testkit.clients import REQUEST, ask
from testkit.polling import eventually

HERE = Path(__file__).parent.parent
POLICY = HERE / "policy.xml"
ROOT = HERE.parent
SILENT_TIMEOUT = 3.0  # seconds: the default deadline of flashpol, given to nginx and HAProxy too
START_SECONDS = 10.0
STOP_SECONDS = 10.0
BACKLOG = 65535  # accept queue of every server; the kernel lowers it to net.core.somaxconn
FILES = 18_000  # connections of one worker: above the silent ones, below the usual limit of open files
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Server:
    """A running server.

    pid: the process that is measured, the first if there are `more`. expected: a file with the exact reply. started_in:
    seconds from exec to the first reply. parent: the process that was started. ports: those that the load goes to.
    plain: the port for clients without TLS, of a server that has another one for those with TLS. forks: it has a child
    for each session.
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
    plain: int = 0
    forks: bool = False

    @property
    def pids(self) -> tuple[int, ...]:
        """All processes that serve."""
        return (self.pid, *self.more)


@dataclass(frozen=True)
class Peer:
    """A server that can be measured. missing: returns what is not installed here, or None."""

    name: str
    start: Callable[..., AbstractContextManager[Server]]
    missing: Callable[[], str | None]


def free_port() -> int:
    """A free port of 127.0.0.1. If another program takes it before the server does, the run fails."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def work_folder(policy: bytes | None = None) -> Iterator[Path]:
    """A folder for one server, with the policy and the exact reply: policy and NUL."""
    with tempfile.TemporaryDirectory(prefix="flashpol-bench-") as name:
        folder = Path(name)
        policy = POLICY.read_bytes() if policy is None else policy
        (folder / "policy.xml").write_bytes(policy)
        (folder / "expected").write_bytes(policy + b"\0")
        yield folder


@contextmanager
def running(name: str, command: list[str], folder: Path, cpu: int | None) -> Iterator[subprocess.Popen[bytes]]:
    """A process and its children in a session of their own, so that all of them are ended in any case."""
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("ab") as err:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=ROOT,  # where `-m flashpol` finds the package of this repository
            start_new_session=True,
            preexec_fn=child_setup(cpu),  # noqa: PLW1509 - this program has no threads
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"bench: {name} did not end on SIGTERM; killed it", file=sys.stderr)
        _kill_session(process.pid)
        process.wait(STOP_SECONDS)


def child_setup(cpu: int | None) -> Callable[[], None]:
    """A function for a child to call before exec: it pins the child, and makes it end when this program dies."""
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})

    return prepare


def _kill_session(leader: int) -> None:
    with suppress(ProcessLookupError):  # the usual case: no process was left
        os.killpg(leader, signal.SIGKILL)


def wait_for_reply(
    name: str,
    process: subprocess.Popen[bytes],
    port: int,
    folder: Path,
    timeout: float = START_SECONDS,
    request: bytes = REQUEST,
) -> float:
    """Send requests until the exact reply comes. Returns the seconds since the call, which follows exec at once."""
    begin = time.monotonic()
    expected = (folder / "expected").read_bytes()
    while True:
        if process.poll() is not None:
            raise BenchError(f"{name} ended at once with status {process.returncode}: {last_log_lines(folder)}")
        try:
            reply = ask(("127.0.0.1", port), request)
        except OSError as error:
            if time.monotonic() - begin > timeout:
                raise BenchError(f"{name} does not reply on port {port}: {error}; {last_log_lines(folder)}") from None
            time.sleep(0.001)
            continue
        if reply != expected:
            raise BenchError(f"{name} replies {reply!r} instead of {expected!r}")
        return time.monotonic() - begin


def wait_for_handshake(name: str, process: subprocess.Popen[bytes], port: int, folder: Path) -> float:
    """Try until a handshake of TLS succeeds. Returns the seconds since the call, which follows exec at once."""
    begin = time.monotonic()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    def done() -> bool:
        if process.poll() is not None:
            raise BenchError(f"{name} ended at once with status {process.returncode}: {last_log_lines(folder)}")
        try:
            with socket.create_connection(("127.0.0.1", port), START_SECONDS) as plain, context.wrap_socket(plain):
                return True
        except OSError:
            return False

    eventually(done, f"{name} completes a handshake on port {port}", START_SECONDS, error=BenchError)
    return time.monotonic() - begin


@contextmanager
def on_printed_port(name: str, command: list[str], cpu: int | None, policy: bytes | None = None) -> Iterator[Server]:
    """A program of one process whose last argument is the policy's file, and which prints "port N"."""
    with work_folder(policy) as folder, running(name, [*command, str(folder / "policy.xml")], folder, cpu) as process:
        begin = time.monotonic()
        port = printed_port(name, process, folder)
        wait_for_reply(name, process, port, folder)
        seconds = time.monotonic() - begin
        yield Server(name, port, process.pid, folder / "expected", seconds, parent=process.pid, ports=(port,))


def printed_port(name: str, process: subprocess.Popen[bytes], folder: Path) -> int:
    """The port that a program has printed."""

    def port() -> int:
        if process.poll() is not None:
            raise BenchError(f"{name} ended with status {process.returncode}: {last_log_lines(folder)}")
        words = (folder / "stdout").read_text().split()
        return int(words[1]) if len(words) >= 2 and words[0] == "port" else 0

    return eventually(port, f"{name} printed its port", START_SECONDS, error=BenchError)


def only_child(name: str, parent: int) -> int:
    """The pid of the only worker of a server that is configured to have one."""
    found = children(parent)
    if len(found) != 1:
        raise BenchError(f"{name}: expected one worker process, found {len(found)}")
    return found[0]


def last_log_lines(folder: Path) -> str:
    """The end of a server's log, on one line."""
    lines = (folder / "stderr").read_text(errors="replace").strip().splitlines()
    return " / ".join(lines[-3:]) or "its log is empty"
