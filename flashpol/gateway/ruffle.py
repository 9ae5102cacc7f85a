"""What a page has to tell Ruffle: which WebSocket URL stands for the host and the port that content connects to.

Ruffle's setting `socketProxy` is a list of {host, port, proxyUrl}. It compares both exactly, letter by letter, so there
is an entry for each host name that the content uses, and for each port.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple, Self

from flashpol.config import BY_POLICY, EVERY_PATH, ConfigError, Listener, WebSocketPath
from flashpol.gateway.origins import MALFORMED, Origins, rule_of

WS, WSS = "ws", "wss"
_DEFAULT_PORTS = {WS: 80, WSS: 443}
_HOST = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_URL = re.compile(r"(wss?)://(\[[0-9A-Fa-f:.]+\]|[^/?#:@\[\]]+)(?::([0-9]{1,5}))?(/[!-~]*)?")
_PAGE = re.compile(r"(https?://[^/?#]+)(?:[/?#].*)?")


class Entry(NamedTuple):
    """One entry of `socketProxy`: content that connects to this host and port uses this URL."""

    host: str
    port: int
    url: str

    @property
    def as_setting(self) -> dict[str, str | int]:
        return {"host": self.host, "port": self.port, "proxyUrl": self.url}


@dataclass(frozen=True)
class PublicUrl:
    """Where browsers reach a listener that a proxy is in front of: the path of the listener follows it."""

    scheme: str
    host: str
    port: int | None = None
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """`ws://HOST`, `wss://HOST:PORT/PREFIX`. Raises ConfigError."""
        found = _URL.fullmatch(text)
        host = found[2].strip("[]") if found else ""
        port = int(found[3]) if found and found[3] else None
        bad_port = port is not None and not 0 < port <= 65535
        if not found or bad_port or not is_host(host) or (":" in host) is not ("[" in text) or re.search("[?#]", text):
            raise ConfigError(f"{text!r} is not where browsers connect: write wss://HOST, wss://HOST:PORT or ws://HOST")
        return cls(found[1], host, port, (found[4] or "").rstrip("/"))

    def to(self, path: str) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port in (None, _DEFAULT_PORTS[self.scheme]) else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.prefix}{path}"


def is_host(text: str) -> bool:
    """A host name or an IP address, as content writes it."""
    if _HOST.fullmatch(text) and len(text) <= 253:
        return True
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text


class Route(NamedTuple):
    """A WebSocket path of a listener that content reaches by an entry."""

    entry: Entry
    listener: Listener
    path: WebSocketPath


def routes(listeners: Collection[Listener], hosts: Sequence[str], url: PublicUrl | None = None) -> list[Route]:
    """One for each host and each port that content uses. Two listeners may have the same port; then the one with TLS
    is taken, or the first.

    hosts: the names that content uses. url: where browsers reach the listeners, if not at these names and their own
    ports. Raises ConfigError for a listener whose port is unknown.
    """
    found: dict[tuple[str, int], Route] = {}
    for listener in sorted(listeners, key=lambda each: not each.tls):
        for path in listener.websocket:
            port = listener.port_of(path)
            if port is None or (url is None and listener.public_port is None):
                raise ConfigError(
                    f"{listener.title}: its port is unknown before it is bound: set served_from", listener.location
                )
            for host in hosts:
                public = url or PublicUrl(WSS if listener.tls else WS, host, listener.public_port)
                entry = Entry(host, port, public.to(_path_of(listener, path)))
                found.setdefault((host, port), Route(entry, listener, path))
    order = {id(listener): number for number, listener in enumerate(listeners)}
    return sorted(found.values(), key=lambda route: (order[id(route.listener)], hosts.index(route.entry.host)))


def require_host(text: str) -> None:
    """Raises ConfigError."""
    if not is_host(text):
        raise ConfigError(f"{text!r} is not a host: write a host name or an IP address alone, as the content has it")


def warn_of_pages(
    found: Sequence[Route],
    pages: Sequence[str],
    policy_of: Callable[[Listener], bytes],
    find: Callable[[Listener, bytes, Sequence[WebSocketPath]], Sequence[str]],
) -> list[str]:
    """Why content of these pages, URLs or origins, could not connect; without pages, what `find` finds about the paths
    of these routes. Raises ConfigError."""
    origins = list(map(origin_of, pages))
    warnings: list[str] = []
    for route in found:
        policy = policy_of(route.listener)
        for origin in origins:
            warnings += objections(route, policy, origin)
        if not pages:
            about = find(route.listener, policy, [route.path])
            warnings += (f"{route.listener.title}: {text}" for text in about)
    return list(dict.fromkeys(warnings))


def _path_of(listener: Listener, path: WebSocketPath) -> str:
    """What a client asks for; for "*" a path that no other table names."""
    if path.path != EVERY_PATH:
        return path.path
    taken = {each.path for each in listener.websocket}
    return next(each for each in ("/", *(f"/{number}" for number in range(len(taken) + 1))) if each not in taken)


def script(entries: Sequence[Entry]) -> str:
    """A <script> for the page, beside that of Ruffle itself; other settings of Ruffle stay."""
    lines = "\n".join(f"    {_in_script(entry)}," for entry in entries)
    return (
        "<script>\n"
        "  window.RufflePlayer = window.RufflePlayer || {};\n"
        "  window.RufflePlayer.config = {...window.RufflePlayer.config, socketProxy: [\n"
        f"{lines}\n"
        "  ]};\n"
        "</script>\n"
    )


def _in_script(entry: Entry) -> str:
    return json.dumps(entry.as_setting).replace("<", r"\u003c")


def origin_of(page: str) -> str:
    """The origin of a page, given as its URL or its origin. Raises ConfigError."""
    found = _PAGE.fullmatch(page)
    origin = found[1] if found else page
    if Origins(b"", 1, rule="any").judge([origin.encode(errors="replace")]).result == MALFORMED:
        raise ConfigError(f"{page!r} is not the origin of a page: write it as in https://games.example.com")
    return origin


def objections(route: Route, policy: bytes, origin: str) -> Iterator[str]:
    """Why content of a page with this origin cannot connect, a line each. policy: what the listener serves."""
    entry, listener, path = route
    verdict = rule_of(listener, path, policy).judge([origin.encode(errors="replace")])
    if not verdict.allowed:
        remedy = "grant it in the policy" if path.origins == BY_POLICY else "add it to origins"
        yield f"{entry.url}: {verdict.reason}: {remedy}"
    if origin.lower().startswith("https:") and entry.url.startswith(f"{WS}:") and not is_loopback(entry.url):
        yield (
            f"{entry.url}: browsers let no page over https open a connection that is not encrypted: set tls in "
            f"{listener.title}, or give the URL of a proxy in front of it that speaks TLS (--url wss://HOST)"
        )


def is_loopback(url: str) -> bool:
    """Browsers let a page over https open ws:// to its own host."""
    host = PublicUrl.parse(url).host
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost" or host.lower().endswith(".localhost")
