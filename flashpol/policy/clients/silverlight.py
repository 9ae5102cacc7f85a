"""Silverlight, as Moonlight's source works (ML): its source is public, and was written against Microsoft's tests.

    access-policy / cross-domain-access / policy
        allow-from / domain           uri = * | http://* | https://* | file:/// | scheme://host[:port][/path]
                                          | scheme://*.host[:port]
        grant-to / socket-resource    port = one port or one range within 4502-4534, protocol = tcp

- Silverlight asks over TCP on port 943. An application may choose HTTP instead, since Silverlight 4
  (`SocketAsyncEventArgs.SocketClientAccessPolicyProtocol` is `Http`): then it fetches /clientaccesspolicy.xml from port
  80, in the same dialect (Microsoft, System.Net.Sockets reference; the WebSocket4Net library uses it).
- Any `policy` with a matching origin and port allows the connection.
- A `port` that is not one number or range within 4502-4534 (such as `*` or a list) voids the whole file; a reversed
  range grants nothing. Silverlight skips resources with a protocol other than `tcp`, without reading their port.
- It skips a `policy` or `grant-to` with attributes, and empty elements. An unknown element inside a `policy` voids that
  policy, inside an `allow-from` that `allow-from`; a `resource` without a path voids the file. So does a namespace,
  except on `domain` and on children of `grant-to`, which are then skipped.
- `http://*` and `https://*` match content from ports 80 and 443. `scheme://host` matches that root, with a path only
  that path. `scheme://*.host` matches by the end of the name: `http://*.example.com` also matches example.com and, a
  bug, badexample.com; the content's port must be the pattern's.
- A `domain` without `uri` ends the check with an exception: content that no domain before it allows is denied.
- `http-request-headers` and `http-methods` have no effect: a socket counts as GET without headers.
- UTF-16 with a byte order mark is accepted, as is white space before the XML.

Where nothing is known, the stricter reading applies: content given as a domain has no scheme, so only `*` matches it.
The ends of names are compared as in the source (`EndsWith`, without the dot); how Silverlight did it is not known.
"""

import re
from dataclasses import dataclass
from operator import attrgetter, itemgetter

from flashpol.policy.clients.query import Content, Decision, Document, Evaluator, Query, allowed, denied, place
from flashpol.policy.model import Location, shown
from flashpol.policy.ports import HIGHEST_SOCKET_PORT as HIGHEST
from flashpol.policy.ports import LOWEST_SOCKET_PORT as LOWEST
from flashpol.policy.ports import SILVERLIGHT_HTTP_PATH, SILVERLIGHT_HTTP_PORT, SILVERLIGHT_PORT
from flashpol.policy.reader import Element

CLIENT = "silverlight"
ROOT = "access-policy"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
# .NET's UInt16.TryParse, of numbers that matter.
_UINT16 = re.compile(r"[\t-\r ]*\+?0*([1-9][0-9]{3})[\t-\r ]*")
_URI = re.compile(r"([a-z][a-z0-9+.-]*)://(\*\.)?([a-z0-9._-]*)(?::([0-9]{1,5}))?(/[^?#]*)?([?#].*)?", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443, "ftp": 21}
_HEADER_ATTRIBUTES = ("http-request-headers", "http-methods")
_BOOLEANS = ("true", "false", "1", "0")

# The kind of content that a uri is for: scheme, host or its ending after "*.", port, path. The host "*" is any; the
# path "/" is any, and wildcards have an empty path.
_Kind = tuple[str, str, int | None, str]
_ANYBODY: _Kind = ("", "*", None, "")
_rank = itemgetter(0)


class _Void(Exception):
    def __init__(self, wrong: str, at: Location) -> None:
        self.wrong = wrong
        self.at = at


def compile_silverlight(document: Document) -> Evaluator:
    data = document.data
    if error := document.expect(ROOT, utf16=data is not None and data.startswith(_UTF16_MARKS)):
        hint = "; Silverlight reads <access-policy>" if document.root is not None else ""
        return _never(f"there is no policy: {error.wrong}{hint}", error.location)
    assert document.root is not None
    try:
        return _Silverlight(_policies(document.root)).decide
    except _Void as void:
        return _never(f"{void.wrong}, which voids the whole policy", void.at)


