"""Sessions of WebSocket in the pump, with and without TLS: 101, bytes, ends, pings, slow sides."""

import random
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from flashpol._fastpath import RequestHead
from flashpol._pump import Destination
from testkit.tls_serving import AVAILABLE, Tls
from testkit.websocket import BINARY, PING, PONG, TEXT, Frame, close, closed, frame, frames_of, message, request, split
from testkit.websocket_loop import SWITCH, Client, WebSocketLoop, echo
from tests.conftest import StartWebSockets

WAYS = ["plain", pytest.param("tls", marks=pytest.mark.skipif(not AVAILABLE, reason="built without OpenSSL"))]
BULK = 1 << 20


@pytest.fixture(params=WAYS)
def make(request: pytest.FixtureRequest, start_websockets: StartWebSockets) -> StartWebSockets:
    """Loops whose clients have TLS or not."""

    def start(**settings: object) -> WebSocketLoop:
        tls = request.param == "tls"
        loop = start_websockets(**({"codec": Tls().context()} if tls else {}), **settings)
        plain = loop.connect
        loop.connect = lambda data=b"", **options: plain(data, **({"tls": tls} | options))  # type: ignore[method-assign]
        return loop

    return start


def until_ended(loop: WebSocketLoop, count: int = 1) -> list[str]:
    loop.until(lambda: len(loop.ended) >= count, loop.ended)
    return [outcome for outcome, _ in loop.ended]


# ---------------------------------------------------------------------------------------------------------------- begin


def test_session_relays_messages_both_ways(make: StartWebSockets) -> None:
    loop = make()
    client, inner = loop.open()
    with inner:
        echo(loop, client, inner)
        data = random.Random(1).randbytes(200_000)
        client.send(message(data, 1, 70_000, 0))
        assert loop.receive(inner, len(data)) == data
        inner.sendall(data[:50_000])
        client.until(lambda: sum(len(each.payload) for each in frames_so_far(client)) >= 50_000)
        assert b"".join(each.payload for each in frames_so_far(client)) == data[:50_000]
        client.close()
    assert loop.settle() == {"relayed": 1}
    assert loop.counters.upgrades == {"accepted": 1}


def frames_so_far(client: Client) -> list[Frame]:
    return split(bytes(client.wire))[0]


def test_client_gets_no_101_before_the_upstream_has_accepted(start_websockets: StartWebSockets) -> None:
    loop = start_websockets()
    # A queue that is full: the kernel answers no SYN.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        loop.destination = Destination(full.getsockname(), loop._block)
        client = loop.connect(request("/ws") + frame(BINARY, b"early"))
        for _ in range(10):
            loop.turn(0.02)
            client.pull()
        assert (client.wire, client.ended, loop.relayed["connecting"]) == (b"", "", 1)
        assert loop.counters.upgrades == {}
        for filler in fillers:
            filler.close()
        client.reset()
        loop.pump.cut_all()
        loop.until(lambda: loop.ended)
    assert loop.settle() == {"upstream": 1}
    assert loop.counters.upgrades == {"upstream": 1}


def test_upstream_that_refuses_gives_502_and_no_101(make: StartWebSockets) -> None:
    loop = make()
    loop.upstream.close()
    client = loop.connect(request("/ws") + frame(BINARY, b"early"))
    assert client.rest() == (b"HTTP/1.1 502\r\n\r\n", "fin")
    client.close()
    assert loop.settle() == {"upstream": 1}
    assert loop.counters.upgrades == {"upstream": 1}


@pytest.mark.parametrize("cut", [0, 1, 6, 20, 10_000])
def test_data_behind_the_head_belongs_to_the_session(make: StartWebSockets, cut: int) -> None:
    loop = make()
    wire = frame(BINARY, b"early") + frame(PING, b"?") + frame(BINARY, b"later")
    client, inner = loop.open(wire[:cut])
    with inner:
        client.send(wire[cut:])
        assert loop.receive(inner, 10) == b"earlylater"
        assert client.frames(1) == [Frame(PONG, b"?")]
        client.close()
    loop.settle()


def test_header_of_ours_comes_first(make: StartWebSockets) -> None:
    loop = make()
    loop.first = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"
    client, inner = loop.open(frame(BINARY, b"early"))
    with inner:
        assert loop.receive(inner, len(loop.first) + 5) == loop.first + b"early"
        client.close()
    loop.settle()


