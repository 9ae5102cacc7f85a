"""Fixtures of all tests, and how hypothesis runs: a failure prints the blob and seed that reproduce it."""

import gc
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from hypothesis import settings

from flashpol.config import ConnectionTimeouts
from flashpol.log import handler
from testkit.client_fixtures import echo, issued, site  # noqa: F401 - fixtures of tests/clients
from testkit.examples import ALL
from testkit.fastpath_loop import Loop
from testkit.pump_loop import PumpLoop
from testkit.serving import REPLY, TIMEOUTS, Serving
from testkit.tunnel_loop import TunnelLoop
from testkit.websocket_loop import WebSocketLoop

# CI tries the same examples each time, so that a failure comes from the change; elsewhere they are new each time.
# `make test` takes the profile "fast"; `make test-slow` runs the tests of hypothesis again, with all examples.
FULL = settings(max_examples=ALL, print_blob=True, deadline=None, derandomize="CI" in os.environ)
settings.register_profile("full", FULL)
settings.register_profile("fast", FULL, max_examples=ALL // 10)
settings.load_profile("full")


# A shell of a fresh Debian allows 1,024 files; some tests open more.
_, _most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(_most_files, 20_000) if _most_files > 0 else 20_000, _most_files))


def open_files() -> dict[str, str]:
    """Descriptor -> what it is."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the descriptor of this listing
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
    return found


@pytest.fixture
def no_leaked_files() -> Iterator[None]:
    """The test leaves no descriptor open."""
    assert gevent.get_hub().loop  # the hub opens its own descriptors, which stay
    before = open_files()
    yield
    if open_files().items() - before.items():
        gc.collect()  # a cycle is no leak; to collect after every test would double the time of all tests
    assert not open_files().items() - before.items()


@pytest.fixture
def many_files() -> Iterator[int]:
    """The soft limit of open files raised to the hard one for the time of the test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if hasattr(getattr(item, "module", None), "Flashpol"):
            item.add_marker("servers")


@pytest.fixture(autouse=True)
def no_earlier_log_lines() -> None:
    """The lines that an earlier test's log calls suppressed are not reported in this one."""
    handler._limit.reset()


Serve = Callable[..., Serving]


@pytest.fixture
def serve(no_leaked_files: None) -> Iterator[Serve]:
    """Start servers. After the test, each must have ended every connection and counted it exactly once."""
    running: list[Serving] = []

    def start(reply: bytes = REPLY, timeouts: ConnectionTimeouts = TIMEOUTS, **options: Any) -> Serving:
        running.append(Serving(reply, timeouts, **options))
        return running[-1]

    yield start
    try:
        for server in running:
            server.settle()
    finally:
        for server in running:
            server.close()


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.xml"
    path.write_bytes(REPLY.rstrip(b"\0"))
    return path


@pytest.fixture
def start(no_leaked_files: None) -> Iterator[Callable[..., Loop]]:
    """Make Loops: the fast path without gevent. They are closed after the test, and must leave nothing open."""
    loops: list[Loop] = []

    def make(*args, **settings) -> Loop:
        loops.append(Loop(*args, **settings))
        return loops[-1]

    yield make
    while loops:
        loops.pop().close()


StartPump = Callable[..., PumpLoop]


@pytest.fixture
def start_pump(no_leaked_files: None) -> Iterator[StartPump]:
    """Make PumpLoops. After the test, each must have ended every session and counted it exactly once."""
    loops: list[PumpLoop] = []

    def make(**settings: object) -> PumpLoop:
        loops.append(PumpLoop(**settings))
        return loops[-1]

    yield make
    while loops:
        loop = loops.pop()
        loop.close()
        assert not loop.errors
        block = loop.counters
        assert (block["open"], block["connecting"]) == (0, 0)
        assert block["opened"] == sum(block.all("ends")) == sum(block.all("duration_buckets"))
        assert block["opened"] == sum(block.all("connect_buckets"))
        assert loop.pump.buffers_held == 0
        del loop


StartTunnels = Callable[..., TunnelLoop]


@pytest.fixture
def start_tunnels(no_leaked_files: None) -> Iterator[StartTunnels]:
    """Make TunnelLoops. After the test, each must have ended every connection and session and counted it once."""
    loops: list[TunnelLoop] = []

    def make(**settings: object) -> TunnelLoop:
        loops.append(TunnelLoop(**settings))  # type: ignore[arg-type]
        return loops[-1]

    yield make
    while loops:
        loops.pop().close()


StartWebSockets = Callable[..., WebSocketLoop]


@pytest.fixture
def start_websockets(no_leaked_files: None) -> Iterator[StartWebSockets]:
    """Make WebSocketLoops. After the test, each must have ended every connection and counted it exactly once."""
    loops: list[WebSocketLoop] = []

    def make(**settings: object) -> WebSocketLoop:
        loops.append(WebSocketLoop(**settings))  # type: ignore[arg-type]
        return loops[-1]

    yield make
    while loops:
        loops.pop().close()


@pytest.fixture
def still_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The admin process takes rates over the time that a test says, and not over what the test itself takes."""
    moment = time.monotonic()
    monkeypatch.setattr("flashpol.admin.history.time", SimpleNamespace(monotonic=lambda: moment))
