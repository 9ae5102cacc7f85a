"""HTTP on the fast path: heads in parts, what is refused, decisions of the hook, places, and clients behind proxies."""

import socket
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_network

import pytest

from flashpol._fastpath import AddressLimits, RequestHead
from flashpol.config import ConnectionLimits
from flashpol.counters.shared import SharedAddressLimits
from flashpol.serving.networks import compile_networks
from testkit.clients import REQUEST
from testkit.serving import REPLY
from testkit.tls_serving import AVAILABLE, Tls
from testkit.websocket import BINARY, frame, request
from testkit.websocket_loop import FILE, Client, WebSocketLoop, echo
from tests.conftest import StartWebSockets

needs_tls = pytest.mark.skipif(not AVAILABLE, reason="built without OpenSSL")
WAYS = [False, pytest.param(True, marks=needs_tls)]
PART = b"GET /ws HTTP/1.1\r\nHost: games.example.com\r\n"
PROXY = b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 843\r\n"
ANYWHERE = compile_networks([ip_network("127.0.0.0/8")])


def limits(**settings: int) -> AddressLimits:
    return SharedAddressLimits(1, ConnectionLimits(**{"max_address_connections": 0} | settings)).of(0)


# ---------------------------------------------------------------------------------------------------------------- heads


@pytest.mark.parametrize("tls", WAYS)
@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_head_in_parts_is_one_request(start_websockets: StartWebSockets, tls: bool, size: int) -> None:
    loop = start_websockets(codec=Tls().context() if tls else None, request_timeout=20.0)
    head = request("/ws", without=("Origin",)) + frame(BINARY, b"early")
    client = loop.connect(tls=tls)
    for at in range(0, len(head), size):
        client.send(head[at : at + size])
        loop.drain()
        assert len(loop.requests) == (at + size >= len(head) - 11)
    inner = loop.accept()
    with inner:
        assert loop.receive(inner, 5) == b"early"
        client.head()
        echo(loop, client, inner)
        client.close()
    assert loop.settle() == {"relayed": 1}
    assert loop.loop.counters["handshaking"] == 0


def test_part_of_a_head_takes_a_place_among_the_handshakes(start_websockets: StartWebSockets) -> None:
    loop = start_websockets(request_timeout=20.0)
    client = loop.connect(PART)
    assert loop.loop.counters["handshaking"] == 1
    assert loop.loop.counters["parked"] == 1
    client.send(b"\r\n")
    assert client.head().startswith(b"HTTP/1.1 101")
    assert loop.loop.counters["handshaking"] == 0
    client.close()
    loop.pump.cut_all()
    loop.settle()


@pytest.mark.parametrize("tls", WAYS)
def test_part_of_a_head_and_silence_gets_408(start_websockets: StartWebSockets, tls: bool) -> None:
    loop = start_websockets(codec=Tls().context() if tls else None, request_timeout=0.3)
    client = loop.connect(PART, tls=tls)
    assert client.rest()[0] == b"HTTP/1.1 408\r\n\r\n"
    client.close()
    assert loop.settle() == {"timeout": 1}


def test_drops_of_a_head_do_not_move_the_deadline(start_websockets: StartWebSockets) -> None:
    loop = start_websockets(request_timeout=0.3)
    client = loop.connect(PART + b"X: ")
    while not client.ended:
        with suppress(OSError):
            client.sock.send(b"y")
        loop.turn(0.02)
        client.pull()
    assert client.wire == b"HTTP/1.1 408\r\n\r\n"
    client.close()
    assert loop.settle() == {"timeout": 1}


@pytest.mark.parametrize("tls", WAYS)
@pytest.mark.parametrize("leave", [Client.fin, Client.reset], ids=["fin", "rst"])
def test_part_of_a_head_and_an_end_is_a_client_that_left(
    start_websockets: StartWebSockets, tls: bool, leave: Callable[[Client], None]
) -> None:
    loop = start_websockets(codec=Tls().context() if tls else None, request_timeout=20.0)
    client = loop.connect(PART, tls=tls)
    leave(client)
    client.close()
    assert loop.settle() == {"reset": 1}


@pytest.mark.parametrize("tls", WAYS)
@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET /" + b"x" * 3000 + b" HTTP/1.1\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 101 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 9000, 431),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: gold\r\n\r\n", 417),
    ],
    ids=lambda value: value if isinstance(value, int) else "",
)
def test_head_that_is_refused_gets_its_status(
    start_websockets: StartWebSockets, tls: bool, head: bytes, status: int
) -> None:
    for size in (len(head), 900):
        loop = start_websockets(codec=Tls().context() if tls else None, request_timeout=20.0)
        client = loop.connect(tls=tls)
        for at in range(0, len(head), size):
            if not client.ended:
                client.send(head[at : at + size])
                loop.drain()
        assert client.rest() == (b"HTTP/1.1 %d\r\n\r\n" % status, "fin")
        client.close()
        assert loop.settle() == {"http_malformed": 1}
        assert loop.requests == []


