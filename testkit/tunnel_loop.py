"""The fast path, the pump and tunnel sessions in one poll loop that the test turns itself: a worker without gevent.

Several of them, joined by lines, are the workers of a host. After each turn all that must hold is checked.
"""

import select
import socket
from collections.abc import Sequence
from contextlib import suppress

import greenlet

from flashpol._fastpath import Account
from flashpol._pump import ENDS, FAILURES, Destination, Pump
from flashpol._tunnel import Tunnels
from flashpol.counters.shared import SharedCounters
from testkit.clients import connect
from testkit.fastpath_loop import Loop
from testkit.manual_loop import ManualLoop
from testkit.polling import DEADLINE
from testkit.rtmpt_client import EMPTY, Reply, content_length, head, parse_head
from testkit.tls import ANY, TlsClient
from testkit.websocket_loop import TIMES, Client

STATUSES = (400, 404, 405, 408, 411, 413, 414, 417, 431, 501, 503, 505)
REPLIES = {status: b"HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" % status for status in STATUSES}
# What a test does not wait for does not end it.
TUNNEL_TIMES = {"hold": 20.0, "gap": 20.0, "session_timeout": 60.0, "buffer": 1 << 18}
HOST = "a.example.com"


def post(path: str, body: bytes = EMPTY, **options: object) -> bytes:
    """A request. options: of `testkit.rtmpt_client.head`."""
    return head(path, len(body), host=HOST, **options) + body  # type: ignore[arg-type]


def hurry(inner: socket.socket) -> None:
    """An application that was slow reads as fast as it can."""
    inner.setblocking(False)
    inner.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)


class Lane(Client):
    """A connection of a client of RTMPT."""

    def post(self, path: str, body: bytes = EMPTY, **options: object) -> None:
        self.send(post(path, body, **options))
        self._loop.drain()

    def is_silent(self) -> bool:
        """Nothing has come that was not taken."""
        self._loop.drain()
        self.pull()
        return not self.wire

    def reply(self) -> Reply:
        """The next reply; interval is its first byte."""
        self.until(lambda: self._complete() or self.ended, "a reply")
        assert self._complete(), (bytes(self.wire), self.ended)
        end = self.wire.index(b"\r\n\r\n")
        minor, status, headers = parse_head(bytes(self.wire[:end]))
        size = content_length(headers)
        content = bytes(self.wire[end + 4 : end + 4 + size])
        del self.wire[: end + 4 + size]
        assert status != 200 or content, "an empty 200"
        return Reply(status, headers, content[0] if content else None, content[1:], minor)

    def _complete(self) -> bool:
        end = self.wire.find(b"\r\n\r\n")
        return end >= 0 and len(self.wire) >= end + 4 + content_length(parse_head(bytes(self.wire[:end]))[2])

    def ask(self, path: str, body: bytes = EMPTY, **options: object) -> Reply:
        self.post(path, body, **options)
        return self.reply()


class Session:
    """A tunnel session. inner: the application's end. lane: the connection that it was opened on."""

    def __init__(self, worker: "TunnelLoop", lane: Lane, inner: socket.socket, id: str) -> None:
        self.worker, self.lane, self.inner, self.id = worker, lane, inner, id

    def path(self, kind: str, number: int | None = None) -> str:
        return f"/{kind}/{self.id}" if number is None else f"/{kind}/{self.id}/{number}"

    def send(self, number: int, body: bytes, lane: Lane | None = None) -> Reply:
        return (lane or self.lane).ask(self.path("send", number), body)

    def idle(self, number: int, lane: Lane | None = None) -> Reply:
        return (lane or self.lane).ask(self.path("idle", number))

    def hold(self, number: int, lane: Lane | None = None) -> Lane:
        """A poll that is not answered yet."""
        lane = lane or self.lane
        lane.post(self.path("idle", number))
        assert lane.is_silent()
        return lane

    def close(self, number: int | None = None, lane: Lane | None = None) -> Reply:
        return (lane or self.lane).ask(self.path("close", number))

    def say(self, data: bytes) -> None:
        """The application sends."""
        self.inner.sendall(data)
        self.worker.drain()

    def heard(self, size: int) -> bytes:
        """So many bytes at the application."""
        return self.worker.receive(self.inner, size)

    def hears_nothing(self) -> bool:
        self.worker.drain()
        self.inner.setblocking(False)
        with suppress(BlockingIOError):
            return not self.inner.recv(1, socket.MSG_PEEK)
        return True

    def end(self) -> tuple[bytes, str]:
        """What the application receives until the end, and the end; its end is closed too."""
        with self.inner:
            return self.worker.end_of(self.inner)


