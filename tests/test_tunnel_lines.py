"""Requests for sessions of another worker: forwarded over a line, answered, cancelled, and what ends a line."""

import socket
import struct

import pytest

from testkit.tunnel_loop import Session, TunnelLoop, post
from tests.conftest import StartTunnels

MESSAGE = "=IBBBBHHiIIq16s"  # tunnel/lines.pxi: Message, with its padding
SIZE = 48
REQUEST, REPLY, CANCEL, HURRY = range(4)
SEND, IDLE, CLOSE = 3, 4, 5


def message(
    kind: int = 0,
    *,
    type: int = REQUEST,
    size: int = 0,
    version: int = 1,
    status: int = 0,
    remote: int = 9,
    serial: int = 1,
    number: int = 0,
    id: str = "",
) -> bytes:
    return struct.pack(MESSAGE, size, version, type, kind, 0, status, 0, remote, serial, 0, number, id.encode())


def two_workers(start_tunnels: StartTunnels, **settings: object) -> tuple[TunnelLoop, TunnelLoop]:
    one = start_tunnels(incarnation=1, **settings)
    two = start_tunnels(incarnation=2, **settings)
    one.join(two)
    return one, two


def with_line(worker: TunnelLoop, incarnation: int = 3) -> socket.socket:
    """A line to a worker that is the test."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    worker.tunnels.add_line(incarnation, ours.detach())
    return theirs


def received(worker: TunnelLoop, line: socket.socket) -> list[tuple[int, int, int, int]]:
    """The messages that the worker has sent: (type, kind or status, number, size)."""
    worker.drain()
    data, found = b"", list[tuple[int, int, int, int]]()
    try:
        while piece := line.recv(1 << 20):
            data += piece
            worker.drain()
    except BlockingIOError:
        pass
    while data:
        size, _, type, kind, _, status, _, _, _, _, number, _ = struct.unpack(MESSAGE, data[:SIZE])
        found.append((type, kind or status, number, size))
        data = data[SIZE + size :]
    return found


def id_of(incarnation: int) -> str:
    return f"A{'0123456789'[incarnation // 62]}{'0123456789'[incarnation % 62]}" + "x" * 13


# ------------------------------------------------------------------------------------------------------ two workers


@pytest.mark.parametrize("host", ["A", "B"])
def test_request_at_another_worker_is_carried_out_there(start_tunnels: StartTunnels, host: str) -> None:
    one, two = two_workers(start_tunnels, host=host)
    session = one.open()
    lane = two.lane()
    assert session.send(0, b"hello", lane)[2:4] == (1, b"")
    assert session.heard(5) == b"hello"
    session.say(b"world")
    assert session.idle(1, lane)[2:4] == (1, b"world")
    assert session.send(2, b"by its own worker").status == 200
    body = bytes(range(256)) * 300
    assert session.send(3, body, lane).status == 200
    assert session.heard(17 + len(body)) == b"by its own worker" + body
    assert two.counted("forwarded", "forward_failures", "unknown") == [3, 0, 0]
    assert session.close(4, lane).status == 200
    assert session.end() == (b"", "fin")
    assert session.idle(5, lane).status == 404
    assert two.counted("unknown") == [1]
    lane.close()
    session.lane.close()
    assert two.settle() == {"served": 1}


def test_requests_at_two_workers_are_carried_out_in_their_order(start_tunnels: StartTunnels) -> None:
    one, two = two_workers(start_tunnels)
    session = one.open()
    session.send(0, b"0", two.lane())
    three = two.lane(post(session.path("send", 3), b"3"))
    early = two.lane(post(session.path("send", 2), b"2"))
    assert three.is_silent()
    assert session.send(1, b"1").status == 200
    assert [early.reply().status, three.reply().status] == [200, 200]
    assert session.heard(4) == b"0123"
    assert session.send(3, b"3").status == 200  # once more
    assert session.hears_nothing()
    for lane in (early, three, session.lane):
        lane.close()


def test_poll_at_another_worker_is_held(start_tunnels: StartTunnels) -> None:
    one, two = two_workers(start_tunnels)
    session = one.open()
    lane = session.hold(0, two.lane())
    assert one.counted("held") == [1]
    session.say(b"x")
    assert lane.reply().body == b"x"
    session.hold(1, lane)
    lane.post(session.path("send", 2), b"behind")  # more has come: it is held no longer
    assert [lane.reply().body for _ in range(2)] == [b"", b""]
    assert session.heard(6) == b"behind"
    lane.close()
    session.lane.close()


@pytest.mark.parametrize("how", ["reset", "evicted"])
def test_poll_at_another_worker_whose_client_leaves_leaves_its_bytes(start_tunnels: StartTunnels, how: str) -> None:
    one, two = two_workers(start_tunnels)
    session = one.open()
    lost = session.hold(0, two.lane())
    if how == "reset":
        lost.reset()
    else:
        assert two.table.evict()
        two.drain()
    assert one.counted("held") == [0]
    session.say(b"x")
    assert session.idle(1).body == b"x"
    lost.close()
    session.lane.close()


def test_session_of_another_worker_that_ends_answers_its_polls(start_tunnels: StartTunnels) -> None:
    one, two = two_workers(start_tunnels)
    session = one.open()
    lane = session.hold(0, two.lane())
    session.inner.close()
    assert lane.reply().status == 404
    lane.close()
    session.lane.close()


def test_worker_that_ends_leaves_404(start_tunnels: StartTunnels) -> None:
    one, two = two_workers(start_tunnels)
    session = one.open()
    poll = session.hold(0, two.lane())
    early = two.lane(post(session.path("send", 5), b"x"))
    # Its end of the line is closed, as when its process ends.
    line = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    one.tunnels.add_line(2, line[0].detach())
    line[1].close()
    assert [poll.reply().status, early.reply().status] == [404, 404]
    assert two.tunnels.lines == []
    assert one.tunnels.lines == []
    assert one.counted("held") == [0]
    assert two.counted("forward_failures") == [2]
    assert poll.ask(session.path("idle", 1)).status == 404
    assert session.send(1, b"y").status == 200
    for lane in (poll, early, session.lane):
        lane.close()


def test_line_that_comes_later_replaces_the_earlier_one(start_tunnels: StartTunnels) -> None:
    one, two = two_workers(start_tunnels)
    session = one.open()
    poll = session.hold(0, two.lane())
    one.join(two)
    assert poll.reply().status == 404
    session.say(b"x")
    assert session.idle(0, poll).body == b"x"
    assert (one.tunnels.lines, two.tunnels.lines) == ([2], [1])
    poll.close()
    session.lane.close()


# ---------------------------------------------------------------------------------------------- messages by hand


def test_messages_of_a_request_are_those_of_its_life(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    with with_line(worker) as line:
        lane = worker.lane(post(f"/idle/{id_of(3)}/5"))
        assert received(worker, line) == [(REQUEST, IDLE, 5, 1)]
        lane.send(b"P")
        assert received(worker, line) == [(HURRY, 0, 0, 0)]
        lane.reset()
        line.sendall(message(type=REPLY, status=200, remote=0, serial=99, size=1) + b"\1")  # for no one
        worker.drain()
        worker.check()
        # It is not read while a request waits: its end is noticed with the reply, or at eviction.
        worker.table.evict()
        assert received(worker, line) == [(CANCEL, 0, 0, 0)]
        lane.close()
    worker.drain()
    assert worker.tunnels.lines == []


def test_reply_by_a_line_is_passed_on(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    with with_line(worker) as line:
        lane = worker.lane()
        for body in (b"\1", b"\1" + bytes(65_535), b"\3abc"):
            lane.post(f"/idle/{id_of(3)}/5")
            worker.drain()
            request = line.recv(1000)
            _, _, type, kind, _, _, _, remote, serial, _, number, id = struct.unpack(MESSAGE, request[:SIZE])
            assert (type, kind, number, id) == (REQUEST, IDLE, 5, id_of(3).encode())
            reply = message(type=REPLY, status=200, remote=remote, serial=serial, size=len(body)) + body
            for at in range(0, len(reply), 20_000):
                line.sendall(reply[at : at + 20_000])
                worker.drain()
            got = lane.reply()
            assert bytes([got.interval or 0]) + got.body == body
        line.sendall(message(type=REPLY, status=200, remote=remote, serial=serial, size=1) + b"x")  # once more
        assert lane.is_silent()
        lane.close()


def test_requests_by_a_line_in_segments_of_any_size(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    with with_line(worker) as line:
        wire = b"".join(message(SEND, number=n, size=5, id=session.id) + b"%04d;" % n for n in range(20))
        for at in range(0, len(wire), 7):
            line.sendall(wire[at : at + 7])
            worker.drain()
        assert session.heard(100) == b"".join(b"%04d;" % n for n in range(20))
        assert received(worker, line) == [(REPLY, 200, 0, 1)] * 20
        line.sendall(message(CLOSE, number=-1, id=session.id))
        assert received(worker, line) == [(REPLY, 200, 0, 1)]
        line.sendall(message(IDLE, number=50, id=session.id) + message(type=CANCEL, id=session.id))
        assert received(worker, line) == [(REPLY, 404, 0, 0)]
    assert session.end() == (b"", "fin")
    session.lane.close()


def test_request_by_a_line_that_is_older_than_its_repetition_leaves_that_its_reply(start_tunnels: StartTunnels) -> None:
    """The client's connection to the other worker broke. It repeated the request here, and the copy came first."""
    worker = start_tunnels()
    session = worker.open()
    session.send(0, b"0")
    with with_line(worker) as line:
        again = worker.lane(post(session.path("send", 2), b"2"))
        line.sendall(message(SEND, number=2, size=1, id=session.id, serial=7) + b"2")
        assert again.is_silent()
        line.sendall(message(type=CANCEL, id=session.id, serial=7))
        worker.drain()
        assert session.send(1, b"1").status == 200
        assert again.reply().status == 200
        assert session.heard(3) == b"012"
        assert received(worker, line) == []
    for lane in (again, session.lane):
        lane.close()


