"""Handlers for `loopback.Server`: policy servers with one deliberate mistake each, and some correct ones.

A handler gets a connection and ends it. Each mistake was made by an operator.
"""

import contextlib
import socket
import ssl
import struct
import threading
import time

from loopback import Handler

REQUEST = b"<policy-file-request/>\0"
POLICY = (
    b'<cross-domain-policy><site-control permitted-cross-domain-policies="master-only"/>'
    b'<allow-access-from domain="*" to-ports="1935"/></cross-domain-policy>'
)
OPEN_POLICY = b'<cross-domain-policy><allow-access-from domain="*" to-ports="1935"/></cross-domain-policy>'
SILVERLIGHT = (
    b'<access-policy><cross-domain-access><policy><allow-from><domain uri="*"/></allow-from>'
    b'<grant-to><socket-resource port="4502-4506" protocol="tcp"/></grant-to></policy></cross-domain-access>'
    b"</access-policy>"
)
# Seconds for a whole request, in servers that have such a deadline.
DEADLINE = 1.0

# --------------------------------------------------------------------------------------------------------- handlers


def whole(connection: socket.socket) -> bytes:
    """Read correctly: until the NUL, in any number of pieces, under one deadline."""
    data = b""
    deadline = time.monotonic() + DEADLINE
    while b"\0" not in data and (part := _receive(connection, deadline)):
        data += part
    return data


def _receive(connection: socket.socket, deadline: float) -> bytes:
    connection.settimeout(max(0.01, deadline - time.monotonic()))
    try:
        return connection.recv(4096)
    except TimeoutError:
        return b""


def end(connection: socket.socket) -> None:
    """Send FIN and read until the client closes, so that no RST is sent."""
    connection.shutdown(socket.SHUT_WR)
    connection.settimeout(1)
    with contextlib.suppress(TimeoutError):
        while connection.recv(4096):
            pass


def answering(reply: bytes = POLICY + b"\0") -> Handler:
    """A correct server with this reply."""

    def handle(connection: socket.socket) -> None:
        if whole(connection).startswith(REQUEST):
            connection.sendall(reply)
        end(connection)

    return handle


def answering_22(connection: socket.socket) -> None:
    """A correct server for Silverlight, which sends no NUL."""
    data = b""
    deadline = time.monotonic() + DEADLINE
    while len(data) < 22 and (part := _receive(connection, deadline)):
        data += part
    if data.startswith(REQUEST[:22]):
        connection.sendall(SILVERLIGHT)
    end(connection)


def any_terminator(connection: socket.socket) -> None:
    """A correct server that also accepts what telnet and echo send."""
    data = b""
    deadline = time.monotonic() + DEADLINE
    while not data.endswith((b"\0", b"\n")) and len(data) < 23 and (part := _receive(connection, deadline)):
        data += part
        if len(data) == 22:
            deadline = min(deadline, time.monotonic() + 0.15)
    if data.startswith(REQUEST[:22]):
        connection.sendall(POLICY + b"\0")
    end(connection)


