"""Start and stop the servers under test: each on a port the kernel picks, each with the same policy, on one CPU."""

import ctypes
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench import BenchError, build
from bench.measure import ask, children

POLICY = Path(__file__).with_name("policy.xml")
ROOT = Path(__file__).parent.parent
SILENT_TIMEOUT = 3.0  # seconds: the default deadline of flashpol, given to nginx too
START_SECONDS = 10.0
STOP_SECONDS = 10.0
BACKLOG = 4096  # accept queue for every server: the usual net.core.somaxconn
NGINX_FILES = 18_000  # connections of its worker: above the silent ones, below the usual limit of files
NGINX_BUFFER = 256  # bytes read ahead; the default of 16 KB costs a page per silent client: 4.7 KB instead of 1.1
NGINX_MODULES = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/local/lib/nginx/modules")
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Server:
    """A running server: `pid` is the process that is measured, `started_in` the seconds from exec to first answer."""

    name: str
    port: int
    pid: int
    expected: Path
    started_in: float


@contextmanager
def flashpol(cpu: int | None = None, request_timeout: float = SILENT_TIMEOUT) -> Iterator[Server]:
    """flashpol with one worker and its admin endpoint, pinned to `cpu`; `request_timeout` in seconds."""
    if importlib.util.find_spec("flashpol") is None:
        raise BenchError("flashpol cannot be imported: run from the repository, after `pip install -e .`")
    with _workplace() as place:
        port = free_port()
        (place / "flashpol.toml").write_text(
            f'[server]\nworkers = 1\nadmin = "127.0.0.1:0"\nrequest_timeout = {request_timeout:.1f}\n'
            '[policies.p]\nfile = "policy.xml"\n'
            f'[[listeners]]\nname = "bench"\naddress = "127.0.0.1:{port}"\npolicy = "p"\n'
        )
        command = [sys.executable, "-m", "flashpol", "serve", "-c", str(place / "flashpol.toml")]
        with _running("flashpol", command, place, cpu) as process:
            seconds = _wait_for_answer("flashpol", process, port, place)
            yield Server("flashpol", port, _worker_of_flashpol(process.pid), place / "expected", seconds)


@contextmanager
def epoll(cpu: int | None = None, one_segment: bool = False) -> Iterator[Server]:
    """The plain C server, or its variant that sends reply and FIN in one segment."""
    name = "C epoll, one segment" if one_segment else "C epoll"
    command = [str(build.epoll_yardstick()), str(POLICY)] + (["--one-segment"] if one_segment else [])
    with _workplace() as place, _running(name, command, place, cpu) as process:
        port = _said_port(name, process, place)
        seconds = _wait_for_answer(name, process, port, place)
        yield Server(name, port, process.pid, place / "expected", seconds)


@contextmanager
def nginx(cpu: int | None = None) -> Iterator[Server]:
    """nginx stream `return` behind `ssl_preread`: it must read before it answers, or replies are lost to RST.

    multi_accept stays off, its default: on, an answer costs nginx 6 % more here.
    """
    program = nginx_program()
    if program is None:
        raise BenchError("nginx is not installed")
    with _workplace() as place:
        port = free_port()
        (place / "nginx.conf").write_bytes(_nginx_configuration(place, port))
        command = [program, "-p", str(place), "-e", str(place / "stderr"), "-c", str(place / "nginx.conf")]
        with _running("nginx", command, place, cpu) as process:
            seconds = _wait_for_answer("nginx", process, port, place)
            yield Server("nginx", port, _only_child("nginx", process.pid), place / "expected", seconds)


