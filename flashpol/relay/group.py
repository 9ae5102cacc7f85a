"""The relays of the listeners that have one ConnectionTable, and the pump that moves the bytes of their sessions."""

from collections.abc import Sequence
from dataclasses import dataclass

from flashpol._fastpath import ConnectionTable
from flashpol._pump import Pump
from flashpol.config import ConnectionTimeouts, Listener
from flashpol.hub import Readable, sleep_until_switched
from flashpol.log.handler import log
from flashpol.relay.backends import Upstreams
from flashpol.relay.rate_limit import RateLimiter
from flashpol.relay.relay import Relay


@dataclass(frozen=True)
class SharedPort:
    """What a shared port needs to relay: its listener's settings, and a counter block for each of its upstreams."""

    listener: Listener
    blocks: Sequence[memoryview]


class RelayGroup:
    """It relays for any number of shared ports; without one it has no pump and does nothing.

    max_sessions: records of the pump, one for each session; the caller starts no more.
    """

    def __init__(self, connection_table: ConnectionTable, timeouts: ConnectionTimeouts, max_sessions: int) -> None:
        self._connection_table = connection_table
        self._timeouts = timeouts
        self._max_sessions = max_sessions
        self._relays: dict[int, Relay] = {}
        self._pump: Pump | None = None
        self._watcher: Readable | None = None

    def add(self, number: int, name: str, shared_port: SharedPort) -> None:
        """The table's listener `number` is a shared port, `name` in log lines."""
        listener = shared_port.listener
        upstreams = Upstreams(
            listener.upstream,
            shared_port.blocks,
            listener=name,
            balance=listener.balance,
            keepalive=listener.keepalive,
        )
        self._relays[number] = Relay(
            self._connection_table,
            self._pump or self._make_pump(),
            upstreams,
            proxy=listener.upstream_proxy,
            connect_rate=RateLimiter(listener.connect_rate),
            connect_timeout=self._timeouts.connect_timeout,
        )

    def _make_pump(self) -> Pump:
        self._pump = Pump(
            sleep=sleep_until_switched(),
            on_error=lambda error: log.error(
                "a session failed; its connection was closed", exc_info=error, extra={"event": "session-failed"}
            ),
            capacity=self._max_sessions,
            connect_timeout=self._timeouts.connect_timeout,
            idle_timeout=self._timeouts.idle_timeout,
            max_duration=self._timeouts.max_duration,
        )
        self._watcher = Readable(self._pump.fileno(), self._pump.ready, "sessions", self._pump.wake)
        return self._pump

    def start(self) -> None:
        if self._watcher:
            self._watcher.start()
        for relay in self._relays.values():
            relay.start()

    def run(self, number: int, fd: int, data: bytes) -> None:
        """Relay a connection of listener `number` until its session ends: see `Relay.run`."""
        self._relays[number].run(fd, data)

    def cut(self) -> None:
        """End all sessions. Their greenlets wake while the hub runs on; `close` is to be called after that."""
        for relay in self._relays.values():
            relay.stop()
        if self._pump:
            self._pump.cut_all()

    def close(self) -> None:
        if self._watcher:
            self._watcher.close()
