"""What Python sees of the fast path. The head of _fastpath.pyx explains how it works, _fastpath.pxd lists its files."""

import enum
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Self, final

from typing_extensions import Buffer, disjoint_base

class Verdict(enum.IntEnum):
    """The verdict of a recogniser on the bytes so far: more are needed, a match, something else."""

    MORE = 0
    MATCH = 1
    OTHER = 2

BUCKETS: Final[tuple[float, ...]]
"""Finite upper bounds of the duration histogram, in seconds, ascending."""

HANDSHAKE_FAILURES: Final[tuple[str, ...]]
"""Why a TLS handshake failed, in the order of `handshake_failures` in a counter block."""
TLS_VERSIONS: Final[tuple[str, ...]]
"""Versions of TLS, in the order of `handshakes` in a counter block."""
REASONS: Final[tuple[str, ...]]
"""Why a connection can be refused, in the order of the counter block's `refused` words."""

PROTOCOLS: Final[tuple[str, ...]]
"""What a relayed connection can be recognised as, in the order of the counter block's `relayed` words."""

OUTCOMES: Final[tuple[str, ...]]
"""How a connection can end: one of REASONS, "timeout", "reset", "reply", "relayed" or "served", an HTTP request that
got what it asked for."""

HTTP_STATUSES: Final[tuple[int | None, ...]]
"""The statuses of the replies that a ConnectionTable sends to HTTP by itself; None is none."""

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
        """All 22 bytes are there and nothing after them. At the end of the stream, or after some time, they may be
        taken for a request. Never true with `terminated=False`, where they are a MATCH."""

    def feed(self, data: Buffer) -> Verdict:
        """Continue with `data`. Bytes that were fed before are not read again."""

