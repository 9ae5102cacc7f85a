"""Clients that come back: each cut, failed try and wrong byte is seen; servers restart at their ports."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench import BenchError
from bench.report import Results
from bench.returning_load import Returned, Returning
from bench.scenarios import reconnect, slow_upstream
from bench.servers.certificate import certificate
from bench.servers.fleets import Applications
from bench.settings import Settings
from testkit.broken_servers import broken_server
from testkit.polling import eventually


@pytest.fixture
def applications() -> Iterator[Applications]:
    made = Applications(1)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def test_returning_sessions_after_a_restart_are_all_cut_and_served(applications: Applications) -> None:
    with Returning("application", applications.ports[0], 30) as sessions:
        sessions.begin()
        time.sleep(0.1)  # until the line is read
        begin = time.monotonic_ns()
        applications.restart()
        result = sessions.result()
    assert (result.cut, result.served, result.left, result.wrong) == (30, 30, 0, 0)
    assert (result.again, len(result.waited_us)) == (30, 30)  # the first try was refused
    assert result.tries >= 30
    assert result.last_ns > begin


def test_returning_sessions_without_a_cut_have_nothing_to_report(applications: Applications) -> None:
    with Returning("application", applications.ports[0], 3) as sessions:
        sessions.begin()
        result = sessions.result()
    assert result == Returned(0, 0, 0, 0, 0, 0, 0, [])
    assert result.percentile(0.99) == 0.0


def test_returning_policy_clients_ask_once_a_turn_and_compare_the_reply(tmp_path: Path) -> None:
    expected = tmp_path / "expected"
    expected.write_bytes(b"<policy/>\0")
    replies = [b"<policy/>\0", b"<policy?>\0", b"<policy/>", b"<policy/>\0"]

    def serve(connection: socket.socket) -> None:
        connection.recv(23, socket.MSG_WAITALL)
        connection.sendall(replies.pop(0))

    with broken_server(serve) as port, Returning("server", port, 1, policy=expected) as clients:
        clients.begin()
        first = clients.result()
        clients.begin()
        second = clients.result()
    assert (first.served, first.again, first.tries, first.wrong) == (1, 0, 0, 0)
    assert (second.served, second.again, second.tries, second.wrong) == (1, 1, 2, 1)  # other bytes, then too few


def test_returning_without_a_server_raises_that_clients_ended() -> None:
    sessions = Returning("server", 1, 1, options=["--unknown"])
    with pytest.raises(BenchError, match="usage"):
        sessions.__enter__()


def test_application_with_a_cost_prints_its_accepts() -> None:
    slow = Applications(1, cost=1000)
    slow.start()
    try:
        with Returning("application", slow.ports[0], 50):
            time.sleep(0.2)  # the window is over
            with socket.create_connection(("127.0.0.1", slow.ports[0])):
                eventually(lambda: sum(slow.accepts().values()) == 50, "50 accepts were printed", 5)
    finally:
        slow.stop()


def test_accept_queue_of_a_port_without_accept_is_its_length() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert slow_upstream.accept_queue(port) == 0
        with socket.create_connection(("127.0.0.1", port)):
            assert slow_upstream.accept_queue(port) == 1


@pytest.mark.slow
def test_reconnect_scenario_serves_all_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnect, "PROTOCOLS", ("TCP",))
    monkeypatch.setattr(reconnect, "QUICK_CLIENTS", 20)
    monkeypatch.setattr(reconnect, "WORKERS", 2)
    monkeypatch.setattr(slow_upstream, "QUICK_CLIENTS", 20)
    results = Results()
    reconnect.run(Settings.on_this_machine(1, peers_only=False, quick=True), results)
    left = {figure.name: figure for figure in results.figures if figure.name.endswith("never served")}
    assert {f"TCP, {cut}, sessions, flashpol: never served" for cut in reconnect.CUTS} <= set(left)
    assert all(figure.value.high == 0 for figure in left.values())
    assert [figure.name for figure in results.figures if "longest accept queue" in figure.name]
    assert [line.split(" | ")[0] for line in results.tables[0].splitlines()[4:]] == [
        f"| {cut}, {kind}" for cut in reconnect.CUTS for kind in ("sessions", "policy clients")
    ]
    assert "without connect_rate" in results.tables[1]


def test_drops_of_an_application_are_those_of_its_own_queue() -> None:
    slow, other = Applications(1, cost=1000), Applications(1, cost=1)
    with ExitStack() as stack:
        for each in (slow, other):
            stack.callback(each.stop)
            each.start()
        for _ in range(2 * slow_upstream.QUEUE):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", slow.ports[0]))
        eventually(slow.drops, "drops were printed", 10)

        def printed() -> dict[int, int]:
            socket.create_connection(("127.0.0.1", other.ports[0])).close()
            return other.accepts()

        eventually(printed, "a window of the other was printed")
        assert other.drops() == 0


@pytest.mark.slow
@pytest.mark.alone
def test_connect_rate_keeps_the_queue_of_a_slow_upstream_from_overflowing() -> None:
    without, limited = slow_upstream.Seen(), slow_upstream.Seen()
    with certificate() as files:
        slow_upstream.turn(1200, "", files, without)
        slow_upstream.turn(1200, f"connect_rate = {slow_upstream.RATE}", files, limited)
    assert without.left == limited.left == [0]
    assert without.drops[0] > 0
    assert limited.drops == [0]
    assert limited.longest[0] < slow_upstream.QUEUE
