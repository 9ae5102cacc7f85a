"""Media servers and gateways of RTMPT, for `loopback.Server`: correct ones, and what each can do wrong."""

import contextlib
import itertools
import re
import socket
import threading
from collections.abc import Callable

from loopback import Handler

from flashpol.probe.rtmp import amf, chunks

SUCCESS = {"level": "status", "code": "NetConnection.Connect.Success", "description": "ok"}
HALF = chunks.HALF
OURS = bytes(8) + bytes(range(2, 250)) * 6 + bytes(range(40))  # S1, without a version: then no digest is checked


def exactly(connection: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer at the end; sockets inside TLS have no MSG_WAITALL."""
    data = b""
    while len(data) < size and (part := connection.recv(size - len(data))):
        data += part
    return data


def message(kind: int, body: bytes, stream: int = 3) -> bytes:
    """A message in one chunk, or in chunks of 128 bytes."""
    parts = [body[at : at + 128] for at in range(0, len(body), 128)] or [b""]
    head = bytes((stream,)) + bytes(3) + len(body).to_bytes(3, "big") + bytes((kind,)) + bytes(4)
    return head + bytes((0xC0 | stream,)).join(parts)


def result(name: str = "_result", info: dict[str, str] | None = None) -> bytes:
    return message(20, amf.encode(name, 1.0, {"fmsVer": "FMS/3,5,7,7009"}, SUCCESS if info is None else info))


BEFORE = message(5, bytes((0, 76, 75, 64)), 2) + message(6, bytes((0, 76, 75, 64, 2)), 2) + message(4, bytes(6), 2)


def handshake(hello: bytes) -> bytes:
    """S0, S1 and S2 to C0 and C1."""
    return bytes((3,)) + OURS + hello[1:]


def media(reply: bytes = BEFORE + result(), shake: Callable[[bytes], bytes] = handshake, end: bool = False) -> Handler:
    """A media server that replies to `connect` with this, and then closes if it is to end."""

    def handle(connection: socket.socket) -> None:
        hello = exactly(connection, 1 + HALF)
        if len(hello) <= HALF:
            return
        connection.sendall(shake(hello))
        if exactly(connection, HALF) != OURS:
            return
        if connection.recv(4096):  # connect
            connection.sendall(reply)
            while not end and connection.recv(4096):
                pass

    return handle


def sending(data: bytes, *, stay: bool = False) -> Handler:
    """Reply to anything with these bytes, and close, or stay."""

    def handle(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(data)
        if not stay:
            connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass

    return handle


def http(status: str = "200 OK", body: bytes = b"", *fields: str, version: str = "HTTP/1.1") -> bytes:
    lines = [f"{version} {status}", *fields]
    if not any(field.lower().startswith(("content-length", "transfer-encoding")) for field in fields):
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def in_chunks(body: bytes) -> bytes:
    return http("200 OK", f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n", "Transfer-Encoding: chunked")


def requests(connection: socket.socket) -> "itertools.chain[tuple[str, bytes]]":
    """The requests of a connection: the line, and the body."""

    def read() -> "itertools.chain[tuple[str, bytes]]":
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                part = connection.recv(65536)
                if not part:
                    return
                data += part
            head, _, data = data.partition(b"\r\n\r\n")
            size = int(re.search(rb"(?i)content-length: (\d+)", head)[1])  # type: ignore[index]
            data += exactly(connection, max(0, size - len(data)))
            yield head.split(b"\r\n")[0].decode(), data[:size]
            data = data[size:]

    return itertools.chain(read())


class Gateway:
    """RTMPT in front of a media server at this address: correct, but for what the arguments change.

    `reply` writes each reply of its body, and `then` decides after each whether the connection goes on.
    """

    def __init__(
        self,
        port: int,
        *,
        identifier: bytes = b"A0bcdefghijklmno\n",
        reply: Callable[[bytes], bytes] = lambda body: http(body=body),
        then: Callable[[int], bool] = lambda count: True,
        hold: float = 0.05,
        empty: bytes = b"\x01",
        lose_after: int = 1000,
    ) -> None:
        self._port = port
        self._identifier = identifier
        self._reply = reply
        self._then = then
        self._hold = hold
        self._empty = empty
        self._lose_after = lose_after
        self._requests = 0
        self._lock = threading.Lock()
        self._upstream: socket.socket | None = None
        self.lines: list[str] = []

    def __call__(self, connection: socket.socket) -> None:
        for count, (line, body) in enumerate(requests(connection), 1):
            with self._lock:
                self.lines.append(line)
                connection.sendall(self._served(line, body))
            if not self._then(count):
                return

    def _served(self, line: str, body: bytes) -> bytes:
        self._requests += 1
        [(command, asked)] = re.findall(r"^POST (?:http://[^/]+)?/(\w+)/([^/ ]+)", line)
        if command == "open":
            if self._upstream is not None:
                self._upstream.close()
            self._upstream = socket.create_connection(("127.0.0.1", self._port), timeout=5)
            return self._reply(self._identifier)
        known = asked.encode() == self._identifier.strip()
        if self._upstream is None or self._requests > self._lose_after or not known:
            return http("404 Not Found")
        if command == "close":
            return self._reply(b"\0")
        if command == "send":
            self._upstream.sendall(body)
        self._upstream.settimeout(0.001 if command == "send" else max(0.001, self._hold))
        data = b""
        with contextlib.suppress(TimeoutError):
            data = self._upstream.recv(65536)
            if not data:
                return http("404 Not Found")
        return self._reply(b"\x01" + data if data else self._empty)


def refusing(reply: bytes) -> Handler:
    """A web server with this reply to every request."""

    def handle(connection: socket.socket) -> None:
        for _ in requests(connection):
            connection.sendall(reply)

    return handle
