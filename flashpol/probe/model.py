"""The values of a probe: the question, the targets (a port of an address), and the observation."""

import enum
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from flashpol.policy import CLIENTS
from flashpol.policy.ports import MASTER_PORT, SILVERLIGHT_HTTP_PATH, SILVERLIGHT_HTTP_PORT, SILVERLIGHT_PORT
from flashpol.probe.exchange import Address, Exchange, Timeouts
from flashpol.probe.reply import NUL, REQUEST, Kind, Reply
from flashpol.probe.rtmp.url import Place, Way
from flashpol.probe.tls.handshake import Handshake
from flashpol.probe.tls.offers import READS_INSIDE_TLS, TLS_CLIENTS
from flashpol.probe.websocket.url import Url


class Role(enum.StrEnum):
    """The reason why a client asks at a port."""

    MASTER = "master"  # 843, which Adobe's clients ask first; only its meta-policy counts
    LOCATION = "location"  # the port that the content names with loadPolicyFile
    DESTINATION = "destination"  # the application's own port
    SILVERLIGHT = "silverlight"  # 943
    SILVERLIGHT_HTTP = "silverlight-http"  # 80, if the content chooses SocketClientAccessPolicyProtocol.Http
    WEBSOCKET = "websocket"  # the port of a WebSocket, which Ruffle's browser connects to
    RTMP = "rtmp"  # the port of a media server, in one of the ways that lead to it
    ELSEWHERE = "elsewhere"  # a port that no client asks, where a server may listen by mistake


BEFORE_DESTINATION = (Role.MASTER, Role.LOCATION)  # the ports that Adobe's clients ask before the destination


@dataclass(frozen=True, slots=True)
class Question:
    """`port` is the port that the content connects to, `content` its URL or domain, `location` a port that it names.

    `policy_port`, `silverlight_port` and `http_port` are asked as if they were 843, 943 and 80. `named` are the clients
    that matter to the user; a problem of other clients is not an error. `idle` is the duration of the silent connection
    in seconds.

    With `tls` everything is asked inside TLS, as Flash Player's SecureSocket does. `server_name` is then the name that
    the content connects to, by default the host, and `ca` a file with CA certificates that clients know besides.

    With `websocket` a WebSocket is asked for instead, once for each of the `origins` of pages, and no policy.
    `websocket.prober.question` makes such a question.

    With `rtmp` a media server is asked instead, in each way that its address means: `rtmp.prober.question`.
    """

    port: int | None = None
    content: str | None = None
    location: int | None = None
    named: tuple[str, ...] = ()
    thorough: bool = False
    policy_port: int = MASTER_PORT
    silverlight_port: int = SILVERLIGHT_PORT
    http_port: int = SILVERLIGHT_HTTP_PORT
    timeouts: Timeouts = field(default_factory=Timeouts)
    idle: float = 15.0
    ignored: frozenset[str] = frozenset()
    tls: bool = False
    server_name: str | None = None
    ca: str | None = None
    websocket: Url | None = None
    origins: tuple[str, ...] = ()
    rtmp: Place | None = None

    @property
    def clients(self) -> tuple[str, ...]:
        return self.named or (TLS_CLIENTS if self.tls else CLIENTS)

    def connects_to(self, host: str) -> str:
        """Return the name whose addresses are contacted: that of the host, or of the proxy in front of it."""
        proxy = self.rtmp.proxy if self.rtmp is not None else None
        return host if proxy is None else proxy.host

    @property
    def what(self) -> str:
        """What is asked for: a policy, a WebSocket or RTMP."""
        return "websocket" if self.websocket is not None else "rtmp" if self.rtmp is not None else "policy"

    @property
    def asks(self) -> bool:
        """Whether one of the clients that matter asks for policies: inside TLS some only connect."""
        if self.websocket is not None or self.rtmp is not None:
            return False
        return not self.tls or not set(READS_INSIDE_TLS).isdisjoint(self.clients)

    @property
    def tries(self) -> int:
        """How many plain requests a port gets, to see whether replies are lost."""
        return 20 if self.thorough else 3

    def ports(self) -> dict[Role, int]:
        """The ports that clients ask, or connect to. A port with two roles is asked once, in the first of them."""
        wanted = {
            Role.MASTER: self.policy_port if self.asks else None,
            Role.LOCATION: self.location if self.asks else None,
            Role.DESTINATION: self.port,
            Role.SILVERLIGHT: None if self.tls else self.silverlight_port,
        }
        found: dict[Role, int] = {}
        for role, port in wanted.items():
            if port is not None and port not in found.values():
                found[role] = port
        if "silverlight" in self.clients and not self.tls:
            found[Role.SILVERLIGHT_HTTP] = self.http_port
        return found


