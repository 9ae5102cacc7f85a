"""The relays of all shared ports of a process, and the pump that moves the bytes of their sessions."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from flashpol._fastpath import PROTOCOLS, Account, ConnectionTable
from flashpol._pump import Destination, Pump
from flashpol.config import RTMPT, ConnectionTimeouts, Listener, UpstreamAddress
from flashpol.hub import LOW, Readable, parent_of_greenlets, sleep_until_switched
from flashpol.log.handler import log
from flashpol.process.local_ports import LocalPorts
from flashpol.relay.backends import Upstreams
from flashpol.relay.client_address import ClientAddress
from flashpol.relay.connecting import ConnectingPlaces
from flashpol.relay.local_ports import PortLog
from flashpol.relay.rate_limit import RateLimiter
from flashpol.relay.relay import OnFailure, Relay


@dataclass(frozen=True)
class SharedPort:
    """What a shared port needs to relay: its listener's settings, a counter block for each of its upstreams, the local
    ports of this host, and the number of workers that share them.

    blocks: in the order of `Listener.all_upstreams`."""

    listener: Listener
    blocks: Sequence[memoryview]
    local_ports: LocalPorts = field(default_factory=LocalPorts)
    workers: int = 1


class RelayGroup:
    """It relays for any number of shared ports, each with timeouts of its own; without one it has no pump and does
    nothing.

    connection_table: has the clients' connections. account: limits the sessions, and evicts those that are silent.
    buffers: of the pump.
    """

    def __init__(self, connection_table: ConnectionTable, account: Account, *, buffers: int) -> None:
        self._connection_table = connection_table
        self._account = account
        self._buffers = buffers
        # By listener, and by the protocol or the number of a WebSocket path, which may have upstreams of their own. The
        # greenlet of a session finds its relay by numbers and names: a function of Python, such as the hash of an
        # address, would cost it 4 KB.
        self._relays: dict[tuple[int, str], Relay] = {}
        self._path_relays: dict[tuple[int, int], Relay] = {}
        self._all: list[Relay] = []
        self._pump: Pump | None = None
        self._timeouts: dict[tuple[float, ...], int] = {}  # their numbers in the pump
        self._connecting = ConnectingPlaces(account.max_sessions)
        self._watcher: Readable | None = None

    def add(self, number: int, name: str, shared_port: SharedPort, timeouts: ConnectionTimeouts) -> None:
        """The table's listener `number` is a shared port, `name` in log lines."""
        listener = shared_port.listener
        of_protocol = {protocol: tuple(listener.upstream_for(protocol)) for protocol in (*PROTOCOLS, RTMPT)}
        of_path = [listener.upstream_of(path) for path in listener.websocket]
        relays = {
            upstream: self._make(number, name, upstream, shared_port, timeouts)
            for upstream in dict.fromkeys([*of_protocol.values(), *of_path])
            if upstream
        }
        self._all += relays.values()
        for protocol, upstream in of_protocol.items():
            if upstream:
                self._relays[number, protocol] = relays[upstream]
        for path, upstream in enumerate(of_path):
            self._path_relays[number, path] = relays[upstream]

    def _make(
        self,
        number: int,
        name: str,
        upstream: tuple[UpstreamAddress, ...],
        shared_port: SharedPort,
        timeouts: ConnectionTimeouts,
    ) -> Relay:
        listener = shared_port.listener
        pump = self._pump or self._make_pump(shared_port)
        blocks = dict(zip(listener.all_upstreams, shared_port.blocks, strict=True))
        upstreams = Upstreams(
            upstream,
            [blocks[each] for each in upstream],
            listener=name,
            balance=listener.balance,
            make_destination=partial(
                Destination,
                keepalive=listener.keepalive,
                timeouts=self._number_of(timeouts, pump),
                user_timeout=timeouts.tcp_user_timeout,
                sources=tuple(map(str, listener.source_addresses)),
            ),
        )
        return Relay(
            self._connection_table,
            pump,
            upstreams,
            proxy=listener.upstream_proxy,
            proxy_tls=listener.upstream_proxy_tls,
            connect_rate=RateLimiter(listener.connect_rate),
            connect_timeout=timeouts.connect_timeout,
            places=self._connecting.add_member(),
            port_log=PortLog(name),
            client_address=ClientAddress(name) if listener.transparent else None,
        )

    def _number_of(self, timeouts: ConnectionTimeouts, pump: Pump) -> int:
        """Listeners with the same timeouts have one set in the pump."""
        values = {
            name: getattr(timeouts, name)
            for name in (
                "connect_timeout",
                "idle_timeout",
                "max_duration",
                "silent_timeout",
                "websocket_ping",
                "linger_timeout",
            )
        }
        key = tuple(values.values())
        if key not in self._timeouts:
            self._timeouts[key] = pump.add_timeouts(**values)
        return self._timeouts[key]

    def _make_pump(self, shared_port: SharedPort) -> Pump:
        ports = shared_port.local_ports
        start = random.randrange(len(ports.odd) + 1)  # the workers choose different ones
        self._pump = Pump(
            sleep=sleep_until_switched(),
            parent=parent_of_greenlets(),
            on_error=lambda error: log.error(
                "a session failed; its connection was closed", exc_info=error, extra={"event": "session-failed"}
            ),
            capacity=self._account.max_sessions + self._account.max_leaving,
            buffers=self._buffers,
            account=self._account,
            local_ports=max(1, ports.count // shared_port.workers),
            chosen_ports=ports.odd[start:] + ports.odd[:start],
        )
        # Policy requests come first in each round of the loop: the pump's part of it is the longest.
        self._watcher = Readable(self._pump.fileno(), self._pump.ready, "sessions", self._pump.wake, LOW)
        return self._pump

    def start(self) -> None:
        if self._watcher:
            self._watcher.start()
        for relay in self._all:
            relay.start()

    def relay(self, number: int, protocol: str, fd: int, data: bytes, on_failure: OnFailure | None = None) -> None:
        """Relay a connection of listener `number`: see `Relay.begin`.

        protocol: as which it was recognised, one of those that the listener relays.
        """
        self._relays[number, protocol].begin(fd, data, on_failure)

    def relay_path(self, number: int, path: int, fd: int, on_failure: OnFailure) -> None:
        """The same for a WebSocket at path number `path` of the listener."""
        self._path_relays[number, path].begin(fd, b"", on_failure)

    def cut(self, *, replaced: bool = False) -> None:
        """End all sessions. Their greenlets wake while the hub runs on; `close` is to be called after that.

        replaced: other workers serve from now on.
        """
        for relay in self._all:
            relay.stop()
        if self._pump:
            self._pump.cut_all(replaced=replaced)

    def close(self) -> None:
        if self._watcher:
            self._watcher.close()
