"""Silverlight's dialect for sockets: reads `access-policy` XML into an `AccessPolicy`, and writes it.

    access-policy
     └── cross-domain-access
          └── policy*
               ├── allow-from         http-request-headers, http-methods: read, without a meaning for sockets
               │    └── domain+       uri = * | http://* | https://* | file:/// | SCHEME://[*.]HOST[:PORT]
               └── grant-to
                    ├── socket-resource+    port = one port or one range in 4502-4534, protocol = tcp
                    └── resource*           path, include-subpaths: HTTP's, without a meaning for sockets

Source: mono's `System.Net.Policy/ClientAccessPolicyParser.cs` and `ClientAccessPolicy.cs`, which Moonlight ran. The
reader is strict: Silverlight silently drops the whole policy for one wrong port, and a part of it for one wrong
element. HTTP policies (`clientaccesspolicy.xml`) have the same root, and one file may be both.

    AccessPolicy ── rules: AccessRule, AccessRule, ...        any matching rule allows
                                ├── origins: Origin, ...            where the content comes from
                                └── resources: SocketResource, ...  where it may connect to
"""

import codecs
import re
from dataclasses import dataclass, field
from typing import Self

from flashpol.policy.decoding import START, decode, split_nul
from flashpol.policy.grammar import check_attributes, value
from flashpol.policy.model import (
    HIGHEST_PORT,
    DocumentError,
    DomainError,
    DomainPattern,
    GrammarError,
    Location,
    PortsError,
    PortSet,
    shown,
)
from flashpol.policy.ports import HIGHEST_SOCKET_PORT, LOWEST_SOCKET_PORT
from flashpol.policy.reader import Element, read

ROOT = "access-policy"

PROTOCOL = "tcp"

_HTTP_ATTRIBUTES = ("http-request-headers", "http-methods")
_ANYBODY = DomainPattern("", wildcard=True)
_URI = re.compile(r"(https?)://([^/?#]*)(/?)(.*)", re.DOTALL)
_PATH_FORM = 'write path="/", or remove the resource'
_URI_FORMS = 'write "*", "http://*", "https://*", "file:///" or a site such as "http://*.example.com"'

# Documents that are served by mistake, by the name of their root element.
_OTHER_ROOTS = {
    "cross-domain-policy": ("this is a Flash policy", f"serve it with the flash dialect, or write <{ROOT}>"),
    "policy-file-request": ("this is a client's request, not a policy", f"write <{ROOT}>...</{ROOT}>"),
    "cross-domain-access": ("the root element is missing", f"write <{ROOT}> before and </{ROOT}> after all elements"),
    "html": ("this is an HTML page", "serve the policy's XML itself"),
}


