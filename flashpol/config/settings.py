"""Every setting of the server: what it does, its default and the reason for it, its bounds, all in one place."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from flashpol.config.address import Address, Endpoint, SystemdSocket, UpstreamAddress
from flashpol.config.errors import ConfigError
from flashpol.config.locations import SourceLocation
from flashpol.config.setting_types import (
    ABSOLUTE_FILE,
    ABSOLUTE_PATH,
    ADMIN,
    ENDPOINT,
    GRANTS,
    NETWORKS,
    SOURCES,
    SWITCH,
    TRUE,
    UPSTREAM,
    WORKERS,
    IpAddress,
    Network,
    SettingType,
    choice,
    number,
    path,
    text,
)

DEFAULT_LISTEN = "[::]:843"  # Flash Player asks port 843 first; [::] serves IPv4 too
DEFAULT_SILVERLIGHT_LISTEN = "[::]:943"  # Silverlight asks no other port
DEFAULT_ADMIN = "127.0.0.1:9843"  # loopback: the endpoint has no authentication
MAX_LISTENERS = 1024  # the fast path has room for this many in one process

FLASH, SILVERLIGHT = DIALECTS = ("flash", "silverlight")
TEXT, JSON = LOG_FORMATS = ("text", "json")
ROUND_ROBIN, LEAST_CONNECTIONS = BALANCES = ("round-robin", "least-connections")
PROXY_VERSIONS = ("v1", "v2")
RELAYING = (
    "upstream_source",
    "upstream_proxy",
    "balance",
    "keepalive",
    "connect_rate",
)  # settings that need `upstream`


def _label(value: str) -> str:
    if not value.strip():  # Prometheus treats an empty label as absent
        raise ValueError
    return value


DIALECT = choice(*DIALECTS)
NAME = text("a name")
LABEL = text("a name", _label)
ADMIN_ADDRESS = Address.parse(DEFAULT_ADMIN)


def setting(default: Any, kind: SettingType, does: str, why: str, example: Any = None) -> Any:
    """A field with a default.

    does: one sentence, what the setting does, with its unit. why: the second one, why this default. Both are printed by
    `flashpol config --defaults`, flashpol.toml(5) and docs/reference.md. example: printed where there is no default.
    """
    return field(default=default, metadata={"type": kind, "does": does, "why": why, "example": example})


def required(kind: SettingType, does: str, why: str, example: Any) -> Any:
    """A field without a default."""
    return field(metadata={"type": kind, "does": does, "why": why, "example": example})


def settings_of(owner: Any) -> dict[str, "dataclasses.Field[Any]"]:
    """The settings of a class in its order; `metadata` of each has `type`, `does`, `why`, `example`."""
    return {f.name: f for f in dataclasses.fields(owner) if "type" in f.metadata}


def type_of(owner: Any, name: str) -> SettingType:
    """How a setting is written."""
    found: SettingType = settings_of(owner)[name].metadata["type"]
    return found


def parse_dialect(text: str) -> str:
    """Raises ConfigError."""
    dialect: str = DIALECT.read("dialect", text)
    return dialect


def describe(field_: "dataclasses.Field[Any]") -> str:
    """The two sentences of a setting."""
    return f"{field_.metadata['does']} {field_.metadata['why']}"


@dataclass(frozen=True)
class ConnectionTimeouts:
    """How long a connection may take in each of its states, in seconds; a listener may have its own."""

    request_timeout: float = setting(
        3.0,
        number(0.05, 3600),
        "A client must send its whole request within this many seconds of connecting; bytes that arrive meanwhile do "
        "not extend the time.",
        "Flash Player itself gives up after 3 s.",
    )
    terminator_grace: float = setting(
        0.15,
        number(0.01, 60),
        "A request without its NUL gets its reply after this many seconds.",
        "0.15 s is about one round trip, long enough for a NUL in a packet of its own and too short to notice.",
    )
    linger_timeout: float = setting(
        1.0,
        number(0.05, 60),
        "After a reply, the server reads and discards what the client still sends for at most this many seconds, then "
        "closes the connection.",
        "Without this, unread bytes would make the kernel send RST, which can destroy the reply on its way; 1 s is "
        "several round trips.",
    )
    linger_bytes: int = setting(
        65536,
        number(0, 2**31, whole=True),
        "After a reply, the server reads and discards at most this many bytes before it closes the connection.",
        "A policy client sends nothing after its request, so 64 KiB is ample, and it bounds what other clients cost.",
    )
    reply_timeout: float = setting(
        10.0,
        number(0.05, 3600),
        "A client that reads slowly must read the rest of its reply within this many seconds.",
        "10 s are enough for the largest policy (1 MiB) at 1 Mbit/s.",
    )
    tcp_user_timeout: float = setting(
        30.0,
        number(0.05, 3600, off=0),
        "The kernel drops a reply, or what is left of a session that has ended, if the peer acknowledges nothing for "
        "this many seconds (TCP_USER_TIMEOUT); 0 leaves it to the kernel, which may keep it for minutes.",
        "30 s are longer than a phone takes to change its cell or Wi-Fi; open sessions are not affected.",
    )
    first_byte_timeout: float = setting(
        1.0,
        number(0.01, 3600),
        "On a shared port, a client that has sent nothing for this many seconds is relayed to the upstream, which may "
        "be the side that speaks first.",
        "Policy clients send their request at once; every client of an application that speaks first waits this long.",
    )
    connect_timeout: float = setting(
        3.0,
        number(0.05, 3600),
        "An upstream must accept a connection within this many seconds.",
        "3 s leave time for a lost SYN, which the kernel sends again after 1 s.",
    )
    silent_timeout: float = setting(
        120.0,
        number(0.05, 10_000_000, off=0),
        "A relayed session in which neither side has sent a byte since it began is closed after this many seconds; 0 "
        "means never.",
        "The side that speaks first does so at once, or after a look-up of the client's name, which may take a minute; "
        "a silent client holds its place for 120 s and not for idle_timeout.",
    )
    idle_timeout: float = setting(
        3600.0,
        number(0.05, 10_000_000, off=0),
        "A relayed session without traffic in either direction for this many seconds is closed; 0 means never.",
        "One hour suits turn-based games; NAT devices forget idle connections sooner.",
    )
    max_duration: float = setting(
        0.0,
        number(0.05, 10_000_000, off=0),
        "A relayed session is closed after this many seconds, however busy it is; 0 means never.",
        "It is off because a game may go on for days.",
    )

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            f.metadata["type"].read(f.name, getattr(self, f.name))


@dataclass(frozen=True)
class ConnectionLimits:
    """How many connections the whole server holds, over all its listeners, and how it counts them by address."""

    max_connections: int = setting(
        0,
        number(0, 2**30, whole=True),
        "All workers together hold at most this many connections; 0 means as many as their file descriptors allow. At "
        "the limit a connection that is waiting is closed for a new one, of the client address that has most of them.",
        "It is off because the descriptor limit protects the server already. Workers do not wait for each other, so a "
        "limit may be exceeded by 32 for each worker after the first.",
    )
    max_worker_connections: int = setting(
        0,
        number(0, 2**20, whole=True),
        "Each worker holds at most this many connections; 0 means as many as its file descriptors allow.",
        "It is off because the descriptor limit protects the worker already. Unlike max_connections it is exact.",
    )
    max_address_connections: int = setting(
        1000,
        number(0, 60_000, whole=True),
        "One client address holds at most this many connections at a time, relayed sessions not counted; 0 means any "
        "number. At the limit a waiting connection of the same address is closed for a new one, so it refuses a client "
        "only if none of them waits.",
        "A policy request is over in milliseconds, so 1000 at a time are ample for a company behind one address, and "
        "they keep a single address from using all descriptors.",
    )
    max_address_sessions: int = setting(
        0,
        number(0, 60_000, whole=True),
        "One client address has at most this many relayed sessions at a time; 0 means any number.",
        "It is off because a school, a carrier or a container network may be one address for all of its players.",
    )
    max_address_rate: int = setting(
        0,
        number(0, 60_000, whole=True),
        "One client address opens at most this many connections within a second; 0 means any number.",
        "It is off because a reply is cheap and many clients may share one address.",
    )
    max_sessions: int = setting(
        10_000,
        number(0, 1_000_000, whole=True),
        "Each worker relays at most this many sessions at a time, including those that still connect to an upstream. "
        "Each shared port has a reserve: half of them, divided by the number of shared ports.",
        "A session costs 7 KB of memory and two file descriptors, so 10,000 take 70 MB.",
    )
    max_slow_replies: int = setting(
        10_000,
        number(0, 1_000_000, whole=True),
        "Each worker sends at most this many replies at a time to clients that read slowly.",
        "A slow reply costs 4 KB of memory, so 10,000 take 40 MB.",
    )
    ipv4_prefix: int = setting(
        32,
        number(8, 32, whole=True),
        "IPv4 clients whose addresses agree in this many leading bits count as one address.",
        "32 counts each address separately.",
    )
    ipv6_prefix: int = setting(
        64,
        number(16, 128, whole=True),
        "IPv6 clients whose addresses agree in this many leading bits count as one address.",
        "A subscriber has at least a /64 and can use any address in it.",
    )
    address_table_size: int = setting(
        65_536,
        number(8, 2**20, whole=True),
        "Each worker counts connections of at most this many addresses at a time, rounded up to a power of two, in 24 "
        "bytes of memory for each. When the table is full the least active addresses are evicted; no client is refused "
        "because it is full.",
        "65,536 entries take 1.5 MB for a worker.",
    )
    exempt_networks: tuple[Network, ...] = setting(
        (),
        NETWORKS,
        "Addresses in these networks have no max_address_connections, max_address_rate or max_address_sessions.",
        "It is empty because few servers know such addresses; name a proxy, a container network or a load balancer "
        "that hides its clients' addresses here.",
        (ip_network("172.17.0.0/16"),),
    )

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            if f.metadata["type"] is not NETWORKS:
                f.metadata["type"].read(f.name, getattr(self, f.name))


@dataclass(frozen=True)
class Server:
    """The settings of the whole server."""

    workers: int = setting(
        0,
        WORKERS,
        'The server starts this many worker processes; "auto" means one for each CPU that it may use.',
        "A worker uses at most one CPU, and more workers than CPUs only cost memory.",
    )
    admin: Endpoint | None = setting(
        ADMIN_ADDRESS,
        ADMIN,
        'The endpoint for metrics, health and the status page listens on this address; "off" disables it.',
        "It has no password, so the default is loopback.",
    )
    reload_endpoint: bool = setting(
        False,
        SWITCH,
        "If true, POST /-/reload on the admin address, with a header X-Flashpol-Reload, reloads the configuration.",
        "It is off because the admin endpoint has no password.",
    )
    user: str | None = setting(
        None,
        text("a user name"),
        "The workers and the admin process run as this user; they change to it after the sockets are bound.",
        "Without it they run as the user that started flashpol, even if that is root.",
        "flashpol",
    )
    group: str | None = setting(
        None,
        text("a group name"),
        "The workers and the admin process have this group and no other.",
        "Without it they have the groups of `user`.",
        "flashpol",
    )
    chroot: Path | None = setting(
        None,
        ABSOLUTE_PATH,
        "The workers and the admin process have this directory as their root; `user` is required with it.",
        "They open no files once they serve, so an empty directory is enough for policies; it is not set because "
        "upstream names need /etc/resolv.conf.",
        Path("/srv/empty"),
    )
    watch: float = setting(
        0.0,
        number(0.1, 3600, off=0),
        "The server checks the configuration and the policy files for changes at this interval, in seconds, and "
        "reloads when they have changed; 0 disables it (reload with SIGHUP).",
        "It is off so that a file takes effect when you say so, not while you edit it.",
    )
    log_format: str = setting(
        TEXT,
        choice(*LOG_FORMATS),
        'Log lines are written for people ("text") or as JSON, one object a line ("json").',
        "Text is readable in journald and on a terminal without a tool.",
    )
    log_file: Path | None = setting(
        None,
        ABSOLUTE_FILE,
        "Log lines and whatever else the processes write to stderr are appended to this file; SIGUSR1 opens it again "
        "after a rename.",
        "Without it they go to stderr, which systemd's journal and container runtimes keep and rotate.",
        Path("/var/log/flashpol/flashpol.log"),
    )
    access_log: float = setting(
        0.0,
        number(0, 1),
        "This share of the connections, from 0 to 1, is logged with a line each. 1 logs every connection; below 1 a "
        "worker logs at most 100 in ten seconds, and the next line says how many it left out.",
        "It is off because client addresses are personal data in some countries, and metrics count every connection.",
    )
    backlog: int = setting(
        65535,
        number(1, 65535, whole=True),
        "The accept queue of each listening socket holds at most this many connections.",
        "The kernel lowers it to net.core.somaxconn, so the default leaves the decision to that.",
    )
    stall_timeout: float = setting(
        2.0,
        number(0.2, 3600, off=0),
        "A worker that has not proved for this many seconds that it serves is killed and restarted; after half of that "
        "time another worker accepts from its queue. 0 disables both, for a debugger.",
        "2 s leave time for the clients in its queue: Flash Player gives up after 3 s.",
    )
    shutdown_timeout: float = setting(
        5.0,
        number(0, 3600),
        "Open connections have this many seconds to finish when the server stops; then they are closed.",
        "5 s are longer than request_timeout, so a client that has just connected still gets its reply.",
    )
    drain_timeout: float = setting(
        3600.0,
        number(0, 10_000_000),
        "Relayed sessions have this many seconds to finish after a reload, in the old workers, or after SIGQUIT; then "
        "they are closed.",
        "Most games end within an hour. At most 3 generations of old workers exist: one more reload closes the oldest "
        "earlier.",
    )
    timeouts: ConnectionTimeouts = field(default_factory=ConnectionTimeouts)
    connection_limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    # Setting -> where it was written; only settings that come from a file.
    locations: Mapping[str, SourceLocation] = field(default_factory=dict, compare=False, repr=False)

    @property
    def worker_count(self) -> int:
        return self.workers or len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class PolicySource:
    """Where a policy comes from: a file, a folder of policy files, grants as `DOMAIN:PORTS`, or `deny_all`. Exactly one
    is set."""

    name: str
    file: Path | None = setting(
        None,
        path("a file name"),
        "This policy file is served byte for byte, with a NUL after it.",
        "Relative paths start at the folder of the configuration file.",
        Path("games.xml"),
    )
    folder: Path | None = setting(
        None,
        path("a folder name"),
        "The *.xml files of this folder are merged into one policy.",
        "Hidden files and subfolders are ignored.",
        Path("policies.d"),
    )
    grants: tuple[str, ...] = setting(
        (),
        GRANTS,
        "The policy lets content of these domains connect to these ports.",
        "For a few grants this is shorter than a file.",
        ("*.example.com:1935,8000",),
    )
    deny_all: bool = setting(
        False,
        TRUE,
        "The policy has no grants, and from port 843 it forbids every socket policy of this host.",
        "It is for a host that serves no Flash, where no program on another port should be able to grant anything.",
        True,
    )
    location: SourceLocation | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Listener:
    """One address and the policy it serves. A listener without a name is called by its address once that is bound."""

    name: str | None = required(
        LABEL,
        "Metrics and log lines call the listener by this name.",
        "Without a name they show its address.",
        "master",
    )
    address: Endpoint = required(
        ENDPOINT,
        'The listener binds this address, "IP:PORT", or takes a socket from systemd, "systemd:NAME" (NAME as in '
        "FileDescriptorName=).",
        "It has no default. [::] serves IPv4 too; port 0 lets the kernel choose; a link-local address names its "
        "interface, as in [fe80::1%eth0]:843.",
        Address.parse(DEFAULT_LISTEN),
    )
    policy: str = required(
        NAME,
        "The listener serves the policy of this name.",
        "It may be left out if there is only one policy.",
        "games",
    )
    dialect: str = setting(
        FLASH,
        DIALECT,
        'The listener expects requests and a policy of this dialect: "flash" or "silverlight".',
        "Nearly all clients of policy servers speak Flash's.",
    )
    served_from: int | None = setting(
        None,
        number(1, 65535, whole=True),
        "Clients reach the listener on this port; what a policy may grant depends on it, and lint and the status page "
        "use it.",
        "It is the address's port unless a redirect or a container publishes another.",
        843,
    )
    allow_networks: tuple[Network, ...] = setting(
        (),
        NETWORKS,
        "Only clients in these networks are served.",
        "Without it all clients are served.",
        (ip_network("192.0.2.0/24"),),
    )
    deny_networks: tuple[Network, ...] = setting(
        (),
        NETWORKS,
        "Clients in these networks are refused; for a client in networks of both lists, the smallest network decides.",
        "It is empty, so that nothing is refused unless you say so.",
        (ip_network("198.51.100.0/24"), ip_network("2001:db8::/32")),
    )
    proxy_protocol: bool = setting(
        False,
        SWITCH,
        "If true, each connection must begin with a PROXY protocol header, version 1 or 2; limits, network lists and "
        "the access log use the client address in it.",
        "It is off because clients that connect directly send none.",
        True,
    )
    proxy_networks: tuple[Network, ...] = setting(
        (),
        NETWORKS,
        "With proxy_protocol, only proxies in these networks may connect.",
        "A header can claim any address, so there is no default.",
        (ip_network("10.0.0.0/8"),),
    )
    upstream: tuple[UpstreamAddress, ...] = setting(
        (),
        UPSTREAM,
        "Everything that is not a policy request is relayed to one of these addresses, which makes the listener a "
        "shared port; a host name means all its addresses.",
        "Without it such connections are closed.",
        (UpstreamAddress("127.0.0.1", 7000),),
    )
    upstream_source: tuple[IpAddress, ...] = setting(
        (),
        SOURCES,
        "Sessions connect to the upstream from these addresses of this host in turn; Unix sockets and upstreams of the "
        "other IP version do without.",
        "Without it the kernel chooses the address. From one address to one upstream there are 28,232 local ports "
        "(net.ipv4.ip_local_port_range); each further address has as many.",
        (ip_address("192.0.2.1"), ip_address("192.0.2.2")),
    )
    upstream_proxy: str | None = setting(
        None,
        choice(*PROXY_VERSIONS),
        'Each connection to the upstream begins with a PROXY protocol header, "v1" (text) or "v2" (binary), which has '
        "the client's address.",
        "It is off because an upstream that does not expect the header would take it for data.",
        "v2",
    )
    balance: str = setting(
        ROUND_ROBIN,
        choice(*BALANCES),
        'Sessions go to the addresses of the upstream in turn ("round-robin"), or each to the address that has the '
        'fewest sessions of this worker ("least-connections").',
        "Round robin is even where sessions last about equally long.",
    )
    keepalive: int = setting(
        60,
        number(1, 32767, whole=True, off=0),
        "The kernel checks both ends of a relayed session after this many seconds of silence; 0 means never.",
        "60 s find a dead peer within minutes; without checks it would hold its session until idle_timeout.",
    )
    connect_rate: float = setting(
        0.0,
        number(0.1, 1_000_000, off=0),
        "Each worker opens at most this many connections a second to the upstream; others wait for their turn, at most "
        "connect_timeout. 0 means any number.",
        "It is off because most applications accept faster than clients come.",
    )
    timeouts: ConnectionTimeouts | None = None  # None: the server's
    location: SourceLocation | None = field(default=None, compare=False, repr=False)

    @property
    def title(self) -> str:
        """What messages call it: its name, or the address that it is to bind."""
        return f"listener {self.name or self.address}"

    @property
    def shared(self) -> bool:
        """True for a shared port, which relays everything that is not a policy request."""
        return bool(self.upstream)

    @property
    def public_port(self) -> int | None:
        """The port that clients connect to; None if it is unknown before the address is bound."""
        return self.served_from or self.address.port or None

    @property
    def terminated(self) -> bool:
        """True if a NUL ends request and reply. Silverlight sends none and expects none."""
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
        """Every upstream with the index of its listener. One that two listeners name is listed twice."""
        return [
            (number, upstream_address)
            for number, listener in enumerate(self.listeners)
            for upstream_address in listener.upstream
        ]

    @property
    def draining(self) -> float:
        """Seconds that old workers have to finish their connections after a reload."""
        longest = self.server.drain_timeout if any(listener.shared for listener in self.listeners) else 0.0
        return max(longest, self.server.shutdown_timeout)

    def timeouts(self, listener: Listener) -> ConnectionTimeouts:
        """The timeouts of a listener: its own, or the server's."""
        return listener.timeouts or self.server.timeouts


