"""A small RTMPT server that echoes: for clients of RTMPT, which shall see each of its faults.

It has two workers in name: the address and port of a connection decide at which one it is, as the kernel's hash does.
"""

import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from socket import socket
from typing import BinaryIO

from testkit.broken_servers import broken_server

WORKERS = ("0a", "0b")
INTERVAL = b"\x01"

# Called with what is asked for ("open", "send", "idle", "close"), status and body; returns the bytes on the wire. If
# there are none, the connection is closed instead.
Change = Callable[[str, int, bytes], bytes]


@dataclass(frozen=True)
class Asked:
    """One request. connection: its number. at: the worker of the connection. owner: that of the session."""

    what: str
    session: str
    connection: int
    at: str
    owner: str


@dataclass
class Session:
    """pending: bytes that the client has not had. number: of its next request."""

    pending: bytearray = field(default_factory=bytearray)
    number: int = 0


def http(status: int, body: bytes, fields: str = "Content-Length: {}\r\n") -> bytes:
    """A reply."""
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/x-fcs\r\n{fields.format(len(body))}\r\n"
    return head.encode() + body


class RtmptStub:
    """Its sessions, and the requests that it has had."""

    def __init__(
        self, hold: float = 0.0, at_most: int = 1 << 20, workers: int = 2, echo_at_once: bool = True,
        change: Change = lambda what, status, body: http(status, body),
    ) -> None:  # fmt: skip
        """hold: seconds of a poll. at_most: bytes of data in a reply. echo_at_once: in the reply to /send."""
        self.asked: list[Asked] = []
        self.wrong_numbers: list[tuple[str, int, int]] = []
        self.sessions: dict[str, Session] = {}
        self._hold, self._at_most, self._workers, self._echo_at_once = hold, at_most, workers, echo_at_once
        self._change = change
        self.open_connections = 0
        self._connections = self._opened = 0
        self._changed = threading.Condition()

    def serve(self, connection: socket) -> None:
        """Serve one connection."""
        with self._changed:
            self._connections += 1
            self.open_connections += 1
            number = self._connections
        try:
            self._serve(connection, number)
        finally:
            with self._changed:
                self.open_connections -= 1

    def _serve(self, connection: socket, number: int) -> None:
        address, port = connection.getpeername()
        worker = WORKERS[zlib.crc32(f"{address}:{port}".encode()) % self._workers]
        with connection.makefile("rb") as stream:
            while request := self._read(stream):
                words, fields, body = request
                what, status, reply = self._reply(words, body, number, worker)
                wire = self._change(what, status, reply)
                if wire:
                    connection.sendall(wire)
                if not wire or fields["connection"] == "close":
                    return

    @staticmethod
    def _read(stream: BinaryIO) -> tuple[list[str], dict[str, str], bytes] | None:
        line = stream.readline()
        if not line:
            return None
        method, path, version = line.decode().split()
        assert (method, version) == ("POST", "HTTP/1.1")
        fields = {}
        while (line := stream.readline()) != b"\r\n":
            name, value = line.decode().split(":", 1)
            fields[name.lower()] = value.strip()
        return path.split("/")[1:], fields, stream.read(int(fields["content-length"]))

    def _reply(self, words: list[str], body: bytes, connection: int, worker: str) -> tuple[str, int, bytes]:
        what, name = words[0], words[1]
        with self._changed:
            if what == "open":
                self._opened += 1
                name = f"A{worker}{self._opened:013d}"
                self.sessions[name] = Session()
            session = self.sessions.get(name)
            self.asked.append(Asked(what, name, connection, worker, name[1:3]))
            if session is None:
                return what, 404, b""
            if what == "open":
                assert body == b"\0"
                return what, 200, name.encode() + b"\n"
            if int(words[2]) != session.number:
                self.wrong_numbers.append((name, int(words[2]), session.number))
            session.number += 1
            if what == "close":
                del self.sessions[name]
                return what, 200, b"\0"
            if what == "send":
                session.pending += body
                self._changed.notify_all()
            elif self._hold:
                self._changed.wait_for(lambda: session.pending, self._hold)
            room = self._at_most if what == "idle" or self._echo_at_once else 0
            data = bytes(session.pending[:room])
            del session.pending[:room]
            return what, 200, INTERVAL + data

    def count(self, what: str) -> int:
        """How many requests of a kind there were."""
        return sum(1 for one in self.asked if one.what == what)


@contextmanager
def rtmpt_stub(stub: RtmptStub) -> Iterator[int]:
    """Run it. Yields its port."""
    with broken_server(stub.serve) as port:
        yield port
