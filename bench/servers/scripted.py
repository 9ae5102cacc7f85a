"""Servers as one writes them with what a language brings along: gevent's StreamServer, Go's net, node's net."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench import build
from bench.servers.running import BACKLOG, HERE, Server, that_says_its_port

YARDSTICKS = HERE / "yardsticks"


@contextmanager
def stream_server(cpu: int | None = None, *, policy: bytes | None = None) -> Iterator[Server]:
    """gevent's StreamServer, a greenlet a connection."""
    command = [sys.executable, str(YARDSTICKS / "streamserver.py"), str(BACKLOG)]
    with that_says_its_port("gevent StreamServer", command, cpu, policy) as server:
        yield server


@contextmanager
def go(cpu: int | None = None, *, policy: bytes | None = None) -> Iterator[Server]:
    """Go's net package, a goroutine a connection. Its accept queue is net.core.somaxconn."""
    with that_says_its_port("Go", [str(build.go_server())], cpu, policy) as server:
        yield server


@contextmanager
def node(cpu: int | None = None, *, policy: bytes | None = None) -> Iterator[Server]:
    """node's net module."""
    command = ["node", str(YARDSTICKS / "server.js"), str(BACKLOG)]
    with that_says_its_port("node", command, cpu, policy) as server:
        yield server


def go_missing() -> str | None:
    """Why it cannot run here."""
    return None if shutil.which("go") else "Go is not installed"


def node_missing() -> str | None:
    """Why it cannot run here."""
    return None if shutil.which("node") else "node is not installed"
