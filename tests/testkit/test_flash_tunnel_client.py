"""The client that uses RTMPT as Flash Player did: it sees what a server does wrong with order, repetition and loss."""

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from testkit import rtmpt_server
from testkit.flash_client import FlashClient, Refused
from testkit.polling import eventually
from testkit.rtmpt_client import BadReply, Ended, Reply, RtmptClient
from testkit.rtmpt_server import INTERVALS, RtmptServer, Session

SENT = random.Random(1).randbytes(400_000)


@contextmanager
def echo_server() -> Iterator[RtmptServer]:
    """In front of an application that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as application:

        def echo() -> None:
            connection, _ = application.accept()
            with connection:
                while data := connection.recv(1 << 16):
                    connection.sendall(data)

        thread = threading.Thread(target=echo, daemon=True)
        thread.start()
        with rtmpt_server.rtmpt_server(application.getsockname(), hold=0.05, buffer=1 << 14) as running:
            yield running
        thread.join(5)


@pytest.fixture
def server() -> Iterator[RtmptServer]:
    with echo_server() as running:
        yield running


def echo(client: FlashClient, seconds: float = 20) -> bytes:
    client.send(SENT)
    return client.receive_exactly(len(SENT), seconds)


def echoes(client: FlashClient) -> bool:
    """Whether it gets what it sends, of which a part may not come."""
    try:
        return echo(client, 0.5) == SENT
    except TimeoutError:
        return False


def lose_replies(monkeypatch: pytest.MonkeyPatch, every: int, empty: bool = False) -> None:
    """Of both lanes together each n-th reply is lost, with its connection. empty: also those without bytes count."""
    real, count = RtmptClient.read, [0]

    def read(self: RtmptClient, via: int = 0) -> Reply:
        reply = real(self, via)
        counts = bool(self.id and (reply.body or empty))
        count[0] += counts
        if counts and count[0] % every == 0:
            self.drop(via)
            raise Ended(b"", "fin")
        return reply

    monkeypatch.setattr(RtmptClient, "read", read)


@pytest.mark.parametrize("lanes", [1, 2])
def test_stream_arrives_as_it_was_sent(server: RtmptServer, lanes: int) -> None:
    with FlashClient(server.place, lanes=lanes, reorder=100) as client:
        assert echo(client) == SENT
        assert client.received_nothing_more()
    assert client.connected == lanes
    assert bool(client.swapped) == (lanes == 2)
    assert client.repeated == 0
    assert server.sessions == {}


def test_server_that_ignores_the_order_is_noticed(server: RtmptServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_wait(self: Session, number: int) -> None:
        self._expected = number

    monkeypatch.setattr(Session, "_wait_for_turn", no_wait)
    with FlashClient(server.place, reorder=100) as client:
        assert not echoes(client)


@pytest.mark.parametrize("lanes", [1, 2])
def test_lost_replies_are_asked_for_again(server: RtmptServer, monkeypatch: pytest.MonkeyPatch, lanes: int) -> None:
    lose_replies(monkeypatch, 3)
    with FlashClient(server.place, lanes=lanes, tries=9) as client:
        assert echo(client) == SENT
        assert client.received_nothing_more()
    assert client.repeated > 1


def test_server_that_carries_out_a_repeated_request_is_noticed(
    server: RtmptServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Session.carry_out

    def carry_out(self: Session, kind: str, number: int, body: bytes) -> bytes | None:
        if kind == "send" and number < (self._expected or 0):
            self.upstream.sendall(body)
        return real(self, kind, number, body)

    monkeypatch.setattr(Session, "carry_out", carry_out)
    lose_replies(monkeypatch, 5, empty=True)
    with FlashClient(server.place, lanes=1, tries=9) as client:
        assert not echoes(client)


def test_server_that_keeps_no_reply_is_noticed(server: RtmptServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtmpt_server, "KEPT", 0)
    lose_replies(monkeypatch, 2)
    with FlashClient(server.place, lanes=1, tries=9) as client:
        assert not echoes(client)


def test_two_lanes_need_two_replies_kept(server: RtmptServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are never more numbers without a reply than lanes."""
    real = Session.carry_out

    def carry_out(self: Session, kind: str, number: int, body: bytes) -> bytes | None:
        assert self._expected is None or number >= self._expected - 2
        assert self._expected is None or number <= self._expected + 1
        return real(self, kind, number, body)

    monkeypatch.setattr(Session, "carry_out", carry_out)
    lose_replies(monkeypatch, 3)
    with FlashClient(server.place, tries=99, reorder=100) as client:
        assert echo(client) == SENT


def test_connections_that_are_dropped_are_opened_again(server: RtmptServer) -> None:
    with FlashClient(server.place, lanes=1) as client:
        for _ in range(5):
            client.drop()
            client.send(b"x")
            assert client.receive_exactly(1) == b"x"
    assert client.connected >= 6


def test_pause_between_polls_is_what_the_reply_says(server: RtmptServer, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = []
    real = threading.Condition.wait_for

    def wait_for(self: threading.Condition, predicate: object, timeout: float | None = None) -> object:
        if timeout and timeout < 5:
            pauses.append(timeout)
        return real(self, predicate, timeout)  # type: ignore[arg-type]

    with FlashClient(server.place, pace=2) as client:
        monkeypatch.setattr(threading.Condition, "wait_for", wait_for)
        client.send(b"x")
        client.receive_exactly(1)
        eventually(lambda: 2 * 3 * 0.5 / 0x21 in pauses, "the pause after an interval byte of 3")
    assert set(client.intervals) <= set(INTERVALS)


@pytest.mark.parametrize("content", [None, b""])
def test_reply_without_an_interval_byte_is_an_error(
    server: RtmptServer, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    client = FlashClient(server.place)
    client.open()
    monkeypatch.setattr(Session, "carry_out", lambda *_: content)
    with pytest.raises(Refused if content is None else BadReply):
        client.receive_exactly(1)
    client.abandon()


def test_session_that_is_not_opened_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        nothing = listening.getsockname()
    with rtmpt_server.rtmpt_server(nothing) as server, pytest.raises(Refused, match="502"):
        FlashClient(server.place).open()


def test_client_that_is_gone_has_not_closed_its_session(server: RtmptServer) -> None:
    client = FlashClient(server.place)
    client.open()
    client.abandon()
    assert [*server.sessions] == [client.id]
