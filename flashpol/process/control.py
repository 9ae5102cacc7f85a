"""What a process is told, in messages of a few bytes: to begin, that others go on with its work, or it with theirs."""

from array import array
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

# Sockets that come with one message: the kernel takes 253 (SCM_MAX_FD, unix(7)).
MOST_SOCKETS = 250
# Of a message: two for each of all listeners there can be (config.MAX_LISTENERS), and some.
MOST_BYTES = 4096


class Begin(NamedTuple):
    """Accept: all workers of this generation are there."""


class HandOver(NamedTuple):
    """Others go on: `kept` are the numbers of the listeners whose accept queues are no longer the receiver's own."""

    kept: frozenset[int]


class StandIn(NamedTuple):
    """Accept also for the worker of `slot`: with the message comes a socket for each of `listeners`.

    It may be said again, and then may bring what did not come before.
    """

    slot: int
    listeners: tuple[int, ...]


class StandDown(NamedTuple):
    """The worker of `slot` accepts again."""

    slot: int


Message = Begin | HandOver | StandIn | StandDown


class _Kind(IntEnum):
    BEGIN, HAND_OVER, STAND_IN, STAND_DOWN = range(4)


def encode(message: Message) -> bytes:
    """As bytes: no more than MOST_BYTES for as many listeners as there can be."""
    numbers: Iterable[int]
    match message:
        case Begin():
            numbers = (_Kind.BEGIN,)
        case HandOver(kept):
            numbers = (_Kind.HAND_OVER, *sorted(kept))
        case StandIn(slot, listeners):
            numbers = (_Kind.STAND_IN, slot, *listeners)
        case StandDown(slot):
            numbers = (_Kind.STAND_DOWN, slot)
    return array("H", numbers).tobytes()


def decode(data: bytes) -> Message | None:
    """None if there is no message, as at the end of the line: nobody goes on."""
    match array("H", data).tolist():
        case []:
            return None
        case [_Kind.BEGIN]:
            return Begin()
        case [_Kind.HAND_OVER, *kept]:
            return HandOver(frozenset(kept))
        case [_Kind.STAND_IN, slot, *listeners]:
            return StandIn(slot, tuple(listeners))
        case [_Kind.STAND_DOWN, slot]:
            return StandDown(slot)
    raise AssertionError(f"nobody says {data!r}")
