"""WebSocket of the load generator sees every fault, the peers relay it, and the scenario runs."""

import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import BenchError, build, relay_load
from bench.report import Results
from bench.scenarios import websocket
from bench.servers import Server
from bench.servers.certificate import Certificate, certificate
from bench.servers.certificate import missing as certificate_missing
from bench.servers.websocket import OURS, PEERS, PLAIN, REQUEST, Applications, WebSocketPeer
from bench.settings import Settings
from testkit.broken_servers import Serve, broken_server
from testkit.clients import ask

BINARY, CLOSE, PING, PONG = 0x82, 0x88, 0x89, 0x8A
ACCEPT = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n" + ACCEPT + b"\r\n"


def directly(port: int) -> Server:
    """The application itself, without a relay."""
    return Server("no relay", port, 0, Path(), 0.0)


@pytest.fixture(scope="module")
def application() -> Iterator[int]:
    with relay_load.application(None, websocket=True) as port:
        yield port


@pytest.fixture(scope="module")
def files() -> Iterator[Certificate]:
    reason = build.openssl_missing() or certificate_missing()
    if reason:
        pytest.skip(reason)
    with certificate() as made:
        yield made


@contextmanager
def broken(serve: Serve) -> Iterator[Server]:
    with broken_server(serve) as port:
        yield directly(port)


def exactly(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        piece = connection.recv(size - len(received))
        assert piece
        received += piece
    return received


def head_of(connection: socket.socket) -> bytes:
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        received += exactly(connection, 1)
    return received


def masked(payload: bytes, mask: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(payload, itertools.cycle(mask), strict=False))


def frame(payload: bytes, first: int = BINARY) -> bytes:
    """A server's frame of less than 64 KB."""
    size = bytes([len(payload)]) if len(payload) < 126 else bytes([126]) + len(payload).to_bytes(2, "big")
    return bytes([first]) + size + payload


def client_frame(connection: socket.socket) -> tuple[int, bytes]:
    """The first byte of a client's frame, and its payload."""
    first, size = exactly(connection, 2)
    assert size & 0x80
    size &= 0x7F
    if size >= 126:
        size = int.from_bytes(exactly(connection, 2 if size == 126 else 8), "big")
    mask = exactly(connection, 4)
    return first, masked(exactly(connection, size), mask)


def after_upgrade(serve: Serve) -> Serve:
    """A function for `broken_server`, which calls `serve` after the handshake."""

    def upgraded(connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(UPGRADED)
        serve(connection)

    return upgraded


def short(server: Server, total: int = 1) -> relay_load.RelayResult:
    return relay_load.short(server, None, connections=1, size=100, total=total, websocket=True)


# ------------------------------------------------------------------------------------------------- with the application


def test_short_websocket_sessions_are_as_many_as_the_total(application: int) -> None:
    result = relay_load.short(directly(application), None, connections=8, size=100, total=50, websocket=True)
    assert (result.rounds, result.bytes) == (50, 5000)


@pytest.mark.parametrize("size", [17, 125, 126, 65535, 65536])
def test_steady_echo_in_frames_of_every_kind_of_size_compares_each(size: int, application: int) -> None:
    result, _ = relay_load.steady_echo(
        directly(application), None, connections=3, size=size, seconds=0.05, websocket=True
    )
    assert result.rounds >= 3
    assert result.bytes == result.rounds * size


@pytest.mark.parametrize("size", [1, 16384, 16384 + 126, 1_000_003])
def test_streams_in_frames_are_complete_both_ways(size: int, application: int) -> None:
    result = relay_load.bulk(directly(application), None, connections=2, size=size, websocket=True)
    assert (result.rounds, result.bytes) == (2, 2 * size)
    result = relay_load.upload(directly(application), None, connections=2, size=size, websocket=True)
    assert (result.rounds, result.bytes) == (2, 2 * size)


def test_held_websocket_sessions_echo_once_per_call(application: int) -> None:
    with relay_load.HeldSessions(directly(application), [20, 140], None, websocket=True) as held:
        assert held.echo() == 320
        assert held.echo() == 480


def test_application_with_frames_in_pieces_unmasks_them(application: int) -> None:
    mask, payload = b"\x01\x80\xff\x7e", b"e" + bytes(range(200))
    wire = b"\x82\xfe" + len(payload).to_bytes(2, "big") + mask + masked(payload, mask)
    with socket.create_connection(("127.0.0.1", application)) as client:
        client.settimeout(10)
        client.sendall(REQUEST)
        assert ACCEPT in head_of(client)
        received = b""
        for begin in range(0, len(wire), 3):  # each piece is echoed before the next
            client.sendall(wire[begin : begin + 3])
            while len(received) < min(begin + 3, len(wire)) - 8:  # of which 8 are the head
                first, size = exactly(client, 2)
                assert first == BINARY
                received += exactly(client, size)
        assert received == payload


@pytest.mark.parametrize("request_", [b"GET / HTTP/1.1\r\n\r\n", REQUEST.replace(b"dGhlI", b"AGhlI")])
def test_application_with_another_key_closes(request_: bytes, application: int) -> None:
    assert ask(("127.0.0.1", application), request_) == b""


def test_application_with_a_frame_without_mask_closes(application: int) -> None:
    assert ask(("127.0.0.1", application), REQUEST + frame(b"echo")).endswith(b"\r\n\r\n")


# ------------------------------------------------------------------------------------------------------------ handshake


def test_websocket_client_asks_as_chrome_does() -> None:
    heads: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        heads.append(head_of(connection))
        connection.sendall(UPGRADED)
        connection.sendall(frame(client_frame(connection)[1]))
        assert client_frame(connection) == (CLOSE, b"\x03\xe8")

    with broken(serve) as server:
        assert short(server).rounds == 1
    line, *fields = heads[0].decode().split("\r\n")
    assert line == "GET /game HTTP/1.1"
    names = dict(field.split(": ", 1) for field in fields if field)
    assert names["Host"] == f"bench.example:{server.port}"
    assert names["Origin"] == "https://games.example.com"
    assert names["Sec-WebSocket-Version"] == "13"
    assert names["Sec-WebSocket-Extensions"].startswith("permessage-deflate")


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 403 Forbidden\r\n" + ACCEPT + b"\r\n",
        UPGRADED.replace(b"s3pPL", b"t3pPL"),
        UPGRADED + frame(b"early"),
        b"",
    ],
    ids=["403", "other-key", "bytes-behind", "closed"],
)
def test_websocket_client_with_another_reply_raises(reply: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(reply)

    with broken(serve) as server, pytest.raises(BenchError, match="no WebSocket"):
        short(server)


# --------------------------------------------------------------------------------------------------------------- frames


def test_websocket_client_with_frames_in_pieces_and_a_ping_between_them_replies_with_a_pong() -> None:
    kinds: list[int] = []

    def serve(connection: socket.socket) -> None:
        _, message = client_frame(connection)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in frame(message[:50]) + frame(b"", PING) + frame(b"") + frame(message[50:]):
            connection.sendall(bytes([byte]))
        kinds.extend(client_frame(connection)[0] for _ in range(2))

    with broken(after_upgrade(serve)) as server:
        assert short(server).rounds == 1
    assert kinds == [PONG, CLOSE]


def other_bytes(message: bytes) -> bytes:
    return frame(message[:-1] + b"?")


def too_many(message: bytes) -> bytes:
    return frame(message) + frame(b"?")


def closed_early(message: bytes) -> bytes:
    return frame(message[:-1]) + frame(b"\x03\xe8", CLOSE)


def no_close(message: bytes) -> bytes:
    return frame(message[:-1])


def text(message: bytes) -> bytes:
    return frame(message, 0x81)


def with_mask(message: bytes) -> bytes:
    return b"\x82\xe4" + bytes(4) + message


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (other_bytes, "other bytes than expected"),
        (too_many, "more bytes"),
        (closed_early, "closed early"),
        (no_close, "closed without Close"),
        (text, "other bytes than frames"),
        (with_mask, "other bytes than frames"),
    ],
)
def test_websocket_client_with_a_wrong_reply_raises_by_kind(reply: Callable[[bytes], bytes], words: str) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(reply(client_frame(connection)[1]))
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)

    with broken(after_upgrade(serve)) as server, pytest.raises(BenchError, match=words):
        short(server)


