"""A server of RTMPT, the simplest that works: clients and proxies are tested with it where flashpol is not the subject.

A thread for each connection and for each upstream. The requests of a connection are carried out one after another, so a
number that another request of the same connection waits for comes too late.
"""

import secrets
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from testkit.polling import DEADLINE

INTERVALS = (0x01, 0x03, 0x05, 0x09, 0x11, 0x21)  # after 0, 10, 20, … empty replies in a row
KEPT = 2  # replies that may be asked for again: of one client's connections, as many may break at once
Address = tuple[str, int]


class Session:
    def __init__(self, upstream: socket.socket, hold: float, gap: float, buffer: int) -> None:
        self.upstream = upstream
        self.hold, self.gap, self.buffer = hold, gap, buffer
        self._changed = threading.Condition()
        self._expected: int | None = None  # the number whose turn it is
        self._waiting: set[int] = set()
        self._busy = False  # a request is sending upstream
        self._held: int | None = None  # the poll that waits for bytes
        self._last: dict[int, bytes] = {}  # replies that may be asked for again
        self._queued = bytearray()  # for the client
        self._ended = False  # by the upstream
        self._empty = 0  # replies in a row
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self) -> None:
        data = b"x"
        while data:
            with self._changed:
                self._changed.wait_for(lambda: len(self._queued) < self.buffer)
            try:
                data = self.upstream.recv(1 << 16)
            except OSError:
                data = b""
            with self._changed:
                self._queued += data
                self._ended = not data
                self._changed.notify_all()

    def carry_out(self, kind: str, number: int, body: bytes) -> bytes | None:
        """The content of the reply; None if the session is over."""
        with self._changed:
            self._expected = number if self._expected is None else self._expected
            self._wait_for_turn(number)
            if number < self._expected:
                self._changed.wait_for(lambda: self._held != number)  # it has the reply of the poll that it repeats
                return self._last.get(number) or bytes([self._interval()])
            self._busy = True
        with suppress(OSError):
            self.upstream.sendall(body if kind == "send" else b"")
        with self._changed:
            self._busy, self._expected = False, number + 1
            self._changed.notify_all()  # a poll that is held has its reply before this request
            self._changed.wait_for(lambda: self._held is None)
            if kind == "idle":
                self._held = number
                self._changed.wait_for(lambda: self._has_news(number), self.hold)
                self._held = None
            if self._ended and not self._queued:
                return None
            self._empty = 0 if self._queued else self._empty + 1
            content = bytes([self._interval(), *self._queued])
            self._queued.clear()
            self._last[number] = content
            self._last.pop(number - KEPT, None)
            self._changed.notify_all()
            return content

    def _has_news(self, number: int) -> bool:
        """For a poll that is held: bytes, the end, or a request after it."""
        return bool(self._queued or self._ended or self._waiting or self._busy or self._expected != number + 1)

    def _interval(self) -> int:
        return INTERVALS[min(self._empty // 10, len(INTERVALS) - 1)]

    def _wait_for_turn(self, number: int) -> None:
        """A gap that is older than `gap` is passed over by the lowest number that waits."""
        assert self._expected is not None
        since = time.monotonic()
        self._waiting.add(number)
        while number > self._expected or self._busy:
            self._changed.wait(self.gap / 10)
            late = time.monotonic() - since > self.gap and not self._busy
            if late and number == min(self._waiting):
                self._expected = max(self._expected, number)
        self._waiting.discard(number)  # a repeat may have waited too

    def close(self) -> None:
        with suppress(OSError):
            self.upstream.shutdown(socket.SHUT_RDWR)
        self.upstream.close()


class RtmptServer:
    def __init__(
        self, upstream: Address, hold: float, gap: float, buffer: int, tls: ssl.SSLContext | None = None
    ) -> None:
        self.upstream = upstream
        self.tls = tls
        self.settings = (hold, gap, buffer)
        self.sessions: dict[str, Session] = {}
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.place: Address = self.listening.getsockname()[:2]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listening.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls:
            try:
                client = self.tls.wrap_socket(client, server_side=True)
            except OSError:
                client.close()
                return
        with client, client.makefile("rb") as stream, suppress(OSError):
            while request := stream.readline():
                method, target, version = request.decode().split()
                fields = dict(_fields(iter(stream.readline, b"\r\n")))
                body = stream.read(int(fields.get("content-length", "0")))
                status, content = self._reply(method, target, body)
                options = fields.get("connection", "").lower()
                keep = "keep-alive" in options if version == "HTTP/1.0" else "close" not in options
                client.sendall(
                    f"HTTP/1.1 {status}\r\nContent-Type: application/x-fcs\r\nContent-Length: {len(content)}\r\n"
                    f"Cache-Control: no-cache\r\nConnection: {'Keep-Alive' if keep else 'close'}\r\n\r\n".encode()
                    + content
                )
                if not keep:
                    break

    def _reply(self, method: str, target: str, body: bytes) -> tuple[str, bytes]:
        path = target if target.startswith("/") else "/" + target.partition("://")[2].partition("/")[2]
        _, kind, *rest = path.split("/")
        if method != "POST":
            return "405 Method Not Allowed", b""
        if kind == "open":
            return self._open()
        session = self.sessions.get(rest[0]) if rest else None
        if session is None or kind not in ("send", "idle", "close"):
            return "404 Not Found", b""
        content = session.carry_out(kind, int(rest[1]), body) if len(rest) > 1 else b"\0"
        if kind == "close" or content is None:
            session.close()
            self.sessions.pop(rest[0], None)
        return ("404 Not Found", b"") if content is None else ("200 OK", b"\0" if kind == "close" else content)

    def _open(self) -> tuple[str, bytes]:
        try:
            upstream = socket.create_connection(self.upstream, DEADLINE)
        except OSError:
            return "502 Bad Gateway", b""
        upstream.settimeout(None)
        upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        name = f"A{secrets.token_hex(7)}0"
        self.sessions[name] = Session(upstream, *self.settings)
        return "200 OK", name.encode() + b"\n"

    def close(self) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        while self.sessions:
            self.sessions.popitem()[1].close()


def _fields(lines: Iterator[bytes]) -> Iterator[tuple[str, str]]:
    for line in lines:
        name, _, value = line.decode("latin-1").partition(":")
        yield name.lower(), value.strip()


@contextmanager
def rtmpt_server(
    upstream: Address, *, hold: float = 0.5, gap: float = 2.0, buffer: int = 1 << 18, tls: ssl.SSLContext | None = None
) -> Iterator[RtmptServer]:
    server = RtmptServer(upstream, hold, gap, buffer, tls)
    try:
        yield server
    finally:
        server.close()
