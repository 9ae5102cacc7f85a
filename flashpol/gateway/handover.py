"""What a process is told when others go on with its work: the listeners whose accept queues are no longer its own."""

from array import array
from collections.abc import Iterable

_MARK = 0xFFFF  # so that a message without listeners is not empty, as the end of a pipe is


def encode(kept: Iterable[int]) -> bytes:
    """The numbers of listeners as bytes: less than PIPE_BUF for as many as there can be."""
    return array("H", [_MARK, *kept]).tobytes()


def decode(message: bytes) -> frozenset[int] | None:
    """None if there is no message: nobody goes on."""
    return frozenset(array("H", message)[1:]) if message else None
