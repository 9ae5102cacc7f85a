"""The fast path and the pump in one poll loop that the test turns itself, with a hook that decides about requests.

It is what a worker has, without gevent: `/ws` is a WebSocket, `/raw` is relayed as it is, and `/file` is served.
"""

import select
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

import greenlet

from flashpol._fastpath import RequestHead
from flashpol._pump import ENDS, FAILURES, Destination, Pump
from flashpol.counters.shared import SharedCounters
from testkit.clients import connect
from testkit.fastpath_loop import Loop
from testkit.manual_loop import ManualLoop
from testkit.polling import DEADLINE
from testkit.tls import ANY, TlsClient
from testkit.websocket import SWITCHED, Frame, PathCounters, frame, request, split

REPLIES = {status: b"HTTP/1.1 %d\r\n\r\n" % status for status in (400, 408, 411, 414, 417, 431, 501, 503, 505)}
FILE = b"HTTP/1.1 200 OK\r\n\r\nfile"
SWITCH = SWITCHED + b"\r\n"
TIMES = {
    "connect_timeout": 5.0,
    "idle_timeout": 0.0,
    "max_duration": 0.0,
    "silent_timeout": 0.0,
    "websocket_ping": 0.0,
    "linger_timeout": 5.0,
}


class Client:
    """A client; with TLS if it is one. `wire`: what was received inside it and not taken yet."""

    def __init__(self, loop: "WebSocketLoop", sock: socket.socket, tls: TlsClient | None = None) -> None:
        self._loop, self.sock, self.tls = loop, sock, tls
        self.wire = bytearray()
        self.ended = ""  # "fin" or "rst"
        sock.setblocking(False)

    def send(self, data: bytes) -> None:
        rest = memoryview(self.tls.encrypt(data) if self.tls else data)

        def sent() -> bool:
            nonlocal rest
            with suppress(BlockingIOError):
                rest = rest[self.sock.send(rest) :]
            return not rest

        self._loop.until(sent)

    def hurry(self) -> None:
        """A client that was slow reads as fast as it can."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def pull(self) -> None:
        """Receive what is there."""
        try:
            data = self.sock.recv(1 << 16)
        except BlockingIOError:
            return
        except (ConnectionResetError, BrokenPipeError):
            self.ended = self.ended or "rst"
            return
        if not data:
            self.ended = self.ended or "fin"
        elif self.tls:
            self.tls.give(data)
            self.wire += self.tls.decrypt()
        else:
            self.wire += data

    def until(self, condition: Callable[[], object], what: object = "") -> None:
        def there() -> object:
            if not self.ended:
                self.pull()
            return condition()

        self._loop.until(there, what or self.wire[:200])

    def head(self) -> bytes:
        """A reply's head."""
        self.until(lambda: b"\r\n\r\n" in self.wire)
        head, _, rest = bytes(self.wire).partition(b"\r\n\r\n")
        self.wire[:] = rest
        return head

    def frames(self, count: int) -> list[Frame]:
        """So many frames."""
        self.until(lambda: len(split(bytes(self.wire))[0]) >= count)
        frames, rest = split(bytes(self.wire))
        self.wire[:] = rest
        return frames

    def end(self) -> tuple[list[Frame], str]:
        """The frames until the end, and the end."""
        self.until(lambda: self.ended)
        frames, rest = split(bytes(self.wire))
        assert rest == b"" or self.ended == "rst", f"a part of a frame: {rest[:20]!r}"
        return frames, self.ended

    def rest(self) -> tuple[bytes, str]:
        self.until(lambda: self.ended)
        return bytes(self.wire), self.ended

    def fin_now(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def fin(self) -> None:
        self.fin_now()
        self._loop.drain()

    def reset_now(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def reset(self) -> None:
        self.reset_now()
        self._loop.drain()

    def close(self) -> None:
        self.sock.close()


class WebSocketLoop(ManualLoop):
    """path: settings of the WebSocket path; pump: of the Pump; timeouts: of its sessions; the others are Loop's."""

    def __init__(
        self,
        *,
        path: dict[str, object] | None = None,
        pump: dict[str, object] | None = None,
        timeouts: dict[str, float] | None = None,
        **settings: object,
    ) -> None:
        self._main = greenlet.getcurrent()
        self.requests: list[tuple[int, bytes]] = []
        self.ended: list[tuple[str, int]] = []
        self.errors: list[BaseException] = []
        self.greenlets: list[greenlet.greenlet] = []
        self.decide: Callable[[int, RequestHead, bytes], None] = self.by_path
        self.first = b""  # what the upstream gets first
        settings = {"shared": True, "http_replies": REPLIES, "max_leaving": 16} | settings
        self.loop = Loop(http=True, on_request=self._on_request, on_session=self._on_session, **settings)  # type: ignore[arg-type]
        self.table, self.address = self.loop.connection_table, self.loop.address
        self.pump = Pump(
            **(  # type: ignore[arg-type]
                {
                    "sleep": self._main.switch,
                    "on_error": self.errors.append,
                    "capacity": 1000,
                    "account": self.loop.account,
                }
                | (pump or {})
            )
        )
        self.pump.add_timeouts(**(TIMES | (timeouts or {})))
        shared = SharedCounters(1, 1, upstreams=1)
        self.relayed = shared.relay_block(0, 0)
        self._block = shared.relay_memory(0, 0)
        self.upstream = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.upstream.settimeout(DEADLINE)
        self.destination = Destination(self.upstream.getsockname(), self._block)
        self.counters = PathCounters()
        self.path = self.counters.path(**(path or {}))  # type: ignore[arg-type]
        self._poll = select.poll()
        for fd in (self.pump.fileno(), self.table.fileno(), self.loop.socket.fileno()):
            self._poll.register(fd, select.POLLIN)

    # ------------------------------------------------------------------------------------------------------ its hooks

    def _on_request(self, fd: int, data: bytes, listener: int) -> None:
        head = RequestHead.parse(data)
        self.requests.append((fd, data))
        self.decide(fd, head, data)

    def _on_session(self, fd: int, data: bytes, listener: int) -> None:
        self.start(fd, data)

    def by_path(self, fd: int, head: RequestHead, data: bytes) -> None:
        if head.path == b"/file":
            self.table.reply_http(fd, FILE, "served")
        elif head.path not in (b"/ws", b"/raw"):
            self.table.reply_http(fd, b"HTTP/1.1 404\r\n\r\n", "http")
        elif reason := self.table.begin_session(fd):
            self.path.count("capacity")
            self.table.reply_http(fd, b"HTTP/1.1 503\r\n\r\n", reason)
        elif head.path == b"/raw":
            self.start(fd, data)
        else:
            self.table.wrap(fd, self.path.prepare(SWITCH, data[head.consumed :]))
            self.start(fd, self.first, header_size=len(self.first))

    def start(self, fd: int, first: bytes, **options: int) -> None:
        """Relay it in a greenlet of its own, as `Relay.run` does."""

        def run() -> None:
            try:
                outcome, sent = self.pump.run_session(fd, self.destination, first, **options)
            except greenlet.GreenletExit:
                self.table.close_as(fd, "shutdown")
                return
            self.ended.append((outcome, sent))
            if outcome in FAILURES and not first:
                self.path.count("upstream")
                self.table.reply_http(fd, b"HTTP/1.1 502\r\n\r\n", "upstream")
            elif outcome in FAILURES:
                self.table.close_as(fd, "upstream")
            else:
                self.table.close_relayed(fd, sent)

        one = greenlet.greenlet(run)
        self.greenlets.append(one)
        one.switch()

    # --------------------------------------------------------------------------------------------------- its clients

    def connect(self, data: bytes = b"", *, tls: bool = False, receive_buffer: int = 0, source: str = "") -> Client:
        """A client that has sent these bytes."""
        sock = connect(self.address, receive_buffer=receive_buffer, source=source)
        client = Client(self, sock, TlsClient(None, ANY) if tls else None)
        if client.tls:
            self._shake_hands(client, client.tls)
        if data:
            client.send(data)
        self.drain()
        return client

    def _shake_hands(self, client: Client, tls: TlsClient) -> None:
        def complete() -> bool:
            with suppress(BlockingIOError):
                data = client.sock.recv(1 << 16)
                assert data, "the server has closed the connection"
                tls.give(data)
            done = tls.step()
            if wire := tls.take():
                client.sock.sendall(wire)
            return done

        self.until(complete)

    def open(self, rest: bytes = b"", **options: object) -> tuple[Client, socket.socket]:
        """A WebSocket: the client, which has its 101, and the application's end."""
        client = self.connect(request("/ws") + rest, **options)  # type: ignore[arg-type]
        inner = self.accept()
        assert client.head() + b"\r\n\r\n" == SWITCH
        return client, inner

    def accept(self) -> socket.socket:
        self.drain()
        inner, _ = self.upstream.accept()
        inner.settimeout(DEADLINE)
        self.drain()
        return inner

    def receive(self, inner: socket.socket, size: int) -> bytes:
        """So many bytes at the application."""
        received = bytearray()
        inner.setblocking(False)

        def more() -> bool:
            with suppress(BlockingIOError):
                received.extend(inner.recv(min(1 << 16, size - len(received))))
            return len(received) >= size

        self.until(more, "bytes at the application")
        inner.settimeout(DEADLINE)
        return bytes(received)

    def end_of(self, inner: socket.socket) -> tuple[bytes, str]:
        """What the application receives until the end, and the end."""
        received, how = bytearray(), []
        inner.setblocking(False)

        def over() -> bool:
            try:
                data = inner.recv(1 << 16)
                received.extend(data)
                if not data:
                    how.append("fin")
            except BlockingIOError:
                pass
            except (ConnectionResetError, BrokenPipeError):
                how.append("rst")
            return bool(how)

        self.until(over, "the end at the application")
        inner.settimeout(DEADLINE)
        return bytes(received), how[0]

    # --------------------------------------------------------------------------------------------------------- turns

    def turn(self, timeout: float = 0) -> bool:
        ready = bool(self._poll.poll(timeout * 1000))
        if ready:
            self.loop.turn()
            self.pump.ready()
            self.pump.check()
            self.table.check()
        return ready

    @property
    def sessions(self) -> dict[str, int]:
        """How sessions ended, and why attempts to connect failed."""
        counts = zip((*ENDS, *FAILURES), (*self.relayed.all("ends"), *self.relayed.all("failures")), strict=True)
        return {name: count for name, count in counts if count}

    def settle(self) -> dict[str, int]:
        """Turn until nothing is open. Returns how the connections ended; each was counted once."""
        self.until(lambda: self.table.open == 0, "the end of all connections")
        assert self.pump.check() == 0
        assert self.pump.buffers_held == 0
        assert self.counters["open"] == 0
        assert sum(self.counters.closes.values()) == self.counters.upgrades.get("accepted", 0)
        return self.loop.settle()

    def close(self) -> None:
        self.pump.cut_all()
        self.until(lambda: self.pump.open == 0)
        assert self.pump.check() == 0, "a session leaked"
        self.loop.close()
        assert self.counters["open"] == 0
        assert not self.errors
        assert not self.loop.errors
        self.upstream.close()


def echo(loop: WebSocketLoop, client: Client, inner: socket.socket) -> None:
    """A message each way."""
    client.send(frame(2, b"ping"))
    assert loop.receive(inner, 4) == b"ping"
    inner.sendall(b"pong")
    assert client.frames(1) == [Frame(2, b"pong")]
