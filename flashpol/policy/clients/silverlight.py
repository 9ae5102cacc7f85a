"""Silverlight, as Moonlight's source does it (ML): the one whose sources can be read, and written against
Microsoft's tests.

    access-policy / cross-domain-access / policy
        allow-from / domain                uri = * | http://* | https://* | file:/// | scheme://host[:port][/path] |
        scheme://*.host grant-to / socket-resource         port = one port or one range within 4502-4534, protocol =
        tcp

- Asked on port 943 and nowhere else.
- Any `policy` with an origin and a port that match allows it.
- A `port` that is no number or range within 4502-4534, `*` and lists included, voids the whole file; a reversed
  range grants nothing. What has another protocol than exactly `tcp` is passed over, its port unread.
- A `policy` or `grant-to` with attributes is passed over; so is an empty element. Other elements inside a `policy`
  void that policy, inside an `allow-from` that `allow-from`; `resource` without a path voids the file, as does a
  namespace.
- `http://*` and `https://*` match content from ports 80 and 443. `scheme://host` matches that root, with a path only
  that path. `scheme://*.host` matches by the end of the name: `http://*.example.com` also matches example.com and, a
  bug, badexample.com; the content's port must be the pattern's.
- UTF-16 with a byte order mark is read; blanks before the XML are skipped.

Where nothing is known, the stricter reading: content given as a domain has no scheme, so only `*` matches it; a
`domain` without `uri` matches nothing.
"""

from __future__ import annotations

import re

from ..model import Location, shown
from ..reader import Element
from .question import Content, Decision, Document, Evaluator, Question, allowed, denied, place
from .table import Ranges

CLIENT = "silverlight"
ROOT = "access-policy"
POLICY_PORT = 943
LOWEST, HIGHEST = 4502, 4534
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
# .NET's UInt16.TryParse, of numbers that matter.
_UINT16 = re.compile(r"[\t-\r ]*\+?0*([1-9][0-9]{3})[\t-\r ]*")
_URI = re.compile(r"([a-z][a-z0-9+.-]*)://(\*\.)?([a-z0-9._-]*)(?::([0-9]{1,5}))?(/[^?#]*)?([?#].*)?", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443, "ftp": 21}
_HEADER_ATTRIBUTES = ("http-request-headers", "http-methods")
_BOOLEANS = ("true", "false", "1", "0")


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
    """One `policy`: who, and where to."""

    def __init__(self, element: Element) -> None:
        self.origins: list[Element] = []
        self.ports: list[tuple[Ranges, Element]] = []
        self.valid = True
        for child in element.children:
            if _is_empty(child):
                continue
            if child.name == "allow-from":
                self._allow(child)
            elif child.name == "grant-to":
                self._grant(child)
            else:
                self.valid = False

    def _allow(self, element: Element) -> None:
        names = [child.name for child in element.children]
        if all(name in _HEADER_ATTRIBUTES for name in element.attributes) and all(name == "domain" for name in names):
            self.origins.extend(element.children)

    def _grant(self, element: Element) -> None:
        if element.attributes:
            return
        for child in element.children:
            if child.name == "resource":
                _check_resource(child)
            elif child.name == "socket-resource" and child.attributes.get("protocol") == "tcp":
                self.ports.append((_ports(child), child))


class _Silverlight:
    def __init__(self, policies: list[_Policy]) -> None:
        self._policies = policies

    def decide(self, question: Question) -> Decision:
        content, port = question.content, question.port
        if outside := _outside(question):
            return outside
        near: Element | None = None
        for policy in self._policies:
            origin = next(
                (element for element in policy.origins if _matches(element.attributes.get("uri"), content)), None
            )
            if origin is None:
                continue
            for ranges, element in policy.ports:
                if any(low <= port <= high for low, high in ranges):
                    uri, text = shown(origin.attributes["uri"]), shown(element.attributes["port"])
                    why = f"domain uri={uri} at {origin.location} and socket-resource port={text} grant it"
                    return allowed(CLIENT, why, element.location)
            near = near or origin
        if near is not None:
            uri = shown(near.attributes["uri"])
            why = f"port {port} is in no socket-resource with protocol tcp beside domain uri={uri}"
            return denied(CLIENT, why, near.location)
        if not self._policies:
            return denied(CLIENT, "the policy grants nothing to anybody", None)
        hint = "; a domain has no scheme, so give the content's URL" if not content.scheme else ""
        return denied(CLIENT, f"no domain uri is for content from {content.text}{hint}", None)


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
    """Written as `<a/>`: for Moonlight `<a></a>` is something else."""
    return element.tag.endswith("/>")


def _refuse_namespace(element: Element) -> None:
    if element.attributes.get("xmlns"):
        raise _Void(f"{element.label} is in a namespace", element.name_location("xmlns"))


def _check_resource(element: Element) -> None:
    attributes = element.attributes
    if not _is_empty(element) or any(name not in ("path", "include-subpaths") for name in attributes):
        return  # passed over before its path is asked for
    if not attributes.get("path"):
        raise _Void("a resource without a path", element.location)
    if attributes.get("include-subpaths", "true").strip() not in _BOOLEANS:
        raise _Void(f"include-subpaths is {shown(attributes['include-subpaths'])}", place(element, "include-subpaths"))


def _ports(element: Element) -> Ranges:
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
    return ((numbers[0], numbers[-1]),)


def _matches(uri: str | None, content: Content) -> bool:
    if uri is None or uri == "*" or not content.scheme:
        return uri == "*"
    if uri in ("http://*", "https://*"):
        return content.scheme == uri.partition(":")[0] and content.port == _DEFAULT_PORTS[content.scheme]
    match = _URI.fullmatch(uri)
    return match is not None and match[1].lower() == content.scheme and _matches_host(match, content)


def _matches_host(uri: re.Match[str], content: Content) -> bool:
    scheme, wildcard, host, port, path, query = uri.groups()
    path = path or "/"
    if query and (wildcard or path == "/"):
        return False
    if path not in ("/", content.path):
        return False
    if content.is_file:
        return not host and not wildcard
    if not host or content.port != (int(port) if port else _DEFAULT_PORTS.get(content.scheme)):
        return False
    if wildcard:  # its scheme is compared as text
        return path == "/" and scheme == content.scheme and content.host.endswith(host.lower())
    return content.host == host.lower()


def _outside(question: Question) -> Decision | None:
    """What no policy can change."""
    if question.served_from not in (None, POLICY_PORT):
        why = f"Silverlight asks for a policy on port {POLICY_PORT}, not {question.served_from}"
        return denied(CLIENT, why)
    if not LOWEST <= question.port <= HIGHEST:
        return denied(CLIENT, f"Silverlight connects to no port but {LOWEST}-{HIGHEST}, whatever the policy says")
    return None


def _never(reason: str, at: Location | None) -> Evaluator:
    return lambda question: _outside(question) or denied(CLIENT, reason, at)
