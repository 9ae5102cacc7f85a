"""Servers of WebSockets, for `loopback.Server`: a correct one, and what each can do wrong."""

import re
import socket
from collections.abc import Callable

from loopback import Handler

from flashpol.probe.websocket.request import accept_for

PING, PONG, CLOSE, TEXT, BINARY = 0x9, 0xA, 0x8, 0x1, 0x2
Session = Callable[[socket.socket], None]


def head_of(connection: socket.socket) -> bytes:
    """The request, through its empty line."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(4096)
        if not part:
            break
        data += part
    return data


def field(request: bytes, name: str) -> str:
    found = re.search(rf"\r\n{name}: ([^\r]*)".encode(), request, re.I)
    return found[1].decode() if found else ""


def accepted(request: bytes, *more: str, accept: str | None = None, version: str = "HTTP/1.1") -> bytes:
    """The head of 101, with more fields."""
    right = accept_for(field(request, "Sec-WebSocket-Key"))
    lines = [
        f"{version} 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {right if accept is None else accept}",
        *more,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def frame(opcode: int, payload: bytes = b"", *, first: int = 0x80) -> bytes:
    """A frame of a server's."""
    return bytes((first | opcode, len(payload))) + payload


def exactly(connection: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer at the end; sockets inside TLS have no MSG_WAITALL."""
    data = b""
    while len(data) < size and (part := connection.recv(size - len(data))):
        data += part
    return data


def echoing(connection: socket.socket) -> None:
    """Reply to pings and to Close, and ignore the rest."""
    while len(header := exactly(connection, 2)) == 2:
        mask = exactly(connection, 4)
        masked = exactly(connection, header[1] & 0x7F)
        payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(masked))
        if header[0] & 0x0F == PING:
            connection.sendall(frame(PONG, payload))
        elif header[0] & 0x0F == CLOSE:
            connection.sendall(frame(CLOSE, payload))
            return


def deaf(connection: socket.socket) -> None:
    """Read everything, and reply to nothing."""
    while connection.recv(4096):
        pass


def opening(session: Session = echoing, head: Callable[[bytes], bytes] = accepted, then: bytes = b"") -> Handler:
    """Switch protocols, send `then` at once, and go on with the session."""

    def handle(connection: socket.socket) -> None:
        connection.sendall(head(head_of(connection)) + then)
        session(connection)

    return handle


def with_fields(*more: str, accept: str | None = None, version: str = "HTTP/1.1") -> Handler:
    return opening(head=lambda request: accepted(request, *more, accept=accept, version=version))


def ending(then: bytes = b"") -> Handler:
    """Open the WebSocket, send this, and close the connection."""
    return opening(lambda connection: connection.shutdown(socket.SHUT_WR), then=then)


def refusing(status: str, *fields: str, body: str = "", version: str = "HTTP/1.1", keep: bool = False) -> Handler:
    """Refuse every request; with `keep` the connection stays open."""

    def handle(connection: socket.socket) -> None:
        while head_of(connection):
            lines = [f"{version} {status}", f"Content-Length: {len(body)}", *fields]
            connection.sendall(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
            if not keep:
                return

    return handle


def for_origin(allowed: str, reason: str = "") -> Handler:
    """Open the WebSocket for pages of one origin, and refuse the others with 403."""

    def handle(connection: socket.socket) -> None:
        request = head_of(connection)
        if field(request, "Origin") == allowed:
            connection.sendall(accepted(request))
            echoing(connection)
        else:
            connection.sendall(
                f"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: {len(reason)}\r\n\r\n".encode()
                + reason.encode()
            )

    return handle


def raw(data: bytes) -> Handler:
    """Reply to any bytes with these."""

    def handle(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(data)

    return handle
