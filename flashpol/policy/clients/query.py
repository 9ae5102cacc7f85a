"""The types that all clients share: the query, the decision, and the policy document."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from flashpol.policy.clients.sandboxes import AIR, FILESYSTEM, LOCAL, REMOTE, SANDBOXES
from flashpol.policy.decoding import START, decode, split_nul
from flashpol.policy.lint import explained
from flashpol.policy.model import (
    HIGHEST_PORT,
    LOWEST_PORT,
    DocumentError,
    DomainError,
    DomainPattern,
    Location,
    PolicyError,
    PortsError,
    shown,
)
from flashpol.policy.reader import Element, read_leniently

# Characters of a URL that are accepted: as many as a browser's address bar holds; longer ones only cost time.
_CONTENT_CHARACTERS = 2048
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#\\]*)([^?#]*)", re.IGNORECASE)
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[^:@\[\]]*)(?::([0-9]{1,5}))?", re.IGNORECASE)
# URLs without a host, and the sandbox of their content. AIR installs app:/; the other local URLs are files to it.
_LOCAL_URL = re.compile(r"(file|app|app-storage):(.*)", re.IGNORECASE | re.DOTALL)
_PATH = re.compile(r"[a-z]:[\\/]|[\\/]|\.{1,2}[\\/]", re.IGNORECASE)
_OTHER_URL = re.compile(r"(about|blob|data|javascript|mailto|urn):", re.IGNORECASE)
_HOW = "write a URL as in http://www.example.com/game.swf, or name its sandbox"
_DEFAULT_PORTS = {"http": 80, "https": 443, "ftp": 21}
# A trailing dot is kept: no client is known to remove one, so a name with it is another name.
_ADDRESS = re.compile(r"[0-9]+(\.[0-9]+){3}")


@dataclass(frozen=True, slots=True)
class Content:
    """The place that content (the SWF, the XAP) was loaded from.

    `scheme` is empty if only a domain was given; `host` is empty for files. `keys` are the domain patterns that match,
    in lower case: `*`, the host, and `*.suffix` for the host and each domain above it.
    """

    text: str
    scheme: str
    host: str
    port: int | None
    path: str
    keys: tuple[str, ...]

    @property
    def is_file(self) -> bool:
        return self.scheme == "file"

    @property
    def sandbox(self) -> str:
        """The sandbox that clients put such content into, if nothing else is known of it."""
        return {"file": FILESYSTEM, "app": AIR}.get(self.scheme, REMOTE)

    @property
    def is_address(self) -> bool:
        """Return whether the host is an IP address. No client looks up names, so only that address matches."""
        return self.host.startswith("[") or bool(_ADDRESS.fullmatch(self.host))

    @classmethod
    def parse(cls, text: str) -> "Content":
        """Read a URL or a domain. Raises DomainError."""
        return _parse(text)

    @classmethod
    def of_origin(cls, text: str, scheme: str, host: str, port: int | None) -> "Content":
        """Make one of the parts of an origin, in lower case; raises DomainError if `host` is no name and no address.

        It costs half of what `parse` does, which reads whatever a person writes.
        """
        if not host.startswith("["):
            DomainPattern(host.removesuffix("."))
        return cls(text, scheme, host, port if port is not None else _DEFAULT_PORTS.get(scheme), "", _keys(host))


# Most queries repeat a few origins.
@lru_cache(maxsize=256)
def _parse(text: str) -> Content:
    if not text or len(text) > _CONTENT_CHARACTERS:
        raise DomainError(f"the content {shown(text)} is empty or too long", "write its URL or its domain")
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise DomainError(
            f"the content {shown(text)} is not a URL: it has spaces or characters outside ASCII",
            'write the "xn--" form of an international name',
        )
    if local := _LOCAL_URL.match(text):
        # AIR's storage holds files, which are in no application sandbox.
        scheme = "app" if local[1].lower() == "app" else "file"
        return Content(text, scheme, "", None, re.sub(r"\A//[^/]*|[?#].*", "", local[2]), ("*",))
    if _PATH.match(text) and not text.startswith("//"):
        raise DomainError(f"the content {shown(text)} is a path", "write it as a URL: file:///...")
    if _OTHER_URL.match(text):
        raise DomainError(f"the content {shown(text)} has no host", _HOW)
    if "*" in text:
        raise DomainError(
            f"the content {shown(text)} is a pattern",
            'write one host that it stands for, such as "www.example.com"',
        )
    url = _URL.match(text.removeprefix("//") if "://" in text else text)
    if not url:
        host, port = text.lower(), None
        if not host.startswith("["):
            _check_host(text, host)
        elif not _AUTHORITY.fullmatch(host):
            raise DomainError(f"the content {shown(text)} is not an IP address", "write it as in [2001:db8::1]")
        return Content(text, "", host, None, "", _keys(host))
    scheme = url[1].lower()
    authority = _AUTHORITY.fullmatch(url[2].rpartition("@")[2])  # user and password are no part of the host
    if not authority or not authority[1]:
        raise DomainError(f"the content {shown(text)} names no host", _HOW)
    host = authority[1].lower()
    if not host.startswith("["):
        _check_host(text, host.removesuffix("."))
    port = int(authority[2]) if authority[2] else _DEFAULT_PORTS.get(scheme)
    if port is not None and port > HIGHEST_PORT:
        raise DomainError(f"the content {shown(text)} has a port above {HIGHEST_PORT:,}", "check the URL")
    return Content(text, scheme, host, port, url[3], _keys(host))


def _check_host(text: str, host: str) -> None:
    """Raise DomainError, in words about content, if `host` is neither a name nor an IPv4 address."""
    try:
        DomainPattern(host)
    except DomainError as error:
        if "/" in host:
            site = host.strip("/").partition("/")[0]
            example = f"http://{host.lstrip('/')}" if site else "http://www.example.com/game.swf"
            raise DomainError(
                f"the content {shown(text)} is a URL without a scheme", f"write {shown(example)}"
            ) from None
        if ":" in host:
            raise DomainError(
                f"the content {shown(text)} contains a port", f"write {shown('http://' + text)}, or only its domain"
            ) from None
        raise DomainError(f"in the content {shown(text)}, {error.wrong}", error.instead) from None


def _keys(host: str) -> tuple[str, ...]:
    if host.startswith("["):
        return ("*",)  # no source says that a client compares IPv6 literals, or in which spelling
    labels = host.split(".")
    return ("*", host, *("*." + ".".join(labels[at:]) for at in range(len(labels))))


@dataclass(frozen=True, slots=True)
class Query:
    """May `content` connect to `port`, by a policy served from `served_from`? `local`: on the content's own host.

    `served_from` is None for the port that the client asks first. `sandbox` is one of `sandboxes.SANDBOXES`, None for
    the one that the content's URL implies.
    """

    content: Content
    port: int
    served_from: int | None = None
    local: bool = False
    sandbox: str | None = None

    @classmethod
    def of(cls, content: str, port: int, served_from: int | None, local: bool, sandbox: str | None = None) -> Self:
        """Check the values. Raises DomainError and PortsError, and PolicyError for an unknown sandbox."""
        for number in (port,) if served_from is None else (port, served_from):
            if not isinstance(number, int) or isinstance(number, bool) or not LOWEST_PORT <= number <= HIGHEST_PORT:
                raise PortsError(
                    f"there is no port {shown(str(number))}", f"write a port from {LOWEST_PORT} to {HIGHEST_PORT}"
                )
        place = Content.parse(content)
        if sandbox is not None and sandbox not in SANDBOXES:
            raise PolicyError(f"there is no sandbox {shown(sandbox)}", f"write one of {', '.join(SANDBOXES)}")
        if sandbox in LOCAL and not place.is_file:
            raise DomainError(f"the content {shown(content)} is not a file", f"write a file: URL for {sandbox}")
        if sandbox == REMOTE and not place.host:
            raise DomainError(f"the content {shown(content)} is not remote", "write the URL of a site")
        return cls(place, port, served_from, local, sandbox)


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision of one client, with a `reason` of one line.

    `line` and `column`, from 1, are the place in the policy that decides; None if no place does: something is missing,
    or the decision does not depend on the policy. `client_words` are lines of the client's log or error, empty if none
    are known; SERVER in them is the name that the content connects to.
    """

    client: str
    allowed: bool
    reason: str
    line: int | None = None
    column: int | None = None
    client_words: str = ""


