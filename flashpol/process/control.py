"""Control messages from the arbiter to a child: start accepting, drain, adopt or release a sibling's sockets,
take lines to other workers.

Each is one packet of a SOCK_SEQPACKET pair, an array of 16-bit numbers that begins with its kind. A closed pair is the
message without bytes: stop. `supervisor.child` sends, `process.lifecycle` receives.

    StartAccepting    all workers of this generation are up
    Drain             others serve from now on: stop accepting, finish open connections
    AdoptSockets      queue failover: accept for the worker of another slot too; the sockets come with the message
    ReleaseSockets    queue failover ends: the worker of that slot accepts again
    FollowLog         stderr leads to another file now, which comes with the message
    PeerLines         lines to other workers, which come with the message
"""

import socket
from array import array
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

# Sockets in one message: the kernel takes 253 (SCM_MAX_FD, unix(7)).
MAX_SOCKETS = 250
# Bytes of one message: two for each of config.MAX_LISTENERS listeners, and a few.
MAX_MESSAGE_BYTES = 4096


class StartAccepting(NamedTuple):
    """All workers of this generation are up, so the receiver may accept."""


class Drain(NamedTuple):
    """Stop accepting and finish open connections. `kept`: the numbers of the receiver's listeners whose accept queues
    another process goes on emptying; the receiver empties the other queues itself."""

    kept: frozenset[int]


class AdoptSockets(NamedTuple):
    """Accept for the worker of `slot` too: with the message comes a socket for each of `listeners`.

    Idempotent: it is resent every second, since the child may have had no descriptors for some sockets.
    """

    slot: int
    listeners: tuple[int, ...]


class ReleaseSockets(NamedTuple):
    """The worker of `slot` accepts again: close the sockets that were adopted for it."""

    slot: int


class FollowLog(NamedTuple):
    """Write the log to the file that comes with the message. The receiver need not have the right to open it."""


class PeerLines(NamedTuple):
    """Lines to other workers: with the message comes a connected socket for each of `incarnations`.

    A line replaces an earlier one to the same incarnation, whose end the receiver may not have seen yet. The end of a
    line says that the other worker is gone, and reads as ECONNRESET if that had not read everything.
    """

    incarnations: tuple[int, ...]


Message = StartAccepting | Drain | AdoptSockets | ReleaseSockets | FollowLog | PeerLines


class _Kind(IntEnum):
    START_ACCEPTING, DRAIN, ADOPT_SOCKETS, RELEASE_SOCKETS, FOLLOW_LOG, PEER_LINES = range(6)


def encode(message: Message) -> bytes:
    """The message as bytes, at most MAX_MESSAGE_BYTES of them."""
    numbers: Iterable[int]
    match message:
        case StartAccepting():
            numbers = (_Kind.START_ACCEPTING,)
        case Drain(kept):
            numbers = (_Kind.DRAIN, *sorted(kept))
        case AdoptSockets(slot, listeners):
            numbers = (_Kind.ADOPT_SOCKETS, slot, *listeners)
        case ReleaseSockets(slot):
            numbers = (_Kind.RELEASE_SOCKETS, slot)
        case FollowLog():
            numbers = (_Kind.FOLLOW_LOG,)
        case PeerLines(incarnations):
            numbers = (_Kind.PEER_LINES, *incarnations)
    return array("H", numbers).tobytes()


def decode(data: bytes) -> Message | None:
    """The message; None for no bytes, which is what a closed control socket returns: stop."""
    message: Message | None
    match array("H", data).tolist():
        case []:
            message = None
        case [_Kind.START_ACCEPTING]:
            message = StartAccepting()
        case [_Kind.DRAIN, *kept]:
            message = Drain(frozenset(kept))
        case [_Kind.ADOPT_SOCKETS, slot, *listeners]:
            message = AdoptSockets(slot, tuple(listeners))
        case [_Kind.RELEASE_SOCKETS, slot]:
            message = ReleaseSockets(slot)
        case [_Kind.FOLLOW_LOG]:
            message = FollowLog()
        case [_Kind.PEER_LINES, *incarnations]:
            message = PeerLines(tuple(incarnations))
        case _:
            raise AssertionError(f"no control message begins like {data!r}; the arbiter alone writes to this socket")
    return message


def receive(control: socket.socket) -> tuple[bytes, list[int]]:
    """One message and the descriptors that came with it, which no program inherits. Raises BlockingIOError if there is
    none. (`socket.recv_fds` ignores its flags.)"""
    files = array("i")
    flags = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
    data, parts, *_ = control.recvmsg(MAX_MESSAGE_BYTES, socket.CMSG_LEN(MAX_SOCKETS * files.itemsize), flags)
    for level, kind, part in parts:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            files.frombytes(part[: len(part) // files.itemsize * files.itemsize])
    return data, files.tolist()