def nginx_program() -> str | None:
    """Path of nginx, or None when it is not installed."""
    return shutil.which("nginx", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on. If another program takes it before the server does, the run fails."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _nginx_configuration(place: Path, port: int) -> bytes:
    modules = [Path(folder, "ngx_stream_module.so") for folder in NGINX_MODULES]
    load = "".join(f"load_module {module};\n" for module in modules if module.exists())  # none: it is built in
    policy = POLICY.read_text().replace("\\", "\\\\").replace("'", "\\'")
    if "$" in policy:
        raise BenchError("nginx has no way to write a $: choose a policy without")
    text = (
        f"{load}daemon off;\nworker_processes 1;\nworker_rlimit_nofile {NGINX_FILES + 500};\n"
        f"pid {place}/pid;\nerror_log {place}/stderr crit;\nevents {{ worker_connections {NGINX_FILES}; }}\n"
        f"stream {{ access_log off; server {{ listen 127.0.0.1:{port} backlog={BACKLOG}; ssl_preread on;\n"
        f"preread_buffer_size {NGINX_BUFFER}; preread_timeout {SILENT_TIMEOUT:.0f}s;\n"
        f"return '{policy}\0'; }} }}\n"  # a raw NUL: nginx keeps it
    )
    return text.encode()


@contextmanager
def _workplace() -> Iterator[Path]:
    """A folder of its own for each server, with the policy and the exact reply that is expected: policy and NUL."""
    with tempfile.TemporaryDirectory(prefix="flashpol-bench-") as name:
        place = Path(name)
        policy = POLICY.read_bytes()
        (place / "policy.xml").write_bytes(policy)
        (place / "expected").write_bytes(policy + b"\0")
        yield place


@contextmanager
def _running(name: str, command: list[str], place: Path, cpu: int | None) -> Iterator[subprocess.Popen[bytes]]:
    """A process and what it forks, in a session of their own, so that all of it can be ended whatever happens."""
    with (place / "stdout").open("wb") as out, (place / "stderr").open("ab") as err:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=ROOT,  # where `-m flashpol` finds the package that belongs to this suite
            start_new_session=True,
            preexec_fn=_preparation(cpu),  # noqa: PLW1509 - this program has no threads
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


def _preparation(cpu: int | None) -> Callable[[], None]:
    """What the child does before exec: take its CPU, and ask to be ended when this program dies, however it dies."""
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})

    return prepare


def _kill_session(leader: int) -> None:
    with suppress(ProcessLookupError):  # the usual case: nothing was left
        os.killpg(leader, signal.SIGKILL)


def _wait_for_answer(name: str, process: subprocess.Popen[bytes], port: int, place: Path) -> float:
    """Ask until the exact reply comes. Returns the seconds since the call, which follows the exec at once."""
    begin = time.monotonic()
    expected = (place / "expected").read_bytes()
    while True:
        if process.poll() is not None:
            raise BenchError(f"{name} ended at once, exit {process.returncode}: {_last_words(place)}")
        try:
            reply = ask(port)
        except OSError as error:
            if time.monotonic() - begin > START_SECONDS:
                raise BenchError(f"{name} does not answer on port {port}: {error}; {_last_words(place)}") from None
            time.sleep(0.001)
            continue
        if reply != expected:
            raise BenchError(f"{name} answers {reply!r} instead of {expected!r}")
        return time.monotonic() - begin


def _said_port(name: str, process: subprocess.Popen[bytes], place: Path) -> int:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        words = (place / "stdout").read_text().split()
        if len(words) >= 2 and words[0] == "port":
            return int(words[1])
        time.sleep(0.001)
    raise BenchError(f"{name} did not say its port: {_last_words(place)}")


def _worker_of_flashpol(arbiter: int) -> int:
    """The other child is the admin process. They name themselves once they are set up."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        for pid in children(arbiter):
            if Path(f"/proc/{pid}/comm").read_text().startswith("flashpol worker"):
                return pid
        time.sleep(0.001)
    raise BenchError("flashpol: no worker process was found")


def _only_child(name: str, parent: int) -> int:
    """The one worker of a server that was told to have one."""
    found = children(parent)
    if len(found) != 1:
        raise BenchError(f"{name}: expected one worker process, found {len(found)}")
    return found[0]


def _last_words(place: Path) -> str:
    lines = (place / "stderr").read_text(errors="replace").strip().splitlines()
    return " / ".join(lines[-3:]) or "it said nothing"
