"""A proof fails for every kind of descriptor that is not served, and for none that is served late."""

import resource
import socket
from collections.abc import Iterator
from functools import partial

import gevent
import pytest

from flashpol import PolicyServer
from flashpol.hub import Readable, started
from flashpol.log.handler import report_suppressed
from flashpol.worker import self_check
from flashpol.worker.self_check import SelfCheck
from testkit.clients import BARE, REQUEST, connect
from testkit.polling import eventually

until = partial(eventually, wait=gevent.sleep)


@pytest.fixture(autouse=True)
def all_lines_reported() -> Iterator[None]:
    """A line that the rate limit suppressed is not left to the next test."""
    yield
    report_suppressed(everything=True)


@pytest.fixture
def server() -> Iterator[PolicyServer]:
    """A table and an acceptor, watched by this thread's hub."""
    server = PolicyServer("127.0.0.1:0", allow=["*:1935"])
    server.start()
    yield server
    server.stop(0)


@pytest.fixture
def pair(no_leaked_files: None) -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    yield one, other
    one.close()
    other.close()


def named(part: str) -> Readable:
    [found] = [each for each in started() if part in each.what]
    return found


def proofs(check: SelfCheck, count: int = 5) -> list[bool]:
    """The loop turns between two of them."""
    found = []
    for _ in range(count):
        found.append(check.passed())
        gevent.sleep(0.002)
    return found


def test_proofs_of_an_idle_server_pass_and_call_the_table_each_time(server: PolicyServer) -> None:
    table = named("waiting")
    before = table.returned
    assert proofs(SelfCheck()) == [True] * 5
    assert table.returned - before == 5
    assert server.counters["accepted"] == 0, "no connection was made"


def test_proofs_pass_while_clients_come_and_wait(server: PolicyServer) -> None:
    check = SelfCheck()
    clients = []
    for _ in range(5):
        clients += [connect(server.address, data) for data in (b"", BARE[:4], BARE, REQUEST)]
        assert check.passed()
        gevent.sleep(0.002)
    assert server.counters["accepted"] == 20
    for client in clients:
        client.close()


@pytest.mark.parametrize("which", ["waiting", "clients of listener"])
def test_proof_fails_for_a_stopped_watcher_before_a_client_comes(server: PolicyServer, which: str) -> None:
    check = SelfCheck()
    assert check.passed()
    named(which)._watcher.stop()
    assert proofs(check) == [False] * 5
    named(which).start()
    assert proofs(check) == [True] * 5


def test_proof_fails_for_a_table_whose_callback_does_nothing(server: PolicyServer) -> None:
    check = SelfCheck()
    named("waiting")._watcher.callback = lambda: None
    assert proofs(check) == [True, False, False, False, False]


def test_proof_fails_for_an_acceptor_whose_callback_does_nothing_once_a_client_waits(server: PolicyServer) -> None:
    check = SelfCheck()
    named("clients of listener")._watcher.callback = lambda: None
    assert proofs(check) == [True] * 5
    with connect(server.address, REQUEST):
        assert proofs(check) == [True, False, False, False, False]
        named("clients of listener").start()
        until(check.passed, "a proof")


def test_proof_fails_for_a_callback_that_raises_each_time(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is paused most of the time, but not by itself."""
    readable = Readable(pair[0].fileno(), lambda: 1 // 0, "a test")
    readable.start()
    pair[1].send(b"x")
    check = SelfCheck()
    assert proofs(check) == [True, False, False, False, False]
    readable.close()


def test_proof_passes_for_a_paused_watcher(pair: tuple[socket.socket, socket.socket]) -> None:
    """As without descriptors: the listener goes on by itself."""
    readable = Readable(pair[0].fileno(), lambda: readable.pause(0.01), "a test")
    readable.start()
    pair[1].send(b"x")
    assert proofs(SelfCheck(), 20) == [True] * 20
    readable.close()


def test_proof_passes_for_what_another_process_has_read(pair: tuple[socket.socket, socket.socket]) -> None:
    """A client in an accept queue that two processes serve."""
    readable = Readable(pair[0].fileno(), print, "a test")
    readable.start()
    pair[1].send(b"x")
    check = SelfCheck()
    assert check.passed()
    pair[0].recv(1)
    assert check.passed()
    readable.close()


def test_proof_passes_for_what_was_closed_since(pair: tuple[socket.socket, socket.socket]) -> None:
    """An adopted socket that is released."""
    readable = Readable(pair[0].fileno(), print, "a test")
    readable.start()
    pair[1].send(b"x")
    check = SelfCheck()
    assert check.passed()
    readable.close()
    assert check.passed()


def test_proofs_pass_under_a_lowered_limit_of_descriptors(server: PolicyServer) -> None:
    """The kernel then refuses to poll so many at once; the table is still asked."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    check = SelfCheck()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
        assert proofs(check) == [True] * 5
        named("waiting")._watcher.callback = lambda: None
        assert proofs(check)[1:] == [False] * 4
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_missing_proof_is_logged_with_what_does_not_answer(
    server: PolicyServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(self_check, "LOG_AFTER", 0.0)
    check = SelfCheck()
    named("clients of listener")._watcher.stop()
    proofs(check)
    [record] = caplog.records  # the others are suppressed
    assert record.event == "not-serving"  # type: ignore[attr-defined]
    assert f"no callback for clients of listener {server.address}" in record.getMessage()


def test_check_leaves_the_loop_to_others_while_a_proof_is_missing(
    server: PolicyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is found missing gets one more turn of the loop, in which the callback may come."""
    monkeypatch.setattr(self_check, "ONE_TURN", 0.05)
    check = SelfCheck()
    assert check.passed()
    assert check.passed(), "the loop has not turned since"
