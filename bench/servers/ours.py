"""flashpol as an operator runs it: arbiter, admin process, workers."""

import importlib.util
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import BenchError
from bench.measure import REQUEST, children
from bench.servers.running import (
    SILENT_TIMEOUT,
    START_SECONDS,
    Server,
    free_port,
    running,
    wait_for_answer,
    workplace,
)

READY_SECONDS = 120.0  # for all workers: 64 of them take some seconds on two cores


@contextmanager
def flashpol(
    cpu: int | None = None,
    request_timeout: float = SILENT_TIMEOUT,
    *,
    policy: bytes | None = None,
    workers: int = 1,
    listeners: int = 1,
    settings: str = "",
    listener: str = "",
    hello: bytes = REQUEST,
) -> Iterator[Server]:
    """Workers and the admin endpoint, pinned to `cpu`. request_timeout: seconds.

    settings, listener: lines of [server] and of each listener. hello: what a client has to send.
    """
    if importlib.util.find_spec("flashpol") is None:
        raise BenchError("flashpol cannot be imported: run from the repository, after `pip install -e .`")
    with workplace(policy) as place:
        ports = _free_ports(listeners + 1)
        admin = ports.pop()
        (place / "flashpol.toml").write_text(
            f'[server]\nworkers = {workers}\nadmin = "127.0.0.1:{admin}"\nrequest_timeout = {request_timeout:.1f}\n'
            f'{settings}\n[policies.p]\nfile = "policy.xml"\n'
            + "".join(
                f'[[listeners]]\nname = "bench{n}"\naddress = "127.0.0.1:{port}"\npolicy = "p"\n{listener}\n'
                for n, port in enumerate(ports)
            )
        )
        command = [sys.executable, "-m", "flashpol", "serve", "-c", str(place / "flashpol.toml")]
        with running("flashpol", command, place, cpu) as process:
            seconds = wait_for_answer("flashpol", process, ports[0], place, READY_SECONDS, hello)
            first, *more = workers_of(process.pid, workers)
            yield Server(
                "flashpol", ports[0], first, place / "expected", seconds,
                more=tuple(more), parent=process.pid, ports=tuple(ports), admin=admin,
            )  # fmt: skip


def workers_of(arbiter: int, count: int) -> list[int]:
    """Pids of its workers, once there are `count`. The other child is the admin process; they name themselves."""
    deadline = time.monotonic() + START_SECONDS + READY_SECONDS
    while time.monotonic() < deadline:
        found = [pid for pid in children(arbiter) if _name(pid).startswith("flashpol worker")]
        if len(found) == count:
            return found
        time.sleep(0.005)
    raise BenchError(f"flashpol: {len(found)} worker processes of {count} were found")


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it ended between the listing and the reading
        return ""


def _free_ports(count: int) -> list[int]:
    """Different ones: the kernel may name a port again that nobody has bound."""
    ports: list[int] = []
    while len(ports) < count:
        port = free_port()
        if port not in ports:
            ports.append(port)
    return ports
