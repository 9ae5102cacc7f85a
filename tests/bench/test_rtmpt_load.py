"""The load for RTMPT sees every fault, and reaches the workers that it is to reach."""

import socket
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench import BenchError
from bench.measure import connections_to
from bench.rtmpt_load import Tunnels
from bench.servers import Server, free_port
from bench.servers.rtmpt import nginx_missing, nginx_return
from testkit.polling import eventually
from testkit.rtmpt_echo import Asked, Change, RtmptStub, http, rtmpt_stub


def directly(port: int) -> Server:
    return Server("stub", port, 0, Path(), 0.0)


@contextmanager
def tunnels(stub: RtmptStub, manner: str, **options: Any) -> Iterator[Tunnels]:
    with rtmpt_stub(stub) as port, Tunnels(directly(port), manner, None, **options) as running:
        yield running


def by_session(stub: RtmptStub, what: str) -> dict[str, list[Asked]]:
    found = defaultdict(list)
    for one in stub.asked:
        if one.what == what:
            found[one.session].append(one)
    return found


# ---------------------------------------------------------------------------------------------------------------- turns


def test_polls_on_kept_connections_are_as_many_as_the_count() -> None:
    stub = RtmptStub()
    with tunnels(stub, "poll", sessions=4, count=100) as running:
        assert running.opened == 4
        turns = [running.turn(), running.turn()]
    assert [turn.replies for turn in turns] == [100, 100]
    assert 0 < turns[0].p50_us <= turns[0].p99_us
    assert (stub.count("idle"), stub.count("close"), stub.wrong_numbers, stub.sessions) == (200, 4, [], {})
    assert all(len({one.connection for one in polls}) == 1 for polls in by_session(stub, "idle").values())


def test_polls_for_a_time_end_with_it() -> None:
    stub = RtmptStub()
    with tunnels(stub, "poll", sessions=2, seconds=0.05) as running:
        turn = running.turn()
    assert turn.replies == stub.count("idle") >= 2
    assert turn.seconds >= 0.05


def test_polls_with_pace_and_ramp_pause_between_each_other() -> None:
    stub = RtmptStub()
    with tunnels(stub, "poll", sessions=2, count=8, pace=0.03, ramp=0.02) as running:
        turn = running.turn()
        assert running.turn().replies == 8
    assert turn.replies == 8
    assert turn.seconds >= 0.09  # three pauses of each session
    assert {len(polls) for polls in by_session(stub, "idle").values()} == {8}


def test_polls_with_fresh_have_a_connection_each() -> None:
    stub = RtmptStub()
    with tunnels(stub, "poll", sessions=3, count=30, fresh=True) as running:
        assert running.turn().replies == 30
    connections = [one.connection for one in stub.asked]
    assert len(set(connections)) == len(connections) == 3 + 30 + 3
    assert stub.wrong_numbers == []


def test_polls_with_spread_use_the_connections_in_turn() -> None:
    stub = RtmptStub()
    with tunnels(stub, "poll", sessions=1, count=24, spread=3) as running:
        running.turn()
    numbers = [one.connection for one in stub.asked]
    assert len(set(numbers[:3])) == 3
    assert numbers[3:] == numbers[:-3]
    assert stub.wrong_numbers == []


@pytest.mark.parametrize("size", [17, 100, 16384])
@pytest.mark.parametrize("fresh", [False, True])
def test_echoes_in_the_reply_to_send_are_complete(size: int, fresh: bool) -> None:
    stub = RtmptStub()
    with tunnels(stub, "echo", sessions=2, count=6, size=size, fresh=fresh) as running:
        assert running.turn().replies == 6
    assert (stub.count("send"), stub.count("idle")) == (6, 0)


def test_echoes_in_parts_of_polls_are_complete() -> None:
    stub = RtmptStub(at_most=30, echo_at_once=False)
    with tunnels(stub, "echo", sessions=2, count=6, size=100) as running:
        assert running.turn().replies == 6
    assert (stub.count("send"), stub.count("idle")) == (6, 6 * 4)
    assert stub.wrong_numbers == []


