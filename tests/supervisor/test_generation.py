"""One generation, without its processes."""

import gc
import itertools
import os
import weakref
from collections.abc import Iterator

import pytest

from flashpol.config import Address, Config, Listener, PolicySource, Server
from flashpol.counters.status import ServerStatus
from flashpol.counters.totals import CounterTotals
from flashpol.log.file import LogFile
from flashpol.process.control import Message, PeerLines, StartAccepting
from flashpol.process.privileges import Privileges
from flashpol.serving.networks import Access
from flashpol.serving.plan import Plan
from flashpol.supervisor.child import Child
from flashpol.supervisor.generation import Generation, ServerRuntime
from flashpol.supervisor.listen_sockets import ListenSockets
from flashpol.supervisor.reload_request import ReloadRequest

LOOPBACK = Address("127.0.0.1", 0)


@pytest.fixture
def runtime() -> Iterator[ServerRuntime]:
    one = ServerRuntime(ListenSockets(), CounterTotals(), ServerStatus(), ReloadRequest(), LogFile())
    yield one
    one.listen_sockets.keep_only([])
    one.reload_request.close()


def plan(workers: int) -> Plan:
    server, policy = Server(workers=workers, admin=LOOPBACK), PolicySource("p", grants=("one.example:1935",))
    config = Config(server, (policy,), (Listener(None, LOOPBACK, "p"),))
    return Plan(config, [b"<x/>\0"], [Access()], Privileges())


def pretend(monkeypatch: pytest.MonkeyPatch, *, lines: bool) -> list[tuple[str, Message]]:
    """fork() does nothing, and control messages go into the list that is returned, with the name of the child."""
    sent: list[tuple[str, Message]] = []
    monkeypatch.setattr(os, "fork", lambda: 12345)
    monkeypatch.setattr(Child, "send", lambda child, message, files=(): sent.append((child.name, message)) or True)
    monkeypatch.setattr("flashpol.supervisor.generation.needs_lines", lambda config: lines)
    return sent


def test_generation_that_has_ended_is_freed_without_a_garbage_collection(
    runtime: ServerRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arbiter allocates little, so a collection may come after hundreds of reloads; until then each generation
    would keep its shared memory."""
    pretend(monkeypatch, lines=True)
    try:
        gc.disable()
        generation = Generation(plan(2), runtime)
        generation.add_admin()
        generation.start_due(lambda: None)
        for child in generation.children:
            child.pid = 12345 + id(child)
            generation.on_child_exit(child.pid, 0)
        runtime.totals.close(generation.shared)
        ended = weakref.ref(generation)
        del generation, child
        assert ended() is None
    finally:
        gc.enable()


def test_successor_of_a_worker_gets_its_lines_before_it_may_accept(
    runtime: ServerRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first client may ask for a session of another worker."""
    sent = pretend(monkeypatch, lines=True)
    generation = Generation(plan(2), runtime)
    generation.start_due(lambda: None)
    generation.start_accepting()
    worker = generation.workers[0]
    worker.pid = 12346
    generation.on_child_exit(12346, 9)
    worker.due, sent[:] = 0.0, []
    generation.start_due(lambda: None)
    assert [(name, message) for name, message in sent if name == "worker 0"] == [
        ("worker 0", PeerLines((1,))),
        ("worker 0", StartAccepting()),
    ]
    assert ("worker 1", PeerLines((2,))) in sent
    for child in generation.children:
        child.close_control()


def test_workers_that_need_no_lines_have_incarnations_and_no_lines(
    runtime: ServerRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = pretend(monkeypatch, lines=False)
    generation = Generation(plan(3), runtime)
    generation.start_due(lambda: None)
    assert [worker.incarnation for worker in generation.workers] == [0, 1, 2]
    assert sent == []
    for child in generation.children:
        child.close_control()


def test_stalled_worker_that_ends_late_is_killed_once(
    runtime: ServerRuntime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel may take longer to end a process than it is to the next look at it."""
    pretend(monkeypatch, lines=False)
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append(pid))
    now = itertools.count(1000.0)
    monkeypatch.setattr("flashpol.supervisor.generation.time.monotonic", lambda: next(now))
    generation = Generation(plan(1), runtime)
    generation.start_due(lambda: None)
    generation.workers[0].status.up = 1
    for _ in range(30):
        generation.kill_stalled()
    assert killed == [12345]
    assert caplog.text.count("stalled: it has not served") == 1
    for child in generation.children:
        child.close_control()
