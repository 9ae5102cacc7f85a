"""What Python sees of the pump. The head of _pump.pyx explains how it works, _pump.pxd lists its files."""

from collections.abc import Callable, Sequence
from typing import Final, Self, final

from typing_extensions import Buffer

from flashpol._fastpath import Account

CONNECT_SECONDS: Final[tuple[float, ...]]
"""Finite upper bounds of the histogram of the time to connect, in seconds, ascending."""

DURATION_SECONDS: Final[tuple[float, ...]]
"""Finite upper bounds of the histogram of the duration of sessions, in seconds, ascending."""

ENDS: Final[tuple[str, ...]]
"""How a session can end, in the order of the counter block's `ends` words. "client" and "upstream": both sides sent
FIN, or WebSocket's Close, this one first."""

FAILURES: Final[tuple[str, ...]]
"""Why no session came about, in the order of the counter block's `failures` words."""

BLOCK_SIZE: Final[int]
"""Bytes of one counter block, a multiple of the cache line."""

LAYOUT: Final[dict[str, tuple[int, int]]]
"""Field of a counter block -> (offset in bytes, number of 64-bit words)."""

@final
class Places:
    """A limited number of places that several members share: each has a reserve, and the rest is common."""

    def __new__(cls, limit: int) -> Self: ...
    @property
    def limit(self) -> int: ...

@final
class PlacesMember:
    """One of the members of `places`."""

    def __new__(cls, places: Places) -> Self: ...
    @property
    def used(self) -> int:
        """Places that it has now."""

    @property
    def reserve(self) -> int:
        """Places that no other member can take; 0 at first. Raises ValueError if all reserves exceed the limit."""

    @reserve.setter
    def reserve(self, reserve: int) -> None: ...
    def take(self) -> Place | None:
        """A place, from its reserve or else from the common ones. None: there is none left."""

@final
class Place:
    """A place that a member has taken: `PlacesMember.take` makes it."""

    def release(self) -> None:
        """Give it back, unless it was given back before."""

@final
class PortAccount:
    """The account of a Pump's local ports, which the Pump makes."""

    def __new__(cls, limit: int, sessions: int, time_wait: float, chosen: Buffer | None) -> Self: ...

@final
class Destination:
    """One backend: an address of an upstream, and what is counted of its sessions.

    address: (IP, port), (IP, port, flow, scope) as getaddrinfo returns it, or the path of a Unix socket. block:
    writable memory of BLOCK_SIZE bytes, 8-byte aligned, for the counters; several Destinations may share one.
    keepalive: seconds of silence after which the kernel sends TCP keepalive probes; 0: never. timeouts: a set of the
    pump's, as `Pump.add_timeouts` numbered it. user_timeout: seconds for which a side may acknowledge nothing after its
    session has ended, before the kernel drops what is left for it; 0: as the kernel likes. sources: IP addresses of
    this host, from which sessions connect in turn, those of the other family are skipped; without one the kernel
    chooses. Raises ValueError for an address or a block that does not fit.
    """

    def __new__(
        cls,
        address: tuple[str, int] | tuple[str, int, int, int] | str,
        block: Buffer,
        *,
        keepalive: int = 0,
        timeouts: int = 0,
        user_timeout: float = 0.0,
        sources: Sequence[str] = (),
    ) -> Self: ...
    @property
    def address(self) -> tuple[str, int] | tuple[str, int, int, int] | str: ...
    @property
    def failures(self) -> int:
        """Attempts to connect that failed in a row. Failures for lack of our own resources are not counted."""

    def count_failure(self, why: str) -> None:
        """Count one of FAILURES that happened before `run_session`. Raises ValueError for another word."""

    @property
    def ports(self) -> tuple[int, int]:
        """Local ports in use towards this address, those in TIME-WAIT included, and how many there are. (0, 0) before
        the first session, and for a Unix socket. Other Destinations with the same address and sources share them."""

    def exceeds_ports(self, share: float) -> bool:
        """Whether more than this share of the local ports is in use."""

    @property
    def open(self) -> int:
        """Sessions of this process to this backend now, connecting ones included."""

