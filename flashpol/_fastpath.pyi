"""What Python sees of the fast path. How it works stands at the head of _fastpath.pyx and _fastpath.pxd."""

import enum
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Self, final

from typing_extensions import Buffer

class Verdict(enum.IntEnum):
    """What a recogniser says of the bytes so far."""

    MORE = 0
    MATCH = 1
    OTHER = 2

BUCKETS: Final[tuple[float, ...]]
"""Finite upper bounds of the duration histogram, in seconds, ascending."""

REASONS: Final[tuple[str, ...]]
"""Why a connection can be refused, in the order of the counter block's `refused` words."""

PROTOCOLS: Final[tuple[str, ...]]
"""As what a connection can be relayed, in the order of the counter block's `relayed` words."""

OUTCOMES: Final[tuple[str, ...]]
"""How a connection can end: one of REASONS, "timeout", "reset", "reply" or "relayed"."""

BLOCK_SIZE: Final[int]
"""Bytes of one counter block, a multiple of the cache line."""

LAYOUT: Final[dict[str, tuple[int, int]]]
"""Field of a counter block -> (offset in bytes, number of 64-bit words)."""

@final
class RequestMatcher:
    """Recognises one policy request in a stream of bytes, fed in any pieces.

    The request is the 22 bytes `<policy-file-request/>` and a terminator: NUL as Flash Player sends it, or LF, CR or
    CRLF as people type it. Any split of the same bytes gives the same verdict; a verdict other than MORE is final.
    terminated: False for Silverlight, whose request ends with its 22nd byte; what follows does not belong to it.

    >>> matcher = RequestMatcher()
    >>> matcher.feed(b"<policy-file-")
    <Verdict.MORE: 0>
    >>> matcher.feed(b"request/>" + bytes(1))
    <Verdict.MATCH: 1>
    """

    def __new__(cls, *, terminated: bool = True) -> Self: ...
    @property
    def consumed(self) -> int:
        """Bytes of the stream that belong to the request, terminator included."""

    @property
    def unterminated(self) -> bool:
        """All 22 bytes are there and nothing after them: whoever sees the end of the stream, or waits long enough, may
        take it for a request. Never with `terminated=False`, where that is a MATCH."""

    def feed(self, data: Buffer) -> Verdict:
        """Continue with `data`; what was fed before is not looked at again."""

@final
class ProxyHeader:
    """Recognises one header of the PROXY protocol, version 1 or 2, in a stream of bytes, fed in any pieces.

    Any split of the same bytes gives the same verdict; a verdict other than MORE is final. What a header says after the
    addresses (TLVs, also a CRC32C) is passed over.

    >>> header = ProxyHeader()
    >>> header.feed(b"PROXY TCP4 192.0.2.1 198.51.100.1 40000 ")
    <Verdict.MORE: 0>
    >>> header.feed(b"843\\r\\n<policy-file-request/>")
    <Verdict.MATCH: 1>
    >>> header.source
    ('192.0.2.1', 40000)
    """

    def __new__(cls) -> Self: ...
    @property
    def consumed(self) -> int:
        """Bytes of the stream that belong to the header."""

    @property
    def oversized(self) -> bool:
        """It was refused because it is longer than 107 bytes (version 1) or 16 and 4,096 (version 2)."""

    @property
    def source(self) -> tuple[str, int] | None:
        """IP and port of the client. None if the header does not say it: LOCAL, UNKNOWN, not TCP over IP."""

    def feed(self, data: Buffer) -> Verdict:
        """Continue with `data`; what was fed before is not looked at again."""

@final
class Networks:
    """Which addresses are allowed. `server.access.compile_networks` makes one of lists of networks.

    four, six: for each family whether its lowest address is allowed, and the addresses, ascending, from which on the
    answer is another than before. An address counts as a number of 128 bits; of IPv4, its 32 bits are the upper ones.
    Raises ValueError if they do not ascend.
    """

    def __new__(cls, four: tuple[bool, Sequence[int]], six: tuple[bool, Sequence[int]]) -> Self: ...
    def allow(self, addresses: Buffer) -> int:
        """How many of the addresses are allowed: 16 bytes each, IPv4 as ::ffff:0:0/96."""

ADDRESS_TABLE_HEAD: Final[int]
ADDRESS_TABLE_SET: Final[int]
"""Bytes of a census: for each worker a head, and a power of two of sets."""

@final
class AddressLimits:
    """How many connections a server holds, in total and of each address, and how many are too many.

    memory: zeroed at first, shared by all workers of the server, with
    ADDRESS_TABLE_HEAD + n * ADDRESS_TABLE_SET bytes for each of `workers`, n a power of two, aligned to
    ADDRESS_TABLE_HEAD. Worker `slot` writes its part; if it dies, zero that. key: 16
    random bytes, the same for all. Limits are 0 for none: connections in total, of one worker, of one address, admitted
    per second from one address. ipv4_prefix, ipv6_prefix: how many bits make an address.

    One for all Parkers of a process. Raises ValueError if something does not fit.
    """

    def __new__(
        cls,
        memory: Buffer,
        *,
        slot: int,
        workers: int,
        key: bytes,
        max_connections: int = 0,
        max_worker_connections: int = 0,
        max_address_connections: int = 0,
        max_address_rate: int = 0,
        ipv4_prefix: int = 32,
        ipv6_prefix: int = 64,
    ) -> Self: ...
    def enter(self, address: Buffer, now: int) -> tuple[str, int]:
        """Judge a client as an Acceptor does, `now` being nanoseconds of a clock that only rises.

        address: 16 bytes, IPv4 as ::ffff:0:0/96. Returns "admitted", "untracked" (admitted, but there is no place to
        count it), "address" or "address_rate" (one of the two limits is reached), and a number for `leave`; 0 if it
        is not counted.
        """

    def leave(self, place: int) -> None:
        """A connection that `enter` counted has ended. ValueError if there is none."""

    @property
    def held(self) -> int:
        """Connections of this worker's Parkers."""

    @property
    def tracked(self) -> int:
        """Those of them that are counted by address. Looks at every entry: for tests."""