Evaluator = Callable[[Query], Decision]


@dataclass(frozen=True, slots=True)
class Document:
    """A policy as clients read it: its root element, or the error that prevents reading it."""

    root: Element | None
    error: PolicyError | None  # why there is no root
    data: bytes | None  # the file; None if only the root element is known
    strict: PolicyError | None = None  # why strict readers refuse it: text, or a DOCTYPE with declarations

    @classmethod
    def of(cls, source: bytes | Element) -> Self:
        """Read a policy. Never raises because of its bytes."""
        if isinstance(source, Element):
            return cls(source, None, None)
        try:
            root, strict = read_leniently(decode(source))
            return cls(root, None, source, strict)
        except PolicyError as error:
            return cls(None, explained(error, source), source)

    @property
    def reply(self) -> bytes | None:
        """Return the reply to every client but Silverlight: the file with one NUL at its end."""
        return None if self.data is None else split_nul(self.data)[0] + b"\0"

    def expect(self, name: str, *, utf16: bool = False, lenient: bool = False) -> PolicyError | None:
        """Return the error if this is not a document with the root `name`, None if it is.

        Clients accept text and harmless declarations only if they are `lenient`.
        """
        if self.root is None or (self.strict and not lenient):
            return self.error or self.strict
        if not utf16 and self.data is not None and b"\0" in split_nul(self.data)[0]:
            return DocumentError(
                "the policy is UTF-16, and clients stop reading at its first NUL byte", "save it as UTF-8", START
            )
        if self.root.name != name:
            return PolicyError(f"the root element is {self.root.label}, not <{name}>", "", self.root.location)
        return None


def denied(client: str, reason: str, at: Location | None = None, words: str = "") -> Decision:
    return Decision(client, False, reason, at.line if at else None, at.column if at else None, words)


def allowed(client: str, reason: str, at: Location | None, words: str = "") -> Decision:
    return Decision(client, True, reason, at.line if at else None, at.column if at else None, words)


def place(element: Element, attribute: str) -> Location:
    """Return where the value of an attribute begins, or the element's place if it lacks the attribute."""
    try:
        return element.value_location(attribute)
    except KeyError:
        return element.location
