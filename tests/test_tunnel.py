"""Tunnel sessions: the order of requests, repetition, gaps, held polls, ends, and what slow sides cost."""

import socket
import struct
import time
from collections.abc import Callable

import pytest

from flashpol._fastpath import Account
from flashpol._pump import ENDS as PUMP_ENDS
from flashpol._tunnel import BLOCK_SIZE, ENDS, INCARNATIONS, Tunnels
from testkit.tunnel_loop import Lane, Session, TunnelLoop, post
from tests.conftest import StartTunnels

BASE62 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
INTERVALS = [0x01, 0x03, 0x05, 0x09, 0x11, 0x21]


def reset(inner: socket.socket) -> None:
    inner.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    inner.close()


def fill(worker: TunnelLoop, session: Session, first: int, size: int = 60_000) -> tuple[bytes, int, Lane]:
    """Send bodies to an application that does not read, until one waits. What was sent, its number, its connection."""
    sent = bytearray()
    lane = worker.lane()
    for number in range(first, first + 10_000):
        body = struct.pack("<I", number) * (size // 4)
        lane.post(session.path("send", number), body)
        sent += body
        worker.drain()
        lane.pull()
        if not lane.wire:
            return bytes(sent), number, lane
        assert lane.reply().status == 200
    raise AssertionError("the application never stalled its client")


# ----------------------------------------------------------------------------------------------------------------- open


def test_id_names_host_and_worker_and_is_random(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels(host="z", incarnation=62 * 61 + 5)
    sessions = [worker.open() for _ in range(20)]
    assert len({session.id for session in sessions}) == 20
    for session in sessions:
        assert session.id.startswith("zz5")
        assert len(session.id) == 16
        assert set(session.id.encode()) <= set(BASE62)
        session.lane.close()


def test_open_is_answered_when_the_upstream_is_reached(
    start_tunnels: StartTunnels,
) -> None:
    worker = start_tunnels()
    lane = worker.lane()
    lane.send(post("/open/1"))
    worker.loop.turn(1)
    assert worker.counted("sessions", "open") == [0, 0]
    session = Session(worker, lane, worker.accept(), "")
    reply = lane.reply()
    session.id = (bytes([reply.interval or 0]) + reply.body[:-1]).decode()
    assert worker.counted("sessions", "open") == [1, 1]
    session.say(b"hello")
    assert session.idle(0).body == b"hello"
    lane.close()


def test_open_that_reaches_no_upstream_gets_502_without_a_body(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    worker.upstream.close()
    lane = worker.lane()
    reply = lane.ask("/open/1")
    assert (reply.status, reply.interval, reply.body, reply.closes) == (502, None, b"", False)
    lane.close()
    assert worker.settle() == {"served": 1, "upstream": 1}
    assert worker.counted("sessions") == [0]


def test_open_without_room_gets_503_without_a_body(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels(sessions=2)
    sessions = [worker.open(), worker.open()]
    lane = worker.lane()
    reply = lane.ask("/open/1")
    assert (reply.status, reply.interval, reply.closes) == (503, None, False)
    assert sessions[0].close().status == 200
    sessions[0].end()
    worker.until(lambda: worker.tunnels.open == 1)
    again = worker.open(lane)
    assert again.send(0, b"x").status == 200
    for session in (*sessions, again):
        session.lane.close()


def test_open_whose_client_leaves_ends_its_session(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    lane = worker.lane()
    lane.send(post("/open/1"))
    worker.loop.turn(1)  # it is being connected
    lane.reset_now()
    worker.loop.turn(1)
    inner = worker.accept()
    with inner:
        assert worker.end_of(inner) == (b"", "fin")
    worker.settle()
    assert worker.counted("open") == [0]


# ----------------------------------------------------------------------------------------------------------- the order


@pytest.mark.parametrize("first", [0, 1, 7, 10**17])
def test_numbers_begin_with_the_first_that_comes(start_tunnels: StartTunnels, first: int) -> None:
    worker = start_tunnels()
    session = worker.open()
    for number in range(first, first + 5):
        assert session.send(number, b"%d" % (number - first)).interval == 1
    assert session.heard(5) == b"01234"
    assert session.close(first + 5).status == 200
    assert session.end() == (b"", "fin")
    session.lane.close()
    assert worker.counted("reordered", "repeated", "gaps") == [0, 0, 0]


def test_requests_that_come_in_another_order_are_carried_out_in_theirs(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    session.send(0, b"0")
    lanes = {number: worker.lane(post(session.path("send", number), b"%d" % number)) for number in (5, 3, 2, 4)}
    assert session.heard(1) == b"0"
    assert session.hears_nothing()
    assert all(lane.is_silent() for lane in lanes.values())
    assert worker.counted("reordered", "buffered") == [4, 4]
    assert session.send(1, b"1").interval == 1
    assert session.heard(5) == b"12345"
    assert [lane.reply().status for lane in lanes.values()] == [200] * 4
    assert worker.counted("gaps", "buffered") == [0, 0]
    for lane in (*lanes.values(), session.lane):
        lane.close()


def test_polls_and_sends_in_another_order_get_the_stream_in_order(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    session.send(0, b"0")
    two = worker.lane(post(session.path("idle", 2)))
    three = worker.lane(post(session.path("send", 3), b"3"))
    session.say(b"abc")
    assert two.is_silent()
    assert session.send(1, b"1").body == b"abc"
    assert two.reply().body == b""
    assert three.reply().body == b""
    assert session.heard(3) == b"013"
    for lane in (two, three, session.lane):
        lane.close()


def test_gap_is_passed_over_in_time(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels(times={"gap": 0.15})
    session = worker.open()
    session.send(0, b"0")
    lanes = {number: worker.lane(post(session.path("send", number), b"%d" % number)) for number in (4, 2, 7)}
    began = time.monotonic()
    assert lanes[2].reply().status == 200
    assert time.monotonic() - began > 0.1
    assert lanes[4].reply().status == 200
    assert lanes[7].reply().status == 200
    assert session.heard(4) == b"0247"
    assert worker.counted("gaps", "reordered") == [3, 3]
    assert session.send(3, b"3").body == b""  # it is too late
    assert session.send(8, b"8").status == 200
    assert session.heard(1) == b"8"
    for lane in (*lanes.values(), session.lane):
        lane.close()


def test_window_that_is_full_refuses_and_the_session_goes_on(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    session.send(0, b"0;")
    lanes = [worker.lane(post(session.path("send", number), b"%d;" % number)) for number in range(2, 18)]
    assert all(lane.is_silent() for lane in lanes)
    over = worker.lane()
    assert over.ask(session.path("send", 18), b"18;")[:1] == (503,)
    assert worker.counted("refused", "reordered") == [1, 17]
    assert session.send(1, b"1;").status == 200
    assert [lane.reply().status for lane in lanes] == [200] * 16
    assert session.send(18, b"18;", over).status == 200
    wanted = b"".join(b"%d;" % number for number in range(19))
    assert session.heard(len(wanted)) == wanted
    for lane in (*lanes, over, session.lane):
        lane.close()


def test_window_that_holds_too_many_bytes_refuses(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels(times={"buffer": 10_000})
    session = worker.open()
    session.send(0, b"0")
    one = worker.lane(post(session.path("send", 2), bytes(9000)))
    assert one.is_silent()
    two = worker.lane()
    assert two.ask(session.path("send", 3), bytes(2000)).status == 503
    assert session.send(1, b"1").status == 200
    assert one.reply().status == 200
    assert session.heard(9002) == b"01" + bytes(9000)
    for lane in (one, two, session.lane):
        lane.close()


# ---------------------------------------------------------------------------------------------------------- repetition


def test_last_request_once_more_gets_the_same_reply(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    session.send(0, b"0")
    session.say(b"answer")
    other = worker.lane()
    assert session.send(1, b"1")[2:4] == (1, b"answer")
    for _ in range(3):
        assert session.send(1, b"1", other)[2:4] == (1, b"answer")
    assert session.heard(2) == b"01"
    assert session.hears_nothing()
    assert worker.counted("repeated") == [3]
    assert session.send(2, b"2")[2:4] == (1, b"")
    other.close()
    session.lane.close()


def test_request_before_the_last_once_more_gets_the_same_reply(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    other = worker.lane()
    session.say(b"one")
    assert session.idle(0).body == b"one"
    session.say(b"two")
    assert session.idle(1, other).body == b"two"
    assert session.idle(0).body == b"one"  # its reply was lost, and that of the next was not
    assert session.idle(1, other).body == b"two"
    session.say(b"three")
    assert session.idle(2).body == b"three"
    assert session.idle(0)[2:4] == (1, b"")  # older than what is kept
    assert session.idle(1).body == b"two"
    other.close()
    session.lane.close()


def test_older_request_reaches_the_upstream_once(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    for number in range(5):
        session.send(number, b"%d" % number)
    for number in range(5):
        assert session.send(number, b"%d" % number).status == 200
    assert session.heard(5) == b"01234"
    assert session.hears_nothing()
    assert worker.counted("repeated") == [5]
    session.lane.close()


def test_poll_that_is_held_once_more_is_answered_on_both_connections(start_tunnels: StartTunnels) -> None:
    """The same on both: whichever the client reads, it misses nothing."""
    worker = start_tunnels()
    session = worker.open()
    session.hold(0)
    other = worker.lane(post(session.path("idle", 0)))
    assert session.lane.reply().body == b""
    assert other.reply().body == b""
    session.say(b"x")
    assert session.idle(1).body == b"x"
    other.close()
    session.lane.close()


@pytest.mark.parametrize("leave", [Lane.fin, Lane.reset], ids=["fin", "rst"])
def test_poll_whose_client_leaves_leaves_its_bytes_to_the_next(
    start_tunnels: StartTunnels, leave: Callable[[Lane], None]
) -> None:
    worker = start_tunnels()
    session = worker.open()
    lost = session.hold(0, worker.lane())
    leave(lost)
    lost.close()
    session.say(b"x")
    assert worker.counted("held") == [0]
    assert session.idle(1).body == b"x"
    session.lane.close()


def test_early_poll_whose_client_leaves_takes_no_bytes(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    session.send(0, b"0")
    early = worker.lane(post(session.path("idle", 2)))
    early.reset()
    sent = worker.lane(post(session.path("send", 3), b"3"))
    sent.reset()
    session.say(b"x")
    assert session.send(1, b"1").body == b"x"
    assert session.heard(3) == b"013"
    session.say(b"y")
    assert session.idle(4).body == b"y"
    session.lane.close()


# --------------------------------------------------------------------------------------------------------------- polls


def test_poll_gets_what_waits_at_once(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    session.say(b"waits")
    assert session.idle(0)[2:4] == (1, b"waits")
    assert worker.counted("polls", "held") == [1, 0]
    session.lane.close()


def test_poll_is_held_until_something_comes(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    session.hold(0)
    assert worker.counted("held") == [1]
    session.say(b"x")
    assert session.lane.reply()[2:4] == (1, b"x")
    assert worker.counted("held") == [0]
    session.lane.close()


@pytest.mark.parametrize(("hold", "least"), [(0.15, 0.15), (0.0, 0.02)], ids=["hold", "floor"])
def test_poll_is_held_no_longer_than_hold(start_tunnels: StartTunnels, hold: float, least: float) -> None:
    worker = start_tunnels(times={"hold": hold})
    session = worker.open()
    began = time.monotonic()
    session.lane.send(post(session.path("idle", 0)))
    assert session.lane.reply()[2:4] == (1, b"")
    assert time.monotonic() - began >= least
    session.lane.close()


@pytest.mark.parametrize("kind", ["idle", "send"])
def test_poll_is_answered_by_the_next_request(start_tunnels: StartTunnels, kind: str) -> None:
    worker = start_tunnels()
    session = worker.open()
    other = worker.lane()
    session.hold(0)
    other.post(session.path(kind, 1), b"x")
    assert session.lane.reply()[2:4] == (1, b"")
    session.say(b"y")
    if kind == "send":
        assert other.reply()[2:4] == (1, b"")
        other.post(session.path("idle", 2))
    assert other.reply()[2:4] == (1, b"y")
    other.close()
    session.lane.close()


def test_poll_is_answered_by_more_on_its_connection(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    session.hold(0)
    session.lane.send(b"P")
    worker.drain()
    assert session.lane.reply()[2:4] == (1, b"")
    session.lane.send(post(session.path("send", 1), b"x")[1:])
    assert session.lane.reply().status == 200
    session.lane.close()


def test_send_is_never_held_and_takes_what_waits(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    assert session.send(0, b"x")[2:4] == (1, b"")
    session.say(b"y" * 3)
    assert session.send(1, b"x")[2:4] == (1, b"yyy")
    assert session.send(2, b"x")[2:4] == (1, b"")
    session.lane.close()


def test_intervals_rise_with_empty_replies_and_fall_with_data(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    assert [session.send(number, b"x").interval for number in range(70)] == [
        INTERVALS[min(number // 10, 5)] for number in range(70)
    ]
    session.say(b"x")
    assert session.idle(70)[2:4] == (1, b"x")
    assert session.send(71, b"x").interval == 1
    session.lane.close()


def test_reply_has_64_KiB_at_most_and_the_next_goes_on(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    data = bytes(range(256)) * 1000
    session.inner.setblocking(True)
    session.inner.sendall(data)
    received, number, sizes = b"", 0, []
    while len(received) < len(data):
        reply = session.idle(number)
        received += reply.body
        sizes.append(len(reply.body))
        number += 1
    assert received == data
    assert max(sizes) <= 65_535
    assert max(sizes) > 30_000
    session.lane.close()


# ---------------------------------------------------------------------------------------------------------------- ends


@pytest.mark.parametrize("number", [None, 1])
def test_close_sends_what_came_before_and_fin(start_tunnels: StartTunnels, number: int | None) -> None:
    worker = start_tunnels()
    session = worker.open()
    session.send(0, b"last")
    assert session.close(number)[:4:3] == (200, b"")
    assert session.end() == (b"last", "fin")
    assert session.idle(2).status == 404
    session.lane.close()
    assert worker.settle() == {"served": 1, "relayed": 1}
    assert worker.ends == {"client": 1}


def test_close_answers_a_poll_and_what_waits_in_the_window(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    poll = session.hold(0, worker.lane())
    early = worker.lane(post(session.path("send", 3), b"3"))
    assert session.close(1).status == 200
    assert poll.reply().status == 200
    assert early.reply().status == 404
    assert session.end() == (b"", "fin")
    for lane in (poll, early, session.lane):
        lane.close()


def test_close_without_a_number_comes_behind_all_that_has_come(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    session.send(0, b"0")
    lanes = [worker.lane(post(session.path("send", number), b"%d" % number)) for number in (5, 2, 3)]
    assert session.close().status == 200
    assert [lane.reply().status for lane in lanes] == [200] * 3
    assert session.end() == (b"0235", "fin")
    assert worker.counted("gaps") == [2]
    for lane in (*lanes, session.lane):
        lane.close()


def test_upstream_that_closes_is_read_to_its_end_then_404(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    data = bytes(range(256)) * 400
    session.inner.sendall(data)
    session.inner.close()
    received, number = b"", 0
    while (reply := session.idle(number)).status == 200:
        received += reply.body
        number += 1
    assert reply.status == 404
    assert received == data
    assert session.idle(number).status == 404
    session.lane.close()
    worker.settle()
    assert worker.ends == {"upstream": 1}
    assert worker.counted("unknown") == [1]


@pytest.mark.parametrize("leave", [socket.socket.close, reset], ids=["fin", "rst"])
def test_upstream_that_ends_while_a_poll_is_held_answers_it_with_404(
    start_tunnels: StartTunnels, leave: Callable[[socket.socket], None]
) -> None:
    worker = start_tunnels()
    session = worker.open()
    session.send(0, b"")
    session.hold(1)
    early = worker.lane(post(session.path("send", 3), b"3"))
    leave(session.inner)
    assert session.lane.reply().status == 404
    assert early.reply().status == 404
    early.close()
    session.lane.close()
    worker.settle()
    assert worker.ends == {"upstream" if leave is socket.socket.close else "upstream_reset": 1}


def test_upstream_that_resets_ends_the_session_at_the_next_request(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    session.send(0, b"x")
    reset(session.inner)
    worker.drain()
    assert session.send(1, b"y").status in (200, 404)
    assert session.idle(2).status == 404
    session.lane.close()


def test_client_of_which_nothing_comes_is_a_ghost(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels(times={"session_timeout": 0.3})
    session = worker.open()
    session.send(0, b"x")
    began = time.monotonic()
    assert session.end() == (b"x", "fin")
    assert time.monotonic() - began >= 0.28
    assert session.idle(1).status == 404
    session.lane.close()
    worker.settle()
    assert worker.ends == {"ghost": 1}


def test_client_of_which_something_comes_is_no_ghost(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels(times={"session_timeout": 0.3, "hold": 0.02})
    session = worker.open()
    end = time.monotonic() + 0.7
    number = 0
    while time.monotonic() < end:
        assert session.idle(number).status == 200
        number += 1
    assert worker.ends == {}
    session.lane.close()


def test_ghost_of_a_slow_upstream_ends_by_reset(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels(times={"session_timeout": 0.5, "buffer": 4096}, receive_buffer=4096)
    session = worker.open()
    _, _number, lane = fill(worker, session, 0)
    lane.reset()  # no client waits for the reply any more
    worker.until(lambda: worker.ends == {"ghost": 1}, "the end of the ghost")
    assert session.end()[1] == "rst"
    session.lane.close()


def test_client_that_waits_for_a_slow_upstream_is_no_ghost(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels(times={"session_timeout": 0.3, "buffer": 4096}, receive_buffer=4096)
    session = worker.open()
    sent, _number, lane = fill(worker, session, 0)
    end = time.monotonic() + 0.8
    worker.until(lambda: time.monotonic() > end)
    assert worker.ends == {}
    assert lane.is_silent()
    assert session.heard(len(sent)) == sent
    assert lane.reply().status == 200
    lane.close()
    session.lane.close()


def test_sessions_that_are_cut_count_as_such(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    session.hold(0)
    worker.pump.cut_all()
    assert session.lane.reply().status == 404
    session.inner.close()
    session.lane.close()
    worker.settle()
    assert worker.ends == {"shutdown": 1}


def test_sessions_that_are_closed_with_all_others_count_as_shutdown(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    session.hold(0)
    worker.pump.cut_all()  # their greenlets have not run yet
    worker.table.close_all()
    worker.check()
    assert worker.ends == {"shutdown": 1}
    worker.until(lambda: worker.pump.open == 0)
    assert [type(error) for error in worker.errors] == [ValueError]  # the greenlet found its connection closed
    worker.errors.clear()
    session.inner.close()
    session.lane.close()


def test_session_that_is_evicted_ends_with_404(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    session.hold(0)
    assert worker.pump.cut_by_client(worker.opened[0])
    assert session.lane.reply().status == 404
    session.inner.close()
    session.lane.close()
    worker.settle()
    assert worker.ends == {"evicted": 1}


# ----------------------------------------------------------------------------------------------------------- slow sides


def test_upstream_that_does_not_read_stalls_its_client_and_loses_nothing(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels(times={"buffer": 100_000}, receive_buffer=4096)
    session = worker.open()
    sent, number, lane = fill(worker, session, 0)
    assert 100_000 <= worker.counters["buffered"] < 300_000
    more = worker.lane(post(session.path("send", number + 1), b"more"))
    assert more.is_silent()
    assert session.heard(len(sent) + 4) == sent + b"more"
    assert [lane.reply().status, more.reply().status] == [200, 200]
    assert session.send(number + 2, b"z").status == 200
    assert session.heard(1) == b"z"
    for each in (lane, more, session.lane):
        each.close()


def test_request_that_waits_for_a_slow_upstream_once_more_is_carried_out_once(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels(times={"buffer": 6_000_000}, receive_buffer=4096)
    session = worker.open()
    sent, number, lane = fill(worker, session, 0)
    session.inner.settimeout(10)
    heard = bytearray()
    # A part is taken: the session is no longer slow, and the request still waits.
    while worker.counters["buffered"] > 5_900_000:
        heard += session.inner.recv(30_000)
        worker.turn()
    assert worker.counters["buffered"] > 60_000
    assert lane.is_silent()
    again = worker.lane(post(session.path("send", number), sent[-60_000:]))
    after = worker.lane(post(session.path("send", number + 1), b"end"))
    heard += session.heard(len(sent) + 3 - len(heard))
    assert bytes(heard) == sent + b"end"
    assert session.hears_nothing()
    assert again.reply().status == 200
    assert after.reply().status == 200
    for each in (lane, again, after, session.lane):
        each.close()


@pytest.mark.parametrize("number", [True, False])
def test_close_behind_what_a_slow_upstream_has_not_taken_loses_nothing(
    start_tunnels: StartTunnels, number: bool
) -> None:
    worker = start_tunnels(times={"buffer": 100_000}, receive_buffer=4096)
    session = worker.open()
    sent, last, lane = fill(worker, session, 0)
    session.lane.post(session.path("close", last + 1 if number else None))
    received, how = session.end()
    assert received == sent
    assert how == "fin"
    assert lane.reply().status == 200
    assert session.lane.reply().status == 200
    lane.close()
    session.lane.close()


def test_poll_behind_a_slow_upstream_waits_for_it(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels(times={"buffer": 50_000}, receive_buffer=4096)
    session = worker.open()
    sent, number, lane = fill(worker, session, 0)
    session.say(b"reply")
    poll = worker.lane(post(session.path("idle", number + 1)))
    assert poll.is_silent()
    assert session.heard(len(sent)) == sent
    assert lane.reply().body == b"reply"
    session.say(b"next")
    assert poll.reply().body == b"next"
    for each in (lane, poll, session.lane):
        each.close()


def test_memory_of_all_sessions_is_limited(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels(times={"buffer": 1 << 28}, max_bytes=400_000, receive_buffer=4096, max_body=1 << 22)
    sessions = [worker.open() for _ in range(4)]
    for session in sessions:
        number = 0
        while (reply := session.send(number, bytes(50_000))).status == 200 and number < 2000:
            number += 1
        assert reply.status in (404, 503)
        assert worker.tunnels.bytes <= 500_000
    worker.pump.cut_all()
    for session in sessions:
        session.inner.close()
        session.lane.close()


def test_upstream_is_not_read_while_no_request_asks(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    session.inner.setblocking(False)
    sent = 0
    for _ in range(1000):
        try:
            sent += session.inner.send(bytes(1 << 16))
        except BlockingIOError:
            worker.drain()
            break
    else:
        raise AssertionError("the server reads without end")
    assert worker.tunnels.bytes == 0
    received = number = 0
    while received < sent:
        reply = session.idle(number)
        received += len(reply.body)
        number += 1
    session.lane.close()


# ------------------------------------------------------------------------------------------------------ wrong arguments


def test_tunnels_of_arguments_that_do_not_fit_raise() -> None:
    account = Account(capacity=64)
    good = {"account": account, "host": "A", "incarnation": 0, "capacity": 4}
    for bad in ({"host": ""}, {"host": "AB"}, {"host": "-"}, {"host": "é"}, {"incarnation": -1}, {"capacity": -1}):
        with pytest.raises(ValueError, match="is"):
            Tunnels(**(good | bad))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="incarnation"):
        Tunnels(**(good | {"incarnation": INCARNATIONS}))  # type: ignore[arg-type]
    tunnels = Tunnels(**good)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="another worker"):
        tunnels.add_line(0, 0)
    with pytest.raises(ValueError, match="another worker"):
        tunnels.add_line(INCARNATIONS, 0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        tunnels.add_line(1, 1 << 20)
    with pytest.raises(ValueError, match="counter block"):
        tunnels.add_listener(0, bytearray(8), timeouts=0)
    with pytest.raises(ValueError, match="number"):
        tunnels.add_listener(0, bytearray(BLOCK_SIZE), timeouts=0)
    times = {"hold": 0.5, "gap": 2.0, "session_timeout": 15.0, "buffer": 4096}
    one = tunnels.add_timeouts(**times)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="number"):
        tunnels.add_listener(1024, bytearray(BLOCK_SIZE), timeouts=one)
    for fd in (-1, 0, 63, 64, 1 << 30):
        with pytest.raises(ValueError, match="not a tunnel session"):
            tunnels.refuse(fd, 502)
    for _ in range(1023):
        tunnels.add_timeouts(**times)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sets of timeouts"):
        tunnels.add_timeouts(**times)  # type: ignore[arg-type]
    assert tunnels.check() == 0


def test_refuse_of_another_connection_raises(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    worker.tunnels.refuse(worker.opened[0], 502)  # it is open: its request has a reply
    worker.check()
    assert session.lane.is_silent()
    session.lane.close()


def test_ends_are_those_of_the_pump() -> None:
    assert ENDS == PUMP_ENDS
