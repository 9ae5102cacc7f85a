"""Every setting of the server: its default, its bounds and the reason for both, in one place."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from flashpol.config.address import Address, Endpoint, SystemdSocket, UpstreamAddress
from flashpol.config.errors import ConfigError
from flashpol.config.locations import SourceLocation
from flashpol.config.setting_types import (
    ABSOLUTE_PATH,
    ADMIN,
    ENDPOINT,
    GRANTS,
    NETWORKS,
    SWITCH,
    UPSTREAM,
    WORKERS,
    Network,
    SettingType,
    choice,
    number,
    path,
    text,
)

DEFAULT_LISTEN = "[::]:843"  # where Flash Player asks first; [::] is dual-stack
DEFAULT_SILVERLIGHT_LISTEN = "[::]:943"  # the only port Silverlight asks
DEFAULT_ADMIN = "127.0.0.1:9843"  # loopback: the endpoint has no authentication
MAX_LISTENERS = 1024  # the fast path has room for so many in one process

FLASH, SILVERLIGHT = DIALECTS = ("flash", "silverlight")
TEXT, JSON = LOG_FORMATS = ("text", "json")
ROUND_ROBIN, LEAST_CONNECTIONS = BALANCES = ("round-robin", "least-connections")
PROXY_VERSIONS = ("v1", "v2")
RELAYING = ("upstream_proxy", "balance", "keepalive", "connect_rate")  # settings of a listener that go with upstream


def _label(value: str) -> str:
    if not value.strip():  # a label that is empty is none to Prometheus
        raise ValueError
    return value


DIALECT = choice(*DIALECTS)
NAME = text("a name")
LABEL = text("a name", _label)
ADMIN_ADDRESS = Address.parse(DEFAULT_ADMIN)


def setting(default: Any, why: str, kind: SettingType, example: Any = None) -> Any:
    """A field with its default, its reason and how it is written; an example where the default is none."""
    return field(default=default, metadata={"why": why, "kind": kind, "example": example})


def required(why: str, kind: SettingType, example: Any) -> Any:
    """A field that has no default."""
    return field(metadata={"why": why, "kind": kind, "example": example})


def settings_of(owner: Any) -> dict[str, "dataclasses.Field[Any]"]:
    """The settings of a class in its order; `metadata` of each has `why`, `kind`, `example`."""
    return {f.name: f for f in dataclasses.fields(owner) if "kind" in f.metadata}


def kind_of(owner: Any, name: str) -> SettingType:
    kind: SettingType = settings_of(owner)[name].metadata["kind"]
    return kind


def parse_dialect(text: str) -> str:
    """Raises ConfigError."""
    dialect: str = DIALECT.read("dialect", text)
    return dialect


@dataclass(frozen=True)
class ConnectionTimeouts:
    """What one worker does and holds. Times in seconds."""

    request_timeout: float = setting(
        3.0, "Flash Player gives up after 3 s; for the whole request, whatever arrives meanwhile", number(0.05, 3600)
    )
    terminator_grace: float = setting(
        0.15, "wait for the NUL after the 22 bytes: a round trip's worth, and no wait anyone notices", number(0.01, 60)
    )
    linger_timeout: float = setting(
        1.0, "after a reply, discard what a client still sends, so that RST cannot destroy the reply", number(0.05, 60)
    )
    linger_bytes: int = setting(
        65536, "a client that sends more than this after its request is not a client", number(0, 2**31, whole=True)
    )
    reply_timeout: float = setting(
        10.0, "for a reply that the kernel takes only in part: a slow reader", number(0.05, 3600)
    )
    first_byte_timeout: float = setting(
        1.0,
        "on a shared port, silence after which it is the application that speaks first: each such client waits so long",
        number(0.01, 3600),
    )
    connect_timeout: float = setting(
        3.0, "for an upstream to accept: a SYN that is lost is sent again after 1 s", number(0.05, 3600)
    )
    idle_timeout: float = setting(
        3600.0,
        "a conversation without a byte either way ends; an hour: somebody thinks about a move, and NAT forgets sooner",
        number(0.05, 10_000_000, off=0),
    )
    max_duration: float = setting(
        0.0, "of a conversation, however busy; off: a game may go on for days", number(0.05, 10_000_000, off=0)
    )

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            f.metadata["kind"].read(f.name, getattr(self, f.name))


@dataclass(frozen=True)
class ConnectionLimits:
    """How many clients the whole server takes in, over all its listeners. What is beyond is closed."""

    max_connections: int = setting(
        0,
        "connections of all workers together; 0: as many as they may have files. Exceeded by 32 for each worker beyond "
        "the first at most, since they do not wait for each other",
        number(0, 2**30, whole=True),
    )
    max_worker_connections: int = setting(
        0, "connections of one worker; 0: as many as it may have files", number(0, 2**20, whole=True)
    )
    max_address_connections: int = setting(
        1000,
        "connections of one address at a time, 0 for any number: a client has one, a large school or a proxy hundreds, "
        "and no one should have all there are",
        number(0, 60_000, whole=True),
    )
    max_address_rate: int = setting(
        0,
        "connections of one address within a second; 0, any number, since an answer is cheap and a whole school may "
        "have one address",
        number(0, 60_000, whole=True),
    )
    max_sessions: int = setting(
        10_000,
        "sessions that one worker relays at a time, those that wait to be connected included. Each costs 7 KB and two "
        "descriptors.",
        number(0, 1_000_000, whole=True),
    )
    max_slow_replies: int = setting(
        10_000,
        "replies that one worker still sends because their clients read slowly. Each costs 4 KB.",
        number(0, 1_000_000, whole=True),
    )
    ipv4_prefix: int = setting(32, "bits that make an address of IPv4", number(8, 32, whole=True))
    ipv6_prefix: int = setting(
        64, "bits that make an address of IPv6: a client chooses the last 64 as it likes", number(16, 128, whole=True)
    )
    address_table_size: int = setting(
        65_536,
        "addresses that a worker can count at a time, 16 bytes each, rounded up to a power of two; it never grows: "
        "beyond it the light are forgotten first, and nobody is refused for it",
        number(8, 2**20, whole=True),
    )

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            f.metadata["kind"].read(f.name, getattr(self, f.name))


@dataclass(frozen=True)
class Server:
    """The whole server. Times in seconds."""

    workers: int = setting(0, 'worker processes; "auto" is one for each CPU', WORKERS)
    admin: Endpoint | None = setting(
        ADMIN_ADDRESS, 'metrics and health, or "off"; loopback: it asks no password', ADMIN
    )
    reload_endpoint: bool = setting(
        False,
        "POST /-/reload on the admin address loads the configuration anew; off, since it asks no password",
        SWITCH,
    )
    user: str | None = setting(
        None,
        "workers and the admin process become this user once the sockets are bound",
        text("a user's name"),
        "nobody",
    )
    group: str | None = setting(
        None, "the only group that they have then, instead of the user's own groups", text("a group's name"), "nogroup"
    )
    chroot: Path | None = setting(
        None,
        "an absolute path, which becomes their root folder: they open no files once they serve",
        ABSOLUTE_PATH,
        Path("/var/empty"),
    )
    watch: float = setting(
        0.0,
        "seconds between two looks at the configuration and policy files; 0: SIGHUP says when",
        number(0.1, 3600, off=0),
    )
    log_format: str = setting(TEXT, 'lines for people ("text") or for machines ("json")', choice(*LOG_FORMATS))
    access_log: float = setting(
        0.0, "share of the connections that get a log line each; 1 is all, 0.01 one in 100", number(0, 1)
    )
    backlog: int = setting(
        65535, "accept queue; the kernel lowers it to net.core.somaxconn", number(1, 65535, whole=True)
    )
    stall_timeout: float = setting(
        2.0,
        "a worker whose loop stands still is killed and replaced after so long, before clients in its queue give up as "
        "Flash Player does after 3 s; after half of it a sibling serves them; 0: neither, for a debugger",
        number(0.2, 3600, off=0),
    )
    shutdown_timeout: float = setting(
        5.0, "finish what is inside: request_timeout and a reply after it", number(0, 3600)
    )
    drain_timeout: float = setting(
        3600.0,
        "after a reload, conversations live on in the old workers so long; reloads that find no room end the oldest",
        number(0, 10_000_000),
    )
    timeouts: ConnectionTimeouts = field(default_factory=ConnectionTimeouts)
    connection_limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    # Where a setting was written, of those that come from a file.
    places: Mapping[str, SourceLocation] = field(default_factory=dict, compare=False, repr=False)

    @property
    def worker_count(self) -> int:
        return self.workers or len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class PolicySource:
    """Where a policy comes from: a file, a folder of fragments, or grants as `DOMAIN:PORTS`. Exactly one of them."""

    name: str
    file: Path | None = setting(
        None, "a policy file, served byte for byte with a NUL after it", path("a file's name"), Path("games.xml")
    )
    folder: Path | None = setting(
        None, "a folder whose *.xml are merged into one policy", path("a folder's name"), Path("policies.d")
    )
    grants: tuple[str, ...] = setting((), "who may connect to which ports", GRANTS, ("*.example.com:1935,8000-8100",))
    origin: SourceLocation | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Listener:
    """One address and the policy it serves. Without a name it is called by its address once that is bound."""

    name: str | None = required(
        "label of its metrics and lines in the log; the address if it has none", LABEL, "master"
    )
    address: Endpoint = required(
        '"IP:PORT"; [::] is IPv4 too, port 0 lets the kernel choose; or "systemd:NAME", as in FileDescriptorName=',
        ENDPOINT,
        Address.parse(DEFAULT_LISTEN),
    )
    policy: str = required("name of the policy it serves; may be left out if there is only one", NAME, "games")
    dialect: str = setting(FLASH, 'whose requests and policies: "flash" or "silverlight"', DIALECT)
    served_from: int | None = setting(
        None,
        "port that clients ask, if a redirect or a container makes it another than the address's; lint counts on it",
        number(1, 65535, whole=True),
        843,
    )
    allow_networks: tuple[Network, ...] = setting(
        (), "the clients that are served, if not all", NETWORKS, (ip_network("192.0.2.0/24"),)
    )
    deny_networks: tuple[Network, ...] = setting(
        (),
        "clients that are not; if one is in networks of both lists, the smallest decides",
        NETWORKS,
        (ip_network("198.51.100.0/24"), ip_network("2001:db8::/32")),
    )
    proxy_protocol: bool = setting(
        False,
        "each connection begins with a PROXY header, version 1 or 2, that says who the client is; for caps, lists and "
        "the log it is that one",
        SWITCH,
        True,
    )
    proxy_networks: tuple[Network, ...] = setting(
        (),
        "with proxy_protocol: the proxies. Nobody else may connect, since whoever sends a header can claim any address",
        NETWORKS,
        (ip_network("10.0.0.0/8"),),
    )
    upstream: tuple[UpstreamAddress, ...] = setting(
        (),
        "makes it a shared port: what is no policy request is relayed there; a name stands for all its addresses",
        UPSTREAM,
        (UpstreamAddress("127.0.0.1", 7000),),
    )
    upstream_proxy: str | None = setting(
        None,
        'tell the upstream the client\'s address, in a PROXY protocol header: "v1" (text) or "v2"; it must expect one',
        choice(*PROXY_VERSIONS),
        "v2",
    )
    balance: str = setting(
        ROUND_ROBIN, 'which upstream is next: "round-robin", or "least-connections" of a worker', choice(*BALANCES)
    )
    keepalive: int = setting(
        60,
        "seconds of silence after which the kernel asks whether the other end is there; dead ones would stay",
        number(1, 32767, whole=True, off=0),
    )
    connect_rate: float = setting(
        0.0,
        "connections a second of one worker to the upstream; the others wait for their turn up to connect_timeout",
        number(0.1, 1_000_000, off=0),
    )
    timeouts: ConnectionTimeouts | None = None  # where it has others than the server's
    origin: SourceLocation | None = field(default=None, compare=False, repr=False)

    @property
    def shared(self) -> bool:
        """It relays what is no policy request."""
        return bool(self.upstream)

    @property
    def public_port(self) -> int | None:
        """As clients know it; None if nobody does before it is bound."""
        return self.served_from or self.address.port or None

    @property
    def terminated(self) -> bool:
        """A NUL ends the request and the reply. Silverlight sends none and wants none."""
        return self.dialect == FLASH


@dataclass(frozen=True)
class Config:
    server: Server
    policies: tuple[PolicySource, ...]
    listeners: tuple[Listener, ...]

    def policy(self, name: str) -> PolicySource:
        return next(source for source in self.policies if source.name == name)

    @property
    def upstreams(self) -> list[tuple[int, UpstreamAddress]]:
        """All of them with the number of their listener. One that two listeners name is there twice."""
        return [
            (number, upstream_address)
            for number, listener in enumerate(self.listeners)
            for upstream_address in listener.upstream
        ]

    @property
    def draining(self) -> float:
        """Seconds that workers have to finish what is inside after a reload."""
        longest = self.server.drain_timeout if any(listener.shared for listener in self.listeners) else 0.0
        return max(longest, self.server.shutdown_timeout)

    def timeouts(self, listener: Listener) -> ConnectionTimeouts:
        """What holds for a listener: its own limits, or the server's."""
        return listener.timeouts or self.server.timeouts


