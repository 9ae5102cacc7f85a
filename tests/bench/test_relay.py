"""The load for relays sees every fault, the relays relay, and the scenario runs, also without HAProxy."""

import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from bench import BenchError, relay_load, servers
from bench.report import Results
from bench.scenarios import relay
from bench.servers import Server, relays
from bench.servers.haproxy import missing
from bench.settings import Settings
from testkit.broken_servers import Serve, broken_server
from testkit.clients import ask


def directly(port: int) -> Server:
    """The application itself, without a relay."""
    return Server("no relay", port, 0, Path(), 0.0)


@pytest.fixture(scope="module")
def application() -> Iterator[int]:
    with relay_load.application(None) as port:
        yield port


@contextmanager
def broken(serve: Serve) -> Iterator[Server]:
    with broken_server(serve) as port:
        yield directly(port)


def test_short_sessions_are_as_many_as_the_total(application: int) -> None:
    result = relay_load.short(directly(application), None, connections=8, size=100, total=50)
    assert (result.rounds, result.bytes) == (50, 5000)
    assert 0 < result.p50_us <= result.p99_us


def test_echo_repeats_until_the_time_is_over(application: int) -> None:
    result = relay_load.echo(directly(application), None, connections=3, size=65536, seconds=0.1)
    assert result.rounds >= 3
    assert result.bytes == result.rounds * 65536
    assert result.seconds >= 0.1


def test_bulk_receives_all_bytes_of_every_stream(application: int) -> None:
    result = relay_load.bulk(directly(application), None, connections=2, size=1_000_003)
    assert (result.rounds, result.bytes) == (2, 2_000_006)


def test_upload_sends_all_bytes_of_every_stream(application: int) -> None:
    result = relay_load.upload(directly(application), None, connections=2, size=1_000_003)
    assert (result.rounds, result.bytes) == (2, 2_000_006)


def test_held_sessions_echo_once_per_call(application: int) -> None:
    with relay_load.HeldSessions(directly(application), [20, 30], None) as held:
        assert held.echo() == 100
        assert held.echo() == 150


def test_relay_clients_use_different_source_addresses() -> None:
    addresses = []

    def serve(connection: socket.socket) -> None:
        addresses.append(connection.getpeername()[0])
        connection.sendall(connection.recv(100, socket.MSG_WAITALL))

    with broken(serve) as server:
        relay_load.short(server, None, connections=1, size=100, total=3)
    assert addresses == ["127.1.1.1", "127.1.1.2", "127.1.1.3"]


def other_bytes(connection: socket.socket) -> None:
    connection.sendall(connection.recv(100, socket.MSG_WAITALL)[:-1] + b"?")
    connection.recv(1)


def too_many(connection: socket.socket) -> None:
    connection.sendall(connection.recv(100, socket.MSG_WAITALL) + b"?")
    connection.recv(1)


def too_few(connection: socket.socket) -> None:
    connection.sendall(connection.recv(100, socket.MSG_WAITALL)[:-1])
    connection.shutdown(socket.SHUT_WR)
    connection.recv(1)


@pytest.mark.parametrize(
    ("serve", "words"), [(other_bytes, "other bytes"), (too_many, "more bytes"), (too_few, "closed early")]
)
def test_relay_client_with_a_wrong_echo_raises_by_kind(serve: Serve, words: str) -> None:
    with broken(serve) as server, pytest.raises(BenchError, match=words):
        relay_load.short(server, None, connections=1, size=100, total=1)


def test_relay_client_with_the_echo_of_another_client_raises() -> None:
    first: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        first.append(connection.recv(100, socket.MSG_WAITALL))
        connection.sendall(first[0])
        connection.recv(1)

    with broken(serve) as server, pytest.raises(BenchError, match="other bytes"):
        relay_load.short(server, None, connections=1, size=100, total=2)


def test_bulk_with_wrong_bytes_raises() -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(9, socket.MSG_WAITALL)
        connection.sendall(bytes(1000))
        connection.recv(1)

    with broken(serve) as server, pytest.raises(BenchError, match="other bytes"):
        relay_load.bulk(server, None, connections=1, size=1000)


def test_upload_that_is_not_confirmed_raises() -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(9 + 1000, socket.MSG_WAITALL)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)

    with broken(serve) as server, pytest.raises(BenchError, match="closed early"):
        relay_load.upload(server, None, connections=1, size=1000)


def test_upload_of_other_bytes_is_not_confirmed_by_the_application(application: int) -> None:
    request = b"R" + (1000).to_bytes(8, "big")
    assert ask(("127.0.0.1", application), request + bytes(1000)) != b"R"


def test_held_session_closed_by_the_server_raises() -> None:
    closed, over = threading.Event(), threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.sendall(connection.recv(100, socket.MSG_WAITALL))
        assert over.wait(10)
        connection.close()
        closed.set()

    def held_and_closed(server: Server) -> None:
        with relay_load.HeldSessions(server, [1], None):
            over.set()
            assert closed.wait(10)

    with broken(serve) as server, pytest.raises(BenchError, match="closed while they were held"):
        held_and_closed(server)


def test_held_sessions_refused_raise() -> None:
    absent = directly(servers.free_port())
    with pytest.raises(BenchError, match="connect"), relay_load.HeldSessions(absent, [3, 3], None):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flashpol", "HAProxy", "HAProxy, splice-auto"])
def test_shared_port_replies_to_policy_requests_and_relays_the_rest(name: str, application: int) -> None:
    without = missing()
    if name != "flashpol" and without:
        pytest.skip(without)
    start: AbstractContextManager[Server] = (
        relays.flashpol_relay(None, (application,))
        if name == "flashpol"
        else relays.haproxy_relay(None, application, splice=name != "HAProxy")
    )
    with start as server:
        assert server.name == name
        assert ask(("127.0.0.1", server.port)) == servers.POLICY.read_bytes() + b"\0"
        assert relay_load.short(server, None, connections=4, size=100, total=20).rounds == 20
        assert relay_load.bulk(server, None, connections=2, size=300_000).bytes == 600_000


@pytest.mark.slow
def test_relay_scenario_without_haproxy_measures_flashpol_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "missing", lambda: "HAProxy is not installed")
    results = Results()
    relay.run(Settings.on_this_machine(1, peers_only=False, quick=True), results)
    assert results.notes == ["relay: no peer: HAProxy is not installed"]
    figures = {figure.name: figure.value.median for figure in results.figures}
    assert not [name for name in figures if "HAProxy" in name]
    assert {f"flashpol: {name}" for name in relay.UNITS} <= set(figures)
    assert figures["1,000 over 4 workers: open after each of 2 echoes"] == 1000
    assert figures["policy reply: shared port / policy port"] > 0


def test_relay_scenario_with_peers_only_and_no_peer_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "missing", lambda: "HAProxy is not installed")
    results = Results()
    relay.run(Settings.on_this_machine(1, peers_only=True, quick=True), results)
    assert (results.figures, len(results.notes)) == ([], 1)