def test_held_sessions_poll_all_the_time_and_echo_once_a_turn() -> None:
    stub = RtmptStub(hold=0.05)
    with tunnels(stub, "hold", sessions=5) as running:
        eventually(lambda: stub.count("idle") >= 15, "each session has polled several times")
        assert [running.turn().replies, running.turn().replies] == [5, 5]
    assert Counter(len(sends) for sends in by_session(stub, "send").values()) == {2: 5}
    assert (stub.count("close"), stub.wrong_numbers) == (5, [])


def test_abandoned_sessions_are_not_closed() -> None:
    stub = RtmptStub(hold=0.05)
    with tunnels(stub, "hold", sessions=3, abandon=True):
        eventually(lambda: stub.count("idle") >= 3, "all have polled")
    assert (stub.count("close"), len(stub.sessions)) == (0, 3)


def test_tunnels_of_two_generators_come_from_different_addresses() -> None:
    addresses = []

    class Listening(RtmptStub):
        def serve(self, connection: socket.socket) -> None:
            addresses.append(connection.getpeername()[0])
            super().serve(connection)

    stub = Listening()
    with rtmpt_stub(stub) as port:
        for first in (0, 2):
            with Tunnels(directly(port), "poll", None, sessions=2, count=2, first=first) as running:
                running.turn()
    assert sorted(addresses) == [f"127.1.1.{n}" for n in (1, 2, 3, 4)]


# -------------------------------------------------------------------------------------------------------------- workers


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("foreign", [False, True])
def test_polls_with_workers_reach_the_worker_that_is_asked_for(fresh: bool, foreign: bool) -> None:
    stub = RtmptStub()
    with tunnels(stub, "poll", sessions=8, count=80, workers=2, fresh=fresh, foreign=foreign) as running:
        assert running.turn().replies == 80
        opened = running.opened
    polls = [one for one in stub.asked if one.what == "idle"]
    assert {one.at != one.owner for one in polls} == {foreign}
    owners = Counter(owner for _, owner in {(one.session, one.owner) for one in polls})
    assert owners == {"0a": 4, "0b": 4}
    assert (stub.count("open"), stub.count("close"), stub.wrong_numbers) == (opened, opened, [])


def test_polls_with_workers_that_are_not_there_raise() -> None:
    stub = RtmptStub(workers=1)
    with pytest.raises(BenchError, match="were not reached"), tunnels(stub, "poll", sessions=4, workers=2):
        pass


# --------------------------------------------------------------------------------------------------------------- faults


def only(what: str, wire: bytes) -> Change:
    """Other bytes on the wire for one kind of request."""
    return lambda asked, status, body: wire if asked == what else http(status, body)


def with_body(what: str, body: bytes) -> Change:
    return only(what, http(200, body))


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        (only("idle", http(404, b"")), "status"),
        (with_body("idle", b""), "mismatch"),
        (with_body("idle", b"\x02"), "mismatch"),
        (with_body("idle", b"\x01?"), "mismatch"),
        (only("idle", http(200, b"\x01") + b"?"), "mismatch"),
        (only("idle", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\x01\r\n0\r\n\r\n"), "mismatch"),
        (only("idle", b"RTSP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n\x01"), "mismatch"),
        (only("idle", b"X" * 5000), "mismatch"),
        (only("idle", b""), "short"),
    ],
    ids=["404", "empty", "interval", "data", "behind", "chunked", "no-http", "long-head", "closed"],
)
@pytest.mark.parametrize("fresh", [False, True])
def test_poll_with_a_wrong_reply_is_counted_by_kind(change: Change, outcome: str, fresh: bool) -> None:
    stub = RtmptStub(change=change)
    with (
        pytest.raises(BenchError, match=f'"failed": 3, .*"{outcome}": 3,'),
        tunnels(stub, "poll", sessions=3, count=100, fresh=fresh) as running,
    ):
        running.turn()
    assert stub.count("idle") == 3  # a session with a failure rests
    assert len(stub.sessions) == 3  # and is not closed


