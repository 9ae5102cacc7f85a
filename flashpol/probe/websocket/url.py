"""The URL of a WebSocket as a browser reads it, and the origin of the page that asks."""

import re
from typing import NamedTuple

_SCHEMES = {"ws": False, "wss": True, "http": False, "https": True}
_PORTS = {False: 80, True: 443}
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^#]*)(#.*)?", re.S)
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]@\s]+)(?::([0-9]{1,5})?)?")
_HOST = re.compile(r"(?!.{254})(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.?")
_ORIGIN_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
# Pages with these schemes have no origin of their own.
_WITHOUT_ORIGIN = ("file", "data", "about", "blob", "javascript")

# Ports that browsers refuse for every URL ("bad port" in the Fetch standard).
BLOCKED_PORTS = frozenset((
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
    110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531,
    532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060,
    5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
))  # fmt: skip


class Url(NamedTuple):
    """`target` is the path with its query, as it is sent. `scheme` is what was written, which may be http or https."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def secure(self) -> bool:
        return _SCHEMES[self.scheme]

    @property
    def authority(self) -> str:
        """What `Host` says: without the port if it is the scheme's own."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == _PORTS[self.secure] else f"{name}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Browsers let pages on https connect to these in plain text."""
        return bool(re.fullmatch(r"127(?:\.\d+){3}|::1|(?:.*\.)?localhost\.?", self.host))

    def __str__(self) -> str:
        """The URL as a browser shows it, with ws or wss."""
        return f"{'wss' if self.secure else 'ws'}://{self.authority}{self.target}"

    def in_plain_text(self, plain: bool) -> "Url":
        """The same place with ws if `plain`, otherwise with wss; the port does not change."""
        return self._replace(scheme="ws" if plain else "wss")

    @property
    def origin(self) -> str:
        """The origin of a page on the same host, on the usual port of https, or of http if the URL is ws."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{name}"


def parse(text: str) -> Url:
    """Raises ValueError, which says what to write."""
    match = _URL.fullmatch(text)
    if not match or match[1].lower() not in _SCHEMES:
        raise ValueError("write ws://HOST:PORT/PATH or wss://HOST:PORT/PATH")
    scheme, authority, target, fragment = match[1].lower(), match[2], match[3], match[4]
    if fragment:
        raise ValueError("leave out what follows `#`: browsers open no WebSocket with it")
    if "@" in authority:
        raise ValueError("leave out the user and the password: a WebSocket sends none")
    host, port = _authority(authority, _PORTS[_SCHEMES[scheme]])
    if any(not 0x21 <= ord(character) < 0x7F for character in target):
        target = _escaped(target)
    return Url(scheme, host, port, target if target.startswith("/") else f"/{target}")


def _escaped(target: str) -> str:
    """Return a target as browsers send it: UTF-8, with a percent sign before each byte that is not ASCII."""
    return "".join(chr(byte) if 0x21 <= byte < 0x7F else f"%{byte:02X}" for byte in target.encode())


def _authority(text: str, default: int) -> tuple[str, int]:
    match = _AUTHORITY.fullmatch(text)
    port = int(match[2]) if match and match[2] else default
    if not match or not 1 <= port <= 65535:
        raise ValueError("write a host, and after a colon a port from 1 to 65535")
    host = match[1].removeprefix("[").removesuffix("]").lower()
    if not match[1].startswith("["):
        try:
            host = host if host.isascii() else host.encode("idna").decode()
        except UnicodeError:
            host = ""
        if not _HOST.fullmatch(host):
            raise ValueError(f"{match[1]!r} is not a host")
    return host, port


def origin_of(page: str) -> str:
    """Return the origin of a page as browsers send it, given its URL or its origin. Raises ValueError.

    The port of the scheme is left out, and pages without a host, such as file:, have the origin `null`.
    """
    if page == "null" or page.partition(":")[0].lower() in _WITHOUT_ORIGIN:
        return "null"
    match = _URL.fullmatch(page)
    if not match:
        raise ValueError("write the origin of a page, as https://www.example.com, or its URL")
    scheme = match[1].lower()
    host, port = _authority(match[2].rpartition("@")[2], _ORIGIN_PORTS.get(scheme, 0) or 1)
    name = f"[{host}]" if ":" in host else host
    written = match[2].rpartition("]")[2].partition(":")[2]
    return f"{scheme}://{name}" if not written or port == _ORIGIN_PORTS.get(scheme) else f"{scheme}://{name}:{port}"