@final
class ProxyHeader:
    """Recognises one header of the PROXY protocol, version 1 or 2, in a stream of bytes, fed in any pieces.

    Any split of the same bytes gives the same verdict; a verdict other than MORE is final. What follows the addresses
    in a header (TLVs, also a CRC32C) is skipped.

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
        """The verdict is OTHER because the header is longer than 107 bytes (version 1) or 16 + 4,096 (version 2)."""

    @property
    def source(self) -> tuple[str, int] | None:
        """IP and port of the client. None if the header has none: LOCAL, UNKNOWN, not TCP over IP."""

    def feed(self, data: Buffer) -> Verdict:
        """Continue with `data`. Bytes that were fed before are not read again."""

@final
class RequestHead:
    """Recognises the head of one HTTP/1.0 or 1.1 request in a stream of bytes, fed in any pieces.

    Any split of the same bytes gives the same verdict; a verdict other than MORE is final, and what is fed after it is
    ignored. `_native/http/head.pxd` says what is accepted. The properties have what was read so far.

    >>> head = RequestHead()
    >>> head.feed(b"GET /chess?room=1 HTTP/1.1\\r\\nHost: example.com\\r\\n")
    <Verdict.MORE: 0>
    >>> head.feed(b"\\r\\n")
    <Verdict.MATCH: 1>
    >>> head.path, head.fields
    (b'/chess', [(b'Host', b'example.com')])
    """

    def __new__(cls) -> Self: ...
    @staticmethod
    def parse(data: Buffer) -> RequestHead:
        """The head that `data` begins with. Raises ValueError if it has no whole head."""

    def feed(self, data: Buffer) -> Verdict:
        """Continue with `data`. Bytes that were fed before are not read again."""

    @property
    def consumed(self) -> int:
        """Bytes of the stream that belong to the head, its empty line included."""

    @property
    def status(self) -> int | None:
        """The status of HTTP that says why the verdict is OTHER: 400, 411, 414, 417, 431, 501 or 505."""

    @property
    def method(self) -> bytes: ...
    @property
    def target(self) -> bytes:
        """As it was sent: a path and a query, an absolute URI, "*", or host and port with CONNECT."""

    @property
    def path(self) -> bytes:
        """The path of the target without its query, at least b"/". Empty for "*" and with CONNECT."""

    @property
    def minor(self) -> int:
        """Of the version: 0 for HTTP/1.0, 1 for HTTP/1.1."""

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        """Names as they were sent, and values without the spaces and tabs around them."""

    def find(self, name: bytes) -> bytes | None:
        """The value of the first field with this name, which is in lower case; None if there is none."""

    def count(self, name: bytes) -> int:
        """How many fields have this name, which is in lower case."""

    @property
    def body_size(self) -> int:
        """Content-Length, or 0."""

    @property
    def expects_continue(self) -> bool:
        """The client waits for 100 Continue before it sends the body."""

@final
class Networks:
    """Which addresses are allowed. `serving.networks.compile_networks` makes one from lists of networks.

    v4, v6: for each family whether its lowest address is allowed, and the boundaries: the addresses, ascending, at
    which the answer changes. An address is a number of 128 bits; an IPv4 address is in the upper 32 of them. Raises
    ValueError if the boundaries do not ascend.
    """

    def __new__(cls, v4: tuple[bool, Sequence[int]], v6: tuple[bool, Sequence[int]]) -> Self: ...
    def allow(self, addresses: Buffer) -> int:
        """How many of the addresses are allowed. Each is 16 bytes, IPv4 as ::ffff:0:0/96; else ValueError."""

ADDRESS_TABLE_HEAD: Final[int]
ADDRESS_TABLE_SET: Final[int]
"""Bytes of an address table: a head, and each of its sets of 8 slots."""

@final
class AddressLimits:
    """Limits on connections, in total and of each address, counted in an address table that the workers share.

    memory: for each of `workers` at least ADDRESS_TABLE_HEAD + sets * ADDRESS_TABLE_SET bytes, equally many, aligned to
    ADDRESS_TABLE_HEAD, zeroed at first; sets: a power of two. Only `worker`, from 0, writes its part of them; zero that
    part if the worker dies. key: 16 random bytes, the same for all workers. The limits are 0 for none: connections in
    total, of one worker, of one address, admitted per second from one address, and sessions of one address, the last
    three below 65,535. ipv4_prefix, ipv6_prefix: the number of bits that count as one address. exempt: addresses that
    no limit by address holds for; they are counted too.

    Raises ValueError if an argument does not fit.
    """

    def __new__(
        cls,
        memory: Buffer,
        *,
        worker: int,
        workers: int,
        sets: int,
        key: bytes,
        max_connections: int = 0,
        max_worker_connections: int = 0,
        max_address_connections: int = 0,
        max_address_rate: int = 0,
        max_address_sessions: int = 0,
        ipv4_prefix: int = 32,
        ipv6_prefix: int = 64,
        exempt: Networks | None = None,
    ) -> Self: ...
    def admit(self, address: Buffer, now: int) -> tuple[str, int]:
        """Judge an address as an Acceptor does, and count its connection if it is admitted.

        address: 16 bytes, IPv4 as ::ffff:0:0/96. now: nanoseconds of a clock that only rises. Returns the verdict and
        the slot in the address table. The verdict is "admitted", "untracked" (admitted, but all slots have
        connections), "max_address_connections" or "max_address_rate". The slot is for `release`; it is 0 if the
        connection is not counted. Raises ValueError for an address of another length.
        """

    def release(self, slot: int) -> None:
        """A connection that `admit` counted in this slot has ended. Raises ValueError if the slot has none."""

    @property
    def held(self) -> int:
        """Places that this worker's connections hold."""

    @property
    def tracked(self) -> int:
        """Those of them that are counted by address. It reads every slot: for tests."""

@final
class Account:
    """The account of places of a process: which connection gives way, and what those that do not may take together.

    capacity: the largest file descriptor + 1 that can be a connection. address_limits: of connections, in total and by
    address. max_sessions, max_slow_replies, max_handshakes: at a time; half of each is divided equally among the
    listeners as a reserve of theirs. max_leaving: sessions that were evicted and are not closed yet. max_files:
    descriptors of all connections, and of the sessions' upstreams; 0: no limit.

    Raises ValueError for a negative number, and MemoryError.

    One ConnectionTable and one Pump use it.
    """

    def __new__(
        cls,
        *,
        capacity: int,
        address_limits: AddressLimits | None = None,
        max_sessions: int = 1 << 20,
        max_slow_replies: int = 1 << 20,
        max_handshakes: int = 1 << 20,
        max_leaving: int = 0,
        max_files: int = 0,
    ) -> Self: ...
    @property
    def address_limits(self) -> AddressLimits | None: ...
    @property
    def max_sessions(self) -> int: ...
    @property
    def max_leaving(self) -> int: ...
    @property
    def holder_count(self) -> int:
        """How many addresses there is memory for: the most that had connections that give way at a time. For tests."""

@final
class TopAddresses:
    """The addresses that are counted most, by the space-saving algorithm: the table behind `take_refusals`.

    >>> top = TopAddresses()
    >>> top.count(bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1]))
    >>> top.take()
    (1, [('192.0.2.1', 1, 0)])
    """

    def count(self, addresses: Buffer) -> None:
        """Count addresses in this order. Each is 16 bytes, IPv4 as ::ffff:0:0/96; else ValueError."""

    def take(self) -> tuple[int, list[tuple[str, int, int]]]:
        """The total and the addresses, as `ConnectionTable.take_refusals` returns them; start again from 0."""

