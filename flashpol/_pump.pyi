"""What Python sees of the pump. The head of _pump.pyx explains how it works, _pump.pxd lists its files."""

from collections.abc import Callable
from typing import Final, Self, final

from typing_extensions import Buffer

CONNECT_SECONDS: Final[tuple[float, ...]]
"""Finite upper bounds of the histogram of the time to connect, in seconds, ascending."""

DURATION_SECONDS: Final[tuple[float, ...]]
"""Finite upper bounds of the histogram of the duration of sessions, in seconds, ascending."""

ENDS: Final[tuple[str, ...]]
"""How a session can end, in the order of the counter block's `ends` words. "client" and "upstream": both sides sent
FIN, this one first."""

FAILURES: Final[tuple[str, ...]]
"""Why no session came about, in the order of the counter block's `failures` words."""

BLOCK_SIZE: Final[int]
"""Bytes of one counter block, a multiple of the cache line."""

LAYOUT: Final[dict[str, tuple[int, int]]]
"""Field of a counter block -> (offset in bytes, number of 64-bit words)."""

@final
class Destination:
    """One backend: an address of an upstream, and what is counted of its sessions.

    address: (IP, port), (IP, port, flow, scope) as getaddrinfo returns it, or the path of a Unix socket. block:
    writable memory of BLOCK_SIZE bytes, 8-byte aligned, for the counters; several Destinations may share one.
    keepalive: seconds of silence after which the kernel sends TCP keepalive probes; 0: never. Raises ValueError for an
    address or a block that does not fit.
    """

    def __new__(
        cls, address: tuple[str, int] | tuple[str, int, int, int] | str, block: Buffer, *, keepalive: int = 0
    ) -> Self: ...
    @property
    def address(self) -> tuple[str, int] | tuple[str, int, int, int] | str: ...
    @property
    def failures(self) -> int:
        """Attempts to connect that failed in a row. Failures for lack of our own resources are not counted."""

    def count_failure(self, why: str) -> None:
        """Count one of FAILURES that happened before `run_session`. Raises ValueError for another word."""

    @property
    def open(self) -> int:
        """Sessions of this process to this backend now, connecting ones included."""

@final
class Pump:
    """Moves the bytes of all sessions of one process, behind one pollable descriptor.

    sleep: called in a greenlet that waits for its session; it returns when `ready` switches to that greenlet.
    on_error(error): such a greenlet raised. capacity: sessions at most, up to 2^24. connect_timeout, idle_timeout,
    max_duration: seconds; 0 is never for the last two. buffers: of 32 KB each, for bytes that a side does not take.
    Raises ValueError for a capacity out of range, and OSError when the kernel gives no descriptor.
    """

    def __new__(
        cls,
        *,
        sleep: Callable[[], object],
        on_error: Callable[[BaseException], object],
        capacity: int,
        connect_timeout: float,
        idle_timeout: float,
        max_duration: float,
        buffers: int = 512,
    ) -> Self: ...
    def fileno(self) -> int:
        """A descriptor that is readable when `ready` has work. The Pump owns it."""

    @property
    def open(self) -> int:
        """Sessions now, connecting ones included."""

    @property
    def buffers_held(self) -> int:
        """Buffers in use now."""

    def run_session(self, fd: int, to: Destination, first: bytes) -> tuple[str, int]:
        """Relay between the connected, non-blocking `fd` and a new connection to `to`, which is sent `first` first.

        Sleeps until the session has ended. Returns one of ENDS or FAILURES, and how many bytes were sent to `fd`. After
        a failure `fd` is as it was. After an end the caller has to close it, and then the kernel sends RST if the
        session ended with one. `fd` is never closed here. An exception that kills the greenlet passes through and ends
        the session.
        """

    def ready(self) -> None:
        """Move bytes and end overdue sessions, a limited number of each; wake the greenlets of ended sessions.

        Never raises. Call it in the greenlet that `sleep` switches to.
        """

    def wake(self) -> None:
        """Make `fileno` readable, so that `ready` is called although there may be nothing to do."""

    def cut_all(self) -> None:
        """End all sessions, as "shutdown". Their greenlets wake in the next `ready`, which is due at once."""

    def check(self) -> int:
        """For tests: compare sessions, queues, watched events, buffers and gauges; return how many sessions there are.

        Raises AssertionError if they do not agree, as they must between two calls.
        """