def test_held_websocket_session_closed_by_the_server_raises() -> None:
    closed, over = threading.Event(), threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.sendall(frame(client_frame(connection)[1]))
        assert over.wait(10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else it may wait for an ACK
        connection.sendall(frame(b"\x03\xe9", CLOSE))
        closed.set()

    def held_and_closed(server: Server) -> None:
        with relay_load.HeldSessions(server, [1], None, websocket=True):
            over.set()
            assert closed.wait(10)

    with broken(after_upgrade(serve)) as server, pytest.raises(BenchError, match="closed while they were held"):
        held_and_closed(server)


# ------------------------------------------------------------------------------------------------------ peers, scenario


def skip_if_missing(peer: WebSocketPeer) -> None:
    missing = peer.missing()
    if missing:
        pytest.skip(missing)


@pytest.mark.slow
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_websocket_peer_relays_and_is_measured(peer: WebSocketPeer, files: Certificate, application: int) -> None:
    skip_if_missing(peer)
    tls, ws = peer.tls, peer.websocket
    with relay_load.application(None) as plain, peer.start(None, files, Applications(plain, application)) as server:
        assert server.name == peer.name
        assert relay_load.short(server, None, connections=4, size=100, total=8, tls=tls, websocket=ws).rounds == 8
        result = relay_load.bulk(server, None, connections=2, size=300_000, tls=tls, websocket=ws)
        assert result.bytes == 600_000
        result = relay_load.upload(server, None, connections=2, size=300_000, tls=tls, websocket=ws)
        assert result.bytes == 600_000
        result, cpu = relay_load.steady_echo(server, None, connections=8, size=100, seconds=0.1, tls=tls, websocket=ws)
        assert result.rounds >= 8
        assert cpu > 0
        assert relay_load.opening(server, None, connections=8, tls=tls, websocket=ws) > 0


def test_websocket_scenario_without_openssl_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "openssl_missing", lambda: "no headers")
    results = Results()
    websocket.run(Settings.on_this_machine(1, peers_only=False, quick=True), results)
    assert not results.figures
    assert results.notes == ["websocket was not measured: no headers"]


@pytest.mark.slow
@pytest.mark.usefixtures("files")
def test_websocket_scenario_without_peers_compares_flashpol_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [peer for peer in PEERS if peer.name in (OURS, PLAIN)]
    others = [WebSocketPeer(peer.name, peer.start, lambda: "it is not installed") for peer in PEERS if peer not in kept]
    monkeypatch.setattr(websocket, "PEERS", (*kept, *others))
    results = Results()
    websocket.run(Settings.on_this_machine(1, peers_only=False, quick=True), results)
    assert results.notes == [f"websocket: {peer.name} was not measured: it is not installed" for peer in others]
    figures = {figure.name: figure.value.median for figure in results.figures}
    assert {f"{OURS}: {name}" for name in websocket.UNITS} <= set(figures)
    assert f"{OURS} / {PLAIN}: CPU of an echo" in figures
    assert f"{OURS} - {PLAIN}: memory per idle session" in figures