@pytest.mark.slow
@pytest.mark.skipif(not AVAILABLE, reason="built without OpenSSL")
@pytest.mark.parametrize("rest", [b"", frame(BINARY, b"early")])
def test_close_notify_right_behind_the_request_is_fin(start_websockets: StartWebSockets, rest: bytes) -> None:
    """It came with the request, so nothing more is read: the client keeps its TCP connection open."""
    loop = start_websockets(codec=Tls().context())
    client = loop.connect(tls=True)
    assert client.tls
    client.sock.sendall(client.tls.encrypt(request("/ws") + rest) + client.tls.farewell())
    inner = loop.accept()
    with inner:
        assert loop.end_of(inner) == (b"early" if rest else b"", "fin")
    client.close()
    loop.settle()
    assert loop.counters.closes == {("1006", "client"): 1}


@pytest.mark.parametrize("leave", [Client.fin_now, Client.reset_now], ids=["fin", "rst"])
def test_client_that_left_before_the_decision_ends_as_1006(
    make: StartWebSockets, leave: Callable[[Client], None]
) -> None:
    loop = make()
    decide = loop.decide

    def late(fd: int, head: RequestHead, data: bytes) -> None:
        leave(client)
        decide(fd, head, data)

    loop.decide = late
    client = loop.connect()
    client.send(request("/ws"))
    inner = loop.accept()
    with inner:
        assert loop.end_of(inner) == (b"", "fin" if leave is Client.fin_now else "rst")
    client.close()
    loop.settle()
    assert set(loop.counters.closes) <= {("1006", "client")}
    assert loop.counters.upgrades == {"accepted": 1}


# ----------------------------------------------------------------------------------------------------------------- ends


@pytest.mark.parametrize("code", [None, 1000, 1001, 3000])
def test_close_of_the_client_is_fin_to_the_upstream(make: StartWebSockets, code: int | None) -> None:
    loop = make()
    client, inner = loop.open()
    with inner:
        client.send(frame(BINARY, b"last") + close(code))
        assert loop.end_of(inner) == (b"last", "fin")
        inner.sendall(b"dropped")  # by now the client must not be sent anything
        assert client.end() == ([closed(code)], "fin")
        client.close()
    assert until_ended(loop) == ["client"]
    assert loop.settle() == {"relayed": 1}
    name = "1005" if code is None else "other" if code == 3000 else str(code)
    assert loop.counters.closes == {(name, "client"): 1}


def test_close_is_over_without_a_fin_of_the_upstream_after_linger_timeout(make: StartWebSockets) -> None:
    loop = make(timeouts={"linger_timeout": 0.1})
    client, inner = loop.open()
    with inner:
        client.send(close(1000))
        assert client.end() == ([closed(1000)], "fin")
        assert until_ended(loop) == ["client"]
        client.close()
    loop.settle()


@pytest.mark.slow
def test_bytes_before_a_close_reach_an_upstream_that_takes_its_time(start_websockets: StartWebSockets) -> None:
    loop = start_websockets(timeouts={"linger_timeout": 0.05}, path={"max_message": 1 << 30})
    client, inner = loop.open()
    with inner:
        # More than there is room for on the way, so that a part is held when the Close has been decoded.
        inner.setblocking(False)
        data = random.Random(2).randbytes(BULK * 16)
        wire, sent, got = memoryview(message(data, 100_000) + close(1000)), 0, bytearray()
        while sent < len(wire):
            with suppress(BlockingIOError):
                sent += client.sock.send(wire[sent : sent + 65536])
            if not loop.turn(0.005):
                got += inner.recv(8192)
        for _ in range(20):
            got += inner.recv(4096)
            loop.turn(0.02)
        rest, how = loop.end_of(inner)
        assert (bytes(got) + rest == data, how) == (True, "fin")
        client.close()
    loop.settle()


@pytest.mark.parametrize("speaks", [False, True])
def test_fin_of_the_upstream_is_close_1000(make: StartWebSockets, speaks: bool) -> None:
    loop = make()
    client, inner = loop.open()
    with inner:
        if speaks:
            inner.sendall(b"last")
        inner.shutdown(socket.SHUT_WR)
        frames, how = client.end()
        assert (frames, how) == ([Frame(BINARY, b"last")] * speaks + [closed(1000)], "fin")
        client.send(frame(BINARY, b"still") + close(1000))
        assert loop.end_of(inner) == (b"still", "fin")
        client.close()
    assert until_ended(loop) == ["upstream"]
    assert loop.settle() == {"relayed": 1}
    assert loop.counters.closes == {("1000", "server"): 1}


