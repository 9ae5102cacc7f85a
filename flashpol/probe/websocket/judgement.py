"""What keeps a browser from a WebSocket, and which proxies lose an upgrade. Nothing is sent here, no clock is read."""

import enum
import re
from collections.abc import Iterator
from typing import NamedTuple

from flashpol.probe.exchange import End, Exchange
from flashpol.probe.model import Observation, Target
from flashpol.probe.reply import Kind as Bytes
from flashpol.probe.reply import Reply, printable
from flashpol.probe.tls.judgement import obstacle as obstacle_of_tls
from flashpol.probe.websocket.reply import Head
from flashpol.probe.websocket.request import accept_for
from flashpol.probe.websocket.upgrade import Upgrade, upgrade_of
from flashpol.probe.websocket.url import BLOCKED_PORTS, Url


class Kind(enum.StrEnum):
    """What keeps a browser from a WebSocket, after the connection."""

    SILENT = "silent"
    CLOSED = "closed"  # without a reply
    NOT_HTTP = "not HTTP"
    INCOMPLETE = "incomplete"  # a head without an end
    NO_UPGRADE = "no upgrade"
    VERSION = "version"
    NOT_FOUND = "not found"
    FORBIDDEN = "forbidden"
    AUTHENTICATION = "authentication"
    REDIRECT = "redirect"
    LATE = "late"
    UPSTREAM = "upstream"
    STATUS = "status"
    ACCEPT = "accept"
    FIELDS = "fields"
    SUBPROTOCOL = "subprotocol"
    EXTENSION = "extension"
    FRAME = "frame"
    ENDED = "ended"  # soon after 101


class Obstacle(NamedTuple):
    """`words` continue a sentence that begins with the port; `detail` is the part that a finding quotes."""

    kind: Kind
    words: str
    detail: str = ""


_HEAD_END = re.compile(rb"\n\r?\n")
_BY_STATUS = {
    401: Kind.AUTHENTICATION, 403: Kind.FORBIDDEN, 404: Kind.NOT_FOUND, 407: Kind.AUTHENTICATION, 408: Kind.LATE,
    410: Kind.NOT_FOUND, 502: Kind.UPSTREAM, 503: Kind.UPSTREAM, 504: Kind.UPSTREAM,
}  # fmt: skip
# Statuses of a server that saw no Upgrade, or that knows none at this path.
_NO_UPGRADE = (400, 405, 426, 501)
_ABOUT_UPGRADES = re.compile(r"\bupgrade\b|sec-websocket|websocket (?:request|connection|handshake)", re.I)
# Parameters of permessage-deflate in a reply: RFC 7692, section 7.1.
_DEFLATE = re.compile(
    r"(?:(?:server|client)_no_context_takeover|(?:server|client)_max_window_bits=\"?(?:[89]|1[0-5])\"?)"
)


def obstacles(exchange: Exchange) -> tuple[Obstacle, ...]:
    """Return what keeps a browser from a WebSocket on a connection that was opened; nothing if it gets one."""
    return tuple(_obstacles(exchange))


def _obstacles(exchange: Exchange) -> Iterator[Obstacle]:
    upgrade = upgrade_of(exchange)
    if upgrade.head is None:
        yield _without_head(exchange)
    elif not upgrade.opened:
        yield _refused(upgrade, upgrade.head)
    else:
        yield from _mistakes(upgrade, upgrade.head)
        if upgrade.came.error:
            yield Obstacle(Kind.FRAME, f"breaks the protocol: {upgrade.came.error}", upgrade.came.error)
        elif upgrade.left is not None and not upgrade.pinged:
            yield Obstacle(Kind.ENDED, f"ends the WebSocket {upgrade.left:.2f} s after 101: {upgrade.how}", upgrade.how)


_STARTS = {Bytes.POLICY: "a policy", Bytes.TLS: "TLS", Bytes.ECHO: "the request", Bytes.HTTP: "a page without a head"}


def _without_head(exchange: Exchange) -> Obstacle:
    reply = Reply.of(exchange)
    if reply.data.startswith(b"HTTP/"):
        how = "no complete head" if not _HEAD_END.search(reply.data) else "a head that cannot be read"
        return Obstacle(Kind.INCOMPLETE, f"replies with {how}", how)
    if reply.data:
        what = _STARTS.get(reply.kind, "something that is not HTTP")
        return Obstacle(Kind.NOT_HTTP, f"replies with {what}", what)
    if exchange.end is End.OPEN:
        return Obstacle(Kind.SILENT, "accepts the connection and stays silent")
    how = "closes" if exchange.end is End.CLOSED else "resets"
    return Obstacle(Kind.CLOSED, f"{how} the connection without a reply", how)


def _refused(upgrade: Upgrade, head: Head) -> Obstacle:
    words = f"replies {head.line}{f': {upgrade.words}' if upgrade.words else ''}"
    return Obstacle(_kind_of_refusal(head, upgrade.words), words, head.line)


def _kind_of_refusal(head: Head, words: str) -> Kind:
    versions = head.tokens("sec-websocket-version")
    if versions and "13" not in versions:
        return Kind.VERSION
    if head.status in (404, 410) and _ABOUT_UPGRADES.search(words):
        return Kind.NO_UPGRADE
    if head.status in _BY_STATUS:
        return _BY_STATUS[head.status]
    if 300 <= head.status < 400:
        return Kind.REDIRECT
    return Kind.NO_UPGRADE if 200 <= head.status < 300 or head.status in _NO_UPGRADE else Kind.STATUS