@final
class Guarded:
    """A callback for an event loop that stops a watcher whose callback raises.

    on_error: called with what `callback` raised. What it raises itself is dropped.
    """

    def __new__(cls, callback: Callable[[], object], on_error: Callable[[BaseException], object]) -> Self: ...
    @property
    def returned(self) -> int:
        """How often the callback returned."""

    def call(self) -> None:
        """Call the callback. Never raises."""

@disjoint_base
class CodecFactory:
    """Makes the codecs of a listener's clients; `_tls.ServerContext` is one."""

@disjoint_base
class TunnelGate:
    """The tunnel sessions of a worker (RTMPT), as a ConnectionTable knows them; `_tunnel.Tunnels` is one."""

@disjoint_base
class PreparedCodec:
    """A codec that is to lie on that of a session, if it has one: `_websocket.Path.prepare` makes it.

    `ConnectionTable.wrap` takes it; one that no session takes is freed with this object.
    """

@final
class PolicyReply:
    """The bytes that are sent for a request, made once and shared by all replies.

    Raises ValueError for no bytes, or for 2 GiB and more.
    """

    def __new__(cls, data: bytes) -> Self: ...
    def __len__(self) -> int: ...
    @property
    def data(self) -> bytes: ...

@final
class ConnectionTable:
    """All connections of one process, as C records behind one pollable descriptor.

    account: where the connections take their places. signatures: (first bytes, reason) of protocols that are refused by
    name, at most 32 of 1 to 8 bytes. Raises ValueError for an argument that does not fit, and OSError when the kernel
    gives no descriptor.

    The hooks are called within `ready` and the other methods:

    on_slow_reply(fd, listener): the kernel took only a part of the reply. listener: number of the Acceptor, from 0.
    Call `send_more(fd)` whenever fd is writable, until it returns True, or `close_as(fd, …)`.

    on_session(fd, data, listener): a connection to a shared port is not a policy request, or was silent for
    first_byte_timeout seconds. data: all bytes that were read from it. listener: number of the Acceptor, from 0. Call
    `close_relayed(fd, …)` or `close_as(fd, …)` once.

    on_request(fd, data, listener): a client of a listener with `http` has sent the whole head of a request. data: that,
    and what came behind it. Before it returns it has to call `reply_http(fd, …)`, or `begin_session(fd)`, which makes
    the connection a session. http_replies: by status, what the ConnectionTable replies with by itself (400, 408 and the
    other HTTP_STATUSES); where one is missing, the connection is closed without a reply.

    on_open(fd, head, listener): a client of a listener with `rtmpt` asks for a tunnel session. head: that of its
    request. Before it returns it has to call `open_tunnel(fd, …)`, and `refuse_open(fd, …)` if that returned a reason.
    max_body_bytes: memory that the bodies of requests may take which have not come completely.

    on_access(listener, ip, port, outcome, seconds, sent, left_out, protocol, tls): the outcome of a sampled connection
    is known. access_log: the share of connections that is sampled, 0 to 1. listener: number of the Acceptor, from 0.
    ip, port: of the client. outcome: one of OUTCOMES. seconds: since accept. sent: bytes of the reply. left_out: how
    many sampled connections are not logged, since the last call: with a share of 1 none, as there is room for every
    connection; with another one, those after the first 100 of ten seconds, and those for which 1,024 places were not
    enough. protocol: one of PROTOCOLS if it was relayed, else None. tls: whether it came with TLS.

    on_error(exception): a hook raised.
    """

    def __new__(
        cls,
        *,
        account: Account,
        on_slow_reply: Callable[[int, int], object],
        on_error: Callable[[BaseException], object],
        signatures: Iterable[tuple[bytes, str]] = (),
        on_access: Callable[[int, str, int, str, float, int, int, str | None, bool], object] | None = None,
        access_log: float = 0.0,
        on_session: Callable[[int, bytes, int], object] | None = None,
        on_request: Callable[[int, bytes, int], object] | None = None,
        on_open: Callable[[int, bytes, int], object] | None = None,
        http_replies: dict[int, bytes] | None = None,
        max_body_bytes: int = 1 << 26,
    ) -> Self: ...
    def add_timeouts(
        self,
        *,
        request_timeout: float,
        terminator_grace: float,
        linger_timeout: float,
        first_byte_timeout: float = 1.0,
        tls_handshake_timeout: float = 5.0,
        http_idle_timeout: float = 30.0,
    ) -> int:
        """Add a set of timeouts, in seconds; returns its number, for an Acceptor."""

    def set_tunnels(self, tunnels: TunnelGate) -> None:
        """Give requests of RTMPT to these sessions, which have the same Account. Once, before the first Acceptor with
        `rtmpt`. Raises OSError when the kernel gives no descriptor, and MemoryError.
        """

    def fileno(self) -> int:
        """A descriptor that is readable when `ready` has work. The ConnectionTable owns it."""

    @property
    def open(self) -> int:
        """Connections that are open now, in any state."""

    @property
    def sessions(self) -> int:
        """Those of them that are relayed."""

    @property
    def idle(self) -> int:
        """Those of them that have carried requests of RTMPT, and wait for another one. Takes 10 to 50 us."""

    def ready(self) -> None:
        """Handle ready and overdue connections, a limited number of each. Never raises."""

    def wake(self) -> None:
        """Make `fileno` readable, so that `ready` is called although there may be nothing to do."""

    def send_more(self, fd: int) -> bool:
        """Send more of a slow reply. True: it has ended, and `fd` is no longer the caller's.

        Raises ValueError if `fd` is not a slow reply.
        """

    def protocol(self, fd: int) -> str:
        """As what a session is relayed, one of PROTOCOLS.

        Raises ValueError if `fd` is not a session.
        """

    def carries(self, fd: int) -> bool:
        """Whether the connection of a request has carried requests of RTMPT before.

        Raises ValueError if `fd` is not a request.
        """

    def begin_session(self, fd: int) -> str | None:
        """Make a request a session. None: it is one, for `close_relayed(fd, …)` or another end. Otherwise one of
        REASONS, why there is no place for it: reply to it.

        Raises ValueError if `fd` is not a request.
        """

    def wrap(self, fd: int, prepared: PreparedCodec) -> None:
        """Lay a codec on the connection of a session, which counts as a WebSocket from now on.

        Raises ValueError if `fd` is not a session, or if the codec is another's already.
        """

    def reply_http(self, fd: int, reply: bytes, outcome: str) -> None:
        """Reply to a request, or to a session that has not begun, and end the connection: it lingers.

        outcome: "served", or one of REASONS, for which it counts as refused. An empty reply closes it. Raises
        ValueError if `fd` is neither, or for another outcome.
        """

    def set_client(self, fd: int, ip: str) -> str | None:
        """Of a request: the client is this address, behind an HTTP proxy. It is judged as at accept, and counts for its
        address instead of the proxy's. None, or one of REASONS: reply to it.

        Raises ValueError if `fd` is not a request, or `ip` no address.
        """

    def open_tunnel(self, fd: int, ip: str | None = None) -> int | str:
        """Begin the session that a request asks for, which gets its reply when the upstream is reached. ip: of the
        client behind an HTTP proxy; None: its connection's. The session counts as a connection of this address: it is
        judged as at accept.

        Returns the descriptor of the session, for a Pump and `close_relayed` or `close_as`. It is no socket: what the
        client sends is in its requests. Or one of REASONS, why there is no place: then call `refuse_open`. Raises
        ValueError if `fd` does not ask for a session, or `ip` is no address.
        """

    def refuse_open(self, fd: int, status: int, reason: str) -> None:
        """Reply to a request that asks for a session: it gets none. status: 403, 404, 502, 503 or 504. reason: one of
        REASONS, as what the connection counts if none of its requests is served.

        Raises ValueError if `fd` does not ask for a session, or for another reason.
        """

    def endpoints(self, fd: int) -> tuple[tuple[str, int] | None, tuple[str, int] | None]:
        """(IP, port) of the client of a slow reply or session, and of the address it connected to.

        Both are None if the client is gone. Raises ValueError if `fd` is neither.
        """

    def tls_facts(self, fd: int) -> tuple[str, str, bytes] | None:
        """Of a session: one of TLS_VERSIONS, the cipher suite, the name that the client asked for. None: plain text.

        Raises ValueError if `fd` is neither a slow reply nor a session.
        """

    def close_relayed(self, fd: int, sent: int) -> None:
        """Close a session that was relayed and has ended. sent: bytes to the client, for the access log.

        Raises ValueError if `fd` is not a slow reply or a session.
        """

    def close_as(self, fd: int, outcome: str) -> None:
        """Close a slow reply or session, counted as "timeout" or as refused for one of REASONS.

        Raises ValueError if `fd` is neither, or for another outcome.
        """

    def client(self, fd: int) -> tuple[str, int]:
        """IP and port of a connection's client: those of its PROXY header if it has one.

        Raises ValueError if `fd` is no connection of this table, and OSError if a client without a header has reset it.
        """

    def address_key(self, fd: int) -> int:
        """A secret hash of the client's address, of IPv6 its /64. 0: the address limits have none, or one of another
        prefix. Raises ValueError if `fd` is no connection of this table."""

    def refusals(self) -> list[tuple[int, str]]:
        """Number of the Acceptor and reason, for each limit that has refused connections since `take_refusals`.

        The limits are "capacity", "max_connections", "max_address_connections", "max_address_rate",
        "max_address_sessions", "max_sessions" and "max_slow_replies". "proxy_untrusted", "proxy_malformed" and
        "proxy_oversized" are reported like limits.
        """

    def take_refusals(self, listener: int, reason: str) -> tuple[int, list[tuple[str, int, int]]]:
        """How many connections this limit has refused since the last call, and the addresses refused most.

        An address is (text, count, error), where the count is too high by `error` at most, and the surest counts come
        first. There are at most 16. Those with more than a sixteenth of the refusals are among them. The text is
        "192.0.2.1", or "2001:db8::/64" if the limits count prefixes. Behind a proxy it is the client's address, or the
        proxy's if the PROXY header was not read. A client that reset its connection may be counted without an address.

        Raises ValueError if there is no such Acceptor or reason.
        """

    def take_left_out(self) -> int:
        """How many sampled connections were not logged since the last `on_access`: for a line after the last one."""

    def drain(self) -> None:
        """Connections that bring one tunnel session after another, those of proxies, end from now on: the next reply to
        an /open that is not a connection's first request says so, and the session is opened here."""

    def evict(self) -> bool:
        """Make one connection give way, to free a descriptor, as the account chooses. An Acceptor does so by itself.

        False: none gives way.
        """

    def close_all(self) -> int:
        """Close every connection, counted as refused for "shutdown" unless it has its reply; return how many."""

    def check(self) -> int:
        """For tests: compare every record with the table of states; return how many connections there are.

        Raises AssertionError if records, queues, gauges and samples do not agree, as they must between two calls.
        """