def silent(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


def closing(connection: socket.socket) -> None:
    whole(connection)


def resetting(connection: socket.socket) -> None:
    whole(connection)
    reset(connection)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def keeping_open(reply: bytes) -> Handler:
    def handle(connection: socket.socket) -> None:
        if whole(connection).startswith(REQUEST):
            connection.sendall(reply)
            connection.settimeout(None)
            while connection.recv(4096):
                pass

    return handle


def endless(connection: socket.socket) -> None:
    if whole(connection).startswith(REQUEST):
        for _ in range(1 << 14):  # a gigabyte
            connection.sendall(b"<!-- and so on -->" * 3641)


def dripping_reply(connection: socket.socket) -> None:
    """Send one byte at a time, for much longer than any client waits."""
    if whole(connection).startswith(REQUEST):  # not a part of it, if the probe sent the rest late
        for at in range(len(POLICY)):
            connection.sendall(POLICY[at : at + 1])
            time.sleep(0.05)


def cut_off(connection: socket.socket) -> None:
    if whole(connection).startswith(REQUEST):
        connection.sendall(POLICY[:40])
        time.sleep(0.1)
        reset(connection)


def in_two_writes(connection: socket.socket) -> None:
    if whole(connection).startswith(REQUEST):
        connection.sendall(POLICY[:60])
        time.sleep(0.05)
        connection.sendall(POLICY[60:] + b"\0")
    end(connection)


class Alternating:
    """Two servers behind one address, with different policies."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, connection: socket.socket) -> None:
        self._count += 1
        answering((POLICY if self._count % 2 else OPEN_POLICY) + b"\0")(connection)


class SlowAtFirst:
    """The first reply is slow."""

    def __init__(self) -> None:
        self._awake = False

    def __call__(self, connection: socket.socket) -> None:
        if not self._awake:
            time.sleep(1.1)
        self._awake = True
        answering()(connection)


class EverySecond:
    """Reply to every second request, as with a lost race."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, connection: socket.socket) -> None:
        self._count += 1
        if whole(connection).startswith(REQUEST) and self._count % 2:
            connection.sendall(POLICY + b"\0")
        end(connection)


def reading_22(connection: socket.socket) -> None:
    """The NUL stays unread: close sends RST."""
    data = b""
    while len(data) < 22 and (part := connection.recv(22 - len(data))):
        data += part
    connection.sendall(POLICY + b"\0")


def one_receive(connection: socket.socket) -> None:
    if connection.recv(4096).startswith(REQUEST):
        connection.sendall(POLICY + b"\0")
    end(connection)


def few_receives(connection: socket.socket) -> None:
    connection.settimeout(DEADLINE)
    data = b""
    for _ in range(3):
        data += connection.recv(4096)
        if b"\0" in data:
            connection.sendall(POLICY + b"\0")
            break
    end(connection)


def wants_a_line(connection: socket.socket) -> None:
    with connection.makefile("rb") as lines:
        if lines.readline().endswith(b"\n"):
            connection.sendall(POLICY + b"\0")
            end(connection)


def wants_22_bytes(reply: bytes = POLICY + b"\0") -> Handler:
    """`if (data == "<policy-file-request/>")`, and no other comparison."""

    def handle(connection: socket.socket) -> None:
        while data := connection.recv(4096):
            if data == REQUEST[:22]:
                connection.sendall(reply)
                end(connection)

    return handle


def wants_22_bytes_at_once(connection: socket.socket) -> None:
    if connection.recv(4096) == REQUEST[:22]:
        connection.sendall(POLICY + b"\0")


def web_server(connection: socket.socket) -> None:
    """HTTP/0.9, as a request without a version gets it."""
    with connection.makefile("rb") as lines:
        lines.readline()
    connection.sendall(b"<!DOCTYPE html>\n<html><body>Bad request syntax</body></html>\n")


def tls(connection: socket.socket) -> None:
    """Reply to a ClientHello only, here with an alert, since it has no certificate."""
    with contextlib.suppress(ssl.SSLError):
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).wrap_socket(connection, server_side=True).close()


def wants_the_end(connection: socket.socket) -> None:
    data = b""
    while part := connection.recv(4096):
        data += part
    if data.startswith(REQUEST):
        connection.sendall(POLICY + b"\0")


def speaking_first(connection: socket.socket) -> None:
    connection.sendall(POLICY + b"\0")
    end(connection)


def answering_a_part(connection: socket.socket) -> None:
    if connection.recv(4096):
        connection.sendall(POLICY + b"\0")
    end(connection)


def closing_on_more(connection: socket.socket) -> None:
    """Correct unless more than the request is sent."""
    connection.settimeout(DEADLINE)
    data = b""
    while len(data) < 23 and (part := connection.recv(23 - len(data))):
        data += part
    if data == REQUEST:
        connection.sendall(POLICY + b"\0")


