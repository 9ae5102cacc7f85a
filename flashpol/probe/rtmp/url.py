"""The address of a media server, as content writes it, and the ways that clients try for it."""

import re
from typing import NamedTuple

RTMP, RTMPT, RTMPS, RTMPTS = "rtmp", "rtmpt", "rtmps", "rtmpts"
CLIENTS = ("flash", "ffmpeg", "rtmpdump")

_URL = re.compile(r"(?:([A-Za-z]+)://)?(\[[0-9A-Fa-f:.]+\]|[^/:\[\]@\s?#]+)(?::([0-9]{1,5}))?(?:/([^\s]*))?")
_PROXY = re.compile(r"http://(\[[0-9A-Fa-f:.]+\]|[^/:\[\]@\s?#]+):([0-9]{1,5})/?")
_HOST = re.compile(r"(?!.{254})(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.?")
# An application and its instance, as FMS names them; longer ones are no names.
_MAX_APPLICATION = 255


class Way(NamedTuple):
    """A protocol on a port."""

    scheme: str
    port: int

    @property
    def tunnelled(self) -> bool:
        """Whether RTMP is inside HTTP."""
        return self.scheme in (RTMPT, RTMPTS)

    @property
    def secure(self) -> bool:
        return self.scheme in (RTMPS, RTMPTS)

    def __str__(self) -> str:
        return f"{self.scheme.upper()} on port {self.port}"


# What content that names no port means, in the order of Flash Player. Its rtmps is RTMP inside TLS, or HTTPS, by
# NetConnection.proxyType.
WAYS = {
    RTMP: (Way(RTMP, 1935), Way(RTMP, 443), Way(RTMP, 80), Way(RTMPT, 80)),
    RTMPT: (Way(RTMPT, 80),),
    RTMPS: (Way(RTMPS, 443), Way(RTMPTS, 443)),
    RTMPTS: (Way(RTMPTS, 443),),
}


class Proxy(NamedTuple):
    """A proxy of HTTP, which is sent absolute URLs."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"http://{_bracketed(self.host)}:{self.port}"


class Place(NamedTuple):
    """`port` is None if the address has none, `application` empty if none is asked for."""

    scheme: str
    host: str
    port: int | None
    application: str
    proxy: Proxy | None = None

    @property
    def ways(self) -> tuple[Way, ...]:
        """The ways in order. A proxy of HTTP passes on only tunnels."""
        if self.port is not None:
            return (Way(self.scheme, self.port),)
        return tuple(way for way in WAYS[self.scheme] if self.proxy is None or way.scheme == RTMPT)

    def authority(self, port: int, default: int) -> str:
        name = _bracketed(self.host)
        return name if port == default else f"{name}:{port}"

    def url(self, way: Way) -> str:
        """What `connect` calls tcUrl."""
        default = WAYS[way.scheme][0].port
        return f"{way.scheme}://{self.authority(way.port, default)}/{self.application}"

    def __str__(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{_bracketed(self.host)}{port}{f'/{self.application}' if self.application else ''}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def parse(text: str, application: str = "") -> Place:
    """Read HOST, HOST:PORT or a URL. Raises ValueError, which says what to write."""
    if text.count(":") > 1 and "[" not in text and "/" not in text:
        text = f"[{text}]"  # an IPv6 address
    match = _URL.fullmatch(text)
    if match is None or (scheme := (match[1] or RTMP).lower()) not in WAYS:
        raise ValueError("write HOST, HOST:PORT or rtmp://HOST:PORT/APP; also rtmpt, rtmps and rtmpts")
    port = int(match[3]) if match[3] else None
    if port is not None and not 1 <= port <= 65535:
        raise ValueError("write a port from 1 to 65535 after the colon")
    named = (match[4] or "").strip("/")
    if named and application and named != application:
        raise ValueError(f"it names the application {named}, and --rtmp names {application}: leave one of them out")
    chosen = application.strip("/") or named
    if len(chosen) > _MAX_APPLICATION or not chosen.isprintable():
        raise ValueError(f"write an application of at most {_MAX_APPLICATION} printable characters")
    return Place(scheme, _host(match[2]), port, chosen)


def parse_proxy(text: str) -> Proxy:
    """Raises ValueError, which says what to write."""
    match = _PROXY.fullmatch(text)
    if match is None or not 1 <= int(match[2]) <= 65535:
        raise ValueError("write http://HOST:PORT")
    return Proxy(_host(match[1]), int(match[2]))


def _host(text: str) -> str:
    host = text.removeprefix("[").removesuffix("]").lower()
    if text.startswith("["):
        return host
    try:
        name = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        name = ""
    if not _HOST.fullmatch(name):
        raise ValueError(f"{text!r} is not a host")
    return name