class _Policy:
    """One `policy`: its origins and its ports."""

    def __init__(self, element: Element) -> None:
        self.origins: list[Element] = []
        self.ports: dict[int, Element] = {}
        self.valid = True
        for child in element.children:
            if _is_empty(child):
                continue
            if child.name == "allow-from":
                _refuse_namespace(child)
                self._allow(child)
            elif child.name == "grant-to":
                self._grant(child)
            else:
                self.valid = False

    def _allow(self, element: Element) -> None:
        inside = [child for child in element.children if not child.attributes.get("xmlns")]
        if all(name in _HEADER_ATTRIBUTES for name in element.attributes) and all(c.name == "domain" for c in inside):
            # Silverlight checks "*" before the other domains, which then make no difference.
            self.origins += [domain for domain in inside if domain.attributes.get("uri") == "*"][:1] or inside

    def _grant(self, element: Element) -> None:
        if element.attributes:
            return
        for child in element.children:
            if child.attributes.get("xmlns"):
                continue
            if child.name == "resource":
                _check_resource(child)
            elif child.name == "socket-resource" and child.attributes.get("protocol") == "tcp":
                low, high = _ports(child)
                for port in range(low, high + 1):
                    self.ports.setdefault(port, child)


@dataclass(slots=True)
class _Grants:
    """The grants for one kind of content: `ports` maps each port to the first grant of the file that opens it.

    A rank is the position of an origin in the file. `origin` is the first one for this kind of content.
    """

    rank: int
    origin: Element
    ports: dict[int, tuple[int, Element, Element]]


class _Silverlight:
    """Kinds of content, each with its ports: a decision costs the same for any number of policies."""

    def __init__(self, policies: list[_Policy]) -> None:
        self._policies = policies
        self._kinds: dict[_Kind, _Grants] = {}
        self._unnamed: Element | None = None
        named = [(origin, policy.ports) for policy in policies for origin in policy.origins]
        for rank, (origin, ports) in enumerate(named):
            uri = origin.attributes.get("uri")
            if uri is None:
                self._unnamed = origin
                break
            if kind := _kind(uri):
                grants = self._kinds.setdefault(kind, _Grants(rank, origin, {}))
                for port, resource in ports.items():
                    grants.ports.setdefault(port, (rank, origin, resource))
        # Lengths of the names behind "*.".
        self._endings = {len(kind[1]) - 2 for kind in self._kinds if kind[1].startswith("*.")}

    def decide(self, query: Query) -> Decision:
        content, port = query.content, query.port
        if outside := _outside(query):
            return outside
        found = [grants for kind in self._kinds_of(content) if (grants := self._kinds.get(kind))]
        opened = [grants.ports[port] for grants in found if port in grants.ports]
        if opened:
            _, origin, resource = min(opened, key=_rank)
            uri, text = shown(origin.attributes["uri"]), shown(resource.attributes["port"])
            why = f"domain uri={uri} at {origin.location} and socket-resource port={text} grant it"
            if query.served_from == SILVERLIGHT_HTTP_PORT:
                why += f", as {SILVERLIGHT_HTTP_PATH}, if the application sets SocketClientAccessPolicyProtocol.Http"
            return allowed(CLIENT, why, resource.location)
        if self._unnamed is not None:
            return denied(
                CLIENT, "the check fails at a domain without uri: none after it counts", self._unnamed.location
            )
        if found:
            near = min(found, key=attrgetter("rank")).origin
            uri = shown(near.attributes["uri"])
            why = f"port {port} is in no socket-resource with protocol tcp beside domain uri={uri}"
            return denied(CLIENT, why, near.location)
        if not self._policies:
            return denied(CLIENT, "the policy has no grants", None)
        hint = "; a domain has no scheme, so give the content's URL" if not content.scheme else ""
        return denied(CLIENT, f"no domain uri is for content from {content.text}{hint}", None)

    def _kinds_of(self, content: Content) -> list[_Kind]:
        """Return all kinds that the content belongs to."""
        scheme, host, port = content.scheme, content.host, content.port
        if not scheme:
            return [_ANYBODY]
        kinds = [_ANYBODY, (scheme, "*", port, ""), (scheme, host, port, "/"), (scheme, host, port, content.path)]
        kinds += [(scheme, "*." + host[-length:], port, "") for length in self._endings if length <= len(host)]
        return kinds