def check(config: Config) -> Config:
    """What only the whole can show. Returns it, or raises ConfigError."""
    if not config.listeners:
        raise ConfigError("no listener: add --listen IP:PORT or [[listeners]]")
    if len(config.listeners) > MAX_LISTENERS:
        raise ConfigError(f"{len(config.listeners)} listeners: {MAX_LISTENERS} at most in one server")
    for listener in config.listeners:
        _check_access(listener)
    seen: dict[object, Listener] = {}
    for listener in config.listeners:
        for what, value in (("named", listener.name), ("on", _taken(listener.address))):
            other = seen.setdefault((what, value), listener) if value is not None else listener
            if other is not listener:
                raise _clash(listener, other.origin, f"two listeners are {what} {value}: give each its own")
    admin, place = config.server.admin, config.server.places.get("admin")
    if admin and ("on", _taken(admin)) in seen:
        listener = seen["on", admin]
        raise _clash(listener, place, f"a listener and the admin endpoint are on {admin}: give each its own")
    for address, listener in _bound(config):
        if isinstance(admin, Address) and admin.port == address.port and _overlap(admin, address):
            message = f"a listener and the admin endpoint are on port {admin.port}: {address} and {admin} overlap"
            raise _clash(listener, place, f"{message}: give each its own port")
    for wide, first in _bound(config):
        for narrow, second in _bound(config):
            if wide.port == narrow.port and wide != narrow and wide.covers(narrow):
                message = f"two listeners are on port {wide.port}: {wide} serves {narrow} too: leave one out"
                raise _clash(second, first.origin, message)
    return config


