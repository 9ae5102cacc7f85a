"""What tunnel sessions hold is bounded and shared out, and what waited for a slow upstream is carried out once."""

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from flashpol.config import ConnectionLimits
from flashpol.counters.shared import SharedAddressLimits
from testkit.polling import eventually
from testkit.tunnel_loop import Lane, Session, TunnelLoop, post

BODY = 60_000
SLOW = 4_000_000  # more than the kernel takes at once
MAX_BYTES = 1 << 20
LEAST_SHARE = 4096

Make = Callable[..., TunnelLoop]


@pytest.fixture
def make() -> Iterator[Make]:
    loops: list[TunnelLoop] = []

    def one(**settings: object) -> TunnelLoop:
        loops.append(TunnelLoop(**settings))  # type: ignore[arg-type]
        return loops[-1]

    yield one
    for loop in loops:
        loop.close()


def ask(session: Session, kind: str, number: int, body: bytes, lane: Lane | None = None) -> int:
    """The status of the reply."""
    return (lane or session.lane).ask(session.path(kind, number), body).status


def body_of(number: int) -> bytes:
    return bytes([number & 0xFF]) * BODY


def fill(session: Session, most: int = 400) -> int:
    """Send bodies until one has no reply, or is refused. Returns the number of that request."""
    for number in range(most):
        session.lane.post(session.path("send", number), body_of(number))
        if session.lane.is_silent():
            return number
        if session.lane.reply().status != 200:
            return number
    raise AssertionError("the upstream takes everything")


@pytest.mark.slow
def test_request_that_waited_for_a_slow_upstream_and_comes_once_more_is_carried_out_once(make: Make) -> None:
    worker = make(receive_buffer=1 << 17, times={"buffer": SLOW})
    session = worker.open()
    number = fill(session)
    received = bytearray()
    session.inner.setblocking(False)
    # The upstream takes a part: less than `buffer` waits for it from then on, and something does.
    while worker.counters["buffered"] > SLOW:
        with suppress(BlockingIOError):
            received += session.inner.recv(1 << 16)
        worker.drain()
    assert worker.counters["buffered"] > 2 * BODY
    again = worker.lane(post(session.path("send", number), body_of(number)))
    received += worker.receive(session.inner, (number + 1) * BODY - len(received))
    assert again.reply().status == 200
    assert received == b"".join(map(body_of, range(number + 1)))
    assert session.hears_nothing()
    assert session.send(number + 1, b"last", lane=worker.lane()).status == 200
    assert session.heard(4) == b"last"


def test_sessions_that_take_all_the_memory_they_can_leave_some_to_others(make: Make) -> None:
    worker = make(receive_buffer=4096, max_bytes=MAX_BYTES, times={"buffer": 1 << 22})
    greedy = [worker.open() for _ in range(8)]
    for session in greedy:
        fill(session)
    assert worker.tunnels.bytes <= MAX_BYTES
    session = worker.open()
    assert session.send(0, b"hello").status == 200
    assert session.heard(5) == b"hello"
    early = bytes(LEAST_SHARE)
    lane = worker.lane(post(session.path("send", 2), early))
    assert lane.is_silent()
    assert session.send(1, b"first").status == 200
    assert session.heard(5 + len(early)) == b"first" + early


def test_session_whose_body_finds_no_memory_ends(make: Make) -> None:
    worker = make(receive_buffer=4096, max_bytes=MAX_BYTES, times={"buffer": 1 << 22}, max_body=1 << 22)
    session = worker.open()
    # More than the kernel takes for the upstream, and more than a session's share.
    assert ask(session, "send", 0, bytes(4 << 20)) == 404
    assert worker.tunnels.bytes == 0
    # Although the upstream neither reads nor sends.
    eventually(
        lambda: worker.table.open == 1, "only the connection of the request is left", wait=lambda _: worker.turn()
    )


def test_poll_that_waited_for_its_turn_while_more_came_behind_it_is_not_held(make: Make) -> None:
    worker = make()
    session = worker.open()
    assert session.send(0, b"a").status == 200
    lane = worker.lane(post(session.path("idle", 2)) + post(session.path("send", 3), b"c"))
    assert lane.is_silent()
    assert session.send(1, b"b").status == 200
    assert [lane.reply().status, lane.reply().status] == [200, 200]
    assert session.heard(3) == b"abc"


def test_poll_that_is_held_when_its_session_ends_is_counted_out(make: Make) -> None:
    worker = make()
    session = worker.open()
    assert session.send(0, b"a").status == 200
    lane = session.hold(1)
    assert worker.counters["held"] == 1
    session.inner.close()
    assert lane.reply().status == 404
    assert worker.counters["held"] == 0


def test_reply_that_finds_no_memory_ends_its_connection_and_can_be_asked_for_once_more(make: Make) -> None:
    worker = make(max_body_bytes=8192, times={"hold": 0.02})
    session = worker.open()
    lane = worker.lane(receive_buffer=4096)
    said = bytes(range(256)) * 200
    number = 0
    while not lane.ended:
        session.say(said)
        lane.send(post(session.path("idle", number)))
        worker.drain()
        if worker.table.open < 4:  # the session, its connection and the client's lane
            break
        number += 1
        assert number < 1000, "the client's kernel takes everything"
    again = worker.lane()
    reply = again.ask(session.path("idle", number))
    assert reply.status == 200
    assert reply.body in said + said


def test_connection_that_has_carried_requests_gives_way_after_those_that_wait(make: Make) -> None:
    limits = SharedAddressLimits(1, ConnectionLimits(max_address_connections=8)).of(0)
    worker = make(address_limits=limits)
    session = worker.open()
    waiting = [worker.lane(b"POST /open/1 HTTP/1.1\r\n") for _ in range(6)]
    assert session.send(0, b"hello").status == 200
    for _ in range(5):
        worker.lane(b"POST /open/1 HTTP/1.1\r\n")
    assert session.send(1, b"again").status == 200
    assert session.heard(10) == b"helloagain"
    for lane in waiting:
        lane.pull()
    assert any(lane.ended or lane.wire for lane in waiting)


def test_bodies_are_read_in_turns(make: Make) -> None:
    """A policy request beside many bodies is not behind all of them."""
    worker = make(max_body=1 << 20, max_body_bytes=1 << 26)
    bodies = []
    for _ in range(8):
        lane = worker.lane()
        lane.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 21)
        bodies.append(lane)
    wire = post("/send/A07aaaaaaaaaaaaa/0", bytes(1 << 20))
    for lane in bodies:
        lane.send(wire)
        worker.drain()
    assert [lane.reply().status for lane in bodies] == [404] * 8


def test_connections_with_many_requests_take_turns(make: Make) -> None:
    worker = make()
    requests = 600  # more than a wake-up carries out
    busy = worker.lane()
    busy.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    busy.send(post("/fcs/ident2") * requests)
    other = worker.lane(post("/fcs/ident2") * 2)
    assert [other.reply().status for _ in range(2)] == [404, 404]
    assert [busy.reply().status for _ in range(requests)] == [404] * requests
