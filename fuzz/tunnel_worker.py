"""A worker's fast path, tunnel sessions and pump in one poll loop, with an upstream of this process: turned by hand."""

import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import greenlet  # type: ignore[import-untyped]

from flashpol._fastpath import Acceptor, Account, ConnectionTable, PolicyReply
from flashpol._pump import FAILURES, Destination, Pump
from flashpol._tunnel import Tunnels
from flashpol.counters.shared import SharedCounters
from flashpol.worker.protocols import SIGNATURES
from testkit.manual_loop import ManualLoop

REPLIES = {
    status: b"HTTP/1.1 %d\r\nContent-Length: 0\r\n\r\n" % status
    for status in (400, 404, 405, 408, 411, 413, 414, 417, 431, 501, 503, 505)
}
LONG = 3600.0  # seconds: no deadline ends anything
HOLD, GAP = 4.9, 60.0  # and no poll is held, and no gap passed over, while an input is tried
CAPACITY = 1 << 12  # the largest descriptor of a connection + 1
QUIET = 100e-6  # seconds
HOST, INCARNATION = "A", 7
TIMES = ("request_timeout", "terminator_grace", "linger_timeout", "first_byte_timeout", "tls_handshake_timeout")
PUMP_TIMES = {"connect_timeout": LONG, "idle_timeout": 0.0, "max_duration": 0.0, "silent_timeout": 0.0}


class TunnelWorker(ManualLoop):
    """errors: what hooks raised."""

    def __init__(self, *, buffer: int = 4096, max_body: int = 4096, **settings: Any) -> None:
        self.errors: list[BaseException] = []
        self._main = greenlet.getcurrent()
        account = Account(capacity=CAPACITY)
        self.table = ConnectionTable(
            account=account, signatures=SIGNATURES, on_slow_reply=lambda *_: None, on_error=self.errors.append,
            on_session=lambda *_: None, on_open=self._open, http_replies=REPLIES,
        )  # fmt: skip
        self.pump = Pump(sleep=self._sleep, on_error=self.errors.append, capacity=1 << 10, account=account)
        self.pump.add_timeouts(**PUMP_TIMES)
        self.tunnels = Tunnels(
            account=account, host=HOST, incarnation=INCARNATION, capacity=1 << 10, **settings
        )  # fmt: skip
        shared = SharedCounters(1, 1, upstreams=1, tunnels=1)
        self.counters, self.tunnel_counters = shared.block(0, 0), shared.tunnel_block(0, 0)
        self.table.set_tunnels(self.tunnels)
        self.listener, self._upstream = (socket.create_server(("127.0.0.1", 0), backlog=64) for _ in range(2))
        self.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as prepare_listening does
        self.listener.setblocking(False)
        timeouts = self.table.add_timeouts(**dict.fromkeys(TIMES, LONG), http_idle_timeout=LONG)
        self.acceptor = Acceptor(
            self.table, self.listener.fileno(), PolicyReply(b"policy\0"), shared.memory(0, 0), timeouts=timeouts,
            linger_bytes=1 << 16, reply_timeout=LONG, on_exhausted=lambda _: None, shared=True,
            protocols=["rtmpt"], http=True, rtmpt=True, max_body=max_body,
        )  # fmt: skip
        self.tunnels.add_listener(
            0,
            shared.tunnel_memory(0, 0),
            timeouts=self.tunnels.add_timeouts(hold=HOLD, gap=GAP, session_timeout=LONG, buffer=buffer),
        )
        self._destination = Destination(self._upstream.getsockname(), shared.relay_memory(0, 0))
        self._poll = select.poll()
        self._ready: dict[int, Callable[[], object]] = {
            self.listener.fileno(): self.acceptor.ready,
            self.table.fileno(): self.table.ready,
            self.tunnels.fileno(): self.tunnels.ready,
            self.pump.fileno(): self.pump.ready,
        }
        for fd in self._ready:
            self._poll.register(fd, select.POLLIN)

    def _sleep(self) -> None:
        self._main.switch()

    def _open(self, fd: int, data: bytes, number: int) -> None:
        session = self.table.open_tunnel(fd)
        if isinstance(session, str):
            self.table.refuse_open(fd, 503, session)
        else:
            greenlet.greenlet(self._run).switch(session)

    def _run(self, session: int) -> None:
        outcome, sent = self.pump.run_session(session, self._destination, b"")
        if outcome in FAILURES:
            self.tunnels.refuse(session, 502)
            self.table.close_as(session, "upstream")
        else:
            self.table.close_relayed(session, sent)

    def turn(self, timeout: float = 0) -> bool:
        ready = self._poll.poll(timeout * 1000)
        for fd, _ in ready:
            self._ready[fd]()
        return bool(ready)

    def drain(self) -> None:
        """Turn until there is no work left. A timer that was fired is ready some microseconds later."""
        quiet = time.perf_counter() + QUIET
        while time.perf_counter() < quiet:
            if self.turn():
                quiet = time.perf_counter() + QUIET

    def connect(self) -> socket.socket:
        """A client's connection, which was accepted."""
        client = socket.create_connection(self.listener.getsockname())
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.setblocking(False)
        self.drain()
        return client

    def accept(self) -> socket.socket:
        """The upstream's end of the session that was opened last."""
        upstream, _ = self._upstream.accept()
        upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        upstream.setblocking(False)
        return upstream

    def settle(self) -> None:
        """After all clients and upstreams have closed: nothing is left, each connection is counted once."""
        self.until(lambda: self.table.open == 0 and self.tunnels.open == 0, "the end of all connections")
        assert self.table.check() == 0
        assert not self.errors, self.errors
        assert self.tunnels.bytes == 0, "bytes leaked"
        for gauge in ("open", "held", "buffered"):
            assert self.tunnel_counters[gauge] == 0, f"the gauge {gauge}"


def received(sock: socket.socket) -> tuple[bytes, str]:
    """What is there, and how it ended: "", "fin" or "rst"."""
    data = bytearray()
    with suppress(BlockingIOError):
        try:
            while piece := sock.recv(1 << 16):
                data += piece
        except (ConnectionResetError, BrokenPipeError):
            return bytes(data), "rst"
        return bytes(data), "fin"
    return bytes(data), ""