@final
class PolicyReply:
    """The bytes that answer a request, made once and shared by every answer.

    Raises ValueError for no bytes, or 2 GiB and more.
    """

    def __new__(cls, data: bytes) -> Self: ...
    def __len__(self) -> int: ...
    @property
    def data(self) -> bytes: ...

@final
class ConnectionTable:
    """Everything one process holds that is not yet answered, as C records behind one pollable descriptor.

    capacity: connections (file descriptors) at most. request_timeout, terminator_grace, linger_timeout: seconds.
    linger_bytes: input discarded after a reply, in bytes. signatures: (first bytes, reason) of what is refused by name.
    on_slow_reply(fd): the kernel took a reply only in part; call `resume(fd)` whenever fd is writable, until it says
    True, or `close_as(fd, …)`. on_error(exception): a hook raised. Raises OSError when the kernel gives no descriptor.
    on_session(fd, data, listener): on a shared port, something is not a policy request, or was silent for
    first_byte_timeout seconds; data are all bytes that were read of it, listener counts the Acceptors from 0. Call
    `relayed(fd, …)` or `close_as(fd, …)` once.

    access_log: the share of connections, 0 to 1 (ValueError), of which `on_access(listener, ip, port, outcome, seconds,
    sent, left_out)` is told when their outcome is known: listener counts the Acceptors from 0; ip and port are the
    client's; outcome is one of OUTCOMES; seconds since the accept; sent are bytes of the reply; left_out is how many
    others are not told of, and were not told to be, because there are at most 100 in ten seconds.

    address_limits: counts the connections, and says when there are too many.
    """

    def __new__(
        cls,
        *,
        on_slow_reply: Callable[[int], object],
        on_error: Callable[[BaseException], object],
        signatures: Iterable[tuple[bytes, str]] = (),
        capacity: int,
        request_timeout: float,
        terminator_grace: float,
        linger_timeout: float,
        linger_bytes: int,
        on_access: Callable[[int, str, int, str, float, int, int], object] | None = None,
        access_log: float = 0.0,
        address_limits: AddressLimits | None = None,
        on_session: Callable[[int, bytes, int], object] | None = None,
        first_byte_timeout: float = 1.0,
    ) -> Self: ...
    def fileno(self) -> int:
        """A descriptor that is readable when `ready` has work. It belongs to the Parker."""

    @property
    def open(self) -> int:
        """Connections open now, parked and in conversations."""

    def ready(self) -> None:
        """Handle what is ready and what is overdue, a bounded number of each. Never raises."""

    def send_more(self, fd: int) -> bool:
        """Send more of the reply to `fd`. True: this conversation is over and `fd` no longer the caller's."""

    def endpoints(self, fd: int) -> tuple[tuple[str, int] | None, tuple[str, int] | None]:
        """(IP, port) of the client of the conversation `fd`, and of where it connected to; None if it is gone."""

    def close_relayed(self, fd: int, sent: int) -> None:
        """The conversation `fd` has been relayed and is over; close it. sent: bytes to the client, for the log."""

    def close_as(self, fd: int, outcome: str) -> None:
        """End the conversation `fd` and close it, counted as "timeout" or as refused for one of REASONS."""

    def client(self, fd: int) -> tuple[str, int]:
        """IP and port of a connection's client, as its PROXY header says it where there is one.

        Raises ValueError if `fd` is no connection of this table, OSError if a client without a header has reset it.
        """

    def evict_oldest(self) -> bool:
        """For want of descriptors: who has waited longest gives way, as for an Acceptor of this Parker.

        False: nobody waits who could.
        """

    def close_all(self) -> int:
        """Close every connection, counted as refused for "shutdown" unless it has its reply; return how many."""

    def check(self) -> int:
        """For tests: look at every record there can be; return how many connections are kept.

        Raises AssertionError if records, queues, gauges and samples do not agree, as they must between two calls.
        """

@final
class Acceptor:
    """Accepts from one listening socket and answers with one reply.

    fd: a listening, non-blocking TCP socket, borrowed: the caller closes it after the last `ready`. block: writable
    memory of BLOCK_SIZE bytes, 8-byte aligned; its counters carry on, its gauges start at zero. on_exhausted(errno):
    accepting failed for want of resources; stop calling `ready` for a while. terminated: as for `RequestMatcher`.
    shared: what is not a policy request is relayed.

    networks: of the clients that are served; None: all. proxies: the only ones that may connect, each with a PROXY
    header that says who its client is; None: clients connect themselves.
    """

    def __new__(
        cls,
        connection_table: ConnectionTable,
        fd: int,
        reply: PolicyReply,
        block: Buffer,
        *,
        on_exhausted: Callable[[int], object],
        terminated: bool = True,
        networks: Networks | None = None,
        proxies: Networks | None = None,
        shared: bool = False,
    ) -> Self: ...
    def ready(self, fd: int = -1) -> int:
        """Accept and handle a bounded burst; return how many were accepted. Never raises.

        fd: of another listening, non-blocking TCP socket, whose connections are served and counted as if they were
        ours; -1: our own.
        """