def test_client_that_never_closes_in_turn_ends_after_linger_timeout(make: StartWebSockets) -> None:
    loop = make(timeouts={"linger_timeout": 0.1})
    client, inner = loop.open()
    inner.close()
    assert client.end() == ([closed(1000)], "fin")
    assert until_ended(loop) == ["upstream"]
    loop.settle()
    client.close()


def test_rst_of_the_upstream_is_close_1011(make: StartWebSockets) -> None:
    loop = make()
    client, inner = loop.open()
    inner.sendall(b"last")
    loop.drain()
    reset(inner)
    assert client.end() == ([Frame(BINARY, b"last"), closed(1011)], "fin")
    client.close()
    assert until_ended(loop) == ["upstream_reset"]
    assert loop.settle() == {"relayed": 1}
    assert loop.counters.closes == {("1011", "server"): 1}


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_fin_of_the_client_without_close_is_fin_and_counts_as_1006(make: StartWebSockets) -> None:
    loop = make()
    client, inner = loop.open()
    with inner:
        client.send(frame(BINARY, b"last"))
        client.fin()
        assert loop.end_of(inner) == (b"last", "fin")
        inner.sendall(b"more")
        inner.close()
        assert client.end() == ([Frame(BINARY, b"more"), closed(1000)], "fin")
        client.close()
    assert until_ended(loop) == ["client"]
    assert loop.settle() == {"relayed": 1}
    assert loop.counters.closes == {("1006", "client"): 1}


def test_rst_of_the_client_is_rst_and_counts_as_1006(make: StartWebSockets) -> None:
    loop = make()
    client, inner = loop.open()
    with inner:
        client.reset()
        assert loop.end_of(inner) == (b"", "rst")
    assert until_ended(loop) == ["client_reset"]
    assert loop.settle() == {"relayed": 1}
    assert loop.counters.closes == {("1006", "client"): 1}


@pytest.mark.parametrize(
    ("wire", "code"), [(frame(TEXT, b"x"), 1003), (frame(7), 1002), (frame(BINARY, bytes(3000)), 1009)]
)
def test_violation_is_told_and_is_rst_to_the_upstream(make: StartWebSockets, wire: bytes, code: int) -> None:
    loop = make(path={"max_message": 2000})
    client, inner = loop.open()
    with inner:
        client.send(frame(BINARY, b"good") + wire + bytes(5000))
        assert loop.end_of(inner)[1] == "rst"
        assert client.end() == ([closed(code)], "fin")
        client.close()
    assert until_ended(loop) == ["protocol"]
    assert loop.settle() == {"relayed": 1}
    assert loop.counters.closes == {(str(code), "server"): 1}


@pytest.mark.parametrize(("replaced", "code"), [(False, 1001), (True, 1012)])
def test_cut_all_says_why(make: StartWebSockets, replaced: bool, code: int) -> None:
    loop = make()
    client, inner = loop.open()
    with inner:
        loop.pump.cut_all(replaced=replaced)
        assert client.end() == ([closed(code)], "fin")
        assert loop.end_of(inner) == (b"", "fin")
        client.close()
    assert until_ended(loop) == ["shutdown"]
    loop.settle()
    assert loop.counters.closes == {(str(code), "server"): 1}


def test_killed_greenlet_ends_its_session(make: StartWebSockets) -> None:
    loop = make()
    client, inner = loop.open()
    with inner:
        loop.greenlets[0].throw()
        assert client.end() == ([closed(1001)], "fin")
        assert loop.end_of(inner)[1] == "fin"
        client.close()
    assert loop.settle() == {"shutdown": 1}


@pytest.mark.parametrize(("timeout", "outcome"), [("idle_timeout", "idle"), ("max_duration", "duration")])
def test_deadline_of_a_session_is_close_1001(make: StartWebSockets, timeout: str, outcome: str) -> None:
    loop = make(timeouts={timeout: 0.15})
    client, inner = loop.open()
    with inner:
        assert client.end() == ([closed(1001)], "fin")
        client.close()
    assert until_ended(loop) == [outcome]
    loop.settle()
    assert loop.counters.closes == {("1001", "server"): 1}


def test_pings_and_pongs_do_not_move_idle_timeout(make: StartWebSockets) -> None:
    loop = make(timeouts={"idle_timeout": 0.3, "websocket_ping": 0.1})
    client, inner = loop.open()
    with inner:
        while not loop.ended:
            client.pull()
            if not client.ended:
                client.send(frame(PING) + frame(PONG))
            loop.turn(0.02)
        client.close()
    assert until_ended(loop) == ["idle"]
    loop.settle()