def test_poll_with_an_empty_reply_after_others_is_a_mismatch() -> None:
    stub = RtmptStub(change=lambda what, status, body: http(status, body if stub.count("idle") < 5 else b""))
    with (
        pytest.raises(BenchError, match=r'"ok": 4, .*"mismatch": 1'),
        tunnels(stub, "poll", sessions=1, count=9) as running,
    ):
        running.turn()


@pytest.mark.parametrize(
    "changed", [lambda data: data[:-1] + b"?", lambda data: data + b"?"], ids=["other", "too-many"]
)  # fmt: skip
def test_echo_with_other_bytes_is_a_mismatch(changed: Any) -> None:
    stub = RtmptStub(change=lambda what, status, body: http(status, changed(body) if what == "send" else body))
    with pytest.raises(BenchError, match='"mismatch": 1,'), tunnels(stub, "echo", sessions=1, count=1) as running:
        running.turn()


def test_echo_of_another_session_is_a_mismatch() -> None:
    first: list[bytes] = []

    def swapped(what: str, status: int, body: bytes) -> bytes:
        if what == "send":
            first.append(body)
        return http(status, first[0] if what == "send" else body)

    stub = RtmptStub(change=swapped)
    with pytest.raises(BenchError, match='"mismatch": 1,'), tunnels(stub, "echo", sessions=2, count=2) as running:
        running.turn()


def test_echo_with_another_interval_beside_data_is_a_mismatch() -> None:
    stub = RtmptStub(change=lambda what, status, body: http(status, b"\x21" + body[1:] if what == "send" else body))
    with pytest.raises(BenchError, match='"mismatch": 1,'), tunnels(stub, "echo", sessions=1, count=1) as running:
        running.turn()


def test_echo_that_never_comes_is_a_timeout() -> None:
    stub = RtmptStub(hold=0.01, change=lambda what, status, body: http(status, body[:1] if what == "send" else body))
    with (
        pytest.raises(BenchError, match='"timeout": 1,'),
        tunnels(stub, "echo", sessions=1, count=1, timeout=0.2) as running,
    ):
        running.turn()
    assert stub.count("idle") <= 21  # of 0.01 s each


def test_poll_without_a_reply_is_a_timeout() -> None:
    stub = RtmptStub(hold=2.0)
    with (
        pytest.raises(BenchError, match='"timeout": 2,'),
        tunnels(stub, "poll", sessions=2, count=2, timeout=0.2) as running,
    ):
        running.turn()


def failing_later() -> tuple[RtmptStub, threading.Event]:
    """A server, and the event from which on it replies to polls with 404."""
    begin = threading.Event()

    def change(what: str, status: int, body: bytes) -> bytes:
        return http(404, b"") if what == "idle" and begin.is_set() else http(status, body)

    return RtmptStub(hold=0.05, change=change), begin


def fail(stub: RtmptStub, begin: threading.Event) -> None:
    begin.set()
    eventually(lambda: not stub.open_connections, "both sessions have failed")


def test_held_sessions_with_failures_between_turns_raise_in_the_next() -> None:
    stub, begin = failing_later()

    def two_turns(running: Tunnels) -> None:
        assert running.turn().replies == 2
        fail(stub, begin)
        running.turn()

    with (
        pytest.raises(BenchError, match=r'"failed": 2, .*"status": 2'),
        tunnels(stub, "hold", sessions=2) as running,
    ):
        two_turns(running)


def test_held_sessions_with_failures_after_the_last_turn_raise_at_the_end() -> None:
    stub, begin = failing_later()
    with (
        pytest.raises(BenchError, match="a tunnel session failed"),
        tunnels(stub, "hold", sessions=2) as running,
    ):
        fail(stub, begin)
    assert running.opened == 2


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (http(503, b""), "not opened: status"),
        (http(200, b"A0a0000000000000"), "no id with LF"),
        (http(200, b"A0\n"), "no id with LF"),
        (http(200, b"A" * 70 + b"\n"), "not opened: mismatch"),
        (b"", "not opened: short"),
    ],
    ids=["503", "no-lf", "short-id", "long-id", "closed"],
)
def test_session_that_is_not_opened_raises(reply: bytes, words: str) -> None:
    stub = RtmptStub(change=only("open", reply))
    with pytest.raises(BenchError, match=words), tunnels(stub, "poll", sessions=2, count=2):
        pass