def test_status_without_a_reply_closes(start_websockets: StartWebSockets) -> None:
    loop = start_websockets(http_replies={})
    client = loop.connect(b"GET / HTTP/1.1\nHost: a\n\n")
    assert client.rest()[0] == b""
    client.close()
    assert loop.settle() == {"http_malformed": 1}


@pytest.mark.parametrize("size", [8191, 8192])
def test_head_of_8_kb_and_32_kb_behind_it(start_websockets: StartWebSockets, size: int) -> None:
    loop = start_websockets(request_timeout=20.0)
    base = request("/ws", X="")
    head = request("/ws", X="y" * (size - len(base)))
    assert len(head) == size
    wire = head + frame(BINARY, bytes(30_000))
    client = loop.connect(wire[: size - 1])
    client.send(wire[size - 1 :])
    inner = loop.accept()
    with inner:
        assert loop.receive(inner, 30_000) == bytes(30_000)
        client.close()
    assert loop.settle() == {"relayed": 1}


# ------------------------------------------------------------------------------------------------------------ decisions


@pytest.mark.parametrize("tls", WAYS)
def test_policy_request_beside_http_gets_its_reply(start_websockets: StartWebSockets, tls: bool) -> None:
    loop = start_websockets(codec=Tls().context() if tls else None)
    client = loop.connect(REQUEST, tls=tls)
    assert client.rest()[0] == REPLY
    client.close()
    assert loop.settle() == {"reply": 1}


@pytest.mark.parametrize("tls", WAYS)
def test_served_file_and_refusal_are_counted_and_linger(start_websockets: StartWebSockets, tls: bool) -> None:
    loop = start_websockets(codec=Tls().context() if tls else None)
    for path, expected in (("/file", FILE), ("/none", b"HTTP/1.1 404\r\n\r\n")):
        client = loop.connect(request(path) + bytes(3000), tls=tls)
        assert client.rest() == (expected, "fin")
        client.close()
    assert loop.settle() == {"served": 1, "http": 1}


@pytest.mark.parametrize("tls", WAYS)
def test_large_file_is_sent_whole(start_websockets: StartWebSockets, tls: bool) -> None:
    """As large as a policy may be: many records of TLS. A loopback connection takes that at once."""
    loop = start_websockets(codec=Tls().context() if tls else None)
    large = bytes(range(256)) * 4096
    loop.decide = lambda fd, *_: loop.table.reply_http(fd, large, "served")
    client = loop.connect(request("/file"), tls=tls)
    assert client.rest() == (large, "fin")
    client.close()
    assert loop.settle() == {"served": 1}


@pytest.mark.parametrize("tls", WAYS)
@pytest.mark.parametrize("cut", [3, 40, 10_000])
def test_other_path_is_relayed_as_it_is(start_websockets: StartWebSockets, tls: bool, cut: int) -> None:
    loop = start_websockets(codec=Tls().context() if tls else None, request_timeout=20.0)
    wire = request("/raw") + b"body"
    client = loop.connect(wire[:cut], tls=tls)
    client.send(wire[cut:])
    inner = loop.accept()
    with inner:
        assert loop.receive(inner, len(wire)) == wire
        inner.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        inner.close()
        client.until(lambda: client.ended)
        assert client.wire == b"HTTP/1.1 200 OK\r\n\r\n"
        client.close()
    assert loop.settle() == {"relayed": 1}


def test_hook_that_raises_or_does_not_decide_costs_one_connection(start_websockets: StartWebSockets) -> None:
    def fail(fd: int, head: RequestHead, data: bytes) -> None:
        raise KeyError("hook")

    def begin(fd: int, head: RequestHead, data: bytes) -> None:
        loop.table.begin_session(fd)
        loop.table.wrap(fd, loop.path.prepare(b"", b""))
        raise KeyError("hook")

    for decide in (fail, begin, lambda *_: None):
        loop = start_websockets()
        by_path, loop.decide = loop.decide, decide
        client = loop.connect(request("/ws"))
        assert client.rest()[0] == b""
        assert len(loop.loop.errors) == 1
        loop.loop.errors.clear()
        loop.decide = by_path
        other = loop.connect(request("/file"))
        assert other.rest()[0] == FILE
        client.close(), other.close()
        assert loop.settle() == {"capacity": 1, "served": 1}