def test_evicted_session_is_close_1013_and_its_place_is_free_at_once(make: StartWebSockets) -> None:
    loop = make(max_sessions=1)
    client, inner = loop.open()  # the application has never spoken: it may give way
    with inner:
        other = loop.connect(request("/ws"))
        second = loop.accept()
        with second:
            assert client.end() == ([closed(1013)], "fin")
            assert loop.end_of(inner)[1] == "fin"
            assert other.head() + b"\r\n\r\n" == SWITCH
            second.sendall(b"spoken")
            loop.drain()
            third = loop.connect(request("/ws"))
            assert third.rest()[0] == b"HTTP/1.1 503\r\n\r\n"
            for each in (client, other, third):
                each.close()
    assert loop.settle() == {"relayed": 2, "max_sessions": 1}
    assert loop.sessions["evicted"] == 1
    assert loop.counters.upgrades == {"accepted": 2, "capacity": 1}
    assert loop.counters.closes[("1013", "server")] == 1


# ---------------------------------------------------------------------------------------------------------------- pings


def test_silent_client_gets_a_ping_and_lives_while_it_replies(make: StartWebSockets) -> None:
    loop = make(timeouts={"websocket_ping": 0.1})
    client, inner = loop.open()
    with inner:
        for _ in range(6):
            assert client.frames(1)[0] == Frame(PING, b"")
            client.send(frame(PONG))
        assert not loop.ended
        echo(loop, client, inner) if not client.wire else None
        client.close()
    loop.settle()
    assert loop.counters["ping_timeouts"] == 0


def test_client_that_replies_to_no_ping_is_closed_and_reset(make: StartWebSockets) -> None:
    loop = make(timeouts={"websocket_ping": 0.1})
    client, inner = loop.open()
    with inner:
        assert client.frames(1)[0] == Frame(PING, b"")
        assert until_ended(loop) == ["ping"]
        assert loop.end_of(inner)[1] == "rst"
        client.until(lambda: client.ended)
        assert client.ended == "rst"
        client.close()
    assert loop.settle() == {"relayed": 1}
    assert loop.counters["ping_timeouts"] == 1
    assert loop.counters.closes == {("1001", "server"): 1}


def test_busy_client_that_is_sent_something_gets_no_ping(make: StartWebSockets) -> None:
    loop = make(timeouts={"websocket_ping": 1.0})
    client, inner = loop.open()
    with inner:
        for _ in range(12):
            echo(loop, client, inner)  # fails if a ping comes between
            for _ in range(5):
                loop.turn(0.02)
        client.close()
    loop.settle()


def test_websocket_ping_of_0_sends_none(make: StartWebSockets) -> None:
    loop = make()
    client, inner = loop.open()
    with inner:
        for _ in range(10):
            loop.turn(0.02)
        client.pull()
        assert client.wire == b""
        client.close()
    loop.settle()


@pytest.mark.slow
def test_client_that_does_not_read_is_not_taken_for_gone(start_websockets: StartWebSockets) -> None:
    loop = start_websockets(timeouts={"websocket_ping": 1.0})
    client, inner = loop.open(receive_buffer=4096)
    with inner:
        inner.setblocking(False)
        fill(loop, inner)
        end = time.monotonic() + 2.5  # more than the two that end a session
        while time.monotonic() < end:
            loop.turn(0.02)
        assert not loop.ended
        client.close()
    loop.settle()


# ----------------------------------------------------------------------------------------------------------- slow sides


def fill(loop: WebSocketLoop, sock: socket.socket) -> int:
    """Send until nothing is taken any more."""
    sent = idle = 0
    while idle < 10:
        try:
            sent += sock.send(bytes(65536))
            idle = 0
        except BlockingIOError:
            idle += 1
        loop.turn(0.005)
    return sent


@pytest.mark.parametrize("buffers", [0, 512], ids=["no buffer", "buffers"])
def test_slow_client_gets_all_of_it_and_its_latest_pong(make: StartWebSockets, buffers: int) -> None:
    loop = make(pump={"buffers": buffers})
    client, inner = loop.open(receive_buffer=4096)
    with inner:
        inner.setblocking(False)
        sent = fill(loop, inner)
        loop.drain()
        for number in range(300):
            client.send(frame(PING, bytes([number & 255]) * 100))
        loop.drain()
        client.hurry()
        pong = bytes([0x80 | PONG, 100]) + bytes([299 & 255]) * 100
        client.until(lambda: len(client.wire) > sent and pong in client.wire)
        client.until(lambda: sum(len(each.payload) for each in frames_so_far(client) if each.opcode == BINARY) >= sent)
        frames = frames_so_far(client)
        assert sum(len(each.payload) for each in frames if each.opcode == BINARY) == sent
        assert len([each for each in frames if each.opcode == PONG]) < 300
        client.wire.clear()
        echo(loop, client, inner)
        client.close()
    loop.settle()


