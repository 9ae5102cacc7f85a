"""A client of RTMPT over sockets, by hand: each number, connection and segment is the test's to choose.

>>> with RtmptClient(server.place) as client:
...     client.open()
...     client.send(b"\\x03")
...     client.idle().body
...     client.write("send", b"second", number=5)
...     client.write("send", b"first", number=4, via=1)
...     client.read(), client.read(via=1)
...     client.close()

What it receives is checked as far as framing goes: a reply has one Content-Length and no coding, and nothing follows it
that was not asked for. What a reply means is the test's to judge.
"""

import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple, Self

from testkit.clients import connect, deliver, until_end
from testkit.polling import DEADLINE

EMPTY = b"\0"  # the body of a request without data
ALERT = b"\x15"  # of TLS, such as close_notify
TYPE = ("Content-Type", "application/x-fcs")
# In the order of Flash Player's requests.
FIELDS = (TYPE, ("User-Agent", "Shockwave Flash"), ("Connection", "Keep-Alive"), ("Cache-Control", "no-cache"))
Address = tuple[str, int]


class Reply(NamedTuple):
    """A reply of the server."""

    status: int
    headers: list[tuple[str, str]]  # in their order, names as they came
    interval: int | None  # the first byte of a 200; None for /open, for errors, and if the content is empty
    body: bytes  # what follows it
    minor: int = 1  # of the version, HTTP/1.minor

    def field(self, name: str) -> str | None:
        """All values of a field, with commas; the name in any case."""
        values = [value for each, value in self.headers if each.lower() == name.lower()]
        return ", ".join(values) if values else None

    @property
    def closes(self) -> bool:
        """Whether the connection ends with it."""
        options = (self.field("connection") or "").lower()
        return "keep-alive" not in options if self.minor == 0 else "close" in options


class BadReply(ValueError):
    """Bytes that are no reply as clients of RTMPT need it."""


class Ended(ConnectionError):
    """The connection ended before a reply was complete. received: the part of it."""

    def __init__(self, received: bytes, how: str) -> None:
        super().__init__(f"the connection ended ({how}) after {len(received)} bytes of a reply: {received[:200]!r}")
        self.received = received
        self.how = how  # "fin" or "rst"


def head(
    path: str,
    size: int | None,
    *,
    host: str,
    minor: int = 1,
    absolute: str = "",
    fields: Iterable[tuple[str, str]] = FIELDS,
) -> bytes:
    """absolute: scheme and authority in front of the path, as for a proxy. size: None writes no Content-Length."""
    lines = [f"POST {absolute}{path} HTTP/1.{minor}", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in fields]
    lines += [] if size is None else [f"Content-Length: {size}"]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


class Connection:
    """One connection, and the kinds of requests whose replies it owes."""

    def __init__(self, sock: socket.socket, piece: int = 0) -> None:
        self.sock = sock
        self.piece = piece
        self.owed: deque[str] = deque()
        self._received = b""

    def write(self, data: bytes, *kinds: str) -> None:
        """kinds: of the requests that are complete with this."""
        self.owed.extend(kinds)
        if not self.piece:
            self.sock.sendall(data)
        for begin in range(0, len(data) if self.piece else 0, self.piece or 1):
            deliver(self.sock, data[begin : begin + self.piece])

    def read(self) -> Reply:
        """The next reply that is owed."""
        kind = self.owed.popleft()
        while (end := self._received.find(b"\r\n\r\n")) < 0:
            self._more()
        minor, status, headers = parse_head(self._received[:end])
        size = content_length(headers)
        while len(self._received) < end + 4 + size:
            self._more()
        content = self._received[end + 4 : end + 4 + size]
        self._received = self._received[end + 4 + size :]
        if self._received and not self.owed:
            raise BadReply(f"bytes after the last reply: {self._received[:200]!r}")
        tunnelled = status == 200 and kind != "open" and bool(content)
        return Reply(status, headers, content[0] if tunnelled else None, content[1:] if tunnelled else content, minor)

    def _more(self) -> None:
        try:
            data = self.sock.recv(1 << 18)
        except (ConnectionResetError, BrokenPipeError):
            raise Ended(self._received, "rst") from None
        except ssl.SSLEOFError:
            raise Ended(self._received, "no close_notify") from None
        if not data:
            raise Ended(self._received, "fin")
        self._received += data

    def has_ended(self) -> bool:
        """Whether the server has closed it after its last reply."""
        readable = select.poll()
        readable.register(self.sock, select.POLLIN)
        if not readable.poll(0):
            return False
        try:
            data = socket.socket.recv(self.sock, 1, socket.MSG_PEEK)  # of the wire, also with TLS
        except OSError:
            return True
        if data and not isinstance(self.sock, ssl.SSLSocket):
            raise BadReply(f"a byte after the last reply: {data!r}")
        return data in (b"", ALERT)

    def close(self) -> None:
        self.sock.close()


