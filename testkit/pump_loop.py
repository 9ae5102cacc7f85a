"""A Pump on a poll loop that the test turns itself: no gevent, no thread."""

import select
import socket
from contextlib import suppress
from typing import Any

import greenlet

from flashpol._pump import ENDS, FAILURES, Destination, Pump
from flashpol.counters.shared import SharedCounters
from testkit.clients import connect
from testkit.manual_loop import ManualLoop
from testkit.polling import DEADLINE

OUTCOMES = (*ENDS, *FAILURES)
TIMES = {"connect_timeout": 1.0, "idle_timeout": 0.0, "max_duration": 0.0, "silent_timeout": 0.0}


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
        self.inner: list[socket.socket] = []  # the relay's ends of the clients' connections, in order

    def client(self, receive_buffer: int = 0) -> tuple[socket.socket, socket.socket]:
        """A client, and the relay's end of its connection."""
        outer = connect(self._clients.getsockname(), receive_buffer=receive_buffer)
        inner, _ = self._clients.accept()
        inner.setblocking(False)
        self.inner.append(inner)
        return outer, inner

    def start(
        self, inner: socket.socket, to: Destination | None = None, first: bytes = b"", **options: Any
    ) -> greenlet.greenlet:
        """Begin a session in a greenlet of its own."""

        def run() -> None:
            try:
                self.ended.append(self.pump.run_session(inner.fileno(), to or self.destination, first, **options))
            finally:
                inner.close()

        one = greenlet.greenlet(run)
        one.switch()
        return one

    def pair(
        self, first: bytes = b"", receive_buffer: int = 0, to: Destination | None = None, **options: int
    ) -> tuple[socket.socket, socket.socket]:
        """A session: the client's end, the application's end. to: another destination with the same address. options:
        of `Pump.run_session`."""
        outer, inner = self.client(receive_buffer)
        self.start(inner, to, first, **options)
        server, _ = self.upstream.accept()
        server.settimeout(DEADLINE)
        self.drain()
        return outer, server

    @property
    def outcomes(self) -> dict[str, int]:
        """How many sessions ended in each way, and how many attempts failed."""
        counts = zip(OUTCOMES, [*self.counters.all("ends"), *self.counters.all("failures")], strict=True)
        return {name: count for name, count in counts if count}

    def read(self, sock: socket.socket, size: int) -> bytes:
        """Read `size` bytes while the loop turns."""
        received = bytearray()
        sock.setblocking(False)

        def more() -> bool:
            with suppress(BlockingIOError):
                received.extend(sock.recv(min(1 << 16, size - len(received))))
            return len(received) >= size

        self.until(more)
        sock.settimeout(DEADLINE)
        return bytes(received)

    def end_of(self, sock: socket.socket) -> tuple[bytes, str]:
        """What is received until the end, and the end: "fin" or "rst"."""
        received, how = bytearray(), []
        sock.setblocking(False)

        def over() -> bool:
            try:
                data = sock.recv(1 << 16)
                received.extend(data)
                if not data:
                    how.append("fin")
            except BlockingIOError:
                pass
            except (ConnectionResetError, BrokenPipeError):
                how.append("rst")
            return bool(how)

        self.until(over)
        return bytes(received), how[0]

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
