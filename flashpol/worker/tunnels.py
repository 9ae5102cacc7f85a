"""The tunnel sessions of a worker (RTMPT): their table in C, and what it needs of the event loop."""

import socket
from dataclasses import dataclass

from flashpol._fastpath import Account, ConnectionTable
from flashpol._tunnel import Tunnels
from flashpol.config import ConnectionTimeouts
from flashpol.hub import Readable


@dataclass(frozen=True)
class TunnelSettings:
    """What the ids of a worker's sessions begin with: the host's letter, and the worker's incarnation."""

    host: str
    incarnation: int


class TunnelSessions:
    """The sessions of all listeners with `rtmpt`."""

    def __init__(self, table: ConnectionTable, account: Account, settings: TunnelSettings) -> None:
        self.table = Tunnels(
            account=account,
            host=settings.host,
            incarnation=settings.incarnation,
            capacity=account.max_sessions + account.max_leaving,
        )
        table.set_tunnels(self.table)
        self._timeouts: dict[tuple[float, float, float, int], int] = {}
        self._watcher = Readable(self.table.fileno(), self.table.ready, "tunnel sessions", self.table.wake)

    def add(self, number: int, block: memoryview, timeouts: ConnectionTimeouts) -> None:
        """The connection table's listener `number` has tunnel sessions, which are counted in `block`."""
        key = timeouts.rtmpt_hold, timeouts.rtmpt_gap, timeouts.rtmpt_session_timeout, timeouts.rtmpt_buffer
        if key not in self._timeouts:
            hold, gap, session_timeout, buffer = key
            self._timeouts[key] = self.table.add_timeouts(
                hold=hold, gap=gap, session_timeout=session_timeout, buffer=buffer
            )
        self.table.add_listener(number, block, timeouts=self._timeouts[key])

    def add_line(self, incarnation: int, line: socket.socket) -> None:
        """A line to another worker: see `Tunnels.add_line`."""
        self.table.add_line(incarnation, line.fileno())
        line.detach()

    def start(self) -> None:
        self._watcher.start()

    def close(self) -> None:
        self._watcher.close()