def _check_access(listener: Listener) -> None:
    for network in set(listener.allow_networks).intersection(listener.deny_networks):
        raise ConfigError(f"{network} is both in allow_networks and in deny_networks: choose one", listener.origin)
    if listener.proxy_protocol and not listener.proxy_networks:
        raise ConfigError("proxy_protocol = true, but of which proxies? Write proxy_networks", listener.origin)
    if listener.proxy_networks and not listener.proxy_protocol:
        raise ConfigError("proxy_networks has no effect: write proxy_protocol = true too", listener.origin)
    address = listener.address
    if isinstance(address, Address) and any(
        upstream_address.arrives_at(address) for upstream_address in listener.upstream
    ):
        message = f"the upstream of {address} is this listener itself: give the application a port of its own"
        raise ConfigError(message, listener.origin)


def _taken(address: Endpoint) -> Endpoint | None:
    """What no two can have. Of port 0 the kernel gives each its own."""
    return address if isinstance(address, SystemdSocket) or address.port else None


def _bound(config: Config) -> list[tuple[Address, Listener]]:
    return [(one.address, one) for one in config.listeners if isinstance(one.address, Address) and one.address.port]


def _overlap(one: Address, other: Address) -> bool:
    return one.covers(other) or other.covers(one)


def _clash(listener: Listener, other: SourceLocation | None, message: str) -> ConfigError:
    """Said with the places of both, as far as they come from a file."""
    if other:
        message += f" (the other one: {other})"
    return ConfigError(message, listener.origin)
