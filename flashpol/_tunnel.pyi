"""What Python sees of tunnel sessions. The head of _tunnel.pyx explains how they work."""

from typing import Final, Self, final

from typing_extensions import Buffer

from flashpol._fastpath import Account, TunnelGate

INCARNATIONS: Final[int]
"""How many incarnations of workers there are: each has a number from 0, two characters of its sessions' ids."""

ENDS: Final[tuple[str, ...]]
"""How a session can end, in the order of the counter block's `ends` words: those of `_pump.ENDS`."""

BLOCK_SIZE: Final[int]
"""Bytes of one counter block, a multiple of the cache line."""

LAYOUT: Final[dict[str, tuple[int, int]]]
"""Field of a counter block -> (offset in bytes, number of 64-bit words)."""

@final
class Tunnels(TunnelGate):
    """All tunnel sessions of a worker, and its lines to other workers, behind one pollable descriptor.

    A ConnectionTable gives it the requests, after `set_tunnels`; a Pump with the same Account has the sessions'
    connections to their upstreams. Requests are carried out within `ConnectionTable.ready`, `Pump.ready` and `ready`.

    account: that of both. host: the first character of ids, one of 0-9A-Za-z. incarnation: of this worker, from 0.
    capacity: sessions at a time. max_bytes: of memory for what clients have sent and upstreams have not taken, and for
    replies; the less of it is free, the less a session may hold. Raises ValueError for an argument that does not fit,
    MemoryError, and OSError when the kernel gives no descriptor.
    """

    def __new__(
        cls, *, account: Account, host: str, incarnation: int, capacity: int, max_bytes: int = 1 << 28
    ) -> Self: ...
    def add_timeouts(self, *, hold: float, gap: float, session_timeout: float, buffer: int) -> int:
        """Add a set of timeouts; returns its number, for `add_listener`.

        hold: seconds for which a poll waits until something comes for it; at least 20 ms. gap: seconds for which
        requests wait for one with a lower number. session_timeout: seconds without a request after which the client is
        gone. buffer: bytes of a session that may wait for its upstream; then the client gets no reply until that takes
        some. Raises ValueError for more than 1,024 sets.
        """

    def add_listener(self, number: int, block: Buffer, *, timeouts: int) -> None:
        """The ConnectionTable's Acceptor `number` has tunnel sessions.

        block: writable memory of BLOCK_SIZE bytes, 8-byte aligned; its totals continue, its gauges start at 0.
        timeouts: a number that `add_timeouts` returned. Raises ValueError for arguments that do not fit.
        """

    def add_line(self, incarnation: int, fd: int) -> None:
        """Forward requests for the sessions of another worker. fd: a non-blocking, connected Unix socket, whose other
        end that worker has; it is owned from now on. An earlier line to this incarnation is closed.

        Raises ValueError for an incarnation that cannot be another worker's, and OSError if the kernel cannot watch
        `fd`, which remains the caller's.
        """

    @property
    def lines(self) -> list[int]:
        """The incarnations to which there is a line, ascending."""

    @property
    def open(self) -> int:
        """Sessions of which there is a record: those that connect or end included."""

    @property
    def bytes(self) -> int:
        """Memory that bodies and replies take."""

    def refuse(self, fd: int, status: int) -> None:
        """The upstream of a session could not be reached: reply to the request that opens it.

        fd: as `ConnectionTable.open_tunnel` returned it. status: 502, 503 or 504. Raises ValueError if `fd` is not a
        tunnel session.
        """

    def fileno(self) -> int:
        """A descriptor that is readable when `ready` has work. The Tunnels own it."""

    def ready(self) -> None:
        """Handle overdue sessions and messages of other workers, a limited number of each. Never raises."""

    def wake(self) -> None:
        """Make `fileno` readable, so that `ready` is called although there may be nothing to do."""

    def check(self) -> int:
        """For tests: compare every session and line with what must hold between two calls; return how many sessions
        there are. Raises AssertionError.
        """