@pytest.mark.slow
@pytest.mark.parametrize("buffers", [0, 512], ids=["no buffer", "buffers"])
def test_slow_upstream_gets_all_of_it(make: StartWebSockets, buffers: int) -> None:
    loop = make(pump={"buffers": buffers}, path={"max_message": 1 << 30})
    client, inner = loop.open()
    with inner:
        data = random.Random(3).randbytes(BULK * 8)
        wire = message(data, 60_000, 100_000, 3)
        if client.tls:
            wire = b"".join(client.tls.encrypt(wire[at : at + 10_000]) for at in range(0, len(wire), 10_000))
        at = idle = 0
        while idle < 10 and at < len(wire):
            try:
                at += client.sock.send(wire[at : at + 65536])
                idle = 0
            except BlockingIOError:
                idle += 1
            loop.turn(0.005)
        got = bytearray()
        inner.setblocking(False)
        while len(got) < len(data):
            with suppress(BlockingIOError):
                at += client.sock.send(wire[at : at + 65536]) if at < len(wire) else 0
            try:
                got += inner.recv(1 << 16)
            except BlockingIOError:
                loop.turn(0.005)
        assert got == data
        client.close()
    loop.settle()


def test_slow_client_of_an_upstream_that_ends_gets_all_and_the_close(make: StartWebSockets) -> None:
    loop = make()
    client, inner = loop.open(receive_buffer=4096)
    with inner:
        inner.setblocking(False)
        sent = fill(loop, inner)
        inner.shutdown(socket.SHUT_WR)
        loop.drain()
        client.hurry()
        frames, how = client.end()
        assert sum(len(each.payload) for each in frames[:-1]) == sent
        assert (frames[-1], how) == (closed(1000), "fin")
        client.close()
    loop.settle()


def test_slow_client_that_closes_gets_what_was_on_its_way_and_the_close(make: StartWebSockets) -> None:
    loop = make()
    client, inner = loop.open(receive_buffer=4096)
    with inner:
        inner.setblocking(False)
        fill(loop, inner)
        client.send(close(1000))
        loop.drain()
        client.hurry()
        frames, how = client.end()
        assert (frames[-1], how) == (closed(1000), "fin")
        client.close()
    loop.settle()


def test_session_that_is_cut_while_the_client_is_slow_ends_with_rst(make: StartWebSockets) -> None:
    loop = make()
    client, inner = loop.open(receive_buffer=4096)
    with inner:
        inner.setblocking(False)
        fill(loop, inner)
        loop.pump.cut_all()
        client.until(lambda: client.ended)
        assert client.ended == "rst"
        client.close()
    loop.settle()
    assert loop.counters.closes == {("1006", "server"): 1}


def test_flood_of_pings_by_a_client_that_never_reads_holds_little(make: StartWebSockets) -> None:
    loop = make()
    client, inner = loop.open(receive_buffer=4096)
    with inner:
        wire = frame(PING, bytes(125)) * 500
        for _ in range(100):
            part = client.tls.encrypt(wire) if client.tls else wire
            while part:
                try:
                    part = part[client.sock.send(part) :]
                except BlockingIOError:
                    loop.turn(0.01)
        assert loop.pump.buffers_held <= 1
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        client.send(frame(BINARY, b"done"))
        assert loop.receive(inner, 4) == b"done"
        client.close()
    loop.settle()


@pytest.mark.slow
def test_many_sessions_mix_nothing_up(make: StartWebSockets) -> None:
    loop = make(pump={"buffers": 4})
    pairs = [loop.open() for _ in range(20)]
    for number, (client, _) in enumerate(pairs):
        client.send(message(bytes([number]) * 50_000, 7))
    for number, (client, inner) in enumerate(pairs):
        assert loop.receive(inner, 50_000) == bytes([number]) * 50_000
        inner.sendall(bytes([number]) * 10)
        assert client.frames(1) == [Frame(BINARY, bytes([number]) * 10)]
    for client, inner in pairs:
        client.send(close(1000))
        inner.close()
        client.close()
    assert loop.settle() == {"relayed": 20}
    assert frames_of(b"") == []