def _policies(root: Element) -> list[_Policy]:
    _refuse_namespace(root)
    found: list[_Policy] = []
    for access in root.children:
        if access.name != "cross-domain-access" or _is_empty(access):
            continue
        _refuse_namespace(access)
        for element in access.children:
            if element.name == "policy" and not _is_empty(element) and not element.attributes:
                policy = _Policy(element)
                if policy.valid:
                    found.append(policy)
    return found


def _is_empty(element: Element) -> bool:
    """Return whether the element is written as `<a/>`, which Moonlight treats differently from `<a></a>`."""
    return element.tag.endswith("/>")


def _refuse_namespace(element: Element) -> None:
    if element.attributes.get("xmlns"):
        raise _Void(f"{element.label} is in a namespace", element.name_location("xmlns"))


def _check_resource(element: Element) -> None:
    attributes = element.attributes
    if not _is_empty(element) or any(name not in ("path", "include-subpaths") for name in attributes):
        return  # Silverlight skips the element before it reads the path
    if not attributes.get("path"):
        raise _Void("a resource without a path", element.location)
    if attributes.get("include-subpaths", "true").strip() not in _BOOLEANS:
        raise _Void(f"include-subpaths is {shown(attributes['include-subpaths'])}", place(element, "include-subpaths"))


def _ports(element: Element) -> tuple[int, int]:
    text = element.attributes.get("port")
    if text is None:
        raise _Void("a socket-resource has no port", element.location)
    numbers = []
    for item in text.split("-", 1):
        match = _UINT16.fullmatch(item)
        number = int(match[1]) if match else 0
        if not LOWEST <= number <= HIGHEST:
            wrong = f"port={shown(text)} is neither one port nor one range within {LOWEST}-{HIGHEST}"
            raise _Void(wrong, place(element, "port"))
        numbers.append(number)
    return numbers[0], numbers[-1]


def _kind(uri: str) -> _Kind | None:
    """Return the kind of content that a `uri` is for; None if it matches none."""
    if uri == "*":
        return _ANYBODY
    if uri in ("http://*", "https://*"):
        scheme = uri.partition(":")[0]
        return scheme, "*", _DEFAULT_PORTS[scheme], ""
    match = _URI.fullmatch(uri)
    return _kind_of_site(match) if match else None


def _kind_of_site(uri: re.Match[str]) -> _Kind | None:
    written, wildcard, host, digits, local, query = uri.groups()
    scheme, path = written.lower(), local or "/"
    if query and (wildcard or path == "/"):
        return None
    if scheme == "file":
        return (scheme, "", None, path) if local and not (host or wildcard or digits) else None
    port = int(digits) if digits else _DEFAULT_PORTS.get(scheme)
    if not wildcard:
        return (scheme, host.lower(), port, path) if host else None
    # With a wildcard the scheme is compared as text, and a path is not allowed.
    return (scheme, "*." + host.lower(), port, "") if host and path == "/" and written == scheme else None


def _outside(query: Query) -> Decision | None:
    """Return the decision if it does not depend on any policy."""
    if query.served_from not in (None, SILVERLIGHT_PORT, SILVERLIGHT_HTTP_PORT):
        why = (
            f"Silverlight asks for a policy on port {SILVERLIGHT_PORT}, or over HTTP on {SILVERLIGHT_HTTP_PORT}, not on"
            f" {query.served_from}"
        )
        return denied(CLIENT, why)
    if not LOWEST <= query.port <= HIGHEST:
        return denied(CLIENT, f"Silverlight connects to no port but {LOWEST}-{HIGHEST}, whatever the policy says")
    return None


def _never(reason: str, at: Location | None) -> Evaluator:
    return lambda query: _outside(query) or denied(CLIENT, reason, at)