@final
class Pump:
    """Moves the bytes of all sessions of one process, behind one pollable descriptor.

    sleep: called in a greenlet that waits for its session; it returns when `ready` switches to that greenlet.
    on_error(error): such a greenlet raised. capacity: sessions at most, up to 2^24. parent: the greenlet that runs on
    when one that `begin_session` made ends, None: the one that makes the pump. buffers: of 32 KB each, for bytes that a
    side does not take. account: learns which sessions are silent, and evicts them; the caller keeps the pump as
    long as the ConnectionTable of the account. local_ports: this process's share of the ports that connections from one
    address to one destination can have. chosen_ports: an array of uint16, ports from which it chooses itself when they
    are scarce. time_wait: seconds that the kernel keeps a port after its connection has ended. Raises ValueError for a
    capacity out of range, and OSError when the kernel gives no descriptor.
    """

    def __new__(
        cls,
        *,
        sleep: Callable[[], object],
        on_error: Callable[[BaseException], object],
        capacity: int,
        parent: object = None,
        buffers: int = 512,
        account: Account | None = None,
        local_ports: int = 65_536,
        chosen_ports: Buffer | None = None,
        time_wait: float = 60.0,
    ) -> Self: ...
    def add_timeouts(
        self,
        *,
        connect_timeout: float,
        idle_timeout: float,
        max_duration: float,
        silent_timeout: float,
        websocket_ping: float = 0.0,
        linger_timeout: float = 1.0,
    ) -> int:
        """Add a set of timeouts, in seconds, and return its number: 0 for the first. 0 s is never, except to connect.

        websocket_ping: a WebSocket client that is silent for so long gets a ping; one that is for as long after it ends
        as "ping". linger_timeout: how long the closing handshake of a WebSocket may take. Raises ValueError if there
        are 1,024 sets.
        """

    def fileno(self) -> int:
        """A descriptor that is readable when `ready` has work. The Pump owns it."""

    @property
    def open(self) -> int:
        """Sessions now, connecting ones included."""

    @property
    def buffers_held(self) -> int:
        """Buffers in use now."""

    def begin_session(
        self,
        fd: int,
        to: Destination,
        first: bytes,
        end: Callable[[str, int], object],
        header_size: int = 0,
        place: Place | None = None,
        address: int = 0,
    ) -> bool:
        """Begin a session as `run_session` does, and return at once.

        The session has a greenlet, a child of the one that calls this. It does not run, and so has no stack, until the
        session has ended or could not be opened; then it calls `end` with what `run_session` would return. end: keeps
        `to` and `place` alive. False: there is no room for a session, which counts as "resources", and `end` is not
        called.
        """

    def run_session(
        self,
        fd: int,
        to: Destination,
        first: bytes,
        *,
        header_size: int = 0,
        place: Place | None = None,
        address: int = 0,
        client_address: str | None = None,
    ) -> tuple[str, int]:
        """Relay between the connected, non-blocking `fd` and a new connection to `to`, which is sent `first` first.

        header_size: so many bytes of `first` are a header of ours; the others are the client's. place: given back when
        the upstream has accepted. address: a hash of the client's address, 64 bits; an address may have half of the
        local ports, or as many as are free. client_address: connect from this IP address, which need not be of this
        host, instead of one of `to`'s sources; it takes CAP_NET_RAW, and the account of local ports leaves it out.
        Sleeps until the session has ended. Returns one of ENDS or FAILURES, and how many bytes were sent to `fd`. After
        a failure `fd` is as it was. After an end the caller has to close it, and then the kernel sends RST if the
        session ended with one. `fd` is never closed here. An exception that kills the greenlet passes through and ends
        the session. Raises ValueError if the pump has no such timeouts as `to` names, or if client_address is not of
        the family of `to`.
        """

    def ready(self) -> None:
        """Move bytes, end overdue sessions, wake the greenlets of ended ones: a limited amount of each, about 1 ms.

        Never raises. Call it in the greenlet that `sleep` switches to.
        """

    def wake(self) -> None:
        """Make `fileno` readable, so that `ready` is called although there may be nothing to do."""

    def cut_all(self, *, replaced: bool = False) -> None:
        """End all sessions, as "shutdown". Their greenlets wake in the next `ready`, which is due at once. replaced:
        the clients of WebSockets are told that another server goes on."""

    def cut_by_client(self, fd: int) -> bool:
        """End the open session of the client `fd` as "evicted"; its greenlet wakes in the next `ready`, which is due at
        once. False: it has none."""

    def check(self) -> int:
        """For tests: compare sessions, queues, watched events, buffers and gauges; return how many sessions there are.

        Raises AssertionError if they do not agree, as they must between two calls.
        """