def log_file_error(server: Server, error: OSError) -> ConfigError:
    return ConfigError(
        f"log_file {server.log_file}: cannot be opened: {error.strerror}", server.locations.get("log_file")
    )


def check(config: Config) -> Config:
    """Checks that need more than one setting: names, addresses and networks that collide. Returns the configuration.

    Raises ConfigError.
    """
    if not config.listeners:
        raise ConfigError("no listener: add --listen IP:PORT or [[listeners]]")
    if len(config.listeners) > MAX_LISTENERS:
        raise ConfigError(f"{len(config.listeners)} listeners: one server has at most {MAX_LISTENERS}")
    for listener in config.listeners:
        _check_access(listener)
        _check_upstream(listener)
    _check_names(config)
    _check_addresses(config)
    return config


def _check_access(listener: Listener) -> None:
    for network in set(listener.allow_networks).intersection(listener.deny_networks):
        message = f"{network} is in both allow_networks and deny_networks: remove one"
        raise _error(listener, message, "deny_networks")
    if listener.proxy_protocol and not listener.proxy_networks:
        raise _error(listener, "proxy_protocol = true requires proxy_networks", "proxy_protocol")
    if listener.proxy_networks and not listener.proxy_protocol:
        raise _error(listener, "proxy_networks requires proxy_protocol = true", "proxy_networks")


