"""One connection: what was sent, what came, when, and how it ended. A record; what it means is for others to say.

`exchange` never raises for what a network or a server does, and never lasts longer than its `Timeouts`, whatever comes:
a byte now and then moves no deadline, and what never ends is cut off. Blocking sockets with deadlines: no gevent, no
compiled code.
"""

import enum
import errno
import os
import select
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import NamedTuple

# More than twenty times what any client reads (Unity: 5,000 bytes).
MOST_BYTES = 100_000
# A server that sends byte by byte is known long before; each receive is a line of the record.
MOST_RECEIVES = 2_000
_READ = 65536

# Places in Linux' struct tcp_info (linux/tcp.h), of 32 bits each.
_RECEIVED_MSS, _DATA_SEGMENTS_IN = 20, 152
_TCP_INFO_BYTES = 160
# A segment of this share of the largest is taken for a full one: 1,460 bytes on Ethernet, 1,200 or more in tunnels.
_FULL = 0.8


class Address(NamedTuple):
    """An IP address as getaddrinfo gives it: `scope` is an IPv6 address' interface, 0 for the others."""

    family: int
    host: str
    scope: int = 0

    def __str__(self) -> str:
        return self.host

    @property
    def is_ipv6(self) -> bool:
        return self.family == socket.AF_INET6

    def at(self, port: int) -> str:
        """Address and port as one writes them."""
        return f"[{self.host}]:{port}" if self.is_ipv6 else f"{self.host}:{port}"

    def endpoint(self, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
        """What connect(2) takes."""
        return (self.host, port, 0, self.scope) if self.is_ipv6 else (self.host, port)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: for the connection; for the reply, from the last thing sent; for the end, from a NUL on."""

    connect: float = 3.0  # as Flash Player on port 843
    reply: float = 3.0
    closing: float = 1.0


class Step(NamedTuple):
    """Wait `after` seconds, send `data`; if `finish`, say that no more will come (FIN)."""

    data: bytes = b""
    after: float = 0.0
    finish: bool = False


class Reached(enum.StrEnum):
    """What became of the connection before a byte was sent."""

    CONNECTED = "connected"
    REFUSED = "refused"  # RST: nobody listens there, or a firewall says so
    DROPPED = "dropped"  # no answer: a firewall that drops, or no such host
    UNREACHABLE = "unreachable"  # a router says so
    UNTRIED = "untried"  # this machine cannot: no route, no right, no descriptor


class End(enum.StrEnum):
    """How a connection ended that was made."""

    CLOSED = "closed"  # FIN
    RESET = "reset"  # RST
    OPEN = "open"  # the server keeps it open; we waited as long as we were told
    FLOOD = "flood"  # more came than any client would read


class What(enum.StrEnum):
    """The kinds of lines in a record."""

    CONNECTED = "connected"
    SENT = "sent"
    FINISHED = "finished"
    RECEIVED = "received"
    ENDED = "ended"


class Event(NamedTuple):
    """`at` is in seconds since the connection was begun."""

    at: float
    what: What
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Exchange:
    """The record. `end` is None, and `events` empty, if there was no connection: `error` says why.

    `segments` are the TCP segments with data that came, `segment_bytes` the largest that fits into one; None where the
    kernel does not say. `ended` is in seconds since the connection was begun.
    """

    address: Address
    port: int
    reached: Reached
    ended: float
    error: str = ""
    end: End | None = None
    events: tuple[Event, ...] = ()
    segments: int | None = None
    segment_bytes: int | None = None

    @property
    def where(self) -> str:
        return self.address.at(self.port)

    @property
    def received(self) -> tuple[Event, ...]:
        """One for each receive that brought something."""
        return tuple(event for event in self.events if event.what is What.RECEIVED)

    @property
    def data(self) -> bytes:
        return b"".join(event.data for event in self.received)

    @property
    def silent(self) -> bool:
        """Connected, and nothing came, not even an end."""
        return self.end is End.OPEN and not self.received

    @property
    def asked_at(self) -> float:
        """When the last of the request was sent."""
        return max((e.at for e in self.events if e.what in (What.SENT, What.CONNECTED)), default=0.0)


_REACHED = {
    errno.ECONNREFUSED: Reached.REFUSED,
    errno.ECONNRESET: Reached.REFUSED,
    errno.ETIMEDOUT: Reached.DROPPED,
    errno.EHOSTUNREACH: Reached.UNREACHABLE,
    errno.ENETUNREACH: Reached.UNREACHABLE,
    errno.EACCES: Reached.UNREACHABLE,  # ICMP: administratively prohibited
}


def exchange(address: Address, port: int, steps: Sequence[Step], timeouts: Timeouts) -> Exchange:
    """Connect, do the steps, and read until the server ends it or timeouts does."""
    began = monotonic()
    try:
        connection = socket.socket(address.family, socket.SOCK_STREAM)
    except OSError as error:  # no IPv6 in this kernel, no descriptor left
        return Exchange(address, port, Reached.UNTRIED, 0.0, error.strerror or str(error))
    with connection:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reached, why = _connect(connection, address.endpoint(port), timeouts.connect)
        connected = monotonic()
        if reached is not Reached.CONNECTED:
            return Exchange(address, port, reached, connected - began, why)
        talk = _Talk(connection, began)
        talk.note(What.CONNECTED)
        end = talk.run(steps, timeouts)
        talk.note(What.ENDED)
        segments, segment_bytes = _segments(connection)
    return Exchange(
        address, port, reached, talk.events[-1].at, "", end, tuple(talk.events), segments, segment_bytes
    )  # fmt: skip


def _connect(connection: socket.socket, endpoint: tuple[object, ...], seconds: float) -> tuple[Reached, str]:
    number = connection.connect_ex(endpoint)
    if number not in (0, errno.EINPROGRESS):
        # At once means that nothing was sent, but to an address of this machine, which refuses at once.
        reached = Reached.REFUSED if number == errno.ECONNREFUSED else Reached.UNTRIED
        return reached, os.strerror(number)
    if number and not _ready(connection, select.POLLOUT, seconds):
        return Reached.DROPPED, f"no answer in {seconds:g} s"
    number = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if not number and _with_itself(connection):
        number = errno.ECONNREFUSED
    return (_REACHED.get(number, Reached.UNREACHABLE), os.strerror(number)) if number else (Reached.CONNECTED, "")


def _with_itself(connection: socket.socket) -> bool:
    """Where nobody listens on this machine, and the kernel chose that very port for our end: a simultaneous open."""
    with suppress(OSError):  # ENOTCONN: it was reset meanwhile
        return bool(connection.getsockname() == connection.getpeername())
    return False


def _ready(connection: socket.socket, events: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(connection, events)
    return bool(poll.poll(max(0.0, seconds) * 1000))


class _Talk:
    """One connection at work."""

    def __init__(self, connection: socket.socket, began: float) -> None:
        self.events: list[Event] = []
        self._connection = connection
        self._began = began
        self._bytes = 0
        self._receives = 0

    def note(self, what: What, data: bytes = b"") -> None:
        self.events.append(Event(monotonic() - self._began, what, data))

    def run(self, steps: Sequence[Step], timeouts: Timeouts) -> End:
        for step in steps:
            if end := self._read_until(monotonic() + step.after, timeouts) if step.after else None:
                return end
            self._do(step)
        return self._read_until(monotonic() + timeouts.reply, timeouts, closing=True) or End.OPEN

    def _do(self, step: Step) -> None:
        """A server that no longer listens is found out by reading, which still has what it said before."""
        with suppress(OSError):
            if step.data:
                self._connection.send(step.data)  # a few bytes: an empty send buffer has room
                self.note(What.SENT, step.data)
            if step.finish:
                self._connection.shutdown(socket.SHUT_WR)
                self.note(What.FINISHED)

    def _read_until(self, deadline: float, timeouts: Timeouts, *, closing: bool = False) -> End | None:
        """Read until the end, which is returned, or the deadline; `closing`: the latter comes sooner after a NUL."""
        while _ready(self._connection, select.POLLIN, deadline - monotonic()):
            try:
                data = self._connection.recv(_READ)
            except BlockingIOError:
                continue
            except OSError:
                return End.RESET
            if not data:
                return End.CLOSED
            self.note(What.RECEIVED, data[: MOST_BYTES - self._bytes])
            self._bytes += len(data)
            self._receives += 1
            if self._bytes >= MOST_BYTES or self._receives >= MOST_RECEIVES:
                return End.FLOOD
            if closing and 0 in data:
                deadline = min(deadline, monotonic() + timeouts.closing)
        return None


def _segments(connection: socket.socket) -> tuple[int | None, int | None]:
    with suppress(OSError):
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        if len(info) >= _TCP_INFO_BYTES:
            [segments] = struct.unpack_from("=I", info, _DATA_SEGMENTS_IN)
            [received_mss] = struct.unpack_from("=I", info, _RECEIVED_MSS)
            largest = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
            # The way back may be a little narrower, and then the largest that came says how much; one that is far
            # smaller was a short write (and 536 is what the kernel takes before it has seen any).
            return segments, received_mss if received_mss >= _FULL * largest else largest
    return None, None