def parse_head(data: bytes) -> tuple[int, int, list[tuple[str, str]]]:
    """A reply's head: the minor version, the status and the fields."""
    first, *lines = data.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if version not in ("HTTP/1.0", "HTTP/1.1") or not rest[:3].isdigit() or rest[3:4] not in ("", " "):
        raise BadReply(f"no status line: {first[:200]!r}")
    headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or "\n" in line or "\r" in line:
            raise BadReply(f"no field: {line[:200]!r}")
        headers.append((name, value.strip()))
    return int(version[-1]), int(rest[:3]), headers


def content_length(headers: list[tuple[str, str]]) -> int:
    lengths = [value for name, value in headers if name.lower() == "content-length"]
    codings = [value for name, value in headers if name.lower() == "transfer-encoding"]
    if codings or len(lengths) != 1 or not lengths[0].isdigit():
        raise BadReply(f"a reply needs one Content-Length and no coding: {lengths} {codings}")
    return int(lengths[0])


class RtmptClient:
    """A tunnel session and its connections, which are opened when they are first used.

    per_request: a connection for each request. minor: of HTTP/1.minor. absolute: "http://HOST:PORT", for a forward
    proxy at `address`. first: the first number of the session. empty: Content-Length: 0 instead of a body of one byte.
    piece: requests are sent in segments of so many bytes. tls: a context, and the server's name. headers: more fields,
    in front of the others. fields: those that each request has. source: the client's IP. reopen: when the server has
    closed a connection after a reply, the next request opens a new one; otherwise it fails.
    """

    def __init__(
        self,
        address: Address,
        *,
        per_request: bool = False,
        minor: int = 1,
        absolute: str = "",
        host: str = "",
        first: int = 0,
        empty: bool = False,
        piece: int = 0,
        tls: ssl.SSLContext | None = None,
        server_name: str = "localhost",
        headers: Iterable[tuple[str, str]] = (),
        fields: Iterable[tuple[str, str]] = FIELDS,
        source: str = "",
        reopen: bool = False,
    ) -> None:
        self.address = address
        self.reopen = reopen
        self.per_request = per_request
        self.minor = minor
        self.absolute = absolute
        self.host = host or absolute.partition("://")[2] or f"{address[0]}:{address[1]}"
        self.number = first  # of the next request
        self.empty = b"" if empty else EMPTY
        self.piece = piece
        self.tls, self.server_name = tls, server_name
        self.fields = [*headers, *fields]
        self.source = source
        self.id = ""
        self.connected = 0  # how many connections it made
        self.lanes: dict[int, Connection] = {}  # by the number that `via` means

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.disconnect()

    def disconnect(self) -> None:
        """Close the connections, but not the session."""
        while self.lanes:
            self.lanes.popitem()[1].close()

    def connect(self, via: int = 0) -> Connection:
        """The connection that `via` means; a new one if there is none."""
        if self.reopen and via in self.lanes and not self.lanes[via].owed and self.lanes[via].has_ended():
            self.drop(via)
        if via not in self.lanes:
            sock = connect(self.address, source=self.source)
            if self.tls:
                try:
                    sock = self.tls.wrap_socket(sock, server_hostname=self.server_name)
                except BaseException:
                    sock.close()
                    raise
            self.connected += 1
            self.lanes[via] = Connection(sock, self.piece)
        return self.lanes[via]

    def drop(self, via: int = 0) -> None:
        """Close a connection; the next request by it opens a new one."""
        if lane := self.lanes.pop(via, None):
            lane.close()

    # ----------------------------------------------------------------------------------------------------- requests

    def path(self, kind: str, number: int | None = None, numbered: bool = True) -> str:
        """It takes the next number, unless one is given."""
        if kind == "open":
            return "/open/1"
        if kind == "fcs":
            return "/fcs/ident2"
        if not numbered:
            return f"/{kind}/{self.id}"
        number = self.number if number is None else number
        self.number = max(self.number, number + 1)
        return f"/{kind}/{self.id}/{number}"

    def request(self, path: str, body: bytes = b"", size: int | None = -1) -> bytes:
        """The bytes of a request. size: what Content-Length says instead of the body's; None: it is left out."""
        size = len(body) if size == -1 else size
        more = {"host": self.host, "minor": self.minor, "absolute": self.absolute, "fields": self.fields}
        return head(path, size, **more) + body  # type: ignore[arg-type]

    def write(
        self, kind: str, data: bytes | None = None, *, number: int | None = None, numbered: bool = True, via: int = 0
    ) -> int | None:
        """A request without waiting for its reply, which `read` returns. Several of these are a pipeline.

        Returns its number.
        """
        path = self.path(kind, number, numbered)
        self.connect(via).write(self.request(path, self.empty if data is None else data), kind)
        last = path.rpartition("/")[2]
        return int(last) if numbered and kind not in ("open", "fcs") else None

    def read(self, via: int = 0) -> Reply:
        """The next reply on a connection. A connection that ends with it is closed here too."""
        lane = self.lanes[via]
        try:
            reply = lane.read()
        except (ConnectionError, BadReply):
            self.drop(via)
            raise
        if (reply.closes or self.per_request) and not lane.owed:
            self.drop(via)
        return reply

    def exchange(
        self, kind: str, data: bytes | None = None, *, number: int | None = None, numbered: bool = True, via: int = 0
    ) -> Reply:
        self.write(kind, data, number=number, numbered=numbered, via=via)
        return self.read(via)

    def pipeline(self, *requests: tuple[str, bytes], via: int = 0) -> list[Reply]:
        """Requests as kind and data, written at once; their replies."""
        data = b"".join(self.request(self.path(kind), body) for kind, body in requests)
        self.connect(via).write(data, *[kind for kind, _ in requests])
        return [self.read(via) for _ in requests]

    def open(self, via: int = 0) -> Reply:
        """Takes the session's id from a 200."""
        reply = self.exchange("open", via=via)
        if reply.status == 200:
            self.id = reply.body.decode("latin-1").removesuffix("\n")
        return reply

    def send(self, data: bytes, *, number: int | None = None, via: int = 0) -> Reply:
        return self.exchange("send", data, number=number, via=via)

    def idle(self, *, number: int | None = None, via: int = 0) -> Reply:
        return self.exchange("idle", number=number, via=via)

    def close(self, *, number: int | None = None, numbered: bool = True, via: int = 0) -> Reply:
        return self.exchange("close", number=number, numbered=numbered, via=via)

    def receive_exactly(self, size: int, received: bytes = b"", *, via: int = 0) -> bytes:
        """Poll until there are so many bytes; AssertionError if there are more, or another status than 200.

        received: what earlier replies had of them, such as that to `send`.
        """
        deadline = time.monotonic() + DEADLINE
        while len(received) < size:
            assert time.monotonic() < deadline, f"{len(received)} bytes of {size} within {DEADLINE:g} s"
            reply = self.idle(via=via)
            assert reply.status == 200, reply
            received += reply.body
        assert len(received) == size, received[size:][:200]
        return received

    def finish(self, via: int = 0) -> tuple[bytes, str]:
        """Send FIN on a connection; what comes until it ends, and how it ends: "fin" or "rst"."""
        lane = self.lanes.pop(via)
        with lane.sock:
            lane.sock.shutdown(socket.SHUT_WR)
            return until_end(lane.sock)
