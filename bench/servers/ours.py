"""flashpol as an operator runs it: arbiter, admin process, workers."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench import BenchError
from bench.measure import children
from bench.servers.certificate import Certificate
from bench.servers.running import (
    SILENT_TIMEOUT,
    Server,
    free_port,
    running,
    wait_for_reply,
    work_folder,
)
from testkit.clients import REQUEST
from testkit.polling import eventually

READY_SECONDS = 120.0  # until all workers are up: 64 of them take some seconds on two cores


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
    request: bytes = REQUEST,
    certificate: Certificate | None = None,
) -> Iterator[Server]:
    """Workers and the admin endpoint, pinned to `cpu`. request_timeout: seconds.

    settings, listener: lines of [server] and of each listener. request: the bytes that a client has to send.
    certificate: all listeners also speak TLS.
    """
    if importlib.util.find_spec("flashpol") is None:
        raise BenchError("cannot import flashpol: run from the repository, after `pip install -e .`")
    with work_folder(policy) as folder:
        ports = _free_ports(listeners + 1)
        admin = ports.pop()
        if certificate:
            listener += '\ntls = ["c"]\n'
            settings += f'\n[certificates.c]\nchain = "{certificate.chain}"\nkey = "{certificate.key}"\n'
        (folder / "flashpol.toml").write_text(
            f'[server]\nworkers = {workers}\nadmin = "127.0.0.1:{admin}"\nrequest_timeout = {request_timeout:.1f}\n'
            f'{settings}\n[policies.p]\nfile = "policy.xml"\n'
            + "".join(
                f'[[listeners]]\nname = "bench{n}"\naddress = "127.0.0.1:{port}"\npolicy = "p"\n{listener}\n'
                for n, port in enumerate(ports)
            )
        )
        command = [sys.executable, "-m", "flashpol", "serve", "-c", str(folder / "flashpol.toml")]
        with running("flashpol", command, folder, cpu) as process:
            seconds = wait_for_reply("flashpol", process, ports[0], folder, READY_SECONDS, request)
            first, *more = workers_of(process.pid, workers)
            yield Server(
                "flashpol", ports[0], first, folder / "expected", seconds,
                more=tuple(more), parent=process.pid, ports=tuple(ports), admin=admin,
            )  # fmt: skip


def workers_of(arbiter: int, count: int) -> list[int]:
    """Pids of its workers, once there are `count`. The other child is the admin process."""

    def all_workers() -> list[int]:
        found = children(arbiter, "flashpol worker")
        return found if len(found) == count else []

    return eventually(all_workers, f"flashpol has {count} worker processes", READY_SECONDS, error=BenchError)


def _free_ports(count: int) -> list[int]:
    """Different ports: the kernel may return a port twice as long as it is not bound."""
    ports: list[int] = []
    while len(ports) < count:
        port = free_port()
        if port not in ports:
            ports.append(port)
    return ports