def hanging_up_with(connection: socket.socket) -> None:
    """Take a FIN after the request for a client that left."""
    if whole(connection).startswith(REQUEST):
        connection.settimeout(0.1)
        try:
            gone = connection.recv(1, socket.MSG_PEEK) == b""
        except TimeoutError:
            gone = False
        if not gone:
            connection.sendall(POLICY + b"\0")
    end(connection)


def any_request(connection: socket.socket) -> None:
    data = b""
    deadline = time.monotonic() + DEADLINE
    while len(data) < 16 and (part := _receive(connection, deadline)):
        data += part
    time.sleep(0.05)  # the rest, if it comes in parts
    if data:
        connection.sendall(POLICY + b"\0")
    end(connection)


def patient(reply: bytes) -> Handler:
    """A server without a deadline for the request, as an application's own port has none."""

    def handle(connection: socket.socket) -> None:
        data = b""
        while b"\0" not in data and (part := connection.recv(4096)):
            data += part
        if data.startswith(REQUEST):
            connection.sendall(reply)
        end(connection)

    return handle


without_deadline = patient(POLICY + b"\0")


def echo(connection: socket.socket) -> None:
    connection.sendall(whole(connection))
    end(connection)


class Guard:
    """A correct server that shuts an address out: it then closes, resets or stays silent.

    It does so after `max_connections`; if `strict`, also after a request that is not whole in the first receive.
    """

    def __init__(self, max_connections: int = 1000, *, strict: bool = False, how: Handler | None = None) -> None:
        self._left = max_connections
        self._strict = strict
        self._banned = False
        self._how = how

    def __call__(self, connection: socket.socket) -> None:
        self._left -= 1
        if self._banned or self._left < 0:
            if self._how is not None:
                self._how(connection)
            return
        if self._strict:
            connection.settimeout(DEADLINE)
            self._banned = connection.recv(4096) != REQUEST
            if self._banned:
                return
        elif not whole(connection).startswith(REQUEST):
            return
        connection.sendall(POLICY + b"\0")
        end(connection)


class Limiter:
    """A correct server that accepts so many connections within a second, and closes the others at once."""

    def __init__(self, max_rate: int) -> None:
        self._max_rate = max_rate
        self._times: list[float] = []

    def __call__(self, connection: socket.socket) -> None:
        now = time.monotonic()
        self._times = [at for at in self._times if now - at < 1] + [now]
        if len(self._times) <= self._max_rate:
            any_terminator(connection)


class OneConnection:
    """A correct server that closes a second connection while the first is open."""

    def __init__(self) -> None:
        self._busy = threading.Lock()

    def __call__(self, connection: socket.socket) -> None:
        if self._busy.acquire(blocking=False):
            with contextlib.closing(connection):
                try:
                    any_terminator(connection)
                finally:
                    self._busy.release()


def wants_a_line_or_the_end(connection: socket.socket) -> None:
    """Take a line that the end of the stream ends, as `readline()` does."""
    with connection.makefile("rb") as lines:
        if REQUEST[:22] in lines.readline():
            connection.sendall(POLICY + b"\0")


def wants(request: bytes, *, holds: bool = True) -> Handler:
    """Reply to this request only; hold the connection after any other one, or close it."""

    def handle(connection: socket.socket) -> None:
        data = b""
        while request.startswith(data) and data != request and (part := connection.recv(4096)):
            data += part
        if data.startswith(request):
            connection.sendall(POLICY + b"\0")
        elif holds:
            silent(connection)

    return handle


class SilentAtFirst:
    """The first request gets no reply: the others do, whatever they are."""

    def __init__(self) -> None:
        self._connections = 0

    def __call__(self, connection: socket.socket) -> None:
        self._connections += 1
        if self._connections == 1:
            silent(connection)
        else:
            any_terminator(connection)