def _check_upstream(listener: Listener) -> None:
    address = listener.address
    if isinstance(address, Address) and any(upstream.arrives_at(address) for upstream in listener.upstream):
        message = f"the upstream of {address} is this listener itself: give the application a port of its own"
        raise _error(listener, message, "upstream")


def _error(listener: Listener, message: str, key: str) -> ConfigError:
    """An error about one setting of a listener."""
    location = listener.location and listener.location.child(key)
    return ConfigError(f"{listener.title}: {message}", location)


def _check_names(config: Config) -> None:
    seen: dict[str, Listener] = {}
    for listener in config.listeners:
        if listener.name is not None and (other := seen.setdefault(listener.name, listener)) is not listener:
            raise _conflict(listener, other.location, f"two listeners are named {listener.name}: rename one")


def _check_addresses(config: Config) -> None:
    """No two listeners, and no listener and the admin endpoint, may need the same socket."""
    seen: dict[Endpoint, Listener] = {}
    for listener in config.listeners:
        endpoint = listener.address
        if _is_fixed(endpoint) and (other := seen.setdefault(endpoint, listener)) is not listener:
            raise _conflict(listener, other.location, f"two listeners are on {endpoint}: change one")
    admin, location = config.server.admin, config.server.locations.get("admin")
    if admin and _is_fixed(admin) and admin in seen:
        raise _conflict(seen[admin], location, f"a listener and the admin endpoint are on {admin}: change one")
    bound = [(one.address, one) for one in config.listeners if isinstance(one.address, Address) and one.address.port]
    for address, listener in bound:
        if isinstance(admin, Address) and (admin.covers(address) or address.covers(admin)):
            message = f"{address} overlaps the admin endpoint's {admin}: give each its own port"
            raise _conflict(listener, location, message)
    for wide, first in bound:
        for narrow, second in bound:
            if wide != narrow and wide.covers(narrow):
                message = f"{narrow} overlaps {wide}, which serves it too: remove one"
                raise _conflict(second, first.location, message)


def _is_fixed(endpoint: Endpoint) -> bool:
    """False for port 0, for which the kernel gives each listener a port of its own."""
    return isinstance(endpoint, SystemdSocket) or bool(endpoint.port)


def _conflict(listener: Listener, other: SourceLocation | None, message: str) -> ConfigError:
    """An error at the listener that also names where the other one was written, as far as a file has them."""
    if other:
        message += f" (the other one: {other})"
    return ConfigError(message, listener.location)