def _mistakes(upgrade: Upgrade, head: Head) -> Iterator[Obstacle]:
    """Yield what a browser finds wrong with a head of 101: RFC 6455, section 4.1."""
    upgrades = [value.lower() for value in head.all("upgrade")]
    missing = ["Upgrade: websocket"] * (upgrades != ["websocket"])
    missing += ["Connection: Upgrade"] * ("upgrade" not in head.tokens("connection"))
    if missing:
        what = " and ".join(missing)
        yield Obstacle(Kind.FIELDS, f"replies 101 without {what}", what)
    accepts = head.all("sec-websocket-accept")
    if accepts != [accept_for(upgrade.key)]:
        what = "no" if not accepts else "a wrong" if len(accepts) == 1 else "more than one"
        yield Obstacle(Kind.ACCEPT, f"replies 101 with {what} Sec-WebSocket-Accept", what)
    if head.all("sec-websocket-protocol"):
        what = head.get("sec-websocket-protocol") or "an empty one"
        yield Obstacle(Kind.SUBPROTOCOL, f"chooses a subprotocol that no client offered: {what}", what)
    if what := _wrong_extension(head):
        yield Obstacle(Kind.EXTENSION, f"chooses an extension that no client offered: {what}", what)


def _wrong_extension(head: Head) -> str:
    """Return the first extension, or the parameter of permessage-deflate, that was not offered."""
    seen = set()
    for token in head.tokens("sec-websocket-extensions"):
        name, *parameters = (part.strip() for part in token.split(";"))
        if name != "permessage-deflate" or name in seen:
            return token
        seen.add(name)
        names = [parameter.partition("=")[0].strip() for parameter in parameters]
        for parameter in parameters:
            if not _DEFLATE.fullmatch(parameter.replace(" ", "")) or len(set(names)) < len(names):
                return token
    return ""


# ---------------------------------------------------------------------------------------------- before anything is sent


def is_mixed(url: Url, origin: str) -> bool:
    """Whether a browser refuses the URL to a page of this origin, since only the page is secure."""
    return not url.secure and origin.startswith("https:") and not url.is_loopback


def is_blocked(url: Url) -> bool:
    return url.port in BLOCKED_PORTS


def obstacle(target: Target, origin: str, observation: Observation) -> str:
    """Return why a page of this origin gets no WebSocket, in words that continue a sentence that begins with the port.

    Empty if it gets one.
    """
    url = observation.question.websocket
    assert url is not None
    if is_blocked(url):
        return "is one that browsers refuse to connect to"
    if is_mixed(url, origin):
        return f"is not asked: browsers open no ws:// from pages of {origin}"
    if why := obstacle_of_tls(target, "browser", observation):
        return why
    exchange = asked_for(target, origin)
    return next((one.words for one in obstacles(exchange)), "") if exchange is not None else "was not asked"


def asked_for(target: Target, origin: str) -> Exchange | None:
    """Return the connection that asked for this origin."""
    exchanges = (target.asked, *target.tried.get(f"origin {origin}", ()))
    return next((one for one in exchanges if upgrade_of(one).origin == origin), None)


# -------------------------------------------------------------------------------------------------------------- proxies

# What a reply says about the programs that it passed -> what these need to pass an upgrade on.
_PROXIES: tuple[tuple[str, str], ...] = (
    (
        r"nginx|openresty|tengine",
        "nginx passes an upgrade on only with `proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;"
        ' proxy_set_header Connection "upgrade";` in this location',
    ),
    (
        r"squid",
        "squid drops Upgrade without `http_upgrade_request_protocols websocket allow all`",
    ),
    (r"tinyproxy", "tinyproxy always drops Upgrade: take another proxy, or wss://"),
    (
        r"apache(?!-coyote)",
        'Apache passes an upgrade on only with `ProxyPass "/PATH" "http://HOST:PORT/PATH" upgrade=websocket` (2.4.47'
        " and newer), or with mod_proxy_wstunnel and ws://",
    ),
    (
        r"varnish",
        "Varnish needs `return (pipe)` for Upgrade, and vcl_pipe that copies Upgrade and Connection",
    ),
    (r"cloudflare", "Cloudflare has a switch for WebSockets, under Network"),
    (r"envoy", "Envoy needs `upgrade_configs` with `upgrade_type: websocket`"),
    (r"lighttpd", 'lighttpd needs `proxy.header = ("upgrade" => "enable")`'),
    (r"microsoft-iis|\barr/", "IIS needs its feature WebSocket Protocol, and ARR 3"),
)
_SAYS = ("server", "via", "x-squid-error", "x-cache", "x-varnish", "cf-ray", "x-powered-by")


def proxy_hint(head: Head) -> str:
    """Return what a program that this reply names needs to pass an upgrade on; empty if it names none that is known."""
    text = " ".join(f"{name}={value}" for name, value in head.fields if name in _SAYS)
    if any(name == "cf-ray" for name, _ in head.fields):
        text += " cloudflare"
    return "; ".join(hint for pattern, hint in _PROXIES if re.search(pattern, text, re.I))


def quoted(upgrade: Upgrade) -> str:
    """Return a reply as evidence: its status, its time, the programs that it names, the first line of its body."""
    head = upgrade.head
    if head is None:
        return "no head"
    said = [f"{head.version} {head.line}"]
    if upgrade.seconds is not None:
        said[0] += f" after {upgrade.seconds:.3f} s"
    said += [f"{name.title()}: {head.get(name)}" for name in ("server", "via") if head.get(name)]
    if upgrade.words:
        said.append(printable(upgrade.words.encode(), 200))
    return "; ".join(said)
