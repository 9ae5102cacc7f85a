"""Compressed messages that become very large: what a worker needs for them, and what other sessions notice."""

import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from flashpol._websocket import COMPRESSES
from testkit.deflate_codec import bomb_of, compressed
from testkit.polling import DEADLINE, eventually
from testkit.processes import Flashpol, status
from testkit.sanitizer import measures_memory
from testkit.tls_serving import issue
from testkit.websocket_frames import BINARY, CLOSE, Frame, Frames, deflate, frame

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not COMPRESSES, reason="built without zlib"),
    measures_memory,
]
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
)
MEGABYTE = 1 << 20
SESSIONS = 20
# KB that a session may take while its application does not read: what was received and inflated, and a decompressor.
SESSION_KB = 100


UNVERIFIED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
UNVERIFIED.check_hostname, UNVERIFIED.verify_mode = False, ssl.CERT_NONE


class Bridge(Flashpol):
    scheme = "ws"


class Client:
    def __init__(self, server: Bridge) -> None:
        self.socket = socket.create_connection(server.place, DEADLINE)
        if server.scheme == "wss":
            self.socket = UNVERIFIED.wrap_socket(self.socket)
        self.socket.sendall(REQUEST)
        self._frames = Frames()
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.socket.recv(4096)
        head, _, rest = head.partition(b"\r\n\r\n")
        assert b"permessage-deflate" in head
        self._found = self._frames.feed(rest)

    def next(self) -> Frame:
        while not self._found:
            data = self.socket.recv(1 << 16)
            assert data, "the end of the connection"
            self._found = self._frames.feed(data)
        return self._found.pop(0)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """Its connections have small buffers, so that an application that does not read is soon full."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        sock.bind(("127.0.0.1", 0))
        sock.listen(100)
        sock.settimeout(DEADLINE)
        yield sock


@pytest.fixture(params=["ws", "wss"])
def server(request: pytest.FixtureRequest, tmp_path: Path, listening: socket.socket) -> Iterator[Bridge]:
    certificate = tls = ""
    if request.param == "wss":
        pytest.importorskip("flashpol._tls")
        pair = issue("games.test")
        (tmp_path / "chain.pem").write_bytes(pair.chain)
        (tmp_path / "key.pem").write_bytes(pair.key)
        certificate = '[certificates.games]\nchain = "chain.pem"\nkey = "key.pem"'
        tls = 'tls = ["games"]'
    (tmp_path / "flashpol.toml").write_text(f"""
{certificate}
[policies.main]
grants = [{{domain = "*", ports = "7000"}}]
[[listeners]]
address = "127.0.0.1:0"
policy = "main"
upstream = "127.0.0.1:{listening.getsockname()[1]}"
{tls}
[[listeners.websocket]]
path = "*"
port = 7000
without_origin = true
compression = true
""")
    with Bridge("-c", tmp_path / "flashpol.toml", listen=()) as running:
        running.scheme = request.param
        yield running


def accept(listening: socket.socket) -> socket.socket:
    connection, _ = listening.accept()
    connection.settimeout(DEADLINE)
    return connection


def echo_once(server: Bridge, listening: socket.socket, client: Client | None = None) -> None:
    with ExitStack() as opened:
        client = client or opened.enter_context(Client(server))
        connection = opened.enter_context(accept(listening))
        client.socket.sendall(compressed(deflate(b"hello" * 100)))
        received = b""
        while len(received) < 500:
            received += connection.recv(1000)
        connection.sendall(received)
        assert len(client.next().payload) < 500, "it is compressed"


def received_until_end(connection: socket.socket) -> tuple[int, str]:
    size = 0
    try:
        while data := connection.recv(1 << 20):
            size += len(data)
    except ConnectionResetError:
        return size, "reset"
    return size, "fin"


def peak(server: Bridge) -> int:
    """KB."""
    [worker] = server.workers
    return int(status(worker.pid)["VmHWM"].split()[0])


def test_bomb_gets_1009_and_takes_no_memory(server: Bridge, listening: socket.socket) -> None:
    bomb = compressed(bomb_of(100 * MEGABYTE))
    assert len(bomb) < 200_000
    echo_once(server, listening)
    before = peak(server)
    for _ in range(5):
        with Client(server) as client, accept(listening) as connection:
            client.socket.sendall(bomb)
            received, end = received_until_end(connection)
            assert received <= 16 * MEGABYTE
            assert end == "reset", "the application takes a part for the whole"
            closing = client.next()
            assert (closing.opcode, closing.payload[:2]) == (CLOSE, (1009).to_bytes(2, "big"))
    assert peak(server) - before < 1024
    eventually(lambda: not server.metrics().total("websocket_open"), "the ends")
    server.counts(5, "websocket_closes_total", by="server", code="1009")
    echo_once(server, listening)


def test_bomb_waits_for_a_slow_application_and_others_do_not(server: Bridge, listening: socket.socket) -> None:
    """Each message is just small enough. The applications read nothing for a while."""
    size = 15 * MEGABYTE
    bomb = compressed(bomb_of(size)) + frame(BINARY, b"end")
    echo_once(server, listening)
    before = peak(server)
    with ExitStack() as opened:
        blocked = []
        for _ in range(SESSIONS):
            client = opened.enter_context(Client(server))
            blocked.append((client, opened.enter_context(accept(listening))))
            client.socket.sendall(bomb)
        for _ in range(10):
            echo_once(server, listening)
        assert peak(server) - before < SESSIONS * SESSION_KB
        assert server.metrics().total("websocket_uncompressed_bytes_total", direction="received") < SESSIONS * size / 2
        for client, connection in blocked:
            received, last = 0, b""
            while received < size + 3:
                data = connection.recv(1 << 20)
                assert data
                received += len(data)
                last = (last + data)[-3:]
            assert (received, last) == (size + 3, b"end")
            client.socket.sendall(frame(CLOSE, b"\x03\xe8"))
            assert client.next().opcode == CLOSE
        assert peak(server) - before < SESSIONS * SESSION_KB
    eventually(lambda: not server.metrics().total("websocket_open"), "the ends")
    server.counts(SESSIONS, "websocket_closes_total", by="client", code="1000")


@pytest.mark.parametrize("end", ["close", "fin"])
def test_end_behind_a_bomb_comes_after_all_of_it(server: Bridge, listening: socket.socket, end: str) -> None:
    """The client has ended before the application reads."""
    size = 15 * MEGABYTE
    with Client(server) as client, accept(listening) as connection:
        client.socket.sendall(compressed(bomb_of(size)) + frame(BINARY, b"end"))
        if end == "close":
            client.socket.sendall(frame(CLOSE, b"\x03\xe8"))
        with socket.socket(fileno=os.dup(client.socket.fileno())) as raw:
            raw.shutdown(socket.SHUT_WR)
        received, how = received_until_end(connection)
        assert (received, how) == (size + 3, "fin")
        if end == "close":
            assert client.next().payload == b"\x03\xe8"
    eventually(lambda: not server.metrics().total("websocket_open"), "the end")
    code = "1000" if end == "close" else "1006"
    server.counts(1, "websocket_closes_total", by="client", code=code)
