"""A ConnectionTable and an Acceptor driven by a poll loop of the test's own: no gevent, no thread, turn by turn."""

import select
import socket
from collections.abc import Callable, Sequence

from flashpol._fastpath import (
    Acceptor,
    Account,
    AddressLimits,
    CodecFactory,
    ConnectionTable,
    Networks,
    PolicyReply,
    TunnelGate,
)
from flashpol.counters.shared import SharedCounters
from flashpol.worker.protocols import SIGNATURES
from testkit.accounts import assert_settled, outcomes
from testkit.clients import connect, deliver
from testkit.manual_loop import ManualLoop
from testkit.serving import REPLY

LINGER_BYTES = 10_000
TIMES = {"request_timeout": 0.25, "terminator_grace": 0.05, "linger_timeout": 0.15}
TIMEOUTS = (*TIMES, "first_byte_timeout", "tls_handshake_timeout", "http_idle_timeout")
LIMITS = ("capacity", "max_sessions", "max_slow_replies", "max_handshakes", "max_leaving", "max_files")


class Loop(ManualLoop):
    """What the hooks reported is in lists.

    tunnels: makes the tunnel sessions of the Account, for a listener with RTMPT.

    `slow_replies`: descriptors. `sessions`: descriptors to be relayed, with the bytes that were read. `errors`: what
    hooks raised. `exhausted`: errnos of accepting.
    """

    def __init__(
        self,
        reply: bytes = REPLY,
        *,
        networks: Networks | None = None,
        proxies: Networks | None = None,
        address_limits: AddressLimits | None = None,
        shared: bool = False,
        protocols: Sequence[str] | None = None,
        codec: CodecFactory | None = None,
        tls_only: bool = False,
        http: bool = False,
        tunnels: Callable[[Account], TunnelGate] | None = None,
        max_body: int = 1 << 20,
        linger_bytes: int = LINGER_BYTES,
        reply_timeout: float = 10.0,
        **settings: object,
    ) -> None:
        self.address_limits = address_limits
        self.slow_replies: list[int] = []
        self.sessions: list[tuple[int, bytes]] = []
        self.errors: list[BaseException] = []
        self.exhausted: list[int] = []
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.socket.setblocking(False)
        self.address = self.socket.getsockname()
        timeouts = TIMES | {name: settings.pop(name) for name in TIMEOUTS if name in settings}
        limits = {name: settings.pop(name) for name in LIMITS if name in settings}
        self.account = Account(**({"capacity": 1 << 16, "address_limits": address_limits} | limits))  # type: ignore[arg-type]
        hooks = {
            "on_slow_reply": lambda fd, listener: self.slow_replies.append(fd),
            "on_error": self.errors.append,
            "on_session": self._on_session,
        }
        self.connection_table = ConnectionTable(
            **({"account": self.account, "signatures": SIGNATURES} | hooks | settings)  # type: ignore[arg-type]
        )
        if tunnels:
            self.connection_table.set_tunnels(tunnels(self.account))
        counters = SharedCounters(1, 1)
        self.counters = counters.block(0, 0)
        self.acceptor = Acceptor(
            self.connection_table,
            self.socket.fileno(),
            PolicyReply(reply),
            counters.memory(0, 0),
            timeouts=self.connection_table.add_timeouts(**timeouts),  # type: ignore[arg-type]
            linger_bytes=linger_bytes,
            reply_timeout=reply_timeout,
            on_exhausted=self.exhausted.append,
            networks=networks,
            proxies=proxies,
            shared=shared,
            protocols=protocols,
            codec=codec,
            tls_only=tls_only,
            http=http,
            rtmpt=bool(tunnels),
            max_body=max_body,
        )
        self._poll = select.poll()
        self._poll.register(self.socket, select.POLLIN)
        self._poll.register(self.connection_table.fileno(), select.POLLIN)

    def _on_session(self, fd: int, data: bytes, listener: int) -> None:
        self.sessions.append((fd, data))

    def turn(self, timeout: float = 0) -> bool:
        """One wake-up, if there is work within `timeout` seconds."""
        ready = [fd for fd, _ in self._poll.poll(timeout * 1000)]
        if self.socket.fileno() in ready:
            self.acceptor.ready()
        if self.connection_table.fileno() in ready:
            self.connection_table.ready()
        return bool(ready)

    def connect(self, receive_buffer: int = 0, source: str = "") -> socket.socket:
        """A client that was accepted, or refused. source: its IP."""
        client = connect(self.address, receive_buffer=receive_buffer, source=source)
        before = self.counters["accepted"]
        self.until(lambda: self.counters["accepted"] > before)
        return client

    def send(self, client: socket.socket, data: bytes) -> None:
        """Send, and turn until the server has acted on it."""
        deliver(client, data)
        self.drain()

    def settle(self) -> dict[str, int]:
        """Turn until nothing is open. Returns how the connections ended; each was counted once."""
        self.until(lambda: self.connection_table.open == 0)
        assert self.connection_table.check() == 0
        assert_settled(self.counters)
        return outcomes(self.counters)

    def close(self) -> None:
        for fd in (*self.slow_replies, *(fd for fd, _ in self.sessions)):
            try:
                self.connection_table.close_as(fd, "shutdown")
            except ValueError:  # already closed
                continue
        self.connection_table.check()
        self.connection_table.close_all()
        assert self.connection_table.check() == 0, "a record leaked"
        self.socket.close()
        if self.address_limits:
            assert (self.address_limits.held, self.address_limits.tracked) == (0, 0)