@final
class Acceptor:
    """Accepts from one listening socket and sends one reply.

    fd: a listening, non-blocking TCP socket. It is borrowed: the caller closes it after the last `ready`. block:
    writable memory of BLOCK_SIZE bytes, 8-byte aligned; its totals continue, its gauges start at 0.
    timeouts: a number that `ConnectionTable.add_timeouts` returned. linger_bytes: bytes of input discarded after a
    reply. reply_timeout: seconds after which a client that acknowledges no more of its reply is reset.
    on_exhausted(errno): accepting failed for lack of descriptors or memory; pause before the next `ready`. terminated:
    as for RequestMatcher. shared: what is not a policy request is relayed, if
    it is one of `protocols`; None: any of PROTOCOLS. codec: for clients that begin with TLS;
    tls_only: the others are refused. http: the ConnectionTable's on_request decides about HTTP requests; upgrades: it
    makes sessions of some, also if the listener is not shared. rtmpt: the paths of RTMPT are for the sessions that
    `set_tunnels` has named, which also needs `http`; max_body: bytes of their requests' bodies.

    networks: of the clients that are served; None: all. proxies: the only addresses that may connect, each sending a
    PROXY header with the address of its client; None: clients connect themselves.

    Raises ValueError for a block that is too small or not aligned, and for more than 1,024 listeners.
    """

    def __new__(
        cls,
        connection_table: ConnectionTable,
        fd: int,
        reply: PolicyReply,
        block: Buffer,
        *,
        timeouts: int,
        linger_bytes: int,
        reply_timeout: float,
        on_exhausted: Callable[[int], object],
        terminated: bool = True,
        networks: Networks | None = None,
        proxies: Networks | None = None,
        shared: bool = False,
        protocols: Iterable[str] | None = None,
        codec: CodecFactory | None = None,
        tls_only: bool = False,
        http: bool = False,
        upgrades: bool = False,
        rtmpt: bool = False,
        max_body: int = 1 << 20,
    ) -> Self: ...
    def ready(self, fd: int = -1) -> int:
        """Accept and handle a limited burst of connections; return how many were accepted. Never raises.

        fd: another listening, non-blocking TCP socket, whose connections are served and counted as those of this
        listener; -1: its own.
        """
