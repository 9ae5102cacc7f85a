"""Simple servers with the standard means of a language: gevent's StreamServer, Go's net, node's net."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench import build
from bench.servers.running import BACKLOG, HERE, Server, on_printed_port

BASELINES = HERE / "baselines"


@contextmanager
def stream_server(cpu: int | None = None, *, policy: bytes | None = None) -> Iterator[Server]:
    """gevent's StreamServer: one greenlet for each connection."""
    command = [sys.executable, str(BASELINES / "streamserver.py"), str(BACKLOG)]
    with on_printed_port("gevent StreamServer", command, cpu, policy) as server:
        yield server


@contextmanager
def go(cpu: int | None = None, *, policy: bytes | None = None) -> Iterator[Server]:
    """Go's net package: one goroutine for each connection. Its accept queue is net.core.somaxconn."""
    with on_printed_port("Go", [str(build.go_server())], cpu, policy) as server:
        yield server


@contextmanager
def node(cpu: int | None = None, *, policy: bytes | None = None) -> Iterator[Server]:
    """node's net module."""
    command = ["node", str(BASELINES / "server.js"), str(BACKLOG)]
    with on_printed_port("node", command, cpu, policy) as server:
        yield server


def go_missing() -> str | None:
    """Why it cannot run here, or None."""
    return None if shutil.which("go") else "Go is not installed"


def node_missing() -> str | None:
    """Why it cannot run here, or None."""
    return None if shutil.which("node") else "node is not installed"