def test_session_on_a_refused_port_raises() -> None:
    absent = directly(free_port())
    with pytest.raises(BenchError, match="not opened: refused"), Tunnels(absent, "poll", None, sessions=2, count=2):
        pass


@pytest.mark.parametrize("reply", [http(200, b"\x01"), http(404, b"")], ids=["interval", "404"])
def test_session_that_is_not_closed_raises(reply: bytes) -> None:
    stub = RtmptStub(change=only("close", reply))
    with pytest.raises(BenchError, match="was not closed"), tunnels(stub, "poll", sessions=2, count=2) as running:
        running.turn()


def test_replies_in_pieces_with_names_in_lower_case_are_understood() -> None:
    class Slow(RtmptStub):
        def serve(self, connection: socket.socket) -> None:
            class Pieces:
                def __getattr__(self, name: str) -> Any:
                    return getattr(connection, name)

                def sendall(self, wire: bytes) -> None:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    for byte in wire:
                        connection.sendall(bytes([byte]))

            super().serve(Pieces())  # type: ignore[arg-type]

    stub = Slow(change=lambda what, status, body: http(status, body, "content-length:{}\r\nvia: 1.1 proxy\r\n"))
    with tunnels(stub, "echo", sessions=1, count=3, size=40) as running:
        assert running.turn().replies == 3


# ------------------------------------------------------------------------------------------------------- made-up, usage


@pytest.mark.parametrize("fresh", [False, True])
def test_made_up_polls_of_nginx_are_answered(fresh: bool) -> None:
    missing = nginx_missing()
    if missing:
        pytest.skip(missing)
    with (
        nginx_return(None) as server,
        Tunnels(server, "poll", None, sessions=4, count=2_000, fresh=fresh, made_up=True) as running,
    ):
        assert running.opened == 0
        assert running.turn().replies == 2_000  # more on a connection than nginx allows by default


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [(http(404, b""), "status"), (http(200, b"??") + b"?", "mismatch"), (b"", "short")],
    ids=["404", "behind", "closed"],
)
def test_made_up_polls_compare_status_and_length(reply: bytes, outcome: str) -> None:
    stub = RtmptStub(change=only("idle", reply))
    with (
        pytest.raises(BenchError, match=f'"failed": 2, .*"{outcome}": 2'),
        tunnels(stub, "poll", sessions=2, count=10, made_up=True) as running,
    ):
        running.turn()
    assert stub.count("open") == 0
    assert all(len(one.session) == 16 and one.session.isalnum() for one in stub.asked)


@pytest.mark.parametrize(
    ("manner", "options", "words"),
    [
        ("pull", {}, "poll, echo or hold"),
        ("poll", {"workers": 3}, "--workers"),
        ("poll", {"foreign": True}, "--workers"),
        ("poll", {"workers": 2, "spread": 2}, "--spread"),
        ("echo", {"made_up": True}, "--made-up"),
        ("echo", {"size": 16}, "--size"),
        ("poll", {"sessions": 0}, "--sessions"),
    ],
)
def test_tunnels_with_options_that_do_not_fit_raise(manner: str, options: dict[str, Any], words: str) -> None:
    with (
        pytest.raises(BenchError, match=words),
        Tunnels(directly(1), manner, None, **{"sessions": 4, "count": 1, **options}),
    ):
        pass


def test_connections_to_a_port_are_counted_until_they_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        assert connections_to(address[1]) == 0
        with socket.create_connection(address), socket.create_connection(address):
            accepted = [listening.accept()[0] for _ in range(2)]
            assert connections_to(address[1]) == 2
        assert connections_to(address[1]) == 2  # the clients have closed, the server has not
        for one in accepted:
            one.close()
        eventually(lambda: connections_to(address[1]) == 0, "both have ended")
