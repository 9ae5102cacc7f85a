"""What Python sees of the pump. How it works stands at the head of _pump.pyx and _pump.pxd."""

from collections.abc import Callable
from typing import Final, Self, final

from typing_extensions import Buffer

CONNECT_SECONDS: Final[tuple[float, ...]]
"""Finite upper bounds of the histogram of connecting, in seconds, ascending."""

DURATION_SECONDS: Final[tuple[float, ...]]
"""Finite upper bounds of the histogram of how long conversations last, in seconds, ascending."""

ENDS: Final[tuple[str, ...]]
"""How a conversation can end, in the order of the counter block's `ends` words. "client" and "upstream": who closed
first, once both have."""

FAILURES: Final[tuple[str, ...]]
"""Why there was no conversation, in the order of the counter block's `failures` words."""

BLOCK_SIZE: Final[int]
"""Bytes of one counter block, a multiple of the cache line."""

LAYOUT: Final[dict[str, tuple[int, int]]]
"""Field of a counter block -> (offset in bytes, number of 64-bit words)."""

@final
class Destination:
    """Where conversations go: one address of an upstream.

    address: (IP, port), as getaddrinfo has it with four items, or the path of a Unix socket. block: writable memory of
    BLOCK_SIZE bytes, 8-byte aligned, in which its conversations are counted; several may share one. keepalive: seconds
    of silence after which the kernel asks whether the other end is there; 0: never. Raises ValueError.
    """

    def __new__(
        cls, address: tuple[str, int] | tuple[str, int, int, int] | str, block: Buffer, *, keepalive: int = 0
    ) -> Self: ...
    @property
    def address(self) -> tuple[str, int] | tuple[str, int, int, int] | str: ...
    @property
    def failures(self) -> int:
        """Attempts to connect that failed in a row, until now; not those that failed for want of our own resources."""

    def count_failure(self, why: str) -> None:
        """Count one of FAILURES for which `converse` was not even called."""

    @property
    def open(self) -> int:
        """Conversations there now, of this process, also while they connect."""

@final
class Pump:
    """Moves the bytes of all conversations of one process, behind one pollable descriptor.

    sleep: called in a greenlet that has nothing to do; returns when `ready` switches to that greenlet. on_error(error):
    such a greenlet raised. capacity: conversations at most. connect_timeout, idle_timeout, max_duration: seconds; of
    the last two 0 is never. buffers: of 32 KB each, for bytes that a side does not take. Raises ValueError, and OSError
    when the kernel gives no descriptor.
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
        """A descriptor that is readable when `ready` has work. It belongs to the Pump."""

    @property
    def open(self) -> int:
        """Conversations now, also those that connect."""

    @property
    def buffers_held(self) -> int:
        """Buffers in use now."""

    def run_session(self, fd: int, to: Destination, first: bytes) -> tuple[str, int]:
        """Relay between the connected, non-blocking `fd` and a connection to `to`, on which `first` is sent first.

        Sleeps until it is over. Returns one of ENDS or of FAILURES, and how many bytes were sent to `fd`. After a
        failure `fd` is as it was; after an end it is to be closed, and then sends RST if that is how it ended. It is
        never closed here. What the greenlet is killed with passes through; the conversation is over then.
        """

    def ready(self) -> None:
        """Move bytes, end what is overdue, a bounded number of each; wake the greenlets of those that are over.

        Never raises. To be called where `sleep` switches to.
        """

    def cut_all(self) -> None:
        """End all conversations, as "shutdown". Their greenlets wake in the next `ready`, which is due at once."""
