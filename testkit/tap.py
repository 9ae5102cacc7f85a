"""A relay of TCP that keeps what passes: what a proxy makes of a client's requests, in front of any server.

>>> with tap(server.place) as seen, nginx_as_it_comes(folder, seen.place) as proxy:
...     client = RtmptClient(proxy.place)
...     client.open()
...     seen.connections[0].to_server
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from testkit.polling import DEADLINE
from testkit.rtmpt_client import content_length, parse_head

Address = tuple[str, int]


class Seen(NamedTuple):
    """A request as the server gets it."""

    method: str
    target: str
    minor: int  # of HTTP/1.minor
    headers: list[tuple[str, str]]  # names as they came
    body: bytes

    def field(self, name: str) -> str | None:
        """All values of a field, with commas; the name in any case."""
        values = [value for each, value in self.headers if each.lower() == name.lower()]
        return ", ".join(values) if values else None


class Tapped:
    """One connection to the server, and what both sides have sent."""

    def __init__(self) -> None:
        self.to_server = bytearray()
        self.to_client = bytearray()

    @property
    def requests(self) -> list[Seen]:
        """Those that are complete. Each needs a Content-Length unless it is a GET."""
        found, data = [], bytes(self.to_server)
        while (end := data.find(b"\r\n\r\n")) >= 0:
            first, _, rest = data[:end].partition(b"\r\n")
            method, target, version = first.decode().split(" ")
            _, _, headers = parse_head(b"HTTP/1.1 200\r\n" + rest)
            size = 0 if method == "GET" else content_length(headers)
            body = data[end + 4 : end + 4 + size]
            if len(body) < size:
                break
            found.append(Seen(method, target, int(version.removeprefix("HTTP/1.")), headers, body))
            data = data[end + 4 + size :]
        return found


class Tap:
    def __init__(self, server: Address) -> None:
        self.server = server
        self.connections: list[Tapped] = []  # in the order in which they were accepted
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.place: Address = self.listening.getsockname()[:2]
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def requests(self) -> list[Seen]:
        """Of all connections, one connection after another."""
        return [request for connection in self.connections for request in connection.requests]

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listening.accept()
            except OSError:  # closed
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tapped = Tapped()
            self.connections.append(tapped)
            try:
                server = socket.create_connection(self.server, DEADLINE)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets += [client, server]
            for source, sink, kept in ((client, server, tapped.to_server), (server, client, tapped.to_client)):
                threading.Thread(target=self._pass_on, args=(source, sink, kept), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
        try:
            while data := source.recv(1 << 16):
                kept += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:  # RST of one side ends the other
            for each in (source, sink):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for each in (self.listening, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@contextmanager
def tap(server: Address) -> Iterator[Tap]:
    running = Tap(server)
    try:
        yield running
    finally:
        running.close()
