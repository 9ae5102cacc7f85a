"""The record of one connection, also with hostile servers."""

import socket

import broken
import pytest
from broken import POLICY, answering
from loopback import SHORT, Handler, Server, closed_port, dropping_port

from flashpol.probe.exchange import MOST_BYTES, Address, End, Reached, Step, Timeouts, What, exchange

LOCALHOST = Address(socket.AF_INET, "127.0.0.1")
ASK = (Step(broken.REQUEST),)


def test_exchange_with_correct_server_records_all_events() -> None:
    with Server(answering()) as server:
        seen = exchange(LOCALHOST, server.port, ASK, Timeouts())
    assert (seen.reached, seen.end, seen.error) == (Reached.CONNECTED, End.CLOSED, "")
    assert [event.what for event in seen.events] == [What.CONNECTED, What.SENT, What.RECEIVED, What.ENDED]
    assert seen.data == POLICY + b"\0"
    times = [event.at for event in seen.events]
    assert times == sorted(times)
    assert seen.ended == times[-1]
    assert seen.segments == 1


def test_exchange_over_ipv6_names_the_address_in_brackets() -> None:
    address = Address(socket.AF_INET6, "::1")
    try:
        server = Server(answering(), "::1")
    except OSError:
        pytest.skip("no IPv6 here")
    with server:
        seen = exchange(address, server.port, ASK, Timeouts())
    assert (seen.data, seen.where) == (POLICY + b"\0", f"[::1]:{server.port}")


def test_exchange_with_closed_and_dropping_port_distinguishes_them() -> None:
    with closed_port() as port:
        assert exchange(LOCALHOST, port, ASK, SHORT).reached is Reached.REFUSED
    with dropping_port() as port:
        seen = exchange(LOCALHOST, port, ASK, SHORT)
    assert (seen.reached, seen.error, seen.end, seen.events) == (Reached.DROPPED, "no answer in 0.6 s", None, ())


def test_exchange_after_simultaneous_open_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It happens on loopback when the kernel chooses the target port as the local port."""

    class Same(socket.socket):
        def connect_ex(self, endpoint: object, /) -> int:
            self.bind(endpoint)  # type: ignore[arg-type]
            return super().connect_ex(endpoint)  # type: ignore[arg-type]

    with closed_port() as port:
        pass
    monkeypatch.setattr(socket, "socket", Same)
    seen = exchange(LOCALHOST, port, ASK, SHORT)
    assert (seen.reached, seen.end, seen.events) == (Reached.REFUSED, None, ())


def test_exchange_to_broadcast_address_is_untried() -> None:
    seen = exchange(Address(socket.AF_INET, "255.255.255.255"), 843, ASK, SHORT)
    assert seen.reached is Reached.UNTRIED
    assert seen.error


def test_exchange_without_descriptors_is_untried(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socket", none_left)
    seen = exchange(LOCALHOST, 843, ASK, SHORT)
    assert (seen.reached, seen.error) == (Reached.UNTRIED, "Too many open files")


@pytest.mark.parametrize(
    ("handler", "end"),
    [
        (broken.silent, End.OPEN),
        (broken.closing, End.CLOSED),
        (broken.resetting, End.RESET),
        (broken.endless, End.FLOOD),
        (broken.dripping_reply, End.OPEN),
    ],
)
def test_exchange_with_server_records_its_end(handler: Handler, end: End) -> None:
    with Server(handler) as server:
        assert exchange(LOCALHOST, server.port, ASK, SHORT).end is end


def test_exchange_with_endless_reply_stops_at_max_bytes() -> None:
    with Server(broken.endless) as server:
        seen = exchange(LOCALHOST, server.port, ASK, Timeouts())
    assert len(seen.data) <= MOST_BYTES


def test_exchange_with_two_writes_counts_two_segments() -> None:
    with Server(broken.in_two_writes) as server:
        seen = exchange(LOCALHOST, server.port, ASK, Timeouts())
    assert [len(event.data) for event in seen.received] == [60, len(POLICY) + 1 - 60]
    assert seen.segments == 2


def test_exchange_with_coalesced_writes_counts_two_segments() -> None:
    def quick(connection: socket.socket) -> None:
        broken.whole(connection)
        connection.sendall(POLICY)
        connection.sendall(b"\0")
        broken.end(connection)

    with Server(quick) as server:
        assert exchange(LOCALHOST, server.port, ASK, Timeouts()).segments == 2


def test_exchange_with_steps_waits_and_closes_the_sending_side() -> None:
    with Server(broken.wants_the_end) as server:
        seen = exchange(LOCALHOST, server.port, (Step(b"<policy", 0.05), Step(b"-file-request/>\0", 0.05, True)), SHORT)
    assert seen.data == POLICY + b"\0"
    sent = [event.at for event in seen.events if event.what is What.SENT]
    assert sent[0] >= 0.05
    assert sent[1] - sent[0] >= 0.05
    assert seen.asked_at == sent[1]


def test_exchange_with_server_that_closes_early_ends() -> None:
    with Server(lambda connection: connection.close()) as server:
        seen = exchange(LOCALHOST, server.port, [Step(b"x", 0.1)] * 5, SHORT)
    assert seen.end in (End.CLOSED, End.RESET)
    assert not seen.data
