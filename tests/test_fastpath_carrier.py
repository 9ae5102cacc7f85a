"""HTTP connections that carry RTMPT: framing, pipelining, keep-alive, limits, deadlines and how they end."""

import contextlib
import time
from collections.abc import Callable

import pytest

from flashpol._fastpath import Account, TunnelGate
from flashpol._tunnel import Tunnels
from flashpol.config import ConnectionLimits
from flashpol.counters.shared import SharedAddressLimits
from testkit.clients import REQUEST
from testkit.fastpath_loop import Loop
from testkit.serving import REPLY
from testkit.tls_serving import AVAILABLE, Tls
from testkit.tunnel_loop import HOST, Lane, Session, TunnelLoop, post
from testkit.websocket_loop import Client
from tests.conftest import StartTunnels

needs_tls = pytest.mark.skipif(not AVAILABLE, reason="built without OpenSSL")
WAYS = [False, pytest.param(True, marks=needs_tls)]
HEAD = f"POST /send/{{}}/{{}} HTTP/1.1\r\nHost: {HOST}\r\n"
UNKNOWN = "A07" + "x" * 13


def start_with(start_tunnels: StartTunnels, tls: bool, **settings: object) -> TunnelLoop:
    return start_tunnels(codec=Tls().context() if tls else None, **settings)


def limits(**settings: int) -> object:
    return SharedAddressLimits(1, ConnectionLimits(**{"max_address_connections": 0} | settings)).of(0)


def over(lane: Lane) -> bytes:
    """What comes until the server ends the connection by FIN; the client then closes."""
    data, how = lane.rest()
    lane.close()
    assert how == "fin"
    return data


# -------------------------------------------------------------------------------------------------------------- framing


@pytest.mark.parametrize("tls", WAYS)
def test_session_over_one_connection_carries_bytes_both_ways(start_tunnels: StartTunnels, tls: bool) -> None:
    worker = start_with(start_tunnels, tls)
    session = worker.open(tls=tls)
    assert session.send(1, b"hello").body == b""
    assert session.heard(5) == b"hello"
    session.say(b"world")
    assert session.idle(2).body == b"world"
    assert session.close(3)[2:4] == (0, b"")
    assert session.end() == (b"", "fin")
    session.lane.close()
    assert worker.settle() == {"served": 1, "relayed": 1}