class TunnelLoop(ManualLoop):
    """times: of the tunnel sessions; timeouts: of the pump's; the other settings are Loop's."""

    def __init__(
        self,
        *,
        host: str = "A",
        incarnation: int = 7,
        times: dict[str, float] | None = None,
        timeouts: dict[str, float] | None = None,
        pump: dict[str, object] | None = None,
        sessions: int = 1000,
        max_bytes: int = 1 << 28,
        receive_buffer: int = 0,
        **settings: object,
    ) -> None:
        self._main = greenlet.getcurrent()
        self.errors: list[BaseException] = []
        self.opened: list[int] = []
        self.addresses: list[str | None] = []  # of the clients of the next sessions, behind proxies
        self.ended: list[str] = []
        self.group = [self]
        self.incarnation = incarnation
        shared = SharedCounters(1, 1, upstreams=1, tunnels=1)
        self.counters = shared.tunnel_block(0, 0)
        self._block = shared.tunnel_memory(0, 0)

        def make(account: Account) -> Tunnels:
            tunnels = Tunnels(
                account=account, host=host, incarnation=incarnation, capacity=sessions, max_bytes=max_bytes
            )
            one = tunnels.add_timeouts(**(TUNNEL_TIMES | (times or {})))  # type: ignore[arg-type]
            tunnels.add_listener(0, self._block, timeouts=one)
            self.tunnels = tunnels
            return tunnels

        settings = {"http_replies": REPLIES, "max_leaving": 16, "request_timeout": 20.0, "capacity": 1024} | settings
        self.loop = Loop(tunnels=make, http=True, on_open=self._on_open, on_request=self._on_request, **settings)  # type: ignore[arg-type]
        self.table, self.address = self.loop.connection_table, self.loop.address
        pump_settings = {"sleep": self._main.switch, "on_error": self.errors.append, "capacity": 1000}
        self.pump = Pump(**(pump_settings | {"account": self.loop.account} | (pump or {})))  # type: ignore[arg-type]
        self.pump.add_timeouts(**(TIMES | (timeouts or {})))
        self.relayed = shared.relay_block(0, 0)
        self._relay_block = shared.relay_memory(0, 0)
        self.upstream = socket.socket()
        if receive_buffer:
            self.upstream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.upstream.bind(("127.0.0.1", 0))
        self.upstream.listen(4096)
        self.upstream.settimeout(DEADLINE)
        self.destination = Destination(self.upstream.getsockname(), self._relay_block)
        self._poll = select.poll()
        for fd in (self.pump.fileno(), self.table.fileno(), self.tunnels.fileno(), self.loop.socket.fileno()):
            self._poll.register(fd, select.POLLIN)

    # ------------------------------------------------------------------------------------------------------ its hooks

    def _on_request(self, fd: int, data: bytes, listener: int) -> None:
        self.table.reply_http(fd, REPLIES[404], "http")

    def _on_open(self, fd: int, data: bytes, listener: int) -> None:
        session = self.table.open_tunnel(fd, self.addresses.pop(0) if self.addresses else None)
        if isinstance(session, str):
            self.table.refuse_open(fd, 503, session)
            return
        self.opened.append(session)
        greenlet.greenlet(self._run).switch(session)

    def _run(self, session: int) -> None:
        try:
            outcome, sent = self.pump.run_session(session, self.destination, b"")
        except greenlet.GreenletExit:
            self.table.close_as(session, "shutdown")
            return
        self.ended.append(outcome)
        if outcome in FAILURES:
            self.tunnels.refuse(session, 502)
            self.table.close_as(session, "upstream")
        else:
            self.table.close_relayed(session, sent)

    # ---------------------------------------------------------------------------------------------------- its clients

    def lane(self, data: bytes = b"", *, tls: bool = False, receive_buffer: int = 0, source: str = "") -> Lane:
        """A connection that has sent these bytes."""
        sock = connect(self.address, receive_buffer=receive_buffer, source=source)
        lane = Lane(self, sock, TlsClient(None, ANY) if tls else None)  # type: ignore[arg-type]
        if lane.tls:
            self._shake_hands(lane, lane.tls)
        if data:
            lane.send(data)
        self.drain()
        return lane

    def _shake_hands(self, lane: Lane, tls: TlsClient) -> None:
        def complete() -> bool:
            with suppress(BlockingIOError):
                data = lane.sock.recv(1 << 16)
                assert data, "the server has closed the connection"
                tls.give(data)
            done = tls.step()
            if wire := tls.take():
                lane.sock.sendall(wire)
            return done

        self.until(complete)

    def open(self, lane: Lane | None = None, **options: object) -> Session:
        lane = lane or self.lane(**options)  # type: ignore[arg-type]
        lane.post("/open/1")
        inner = self.accept()
        reply = lane.reply()
        assert reply.status == 200
        content = bytes([reply.interval or 0]) + reply.body
        assert len(content) == 17
        assert content.endswith(b"\n")
        return Session(self, lane, inner, content[:-1].decode())

    def accept(self) -> socket.socket:
        self.drain()
        inner, _ = self.upstream.accept()
        inner.settimeout(DEADLINE)
        self.drain()
        return inner

    def receive(self, inner: socket.socket, size: int) -> bytes:
        """So many bytes at the application."""
        received = bytearray()
        hurry(inner)

        def more() -> bool:
            with suppress(BlockingIOError):
                while len(received) < size and (data := inner.recv(min(1 << 16, size - len(received)))):
                    received.extend(data)
            return len(received) >= size

        self.until(more, "bytes at the application")
        inner.settimeout(DEADLINE)
        return bytes(received)

    def end_of(self, inner: socket.socket) -> tuple[bytes, str]:
        """What the application receives until the end, and the end."""
        received, how = bytearray(), []
        hurry(inner)

        def over() -> bool:
            try:
                while data := inner.recv(1 << 16):
                    received.extend(data)
                how.append("fin")
            except BlockingIOError:
                pass
            except (ConnectionResetError, BrokenPipeError):
                how.append("rst")
            return bool(how)

        self.until(over, "the end at the application")
        return bytes(received), how[0]

    # ---------------------------------------------------------------------------------------------------------- lines

    def join(self, other: "TunnelLoop") -> None:
        """Join two workers by a line. Each turn of one is a turn of all."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.tunnels.add_line(other.incarnation, ours.detach())
        other.tunnels.add_line(self.incarnation, theirs.detach())
        for each in (group := self.group + [one for one in other.group if one not in self.group]):
            each.group = group

    # ---------------------------------------------------------------------------------------------------------- turns

    def turn(self, timeout: float = 0) -> bool:
        worked = [one._turn(timeout if len(self.group) == 1 else 0) for one in self.group]
        return any(worked)

    def _turn(self, timeout: float) -> bool:
        ready = bool(self._poll.poll(timeout * 1000))
        if ready:
            self.loop.turn()
            self.check()
            self.pump.ready()
            self.check()
            self.tunnels.ready()
            self.check()
        return ready

    def check(self) -> None:
        self.table.check()
        self.pump.check()
        self.tunnels.check()

    @property
    def ends(self) -> dict[str, int]:
        """How tunnel sessions ended."""
        return {name: count for name, count in zip(ENDS, self.counters.all("ends"), strict=True) if count}

    def counted(self, *names: str) -> Sequence[int]:
        return [self.counters[name] for name in names]

    def settle(self) -> dict[str, int]:
        """Turn until nothing is open. Returns how the connections ended; each was counted once."""
        self.until(lambda: self.table.open == 0, "the end of all connections")
        self.assert_at_rest()
        return self.loop.settle()

    def assert_at_rest(self) -> None:
        assert self.pump.check() == 0
        assert self.tunnels.check() == 0
        assert self.tunnels.open == self.tunnels.bytes == 0
        assert self.counted("open", "held", "buffered") == [0, 0, 0]
        assert self.counters["sessions"] == sum(self.ends.values())

    def close(self) -> None:
        self.pump.cut_all()
        self.until(lambda: self.pump.open == 0)
        self.loop.close()
        self.assert_at_rest()
        assert not self.errors
        assert not self.loop.errors
        self.upstream.close()
