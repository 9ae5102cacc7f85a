"""A Pump on a poll loop that the test turns itself: no gevent, no thread."""

import select
import socket

import greenlet

from flashpol._pump import Destination, Pump
from flashpol.counters.shared import SharedCounters
from testkit.clients import connect
from testkit.manual_loop import ManualLoop
from testkit.polling import DEADLINE

TIMES = {"connect_timeout": 1.0, "idle_timeout": 0.0, "max_duration": 0.0}


class PumpLoop(ManualLoop):
    """`ended`: what `run_session` returned, in order. `errors`: what greenlets raised.

    Every turn checks the invariants of the pump.
    """

    def __init__(self, **settings: object) -> None:
        self.ended: list[tuple[str, int]] = []
        self.errors: list[BaseException] = []
        self._main = greenlet.getcurrent()
        timeouts = {name: settings.pop(name, default) for name, default in TIMES.items()}
        self.pump = Pump(**({"sleep": self._main.switch, "on_error": self.errors.append, "capacity": 1000} | settings))
        self.pump.add_timeouts(**timeouts)
        shared = SharedCounters(1, 1, upstreams=1)
        self.block, self.counters = shared.relay_memory(0, 0), shared.relay_block(0, 0)
        self._poll = select.poll()
        self._poll.register(self.pump.fileno(), select.POLLIN)
        self._clients = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.upstream = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.upstream.settimeout(DEADLINE)
        self.destination = Destination(self.upstream.getsockname(), self.block)
        self.inner: list[socket.socket] = []  # the relay's ends of the clients' connections

    def client(self, receive_buffer: int = 0) -> tuple[socket.socket, socket.socket]:
        """A client, and the relay's end of its connection."""
        outer = connect(self._clients.getsockname(), receive_buffer=receive_buffer)
        inner, _ = self._clients.accept()
        inner.setblocking(False)
        return outer, inner

    def start(self, inner: socket.socket, to: Destination | None = None, first: bytes = b"") -> greenlet.greenlet:
        """Begin a session in a greenlet of its own."""

        def run() -> None:
            try:
                self.ended.append(self.pump.run_session(inner.fileno(), to or self.destination, first))
            finally:
                inner.close()

        one = greenlet.greenlet(run)
        one.switch()
        return one

    def pair(
        self, first: bytes = b"", receive_buffer: int = 0, to: Destination | None = None
    ) -> tuple[socket.socket, socket.socket]:
        """A session: the client's end, the application's end. to: another destination with the same address."""
        outer, inner = self.client(receive_buffer)
        self.start(inner, to, first)
        server, _ = self.upstream.accept()
        server.settimeout(DEADLINE)
        self.drain()
        return outer, server

    def turn(self, timeout: float = 0) -> bool:
        """One wake-up, if there is work within `timeout` seconds."""
        ready = bool(self._poll.poll(timeout * 1000))
        if ready:
            self.pump.ready()
            self.pump.check()
        return ready

    def close(self) -> None:
        self.pump.cut_all()
        self.until(lambda: self.pump.open == 0)
        assert self.pump.check() == 0, "a session leaked"
        for sock in (self._clients, self.upstream):
            sock.close()