@pytest.mark.parametrize("tls", WAYS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_requests_in_segments_of_any_size_are_carried_out_once(
    start_tunnels: StartTunnels, tls: bool, size: int
) -> None:
    worker = start_with(start_tunnels, tls)
    session = worker.open(tls=tls)
    wire = b"".join(post(session.path("send", n), b"body %d;" % n) for n in range(3)) + post(session.path("idle", 3))
    for at in range(0, len(wire), size):
        session.lane.send(wire[at : at + size])
        worker.drain()
    assert [session.lane.reply().status for _ in range(3)] == [200] * 3
    assert session.heard(21) == b"body 0;body 1;body 2;"
    assert session.lane.is_silent()
    session.say(b"x")
    assert session.lane.reply().body == b"x"
    assert worker.loop.counters["handshaking"] == 0
    session.lane.close()


@pytest.mark.parametrize("tls", WAYS)
def test_request_split_at_every_byte_is_carried_out_once(start_tunnels: StartTunnels, tls: bool) -> None:
    worker = start_with(start_tunnels, tls)
    session = worker.open(tls=tls)
    size = len(post(session.path("send", 1000), b"0123456789"))
    for at in range(1, size):
        wire = post(session.path("send", 1000 + at), b"0123456789")
        session.lane.send(wire[:at])
        worker.drain()
        session.lane.send(wire[at:])
        assert session.lane.reply().status == 200
    assert session.heard(10 * (size - 1)) == b"0123456789" * (size - 1)
    session.lane.close()


@pytest.mark.parametrize("tls", WAYS)
@pytest.mark.parametrize("size", [8191, 8192, 8193, 40_000, 200_000])
def test_body_of_many_reads_reaches_the_upstream_whole(start_tunnels: StartTunnels, tls: bool, size: int) -> None:
    worker = start_with(start_tunnels, tls)
    session = worker.open(tls=tls)
    body = bytes(range(251)) * (size // 251 + 1)
    session.lane.send(post(session.path("send", 0), body[:size]) + post(session.path("send", 1), b"next"))
    assert session.heard(size + 4) == body[:size] + b"next"
    assert [session.lane.reply().status for _ in range(2)] == [200, 200]
    session.lane.close()


def test_body_of_no_bytes_is_taken(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels(times={"hold": 0.0})
    lane = worker.lane(post("/open/1", b""))
    inner = worker.accept()
    reply = lane.reply()
    session = Session(worker, lane, inner, (bytes([reply.interval or 0]) + reply.body[:-1]).decode())
    assert lane.ask(session.path("send", 0), b"")[2:4] == (1, b"")
    assert lane.ask(session.path("idle", 1), b"")[2:4] == (1, b"")
    assert session.hears_nothing()
    assert lane.ask(session.path("close", 2), b"").status == 200
    assert session.end() == (b"", "fin")
    lane.close()


@pytest.mark.parametrize("tls", WAYS)
def test_expectation_is_met_before_the_body_comes(start_tunnels: StartTunnels, tls: bool) -> None:
    worker = start_with(start_tunnels, tls)
    session = worker.open(tls=tls)
    head = HEAD.format(session.id, 0).encode() + b"Content-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    session.lane.send(head)
    assert session.lane.head() == b"HTTP/1.1 100 Continue"
    session.lane.send(b"body")
    assert session.lane.reply().status == 200
    session.lane.send(head.replace(b"/0 ", b"/1 ") + b"more")
    assert session.lane.reply().status == 200
    assert session.heard(8) == b"bodymore"
    session.lane.close()


def test_absolute_target_is_that_of_its_path(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    lane = worker.lane()
    lane.post("/open/1", absolute="http://media.example.com:80")
    inner = worker.accept()
    reply = lane.reply()
    session = Session(worker, lane, inner, (bytes([reply.interval or 0]) + reply.body[:-1]).decode())
    assert lane.ask(session.path("send", 0), b"x", absolute="http://media.example.com").status == 200
    assert session.heard(1) == b"x"
    lane.close()
    inner.close()


@pytest.mark.parametrize("path", ["/fcs/ident", "/fcs/ident2"])
def test_ident_gets_404_and_the_connection_goes_on(start_tunnels: StartTunnels, path: str) -> None:
    worker = start_tunnels()
    lane = worker.lane()
    reply = lane.ask(path)
    assert (reply.status, reply.interval, reply.closes) == (404, None, False)
    session = worker.open(lane)
    assert session.send(0, b"x").status == 200
    lane.close()
    worker.pump.cut_all()
    assert worker.settle() == {"served": 1, "relayed": 1}


def test_reply_has_the_fields_that_clients_need(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    reply = session.send(0, b"x")
    assert reply.minor == 1
    assert dict(reply.headers) == {
        "Content-Type": "application/x-fcs",
        "Content-Length": "1",
        "Cache-Control": "no-cache",
        "Connection": "Keep-Alive",
    }
    session.lane.close()


# ----------------------------------------------------------------------------------------------------------- keep-alive


@pytest.mark.parametrize("tls", WAYS)
@pytest.mark.parametrize(
    ("minor", "connection", "keeps"),
    [(1, "", True), (1, "close", False), (1, "x, Close", False), (0, "", False), (0, "Keep-Alive", True)],
)
def test_connection_goes_on_as_its_request_says(
    start_tunnels: StartTunnels, tls: bool, minor: int, connection: str, keeps: bool
) -> None:
    worker = start_with(start_tunnels, tls)
    session = worker.open(tls=tls)
    lane = worker.lane(tls=tls)
    reply = lane.ask(session.path("send", 0), b"x", minor=minor, fields=[("Connection", connection)] * bool(connection))
    assert (reply.status, reply.closes) == (200, not keeps)
    if keeps:
        assert session.send(1, b"y", lane).status == 200
        lane.close()
    else:
        assert over(lane) == b""
    assert session.heard(1) == b"x"
    session.lane.close()


def test_connection_that_carries_nothing_more_is_closed_in_time(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels(http_idle_timeout=0.2)
    session = worker.open()
    assert session.send(0, b"x").status == 200
    assert over(session.lane) == b""
    lane = worker.lane()
    assert session.send(1, b"y", lane).status == 200
    assert session.heard(2) == b"xy"
    lane.close()


def test_session_outlives_its_connections(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    for number in range(5):
        session.lane.close()
        session.lane = worker.lane()
        assert session.send(number, b"%d" % number).status == 200
    assert session.heard(5) == b"01234"
    session.lane.close()


# ------------------------------------------------------------------------------------------------------------ pipelines


@pytest.mark.parametrize("tls", WAYS)
def test_pipeline_is_carried_out_in_its_order(start_tunnels: StartTunnels, tls: bool) -> None:
    worker = start_with(start_tunnels, tls)
    session = worker.open(tls=tls)
    session.lane.send(b"".join(post(session.path("send", n), b"%04d" % n) for n in range(200)))
    assert [session.lane.reply().interval for _ in range(200)] == [1] * 10 + [3] * 10 + [5] * 10 + [9] * 10 + [
        0x11
    ] * 10 + [0x21] * 150
    assert session.heard(800) == b"".join(b"%04d" % n for n in range(200))
    session.lane.close()


@pytest.mark.parametrize("leave", ["fin", "reset", "close"])
@pytest.mark.parametrize("tls", WAYS)
def test_pipeline_of_a_client_that_leaves_at_once_is_carried_out(
    start_tunnels: StartTunnels, tls: bool, leave: str
) -> None:
    worker = start_with(start_tunnels, tls)
    session = worker.open(tls=tls)
    bodies = [b"%d" % n * 3000 for n in range(7)]
    wire = b"".join(post(session.path("send", n), body) for n, body in enumerate(bodies))
    session.lane.send(wire + post(session.path("close", 7)))
    if leave == "reset" and not tls:
        worker.drain()  # RST may destroy what is not read
    {"fin": session.lane.fin_now, "reset": session.lane.reset_now, "close": session.lane.close}[leave]()
    if leave != "reset":
        assert session.end() == (b"".join(bodies), "fin")
    session.lane.close()
    if leave == "reset":
        session.inner.close()
        worker.pump.cut_all()
    worker.settle()


def test_pipeline_does_not_wait_for_acknowledgements(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    for number in range(40):  # at first the kernel acknowledges at once
        session.send(number, b"x")
    began = time.monotonic()
    for number in range(40, 240, 2):
        session.lane.send(post(session.path("send", number), b"x") + post(session.path("send", number + 1), b"x"))
        assert [session.lane.reply().status for _ in range(2)] == [200, 200]
    assert time.monotonic() - began < 3.0  # with Nagle's algorithm 4 s at least
    session.lane.close()


def test_pipeline_behind_a_poll_answers_it(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    session.lane.send(
        post(session.path("idle", 0)) + post(session.path("send", 1), b"x") + post(session.path("idle", 2))
    )
    assert [session.lane.reply().body for _ in range(2)] == [b"", b""]
    assert session.heard(1) == b"x"
    assert session.lane.is_silent()
    session.lane.post(session.path("send", 3), b"y")
    assert [session.lane.reply().body for _ in range(2)] == [b"", b""]
    assert session.heard(1) == b"y"
    session.lane.close()


def test_pipeline_of_open_and_send_waits_for_the_upstream(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    lane = worker.lane(post("/open/1") + post("/fcs/ident2"))
    inner = worker.accept()
    assert [lane.reply().status for _ in range(2)] == [200, 404]
    lane.close()
    inner.close()


def test_pipeline_behind_a_reply_that_ends_the_connection_is_left(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    last = post(session.path("send", 0), b"x", fields=[("Connection", "close")])
    session.lane.send(last + post(session.path("send", 1), b"y"))
    assert session.lane.reply().closes
    assert over(session.lane) == b""
    assert session.heard(1) == b"x"
    assert session.hears_nothing()


def test_open_on_the_connection_of_a_proxy_ends_it_when_the_worker_drains(start_tunnels: StartTunnels) -> None:
    """New clients of the proxy then reach a worker that serves."""
    worker = start_tunnels()
    session, direct = worker.open(), worker.lane()
    worker.table.drain()
    assert not session.send(0, b"x").closes
    session.lane.post("/open/1")
    inner = worker.accept()
    reply = session.lane.reply()
    assert (reply.status, reply.closes) == (200, True)
    assert over(session.lane) == b""
    # ffmpeg opens its session with the first request of a connection, and ends when that is closed.
    direct.post("/open/1")
    second = worker.accept()
    assert not direct.reply().closes
    # Both sessions are as they were.
    assert session.send(1, b"y", direct).status == 200
    assert session.heard(2) == b"xy"
    direct.close()
    inner.close()
    second.close()


# --------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("tls", WAYS)
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /idle/x/1 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"GET /open/1 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"POST /idle/x/one HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 400),
        (b"POST /idle/x/1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST /idle/x/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST /idle/x/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 100001\r\n\r\n", 413),
        (b"POST /idle/x/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999\r\n\r\n", 413),
        (b"POST /idle/x/1 HTTP/1.1\r\nHost: a\r\nExpect: gold\r\n\r\n", 417),
        (b"POST /other HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 404),
        (b"bad\r\n\r\n", 400),
    ],
)
def test_request_that_is_refused_ends_its_connection_and_no_session(
    start_tunnels: StartTunnels, tls: bool, request_: bytes, status: int
) -> None:
    worker = start_with(start_tunnels, tls, max_body=100_000)
    session = worker.open(tls=tls)
    assert session.send(0, b"x").status == 200
    session.lane.send(request_)
    assert session.lane.reply().status == status
    assert over(session.lane) == b""
    session.lane = worker.lane(tls=tls)
    assert session.send(1, b"y").status == 200
    assert session.heard(2) == b"xy"
    session.lane.close()


@pytest.mark.parametrize("tls", WAYS)
def test_body_that_comes_too_slowly_gets_408_and_its_session_goes_on(start_tunnels: StartTunnels, tls: bool) -> None:
    worker = start_with(start_tunnels, tls, request_timeout=0.3)
    session = worker.open(tls=tls)
    lane = worker.lane(tls=tls)
    wire = post(session.path("send", 0), bytes(10_000))
    lane.send(wire[:500])
    for at in range(500, 9000, 100):  # drops do not move the deadline
        if lane.wire or lane.ended:
            break
        lane.send(wire[at : at + 100])
        worker.turn(0.02)
        lane.pull()
    assert lane.reply().status == 408
    assert over(lane) == b""
    assert session.send(0, b"x").status == 200
    assert session.heard(1) == b"x"
    session.lane.close()
    worker.pump.cut_all()
    assert worker.settle() == {"timeout": 1, "served": 1, "relayed": 1}


@pytest.mark.parametrize("tls", WAYS)
@pytest.mark.parametrize("leave", [Client.fin, Client.reset], ids=["fin", "rst"])
@pytest.mark.parametrize("kept", [20, 140, 9000])
def test_client_that_leaves_in_a_request_leaves_its_session(
    start_tunnels: StartTunnels, tls: bool, leave: Callable[[Client], None], kept: int
) -> None:
    worker = start_with(start_tunnels, tls)
    session = worker.open(tls=tls)
    lane = worker.lane(tls=tls)
    lane.send(post(session.path("send", 0), bytes(10_000))[:kept])
    worker.drain()
    leave(lane)
    lane.close()
    assert session.send(0, b"x").status == 200
    assert session.heard(1) == b"x"
    session.lane.close()
    worker.pump.cut_all()
    assert worker.settle() == {"reset": 1, "served": 1, "relayed": 1}


def test_policy_request_beside_sessions_gets_its_reply(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    lane = worker.lane(REQUEST)
    assert over(lane) == REPLY
    session.lane.close()


# ------------------------------------------------------------------------------------------------- memory and places


def test_body_with_more_memory_gives_way_when_none_is_left(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels(max_body_bytes=60_000)
    session = worker.open()
    slow = worker.lane()
    slow.send(post(session.path("send", 1), bytes(50_000))[:45_000])
    worker.drain()
    lane = worker.lane()
    lane.send(post(session.path("send", 0), bytes(30_000)))
    assert lane.reply().status == 200
    assert slow.reply().status == 503
    assert over(slow) == b""
    assert session.heard(30_000) == bytes(30_000)
    lane.close()
    session.lane.close()


def test_bodies_of_equal_memory_do_not_give_way_to_each_other_without_end(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels(max_body_bytes=60_000)
    session = worker.open()
    lanes = [worker.lane() for _ in range(6)]
    for at in range(0, 50_000, 5000):
        for number, lane in enumerate(lanes):
            if not lane.ended and not lane.wire:
                lane.send(post(session.path("send", number), bytes(50_000))[at : at + 5000])
                lane.pull()
    for number, lane in enumerate(lanes):
        if not lane.wire:
            lane.send(post(session.path("send", number), bytes(50_000))[50_000:])
    statuses = [lane.reply().status if not lane.ended or lane.wire else 0 for lane in lanes]
    assert set(statuses) <= {200, 503}
    for lane in lanes:
        lane.close()
    session.lane.close()


def test_parts_of_bodies_at_the_limit_of_places_give_way_to_others(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels(max_handshakes=4, max_body_bytes=40_000)
    session = worker.open()
    lanes = [worker.lane(post(session.path("send", 1), bytes(30_000))[:9000]) for _ in range(8)]
    assert worker.loop.counters["handshaking"] <= 4
    for lane in lanes:
        lane.close()
    assert session.send(0, b"x").status == 200
    session.lane.close()


def test_connection_that_waits_for_a_reply_is_evicted_for_another(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels(address_limits=limits(max_connections=3))
    session = worker.open()
    session.send(0, b"x")
    session.say(b"y")
    assert session.idle(1).body == b"y"  # both sides have spoken: the session does not give way
    session.hold(2)
    one = worker.lane()
    two = worker.lane()
    assert session.lane.reply().body == b""
    assert over(session.lane) == b""
    session.say(b"z")
    assert session.idle(3, two).body == b"z"
    one.close()
    two.close()


def test_sessions_over_the_rate_of_an_address_are_refused_and_its_count_is_right(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels(address_limits=limits(max_address_rate=6))
    own = worker.loop.address_limits
    assert own is not None
    lane = worker.lane()
    statuses = []
    for _ in range(12):
        reply = lane.ask("/open/1")
        statuses.append(reply.status)
        assert (reply.interval is None) == (reply.status == 503)
        assert own.tracked == worker.table.open == 1 + statuses.count(200)
    assert statuses[:5] == [200] * 5
    assert 503 in statuses
    lane.close()


def test_sessions_over_the_limit_of_an_address_replace_those_that_are_silent(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels(address_limits=limits(max_address_sessions=3))
    lane = worker.lane()
    for _ in range(6):
        assert lane.ask("/open/1").status == 200
        worker.drain()
    assert worker.table.sessions == 3
    assert worker.ends == {"evicted": 3}
    lane.close()


def test_sessions_that_are_silent_take_half_of_the_places_at_most(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels(max_sessions=8, max_leaving=0)
    lane = worker.lane()
    assert [lane.ask("/open/1").status for _ in range(6)] == [200] * 4 + [503] * 2
    sessions = [worker.accept() for _ in range(4)]
    for inner in sessions:
        inner.close()
    lane.close()


def test_clients_behind_proxies_count_for_their_own_addresses(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels(address_limits=limits(max_address_connections=2))
    worker.addresses += [f"192.0.2.{k}" for k in range(5)]
    lane = worker.lane()
    sessions = [worker.open(lane) for _ in range(5)]
    assert [worker.table.client(fd)[0] for fd in worker.opened] == [f"192.0.2.{k}" for k in range(5)]
    for session in sessions:
        assert session.send(0, b"x").status == 200
    lane.close()


# -------------------------------------------------------------------------------------------------------- unknown ids


@pytest.mark.parametrize("kind", ["send", "idle", "close"])
@pytest.mark.parametrize("id", [UNKNOWN, "short", "B07" + "x" * 13, "A08" + "x" * 13, "%41", "A" * 17])
def test_request_for_no_session_gets_404_and_is_counted(start_tunnels: StartTunnels, kind: str, id: str) -> None:
    worker = start_tunnels()
    lane = worker.lane()
    reply = lane.ask(f"/{kind}/{id}/0")
    assert (reply.status, reply.interval, reply.closes) == (404, None, False)
    assert worker.counted("unknown") == [1]
    lane.close()
    assert worker.settle() == {"http": 1}


def test_guesses_of_one_address_are_closed_unanswered(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels(address_limits=limits())
    lane = worker.lane()
    assert [lane.ask(f"/idle/{UNKNOWN}/0").status for _ in range(20)] == [404] * 20
    lane.post(f"/idle/{UNKNOWN}/0")
    assert over(lane) == b""
    other = worker.lane(source="127.0.0.9")
    assert other.ask(f"/idle/{UNKNOWN}/0").status == 404
    session = worker.open()  # the address still gets what it may have
    assert session.send(0, b"x").status == 200
    other.close()
    session.lane.close()


# ----------------------------------------------------------------------------------------------------- slow clients


@pytest.mark.parametrize("tls", WAYS)
def test_client_that_does_not_read_its_replies_loses_nothing(start_tunnels: StartTunnels, tls: bool) -> None:
    worker = start_with(start_tunnels, tls)
    session = worker.open(tls=tls)
    lane = worker.lane(tls=tls, receive_buffer=4096)
    data = bytes(range(256)) * 1000
    session.inner.setblocking(False)
    at = number = 0
    wire = bytearray()
    received = bytearray()
    while len(received) < len(data):
        with contextlib.suppress(BlockingIOError):
            at += session.inner.send(data[at:])
        if not wire:
            wire += post(session.path("idle", number))
            number += 1
        lane.send(bytes(wire))
        wire.clear()
        for _ in range(3):
            worker.turn()
        reply = lane.reply()
        assert reply.status == 200
        received += reply.body
    assert bytes(received) == data
    lane.close()
    session.lane.close()


@pytest.mark.parametrize("tls", WAYS)
def test_reply_that_is_not_read_ends_its_connection_in_time(start_tunnels: StartTunnels, tls: bool) -> None:
    worker = start_with(start_tunnels, tls, http_idle_timeout=0.3)
    session = worker.open(tls=tls)
    lane = worker.lane(tls=tls, receive_buffer=2048)
    session.inner.setblocking(False)
    sent = 0
    wire = b"".join(post(session.path("idle", number)) for number in range(400))
    lane.sock.send(lane.tls.encrypt(wire) if lane.tls else wire)
    for _ in range(200):
        with contextlib.suppress(BlockingIOError):
            sent += session.inner.send(bytes(1 << 16))
        worker.turn()
    worker.until(lambda: worker.loop.counters["served"] == 2, "the end of both connections")
    lane.close()
    session.lane.close()


# ---------------------------------------------------------------------------------------------------- wrong arguments


def test_set_tunnels_of_another_account_raises(start: Callable[..., Loop]) -> None:
    loop = start()
    other = Tunnels(account=Account(capacity=16), host="A", incarnation=0, capacity=4)
    with pytest.raises(ValueError, match="another Account"):
        loop.connection_table.set_tunnels(other)
    with pytest.raises(ValueError, match="another Account"):
        loop.connection_table.set_tunnels(TunnelGate())


def test_set_tunnels_twice_raises(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    with pytest.raises(ValueError, match="one TunnelGate"):
        worker.table.set_tunnels(worker.tunnels)


def test_open_tunnel_of_another_connection_raises(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    session = worker.open()
    for fd in (-1, 1 << 20, session.lane.sock.fileno(), worker.opened[0]):
        with pytest.raises(ValueError, match="is not a request"):
            worker.table.open_tunnel(fd)
        with pytest.raises(ValueError, match="is not a request"):
            worker.table.refuse_open(fd, 503, "capacity")
    session.lane.close()


def test_open_tunnel_of_no_address_raises_and_the_connection_is_closed(start_tunnels: StartTunnels) -> None:
    worker = start_tunnels()
    worker.addresses.append("nowhere")
    lane = worker.lane(post("/open/1"))
    assert over(lane) == b""
    [error] = worker.loop.errors
    assert isinstance(error, ValueError)
    worker.loop.errors.clear()
    assert worker.settle() == {"capacity": 1}


def test_request_of_a_listener_without_sessions_gets_404() -> None:
    """A listener that `add_listener` was not called for has no counters."""

    def make(account: Account) -> Tunnels:
        return Tunnels(account=account, host="A", incarnation=0, capacity=4)

    opened = []

    def on_open(fd: int, data: bytes, listener: int) -> None:
        opened.append(loop.connection_table.open_tunnel(fd))
        loop.connection_table.refuse_open(fd, 503, opened[0])

    loop = Loop(tunnels=make, http=True, on_open=on_open)
    with loop.connect() as client:
        loop.send(client, post("/open/1"))
        assert client.recv(1000).startswith(b"HTTP/1.1 503 ")
        loop.send(client, post(f"/send/{UNKNOWN}/0"))
        assert client.recv(1000).startswith(b"HTTP/1.1 404 ")
    assert opened == ["capacity"]
    loop.settle()
    loop.close()