@dataclass(frozen=True, slots=True)
class Origin:
    """The content that a rule is for: one `domain` element.

    `scheme` is empty for `*`, which is any; "file" is content from the disk. `port` is the one that the content was
    loaded from, None for the scheme's own. Raises DomainError for values that no `uri` can express.
    """

    scheme: str = ""
    domain: DomainPattern = _ANYBODY
    port: int | None = None

    def __post_init__(self) -> None:
        anybody = self.domain == _ANYBODY
        if self.scheme not in ("", "http", "https", "file"):
            raise DomainError(f"content has no scheme {shown(self.scheme)}", _URI_FORMS)
        if (self.scheme in ("", "file") and not anybody) or (anybody and self.port is not None):
            raise DomainError(f"{shown(str(self))} is not an origin", _URI_FORMS)
        if self.port is not None and not 1 <= self.port <= HIGHEST_PORT:
            raise DomainError(f"there is no port {self.port}", f"write a port from 1 to {HIGHEST_PORT}, or none")
        if self.port == {"http": 80, "https": 443}.get(self.scheme):
            object.__setattr__(self, "port", None)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a `uri` attribute. Raises DomainError."""
        if text == "*":
            return cls()
        if text == "file:///":
            return cls("file")
        found = _URI.fullmatch(text)
        if not found:
            raise DomainError(f"the uri {shown(text)} does not name a site", _URI_FORMS)
        scheme, host, slash, path = found.groups()
        if path:
            raise DomainError(
                f"the uri {shown(text)} has more than scheme, host and port", "write only scheme, host and port"
            )
        if host == "*" and slash:
            raise DomainError(f"the uri {shown(text)} ends in a slash", f'write "{scheme}://*"')
        name, colon, port = host.partition(":")
        if colon and not re.fullmatch("[1-9][0-9]{0,4}", port):
            raise DomainError(
                f"the uri {shown(text)} has no port after its colon", 'write it as in "http://a.com:8080"'
            )
        return cls(scheme, DomainPattern.parse(name), int(port) if colon else None)

    def __str__(self) -> str:
        """Return the text that `parse` reads back as this origin."""
        if not self.scheme:
            return "*"
        if self.scheme == "file":
            return "file:///"
        return f"{self.scheme}://{self.domain}" + (f":{self.port}" if self.port is not None else "")


@dataclass(frozen=True, slots=True)
class SocketResource:
    """Ports that a rule lets content connect to: one `socket-resource`, over TCP.

    Raises PortsError: `*`, more than one port or range, a port outside 4502-4534. Each voids the whole policy.
    """

    ports: PortSet

    def __post_init__(self) -> None:
        allowed = f"{LOWEST_SOCKET_PORT}-{HIGHEST_SOCKET_PORT}"
        if self.ports.any:
            raise PortsError('the port is "*", which Silverlight does not support', f'write "{allowed}"')
        if len(self.ports.ranges) != 1:
            raise PortsError(
                f"{shown(str(self.ports))} is more than one port or range", "write one socket-resource for each"
            )
        [(low, high)] = self.ports.ranges
        if low < LOWEST_SOCKET_PORT or high > HIGHEST_SOCKET_PORT:
            raise PortsError(f"{shown(str(self))} is not within {allowed}", "Silverlight connects to no other ports")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a `port` attribute. Raises PortsError."""
        if text != text.strip(" "):
            raise PortsError(f"the port {shown(text)} has spaces around it", f"write {shown(text.strip())}")
        if "," in text:  # also if the list would unite to one range
            raise PortsError(f"{shown(text)} is a list", "write one socket-resource for each port or range")
        return cls(PortSet.parse(text))

    def __str__(self) -> str:
        return str(self.ports)


@dataclass(frozen=True, slots=True)
class AccessRule:
    """One `policy`: content of any of `origins` may connect to any of `resources`.

    `location` is the place it was read at, if any; not compared. Raises GrammarError if either is empty.
    """

    origins: tuple[Origin, ...]
    resources: tuple[SocketResource, ...]
    location: Location | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not self.origins or not self.resources:
            missing = "domain" if not self.origins else "socket-resource"
            raise GrammarError(f"a rule without a {missing} allows nothing", "write at least one", self.location)


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """The contents of one file, its rules in order. A policy without rules is valid and allows no content."""

    rules: tuple[AccessRule, ...] = ()


def parse(data: bytes) -> AccessPolicy:
    """Read a Silverlight policy file. Accepts and raises the same as `flash.parse` around the XML."""
    return _policy(read(decode(data), _check_root))


def compile_reply(data: bytes) -> bytes:
    """Return the reply for the policy file `data`: its own bytes, without a NUL.

    Silverlight takes the end of the stream for the end of the policy, and its XML reader accepts no NUL: one at the
    end of the file, which another server may need, is left out with all bytes after it. UTF-16 needs a byte order
    mark. Raises PolicyError if `parse` does, and DocumentError for UTF-16 without that mark.
    """
    parse(data)
    reply, _ = split_nul(data)
    if b"\0" in reply and not reply.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DocumentError("the policy is UTF-16 without a byte order mark", "save the file as UTF-8", START)
    return reply


def render(policy: AccessPolicy) -> bytes:
    """Return `policy` as a file: canonical ASCII XML without a newline at the end.

    `parse` reads it back as an equal policy, within the limits of `reader` and `decoding`.
    """
    lines = ['<?xml version="1.0"?>', f"<{ROOT}>", "<cross-domain-access>"]
    for rule in policy.rules:
        lines += ["<policy>", "<allow-from>"]
        # Nothing needs escaping: origins and ports contain no character that is special to XML.
        lines += [f'<domain uri="{origin}"/>' for origin in rule.origins]
        lines += ["</allow-from>", "<grant-to>"]
        lines += [f'<socket-resource port="{each}" protocol="{PROTOCOL}"/>' for each in rule.resources]
        lines += ["</grant-to>", "</policy>"]
    return "\n".join([*lines, "</cross-domain-access>", f"</{ROOT}>"]).encode("ascii")