def test_early_request_that_came_twice_by_a_line_is_answered_there_twice(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    session.send(0, b"0")
    with with_line(worker) as line:
        for serial in (3, 4):
            line.sendall(message(SEND, number=2, size=1, id=session.id, serial=serial) + b"2")
        worker.drain()
        assert session.send(1, b"1").status == 200
        assert received(worker, line) == [(REPLY, 200, 0, 1)] * 2
        assert session.heard(3) == b"012"
    session.lane.close()


def test_early_request_keeps_its_other_connection_when_its_line_ends(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    session.send(0, b"0")
    again = worker.lane(post(session.path("send", 2), b"2"))
    with with_line(worker) as line:
        line.sendall(message(SEND, number=2, size=1, id=session.id) + b"2")
        worker.drain()
    worker.drain()
    assert session.send(1, b"1").status == 200
    assert again.reply().status == 200
    assert session.heard(3) == b"012"
    for lane in (again, session.lane):
        lane.close()


def test_cancelled_poll_by_a_line_takes_no_bytes(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    with with_line(worker) as line:
        line.sendall(message(IDLE, number=0, id=session.id, serial=5))
        worker.drain()
        assert worker.counted("held") == [1]
        line.sendall(message(type=CANCEL, id=session.id, serial=4))  # of another request
        worker.drain()
        assert worker.counted("held") == [1]
        line.sendall(message(type=CANCEL, id=session.id, serial=5))
        worker.drain()
        assert worker.counted("held") == [0]
        session.hold(0)  # once more: it gets what comes
        session.say(b"x")
        assert session.lane.reply().body == b"x"
        assert received(worker, line) == []
    session.lane.close()


def test_hurried_poll_by_a_line_is_answered(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    with with_line(worker) as line:
        line.sendall(message(IDLE, number=0, id=session.id, serial=5) + message(type=HURRY, id=session.id, serial=5))
        assert received(worker, line) == [(REPLY, 200, 0, 1)]
        assert worker.counted("held") == [0]
    session.lane.close()


@pytest.mark.parametrize(
    "bad",
    [
        message(version=2),
        message(type=4),
        message(type=255),
        message(SEND, remote=-1),
        message(SEND, size=(4 << 20) + 1),
        message(SEND, number=-2),
        message(0),
        message(1),
        message(2),
        message(6),
        message(type=REPLY, status=200, size=65_537),
        message(type=REPLY, status=200, remote=1 << 30),
        message(type=REPLY, status=0),
        message(type=REPLY, status=999),
        message(type=CANCEL, size=1),
        message(type=HURRY, size=1),
    ],
)
def test_message_that_no_worker_writes_ends_the_line(start_tunnels: StartTunnels, bad: bytes) -> None:
    worker = start_tunnels()
    session = worker.open()
    with with_line(worker) as line:
        waits = worker.lane(post(f"/idle/{id_of(3)}/5"))
        line.sendall(message(IDLE, number=0, id=session.id))
        worker.drain()
        line.sendall(bad)
        worker.drain()
        assert worker.tunnels.lines == []
        assert waits.reply().status == 404
        assert worker.counted("held", "forward_failures") == [0, 1]
    assert session.send(1, b"x").status == 200
    assert session.heard(1) == b"x"
    waits.close()
    session.lane.close()


def test_line_that_is_full_refuses(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels(max_body=1 << 21)
    with with_line(worker) as line:
        lanes = []
        for number in range(40):
            lane = worker.lane()
            lane.send(post(f"/send/{id_of(3)}/{number}", bytes(900_000)))
            worker.drain()
            lane.pull()
            lanes.append(lane)
            if lane.wire:
                break
        assert lanes[-1].reply().status == 503
        assert all(lane.is_silent() for lane in lanes[:-1])
        assert worker.counted("forward_failures") == [1]
        # What was taken comes whole.
        assert received(worker, line) == [(REQUEST, SEND, number, 900_000) for number in range(len(lanes) - 1)]
        for lane in lanes:
            lane.close()


def test_line_whose_replies_are_not_taken_gets_503_and_loses_no_request(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    with with_line(worker) as line:
        for number in range(0, 300, 2):  # 9 MB of replies
            session.inner.sendall(bytes(60_000))
            wire = message(SEND, number=number, id=session.id, size=4) + b"%4d" % number
            line.sendall(wire + message(IDLE, number=number + 1, id=session.id))
            worker.drain()
        assert worker.tunnels.lines == [3]
        assert session.heard(600) == b"".join(b"%4d" % n for n in range(0, 300, 2))
        replies = received(worker, line)
        assert len(replies) == 300 - worker.counters["held"]
        assert {status for _, status, _, _ in replies} == {200, 503}
        assert all(size == 0 for _, status, _, size in replies if status == 503)
        line.sendall(message(IDLE, number=299 - worker.counters["held"], id=session.id))  # once more
        assert received(worker, line)[-1][1] == 200
    worker.pump.cut_all()
    session.inner.close()
    session.lane.close()


def test_line_that_ends_in_a_message_forgets_it(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = Session(worker, worker.lane(), socket.socket(), "x" * 16)
    with with_line(worker) as line:
        line.sendall(message(SEND, size=100_000, id=session.id) + bytes(99_999))
        worker.drain()
        assert worker.tunnels.lines == [3]
    worker.drain()
    assert worker.tunnels.lines == []
    session.inner.close()
    session.lane.close()
