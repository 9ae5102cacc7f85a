"""What a process is told, in messages of a few bytes: to begin, that others go on with its work, or it with theirs."""

from array import array
from collections.abc import Iterable
from typing import NamedTuple

# Sockets that come with one message: the kernel takes 253 (SCM_MAX_FD, unix(7)).
MOST_SOCKETS = 250


class Begin(NamedTuple):
    """Accept: all workers of this generation are there."""


class HandOver(NamedTuple):
    """Others go on: `kept` are the numbers of the listeners whose accept queues are no longer the receiver's own."""

    kept: frozenset[int]


class StandIn(NamedTuple):
    """Accept also for the worker of `slot`: with the message comes a socket for each of `listeners`."""

    slot: int
    listeners: tuple[int, ...]


class StandDown(NamedTuple):
    """The worker of `slot` accepts again."""

    slot: int


Message = Begin | HandOver | StandIn | StandDown
_BEGIN, _HAND_OVER, _STAND_IN, _STAND_DOWN = range(4)


def encode(message: Message) -> bytes:
    """As bytes: less than PIPE_BUF for as many listeners as there can be."""
    numbers: Iterable[int]
    match message:
        case Begin():
            numbers = (_BEGIN,)
        case HandOver(kept):
            numbers = (_HAND_OVER, *sorted(kept))
        case StandIn(slot, listeners):
            numbers = (_STAND_IN, slot, *listeners)
        case StandDown(slot):
            numbers = (_STAND_DOWN, slot)
    return array("H", numbers).tobytes()


def decode(data: bytes) -> Message | None:
    """None if there is no message, as at the end of the line: nobody goes on."""
    match array("H", data).tolist():
        case [kind] if kind == _BEGIN:
            return Begin()
        case [kind, *kept] if kind == _HAND_OVER:
            return HandOver(frozenset(kept))
        case [kind, slot, *listeners] if kind == _STAND_IN:
            return StandIn(slot, tuple(listeners))
        case [kind, slot] if kind == _STAND_DOWN:
            return StandDown(slot)
    return None