def _check_root(element: Element) -> None:
    if element.name != ROOT:
        wrong, instead = _OTHER_ROOTS.get(
            element.name.lower(), (f"the root element is {element.label}", f"write <{ROOT}>, in lower case")
        )
        raise GrammarError(wrong, instead, element.location)
    check_attributes(element, ())


def _policy(root: Element) -> AccessPolicy:
    [access] = _children(root, "cross-domain-access", one=True)
    check_attributes(access, ())
    return AccessPolicy(tuple(_rule(each) for each in _children(access, "policy", many=True)))


def _rule(element: Element) -> AccessRule:
    check_attributes(element, ())
    found = {child.name: child for child in _children(element, "allow-from", "grant-to", one=True)}
    check_attributes(found["allow-from"], _HTTP_ATTRIBUTES)
    check_attributes(found["grant-to"], ())
    return AccessRule(
        tuple(_origin(each) for each in _children(found["allow-from"], "domain")),
        tuple(_resource(each) for each in _sockets(found["grant-to"])),
        element.location,
    )


def _origin(element: Element) -> Origin:
    check_attributes(element, ("uri",))
    _children(element, many=True)
    return value(element, "uri", Origin.parse, _URI_FORMS)


def _sockets(grant: Element) -> list[Element]:
    """Return the `socket-resource` elements. The file may be an HTTP policy too, and an empty path would void it."""
    inside = _children(grant, "socket-resource", "resource", many=True)
    sockets = [child for child in inside if child.name == "socket-resource"]
    paths = [child for child in inside if child.name == "resource"]
    if paths and not sockets:
        wrong = "<resource> is for HTTP policies only"
        raise GrammarError(wrong, "write a socket-resource beside it: sockets have no paths", paths[0].location)
    if not sockets:
        raise GrammarError("grant-to has no socket-resource", "write <socket-resource> inside it", grant.location)
    for element in paths:
        check_attributes(element, ("path", "include-subpaths"))
        _children(element, many=True)
        value(element, "path", _path, _PATH_FORM)
        if "include-subpaths" in element.attributes:
            value(element, "include-subpaths", _boolean, "")
    return sockets


def _path(text: str) -> str:
    if not text:
        raise GrammarError("the path is empty", _PATH_FORM)
    return text


def _boolean(text: str) -> str:
    if text not in ("true", "false"):
        raise GrammarError(f"include-subpaths is {shown(text)}", 'write "true" or "false"')
    return text


def _resource(element: Element) -> SocketResource:
    check_attributes(element, ("port", "protocol"))
    _children(element, many=True)
    value(element, "protocol", _protocol, f'write protocol="{PROTOCOL}"')
    return value(element, "port", SocketResource.parse, f'write port="{LOWEST_SOCKET_PORT}-{HIGHEST_SOCKET_PORT}"')


def _protocol(text: str) -> str:
    if text != PROTOCOL:
        raise GrammarError(f"the protocol is {shown(text)}", f'write "{PROTOCOL}", in lower case')
    return text


def _children(element: Element, *names: str, one: bool = False, many: bool = False) -> list[Element]:
    """Return the children, each with one of `names`: exactly one of each, any number, or (default) at least one."""
    seen: dict[str, Location] = {}
    for child in element.children:
        if child.name not in names:
            instead = f"write {' or '.join(names)}" if names else f"close {element.name} with /> first"
            raise GrammarError(f"{child.label} is inside {element.name}", instead, child.location)
        if one and child.name in seen:
            where = seen[child.name]
            raise GrammarError(f"a second {child.name}, after the one at {where}", "keep one", child.location)
        seen[child.name] = child.location
    for name in names:
        if name not in seen and not many:
            raise GrammarError(f"{element.name} has no {name}", f"write <{name}> inside it", element.location)
    return element.children
