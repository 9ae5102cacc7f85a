"""Every setting of the server: what it does, its default and the reason for it, its bounds, all in one place."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path

from flashpol.config.address import Address, Endpoint, UpstreamAddress
from flashpol.config.declare import required, setting
from flashpol.config.errors import ConfigError
from flashpol.config.limits import ConnectionLimits, ConnectionTimeouts
from flashpol.config.locations import SourceLocation
from flashpol.config.setting_types import (
    ABSOLUTE_FILE,
    ABSOLUTE_PATH,
    ADMIN,
    CERTIFICATES,
    CLIENT,
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
    UpstreamSource,
    choice,
    number,
    path,
    text,
)
from flashpol.config.upstreams import UPSTREAMS, ProtocolUpstreams
from flashpol.config.websocket import EVERY_PATH_TO_UPSTREAM, WEBSOCKET, WebSocketPath

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
    "upstream_proxy_tls",
    "balance",
    "keepalive",
    "connect_rate",
)  # settings that need an upstream: `upstream`, one by protocol, or that of a WebSocket path
TLS_PROFILES = ("modern", "compatible", "flash")
# Settings that need `tls`.
ENCRYPTING = ("tls_only", "tls_profile", "tls_strict_sni", "tls_tickets", "upstream_proxy_tls")
# Settings each of which makes a listener take HTTP requests, and those that need one of them.
HTTP = ("rtmpt", "websocket", "crossdomain_file", "clientaccesspolicy_file")
ABOUT_HTTP = ("other_http", "forwarded_networks")
RELAY, REFUSE = OTHER_HTTP = ("relay", "refuse")


def _label(value: str) -> str:
    if not value.strip():  # Prometheus treats an empty label as absent
        raise ValueError
    return value


def _host(value: str) -> str:
    if not re.fullmatch("[0-9A-Za-z]", value):
        if len(value) > 1:  # most likely the address that another server calls so
            raise ConfigError(
                f"{value!r} is longer than the one character that it is: write one of 0-9, A-Z, a-z; an address goes "
                'into [[listeners]], as in address = "[::]:843"'
            )
        raise ValueError
    return value


DIALECT = choice(*DIALECTS)
NAME = text("a name")
LABEL = text("a name", _label)
ADMIN_ADDRESS = Address.parse(DEFAULT_ADMIN)


def parse_dialect(text: str) -> str:
    """Raises ConfigError."""
    dialect: str = DIALECT.read("dialect", text)
    return dialect


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
        "The server checks the configuration, the policy files and the certificates for changes at this interval, in "
        "seconds, and reloads when they have changed; 0 disables it (reload with SIGHUP).",
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
    host: str = setting(
        "A",
        text("one of the characters 0-9, A-Z, a-z", _host),
        "The ids of this server's RTMPT sessions begin with this character, by which a balancer in front of several "
        "hosts finds the one that has a session.",
        "One host needs no other; each of several needs its own. After a reload open sessions keep theirs.",
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
class CertificateSource:
    """Where a certificate and its private key come from: PEM files."""

    name: str
    chain: Path = required(
        path("a file name"),
        "This PEM file has the certificate, and after it the intermediate certificates, each before its issuer's.",
        "Relative paths start at the folder of the configuration file; certbot calls it fullchain.pem.",
        Path("fullchain.pem"),
    )
    key: Path | None = setting(
        None,
        path("a file name"),
        "This PEM file has the private key of the certificate, without a passphrase.",
        "Without it the key is in the file of the chain; certbot calls it privkey.pem.",
        Path("privkey.pem"),
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
    tls: tuple[str, ...] = setting(
        (),
        CERTIFICATES,
        "Clients may use TLS on this port, beside plain text; each gets the certificate for the host name that it asks "
        "for, or the first of this list.",
        "Without it TLS connections are closed, or relayed as they are if the port is shared.",
        ("games",),
    )
    tls_only: bool = setting(
        False,
        SWITCH,
        "If true, clients that do not use TLS are refused, also those that ask for a policy.",
        "It is off because Flash Player asks in plain text for the policies of its Socket class.",
    )
    tls_profile: str = setting(
        TLS_PROFILES[0],
        choice(*TLS_PROFILES),
        'Clients may use TLS 1.2 and 1.3 with forward secrecy and authenticated encryption ("modern"), with CBC suites '
        'too ("compatible"), or TLS 1.0 and later, with CBC suites and RSA key exchange too ("flash").',
        'All current clients speak "modern"; the SecureSocket of Flash Player and AIR needs "flash".',
    )
    tls_strict_sni: bool = setting(
        False,
        SWITCH,
        "If true, a client that asks for a host name that no certificate has is refused.",
        "It is off so that such a client gets the first certificate, and shows its user a warning about the name.",
    )
    tls_tickets: int = setting(
        0,
        number(0, 8, whole=True),
        "A client gets this many session tickets, with each of which it can resume its session in a shorter handshake; "
        "0 means none.",
        "With an ECDSA certificate a ticket costs what it saves, and rtmpdump fails on tickets; with RSA and clients "
        "that connect often, 2 are better.",
    )
    upstream: tuple[UpstreamAddress, ...] = setting(
        (),
        UPSTREAM,
        "Everything that is not a policy request is relayed to one of these addresses, which makes the listener a "
        "shared port; a host name means all its addresses.",
        "Without it such connections are closed, but for those of protocols that `upstreams` names.",
        (UpstreamAddress("127.0.0.1", 7000),),
    )
    upstreams: ProtocolUpstreams = setting(
        ProtocolUpstreams(),
        UPSTREAMS,
        "Connections of the protocols in this table are relayed to upstreams of their own, by the first bytes of the "
        "client.",
        "It is empty because most ports have one application; what it does not name goes to `upstream`.",
        ProtocolUpstreams(rtmp=(UpstreamAddress("127.0.0.1", 1936),)),
    )
    upstream_source: UpstreamSource = setting(
        (),
        SOURCES,
        "Sessions connect to the upstream from these addresses of this host in turn (Unix sockets and upstreams of the "
        'other IP version do without), or each from the address of its client ("client", which takes CAP_NET_RAW, and '
        "routes that bring the replies back to this host).",
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
    upstream_proxy_tls: bool = setting(
        False,
        SWITCH,
        'With upstream_proxy = "v2" the header for a TLS client also has its TLS version, its cipher suite and the '
        "host name that it asked for.",
        "It is off because some upstreams refuse a header with more than addresses in it.",
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
    rtmpt: bool = setting(
        False,
        SWITCH,
        "If true, RTMP inside HTTP (RTMPT, and with tls RTMPTS) ends here: each of its sessions is relayed as plain "
        "RTMP to `rtmp` of `upstreams`, or else to `upstream`.",
        "It is off because only media clients behind proxies and firewalls need it; without it a shared port relays "
        "HTTP as it comes.",
        True,
    )
    websocket: tuple[WebSocketPath, ...] = setting(
        (),
        WEBSOCKET,
        "If true, WebSocket connections at every path are relayed to the upstream, from pages that the policy allows; "
        "[[listeners.websocket]] tables name paths instead, each with settings of its own.",
        "It is off because only content in a browser needs it, such as Ruffle's; without it a shared port relays HTTP "
        "as it comes.",
        EVERY_PATH_TO_UPSTREAM,
    )
    other_http: str = setting(
        RELAY,
        choice(*OTHER_HTTP),
        "On a shared port, HTTP requests for what the listener does not serve itself, by WebSocket, RTMPT or as a "
        'policy file, are relayed as they come ("relay"), or get 404 ("refuse").',
        'A web server may share the port; without one, "refuse" keeps web pages of any origin from the application.',
    )
    forwarded_networks: tuple[Network, ...] = setting(
        (),
        NETWORKS,
        "HTTP requests that come from these networks have the client's address in X-Forwarded-For: its last address "
        "that is in none of them.",
        "A client can write any address there, so nothing is believed unless you name the proxies.",
        (ip_network("10.0.0.0/8"),),
    )
    crossdomain_file: Path | None = setting(
        None,
        path("a file name"),
        "HTTP requests for /crossdomain.xml get this policy file, which decides about URL loaders and not about "
        "sockets.",
        "Without it the listener has no such file; relative paths start at the folder of the configuration file.",
        Path("crossdomain.xml"),
    )
    clientaccesspolicy_file: Path | None = setting(
        None,
        path("a file name"),
        "HTTP requests for /clientaccesspolicy.xml get this policy file of Silverlight.",
        "Without it the listener has no such file; relative paths start at the folder of the configuration file.",
        Path("clientaccesspolicy.xml"),
    )
    timeouts: ConnectionTimeouts | None = None  # None: the server's
    location: SourceLocation | None = field(default=None, compare=False, repr=False)

    @property
    def title(self) -> str:
        """What messages call it: its name, or the address that it is to bind."""
        return f"listener {self.name or self.address}"

    @property
    def shared(self) -> bool:
        """True for a shared port, which relays what is not a policy request: everything, or some protocols."""
        return bool(self.upstream or self.upstreams.named)

    def upstream_for(self, protocol: str) -> Sequence[UpstreamAddress]:
        """Where a connection of this protocol is relayed, as metrics and log name it; empty if it is refused."""
        return self.upstreams.of(protocol) or self.upstream

    @property
    def all_upstreams(self) -> tuple[UpstreamAddress, ...]:
        """Its own upstreams, then those of protocols and those of its WebSocket paths; each of them once."""
        others = (*self.upstreams.named.values(), *(path.upstream for path in self.websocket))
        return tuple(dict.fromkeys([*self.upstream, *(each for upstream in others for each in upstream)]))

    @property
    def relays(self) -> bool:
        """True if it relays anything: what a shared port relays, or the WebSocket paths alone."""
        return bool(self.all_upstreams)

    @property
    def takes_http(self) -> bool:
        """True if a setting of it makes it examine HTTP requests."""
        return any(getattr(self, name) for name in HTTP)

    @property
    def policy_files(self) -> dict[str, Path]:
        """The policy files that it serves by URL, by the path of the URL."""
        files = {"/crossdomain.xml": self.crossdomain_file, "/clientaccesspolicy.xml": self.clientaccesspolicy_file}
        return {path: file for path, file in files.items() if file}

    def upstream_of(self, path: WebSocketPath) -> tuple[UpstreamAddress, ...]:
        """Where a WebSocket path leads."""
        return path.upstream or self.upstream

    def port_of(self, path: WebSocketPath) -> int | None:
        """The port that content asks for to reach a WebSocket path; None as for `public_port`."""
        return path.port or self.public_port

    @property
    def transparent(self) -> bool:
        """True if the upstream sees its clients' own addresses."""
        return self.upstream_source == CLIENT

    @property
    def source_addresses(self) -> tuple[IpAddress, ...]:
        """The addresses of this host that sessions connect from; none if the kernel chooses, or for `transparent`."""
        return () if self.upstream_source == "client" else self.upstream_source

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
    certificates: tuple[CertificateSource, ...] = ()

    def policy(self, name: str) -> PolicySource:
        return next(source for source in self.policies if source.name == name)

    @property
    def upstreams(self) -> list[tuple[int, UpstreamAddress]]:
        """Every upstream with the index of its listener, in the order of `Listener.all_upstreams`. One that two
        listeners name is listed twice."""
        return [
            (number, upstream_address)
            for number, listener in enumerate(self.listeners)
            for upstream_address in listener.all_upstreams
        ]

    @property
    def websocket_paths(self) -> list[tuple[int, WebSocketPath]]:
        """Every WebSocket path with the index of its listener."""
        return [(number, path) for number, listener in enumerate(self.listeners) for path in listener.websocket]

    @property
    def tunnels(self) -> list[int]:
        """The indexes of the listeners that have tunnel sessions."""
        return [number for number, listener in enumerate(self.listeners) if listener.rtmpt]

    @property
    def draining(self) -> float:
        """Seconds that old workers have to finish their connections after a reload."""
        longest = self.server.drain_timeout if any(listener.relays for listener in self.listeners) else 0.0
        return max(longest, self.server.shutdown_timeout)

    def timeouts(self, listener: Listener) -> ConnectionTimeouts:
        """The timeouts of a listener: its own, or the server's."""
        return listener.timeouts or self.server.timeouts


def log_file_error(server: Server, error: OSError) -> ConfigError:
    return ConfigError(
        f"log_file {server.log_file}: cannot be opened: {error.strerror}", server.locations.get("log_file")
    )