@dataclass(slots=True)
class Target:
    """A port of an address. `asked` is the plain request as clients send it, `tried` are the experiments by name.

    `history` is every connection in order. With `secure` all of them are inside TLS, `tried["plain"]` excepted. `way`
    is that of a media server; a way through a proxy has the port of the proxy.
    """

    role: Role
    address: Address
    port: int
    asked: Exchange
    tried: dict[str, list[Exchange]] = field(default_factory=dict)
    history: list[Exchange] = field(default_factory=list)
    secure: bool = False
    way: Way | None = None
    content_connects: bool = False  # the content itself connects to this port, whether or not it is asked first

    @property
    def where(self) -> str:
        return self.address.at(self.port)

    @property
    def served_from(self) -> int:
        """The port that the rules of policies assume, whichever port was asked instead."""
        return _CANONICAL_PORTS.get(self.role, self.port)

    @property
    def request(self) -> bytes:
        return request(self.role)

    @property
    def reply(self) -> Reply:
        """The first policy among the replies to plain requests, or else the first reply."""
        replies = [self.reply_to(exchange) for exchange in self.repeats]
        return next((reply for reply in replies if reply.is_policy), replies[0])

    def reply_to(self, exchange: Exchange) -> Reply:
        """Return the reply to a plain request; over HTTP the body, if the status is 200."""
        reply = Reply.of(exchange)
        return reply.of_http() if self.role is Role.SILVERLIGHT_HTTP else reply

    @property
    def serves(self) -> bool:
        """The reply is a policy, or a broken one."""
        return self.role not in _WITHOUT_POLICY and self.reply.is_policy

    @property
    def unanswered(self) -> bool:
        """The server accepted the connection and sent nothing, whether or not it closed."""
        return self.asked.opened and self.reply.kind is Kind.NOTHING

    @property
    def hangs_up(self) -> bool:
        """The server closed or reset the connection instead of sending a reply."""
        return self.unanswered and not self.asked.silent

    @property
    def shut_out_after(self) -> int | None:
        """The number of connections after which the server shut the prober out, or None if it did not."""
        return len(self.history) - len(self.tried["shut out"]) if "shut out" in self.tried else None

    @property
    def repeats(self) -> list[Exchange]:
        """All plain requests: whole, in one segment."""
        return [self.asked, *self.tried.get("again", ())]

    @property
    def handshake(self) -> Handshake | None:
        """The handshake of the connection that asked; None in plain text, and without a connection."""
        return self.asked.tls

    @property
    def verification(self) -> Handshake | None:
        """The handshake in which the certificate was verified, if any."""
        exchanges = (*self.tried.get("verify", ()), self.asked)
        return next((one.tls for one in exchanges if one.tls is not None and one.tls.verified), None)

    def tried_handshake(self, name: str) -> Handshake | None:
        """The handshake of an experiment that was tried."""
        return next((exchange.tls for exchange in self.tried.get(name, ()) if exchange.tls is not None), None)

    @property
    def serves_plainly(self) -> bool:
        """Whether this port, asked inside TLS, serves in plain text what was asked for: a policy, or HTTP."""
        wanted = Kind.HTTP if self.role is Role.WEBSOCKET else Kind.POLICY
        return any(Reply.of(exchange).kind is wanted for exchange in self.tried.get("plain", ()))


# What is asked there is no policy, and one that comes is read by no client.
_WITHOUT_POLICY = (Role.WEBSOCKET, Role.RTMP)
_CANONICAL_PORTS = {
    Role.MASTER: MASTER_PORT,
    Role.SILVERLIGHT: SILVERLIGHT_PORT,
    Role.SILVERLIGHT_HTTP: SILVERLIGHT_HTTP_PORT,
}


def request(role: Role) -> bytes:
    """Return the request as the clients of this role send it: Silverlight sends no NUL."""
    return REQUEST if role is Role.SILVERLIGHT else REQUEST + NUL


def http_request(host: str, port: int) -> bytes:
    name = f"[{host}]" if ":" in host else host.encode("idna").decode()
    authority = name if port == SILVERLIGHT_HTTP_PORT else f"{name}:{port}"
    return f"GET {SILVERLIGHT_HTTP_PATH} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n".encode()


@dataclass(frozen=True, slots=True)
class Observation:
    """One host: its targets by address, or in `unresolved` why no address of the name is known.

    `resolver_failed` says that the resolver gave no answer about the name.

    `left_out` is the number of addresses that were not asked, `connections` the number of connections that were opened.
    `time` is the Unix time at which the probe began: certificates are valid for a time.
    """

    host: str
    question: Question
    targets: Mapping[Address, tuple[Target, ...]] = field(default_factory=dict)
    unresolved: str = ""
    resolver_failed: bool = False
    left_out: int = 0
    connections: int = 0
    seconds: float = 0.0
    time: float = 0.0

    @property
    def name(self) -> str:
        """The name that the content connects to, and that a certificate has to have."""
        name = self.question.server_name or self.host
        with suppress(UnicodeError):  # certificates have names as DNS has them
            return name if name.isascii() else name.encode("idna").decode()
        return name

    def serves_adobe(self, address: Address) -> bool:
        """Whether a port of this address that Adobe's clients ask before the destination serves a policy."""
        return any(target.serves and target.role in BEFORE_DESTINATION for target in self.targets.get(address, ()))

    def all_targets(self, *roles: Role) -> tuple[Target, ...]:
        """The targets with these roles, by default with all roles that clients ask."""
        chosen = roles or tuple(role for role in Role if role is not Role.ELSEWHERE)
        return tuple(target for targets in self.targets.values() for target in targets if target.role in chosen)