def test_methods_of_requests_reject_other_connections(start_websockets: StartWebSockets) -> None:
    loop = start_websockets()
    client, inner = loop.open()
    fd = loop.requests[0][0]
    with inner:
        prepared = loop.path.prepare(b"", b"")
        for call in (
            lambda: loop.table.begin_session(fd),
            lambda: loop.table.set_client(fd, "192.0.2.1"),
            lambda: loop.table.begin_session(-1),
            lambda: loop.table.wrap(1 << 20, prepared),
            lambda: loop.table.reply_http(1 << 20, b"", "served"),
            lambda: loop.table.reply_http(fd, b"", "nothing"),
        ):
            with pytest.raises(ValueError, match=r"fd|tuple\.index"):
                call()
        client.close()
    loop.settle()


def test_first_bytes_that_several_protocols_begin_with_wait(start_websockets: StartWebSockets) -> None:
    loop = start_websockets(request_timeout=20.0, terminator_grace=0.05)
    client = loop.connect(b"P")
    for _ in range(5):
        loop.turn(0.05)
    assert loop.table.sessions == 0
    client.send(b"OST /none HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.rest()[0] == b"HTTP/1.1 404\r\n\r\n"
    client.close()
    assert loop.settle() == {"http": 1}


def test_port_that_is_not_shared_takes_http(start_websockets: StartWebSockets) -> None:
    loop = start_websockets(shared=False)
    client = loop.connect(request("/file"))
    assert client.rest() == (FILE, "fin")
    other = loop.connect(b"\x03rtmp")
    other.until(lambda: other.ended)
    client.close(), other.close()
    assert loop.settle() == {"served": 1, "rtmp": 1}


@needs_tls
def test_tls_only_takes_http_inside_tls_alone(start_websockets: StartWebSockets) -> None:
    loop = start_websockets(codec=Tls().context(), tls_only=True)
    plain = loop.connect(request("/file"))
    plain.until(lambda: plain.ended)
    assert plain.wire == b""
    inside = loop.connect(request("/file"), tls=True)
    assert inside.rest()[0] == FILE
    plain.close(), inside.close()
    assert loop.settle() == {"tls_only": 1, "served": 1}


def test_http_behind_a_proxy_header(start_websockets: StartWebSockets) -> None:
    loop = start_websockets(proxies=ANYWHERE)
    clients = []

    def decide(fd: int, head: RequestHead, data: bytes) -> None:
        clients.append(loop.table.client(fd))
        by_path(fd, head, data)

    by_path, loop.decide = loop.decide, decide
    for wire in (PROXY + request("/file"), PROXY + request("/file")[:30]):
        client = loop.connect(wire)
        if wire.endswith(b"\r\n\r\n") is False:
            client.send(request("/file")[30:])
        assert client.rest()[0] == FILE
        client.close()
    assert clients == [("192.0.2.7", 40000)] * 2
    assert loop.settle() == {"served": 2}


def test_close_all_ends_requests_in_every_state(start_websockets: StartWebSockets) -> None:
    loop = start_websockets(request_timeout=20.0)
    parts = [loop.connect(PART) for _ in range(3)]
    assert loop.table.close_all() == 3
    for client in parts:
        client.close()
    assert loop.settle() == {"shutdown": 3}


# --------------------------------------------------------------------------------------------------------------- places


@pytest.mark.parametrize("tls", WAYS)
def test_at_max_handshakes_old_parts_give_way_and_whole_heads_need_no_place(
    start_websockets: StartWebSockets, tls: bool
) -> None:
    loop = start_websockets(codec=Tls().context() if tls else None, request_timeout=20.0, max_handshakes=4)
    held = [loop.connect(PART) for _ in range(4)]
    assert loop.loop.counters["handshaking"] == 4
    good = loop.connect(request("/file"))
    assert good.rest()[0] == FILE
    for _ in range(15):
        loop.turn(0.02)  # longer than a handshake is patient for
    # One more: the oldest gives way, with or without TLS.
    newer = loop.connect(request("/file")[:30], tls=tls)
    held[0].until(lambda: held[0].ended)
    assert loop.loop.counters["handshaking"] == 4
    newer.send(request("/file")[30:])
    assert newer.rest()[0] == FILE
    for client in (good, newer, *held):
        client.close()
    assert loop.settle() == {"served": 2, "max_handshakes": 1, "reset": 3}


def test_at_max_handshakes_of_its_own_a_flood_gets_503(start_websockets: StartWebSockets) -> None:
    loop = start_websockets(request_timeout=20.0, max_handshakes=2)
    held = [loop.connect(PART) for _ in range(2)]
    late = loop.connect(PART)
    assert late.rest() == (b"HTTP/1.1 503\r\n\r\n", "fin")
    for client in (late, *held):
        client.close()
    assert loop.settle() == {"max_handshakes": 1, "reset": 2}


def test_part_whose_rest_has_come_is_decided_instead_of_evicted(start_websockets: StartWebSockets) -> None:
    loop = start_websockets(request_timeout=20.0, max_handshakes=1)
    first = loop.connect(request("/file")[:30])
    for _ in range(15):
        loop.turn(0.02)
    first.sock.sendall(request("/file")[30:])  # and in the same turn
    second = Client(loop, socket.create_connection(loop.address))
    second.sock.sendall(request("/none")[:30])
    assert first.rest()[0] == FILE
    second.send(request("/none")[30:])
    assert second.rest()[0] == b"HTTP/1.1 404\r\n\r\n"
    first.close(), second.close()
    assert loop.settle() == {"served": 1, "http": 1}


def test_at_max_connections_parts_give_way_to_a_good_client(start_websockets: StartWebSockets) -> None:
    loop = start_websockets(request_timeout=20.0, address_limits=limits(max_worker_connections=8))
    held = [loop.connect(PART, source="127.0.0.2") for _ in range(8)]
    client, inner = loop.open()
    with inner:
        echo(loop, client, inner)
        client.close()
    for each in held:
        each.close()
    found = loop.settle()
    assert found["relayed"] == 1
    assert found["max_connections"] == 1


def test_session_over_max_sessions_gets_a_reply(start_websockets: StartWebSockets) -> None:
    loop = start_websockets(max_sessions=1, max_leaving=0)
    client, inner = loop.open()
    with inner:
        for path in ("/ws", "/raw"):
            other = loop.connect(request(path))
            assert other.rest()[0] == b"HTTP/1.1 503\r\n\r\n"
            other.close()
        client.close()
    assert loop.settle() == {"relayed": 1, "max_sessions": 2}


# ------------------------------------------------------------------------------------------- clients of an HTTP proxy


def by_forwarded(loop: WebSocketLoop, refused: list[str]) -> Callable[[int, RequestHead, bytes], None]:
    by_path = loop.decide

    def decide(fd: int, head: RequestHead, data: bytes) -> None:
        address = head.find(b"x-forwarded-for")
        reason = loop.table.set_client(fd, address.decode()) if address else None
        if reason:
            refused.append(reason)
            loop.table.reply_http(fd, b"HTTP/1.1 403\r\n\r\n", reason)
        else:
            assert not address or loop.table.client(fd)[0] == address.decode()
            by_path(fd, head, data)

    return decide


def test_set_client_counts_for_the_client_instead_of_the_proxy(start_websockets: StartWebSockets) -> None:
    loop = start_websockets(address_limits=limits(max_address_sessions=2, max_address_connections=5))
    refused: list[str] = []
    loop.decide = by_forwarded(loop, refused)
    open_ones = []
    for number in range(8):
        client = loop.connect(request("/ws", X_Forwarded_For=f"192.0.2.{number % 4}"))
        inner = loop.accept()
        inner.sendall(b"spoken")
        client.head()
        loop.drain()
        open_ones.append((client, inner))
    over = loop.connect(request("/ws", X_Forwarded_For="192.0.2.0"))
    assert over.rest()[0] == b"HTTP/1.1 503\r\n\r\n"
    v6 = loop.connect(request("/file", X_Forwarded_For="2001:db8::1"))
    assert v6.rest()[0] == FILE
    for client, inner in open_ones:
        inner.close()
        client.close()
    over.close(), v6.close()
    assert loop.settle() == {"relayed": 8, "max_address_sessions": 1, "served": 1}
    assert refused == []


def test_set_client_judges_by_the_limits_of_the_address(start_websockets: StartWebSockets) -> None:
    loop = start_websockets(address_limits=limits(max_address_rate=2))
    refused: list[str] = []
    loop.decide = by_forwarded(loop, refused)
    replies = []
    for number in range(6):
        client = loop.connect(request("/file", X_Forwarded_For="192.0.2.1"), source=f"127.0.0.{2 + number}")
        replies.append(client.rest()[0])
        client.close()
    assert set(refused) == {"max_address_rate"}
    assert replies[0] == FILE
    assert replies.count(b"HTTP/1.1 403\r\n\r\n") == len(refused)
    assert loop.settle() == {"served": 6 - len(refused), "max_address_rate": len(refused)}


def test_set_client_without_an_address_is_an_error_of_the_hook(start_websockets: StartWebSockets) -> None:
    loop = start_websockets()
    loop.decide = lambda fd, *_: loop.table.set_client(fd, "nonsense")
    other = loop.connect(request("/file"))
    assert other.rest()[0] == b""
    assert [str(error) for error in loop.loop.errors] == ["'nonsense' is not an IP address"]
    loop.loop.errors.clear()
    other.close()
