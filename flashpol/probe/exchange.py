"""The record of one connection: what was sent and received, when, and how the connection ended.

`exchange` never raises because of a network or a server, and never lasts longer than its `Timeouts`: a byte every few
seconds extends no deadline, and an endless reply is cut off. It uses non-blocking sockets and poll(2).

With an `Offer` everything happens inside TLS: the record then has the bytes as the application sees them, and the
`Handshake`. If that failed, no step was taken.
"""

import enum
import errno
import os
import select
import socket
import struct
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from time import monotonic
from typing import NamedTuple, Protocol

from flashpol.probe.tls.handshake import Handshake, Outcome
from flashpol.probe.tls.offers import Offer

# More than twenty times what any client reads (Unity: 5,000 bytes).
MOST_BYTES = 100_000
# A server that sends byte by byte is recognised long before; each receive is a line of the record.
MOST_RECEIVES = 2_000
_READ = 65536

# Offsets in Linux' struct tcp_info (linux/tcp.h), of fields of 32 bits.
_RECEIVED_MSS, _DATA_SEGMENTS_IN = 20, 152
_TCP_INFO_BYTES = 160
# A segment of at least this share of the maximum counts as full: 1,460 bytes on Ethernet, 1,200 or more in tunnels.
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
        """Return address and port as they are written, an IPv6 address in brackets."""
        return f"[{self.host}]:{port}" if self.is_ipv6 else f"{self.host}:{port}"

    def endpoint(self, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
        """Return what connect(2) takes."""
        return (self.host, port, 0, self.scope) if self.is_ipv6 else (self.host, port)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to wait: for the connection; for the reply, after the last send; for the close, after a NUL.

    A TLS handshake has as long as a reply.
    """

    connect: float = 3.0  # as Flash Player on port 843
    reply: float = 3.0
    closing: float = 1.0


class Step(NamedTuple):
    """Wait `after` seconds, send `data`, and close the sending side (FIN) if `finish`."""

    data: bytes = b""
    after: float = 0.0
    finish: bool = False


class Turn(NamedTuple):
    """Send `data`, then read until `until` holds for all bytes that came, for at most `seconds`."""

    data: bytes
    until: Callable[[bytes], bool]
    seconds: float


# Turns that depend on what came before: a script is sent all bytes that came, and ends when it knows enough.
Script = Generator[Turn, bytes, None]


class Reached(enum.StrEnum):
    """The outcome of connect(2)."""

    CONNECTED = "connected"
    REFUSED = "refused"  # RST: the port is closed, or a firewall rejects
    DROPPED = "dropped"  # no answer: a firewall drops, or the host is down
    UNREACHABLE = "unreachable"  # a router sent an ICMP error
    UNTRIED = "untried"  # this machine has no route, no permission or no descriptor


class End(enum.StrEnum):
    """How an established connection ended."""

    CLOSED = "closed"  # FIN
    RESET = "reset"  # RST
    OPEN = "open"  # the server kept it open until the time-out
    FLOOD = "flood"  # more came than any client reads
    ABORTED = "aborted"  # TLS failed, and one side gave up


class What(enum.StrEnum):
    """The kinds of events in a record."""

    CONNECTED = "connected"
    SECURED = "secured"  # the TLS handshake is complete
    SENT = "sent"
    FINISHED = "finished"
    RECEIVED = "received"
    ENDED = "ended"


class Event(NamedTuple):
    """`at` is in seconds since connect(2) was called."""

    at: float
    what: What
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Exchange:
    """The record. Without a connection `end` is None, `events` is empty and `error` says why.

    `segments` is the number of TCP segments with data that arrived, `segment_bytes` the capacity of one; None where the
    kernel does not say, and inside TLS, where they say nothing about writes. `ended` is in seconds since connect(2) was
    called. `tls` is None in plain text, and without a connection.
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
    tls: Handshake | None = None

    @property
    def opened(self) -> bool:
        """The connection was made, inside TLS if that was asked for."""
        return self.reached is Reached.CONNECTED and (self.tls is None or self.tls.completed)

    @property
    def where(self) -> str:
        return self.address.at(self.port)

    @property
    def received(self) -> tuple[Event, ...]:
        """The events of recv(2) that returned data, in order."""
        return tuple(event for event in self.events if event.what is What.RECEIVED)

    @property
    def data(self) -> bytes:
        return b"".join(event.data for event in self.received)

    @property
    def silent(self) -> bool:
        """The server accepted the connection, and neither sent anything nor closed it."""
        return self.end is End.OPEN and not self.received and self.opened

    @property
    def asked_at(self) -> float:
        """The time of the last send, or of the connection if nothing was sent."""
        asked = (What.SENT, What.CONNECTED, What.SECURED)
        return max((event.at for event in self.events if event.what in asked), default=0.0)


_REACHED = {
    errno.ECONNREFUSED: Reached.REFUSED,
    errno.ECONNRESET: Reached.REFUSED,
    errno.ETIMEDOUT: Reached.DROPPED,
    errno.EHOSTUNREACH: Reached.UNREACHABLE,
    errno.ENETUNREACH: Reached.UNREACHABLE,
    errno.EACCES: Reached.UNREACHABLE,  # ICMP: administratively prohibited
}


def exchange(
    address: Address, port: int, steps: Sequence[Step] | Script | None, timeouts: Timeouts, offer: Offer | None = None
) -> Exchange:
    """Connect, run the steps, and read until the server ends the connection or a time-out does, or the script ends.

    With None for the steps the prober closes the connection as soon as it is made, inside TLS after the handshake.
    """
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
        if offer is not None:
            return _secure_exchange(address, port, connection, steps, timeouts, offer, began)
        recorder = _Recorder(_PlainChannel(connection), began)
        recorder.note(What.CONNECTED)
        end = recorder.run(steps, timeouts)
        recorder.note(What.ENDED)
        segments, segment_bytes = _segments(connection)
    return Exchange(
        address, port, reached, recorder.events[-1].at, "", end, tuple(recorder.events), segments, segment_bytes
    )  # fmt: skip


_HANDSHAKE_ENDS = {Outcome.CLOSED: End.CLOSED, Outcome.RESET: End.RESET, Outcome.TIMEOUT: End.OPEN}


def _secure_exchange(
    address: Address, port: int, connection: socket.socket, steps: Sequence[Step] | Script | None, timeouts: Timeouts,
    offer: Offer, began: float,
) -> Exchange:  # fmt: skip
    from flashpol.probe.tls.channel import TlsChannel  # and with it ssl, 10 ms

    channel = TlsChannel(connection, offer, began)
    recorder = _Recorder(channel, began)
    recorder.note(What.CONNECTED)
    handshake = channel.handshake(timeouts.reply)
    if handshake.completed:
        recorder.note(What.SECURED)
        end = recorder.run(steps, timeouts)
        channel.say_goodbye()
    else:
        end = _HANDSHAKE_ENDS.get(handshake.outcome, End.ABORTED)
    recorder.note(What.ENDED)
    return Exchange(
        address, port, Reached.CONNECTED, recorder.events[-1].at, "", end, tuple(recorder.events), tls=channel.record()
    )  # fmt: skip


def _connect(connection: socket.socket, endpoint: tuple[object, ...], seconds: float) -> tuple[Reached, str]:
    number = connection.connect_ex(endpoint)
    if number not in (0, errno.EINPROGRESS):
        # An immediate error means that nothing was sent, except for an address of this machine, which refuses at once.
        reached = Reached.REFUSED if number == errno.ECONNREFUSED else Reached.UNTRIED
        return reached, os.strerror(number)
    if number and not _ready(connection, select.POLLOUT, seconds):
        return Reached.DROPPED, f"no answer in {seconds:g} s"
    number = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if not number and _with_itself(connection):
        number = errno.ECONNREFUSED
    return (_REACHED.get(number, Reached.UNREACHABLE), os.strerror(number)) if number else (Reached.CONNECTED, "")


def _with_itself(connection: socket.socket) -> bool:
    """Detect a simultaneous open: a closed port of this machine, which the kernel also chose as our own port."""
    with suppress(OSError):  # ENOTCONN: reset in the meantime
        return bool(connection.getsockname() == connection.getpeername())
    return False


def _ready(connection: socket.socket, events: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(connection, events)
    return bool(poll.poll(max(0.0, seconds) * 1000))


class _Channel(Protocol):
    """What carries the bytes of a connection: the socket itself, or TLS over it. All but `ready` may raise OSError."""

    def ready(self, seconds: float) -> bool:
        """Wait until `receive` may have something."""

    def receive(self, closing: float) -> bytes:
        """Return the next bytes, or none at the end. Raises BlockingIOError if there are none yet."""

    def send(self, data: bytes) -> None: ...

    def finish(self) -> None:
        """Close the sending side."""


class _PlainChannel:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def ready(self, seconds: float) -> bool:
        return _ready(self._connection, select.POLLIN, seconds)

    def receive(self, _: float) -> bytes:
        return self._connection.recv(_READ)

    def send(self, data: bytes) -> None:
        self._connection.send(data)  # a few bytes: an empty send buffer has room

    def finish(self) -> None:
        self._connection.shutdown(socket.SHUT_WR)


class _Recorder:
    """Runs the steps on one connection and records the events."""

    def __init__(self, channel: _Channel, began: float) -> None:
        self.events: list[Event] = []
        self._channel = channel
        self._began = began
        self._bytes = 0
        self._receives = 0

    def note(self, what: What, data: bytes = b"") -> None:
        self.events.append(Event(monotonic() - self._began, what, data))

    def run(self, steps: Sequence[Step] | Script | None, timeouts: Timeouts) -> End:
        if steps is None:
            return End.OPEN
        if isinstance(steps, Generator):
            return self._play(steps, timeouts)
        for step in steps:
            if end := self._read_until(monotonic() + step.after, timeouts) if step.after else None:
                return end
            self._do(step)
        return self._read_until(monotonic() + timeouts.reply, timeouts, last=True) or End.OPEN

    def _play(self, script: Script, timeouts: Timeouts) -> End:
        with closing(script), suppress(StopIteration):
            turn = next(script)
            while True:
                self._do(Step(turn.data))
                if end := self._read_until(monotonic() + turn.seconds, timeouts, until=turn.until):
                    return end
                turn = script.send(self._data())
        return End.OPEN

    def _data(self) -> bytes:
        return b"".join(event.data for event in self.events if event.what is What.RECEIVED)

    def _do(self, step: Step) -> None:
        """Ignore errors of send(2): the next read reports them, after the bytes that arrived before."""
        with suppress(OSError):
            if step.data:
                self._channel.send(step.data)
                self.note(What.SENT, step.data)
            if step.finish:
                self._channel.finish()
                self.note(What.FINISHED)

    def _read_until(
        self, deadline: float, timeouts: Timeouts, *, last: bool = False, until: Callable[[bytes], bool] | None = None
    ) -> End | None:
        """Read until the end, which is returned, the deadline, or `until` holds; `last`: until a while after a NUL."""
        wanted = until or (lambda _: False)
        if self._bytes and wanted(self._data()):
            return None
        while self._channel.ready(deadline - monotonic()):
            if until is not None and monotonic() >= deadline:
                break  # a server that never stops sending would be read on: `until` may be costly
            data = self._receive(timeouts)
            if isinstance(data, End):
                return data
            if data and wanted(self._data()):
                break
            if last and 0 in data:
                deadline = min(deadline, monotonic() + timeouts.closing)
        return None

    def _receive(self, timeouts: Timeouts) -> bytes | End:
        """Return what one receive brought, nothing inside TLS if that is a part of a record, or the end."""
        self._receives += 1
        try:
            data = self._channel.receive(timeouts.closing)
        except BlockingIOError:
            return End.FLOOD if self._receives >= MOST_RECEIVES else b""
        except ConnectionAbortedError:
            return End.ABORTED
        except OSError:
            return End.RESET
        if not data:
            return End.CLOSED
        self.note(What.RECEIVED, data[: MOST_BYTES - self._bytes])
        self._bytes += len(data)
        return End.FLOOD if self._bytes >= MOST_BYTES or self._receives >= MOST_RECEIVES else data


def _segments(connection: socket.socket) -> tuple[int | None, int | None]:
    with suppress(OSError):
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        if len(info) >= _TCP_INFO_BYTES:
            [segments] = struct.unpack_from("=I", info, _DATA_SEGMENTS_IN)
            [received_mss] = struct.unpack_from("=I", info, _RECEIVED_MSS)
            largest = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
            # If the path back has a smaller MTU, the largest segment received shows it. A far smaller value comes from
            # a short write (and the kernel assumes 536 before it has received any).
            return segments, received_mss if received_mss >= _FULL * largest else largest
    return None, None
