"""FP8xx: Silverlight's dialect for sockets, as Moonlight reads it (mono, `System.Net.Policy`).

access-policy
 └── cross-domain-access
      └── policy*
           ├── allow-from ── domain*            uri = * | http://* | https://* | file:/// | scheme://[*.]host
           └── grant-to ──── socket-resource*   port = one port or one range in 4502-4534, protocol = tcp
"""

import re
from collections.abc import Iterator

from flashpol.policy.lint_document import SILVERLIGHT_ROOT, LintDocument
from flashpol.policy.model import DomainError, Location, PortsError, shown
from flashpol.policy.ports import HIGHEST_SOCKET_PORT as HIGHEST
from flashpol.policy.ports import LOWEST_SOCKET_PORT as LOWEST
from flashpol.policy.ports import SILVERLIGHT_HTTP_PATH, SILVERLIGHT_HTTP_PORT, SILVERLIGHT_PORT
from flashpol.policy.reader import Element
from flashpol.policy.rules.registry import ERROR, NOTE, URL, WARNING, Hit, rule
from flashpol.policy.silverlight import Origin, SocketResource

_ONLY = ("silverlight",)

# The children that each element may have; and the children without which it has no meaning.
_INSIDE = {
    SILVERLIGHT_ROOT: ("cross-domain-access",),
    "cross-domain-access": ("policy",),
    "policy": ("allow-from", "grant-to"),
    "allow-from": ("domain",),
    "grant-to": ("socket-resource", "resource"),
}
_NEEDED = {"policy": ("allow-from", "grant-to"), "allow-from": ("domain",), "grant-to": ("socket-resource",)}
_ATTRIBUTES = {"domain": ("uri",), "socket-resource": ("port", "protocol"), "resource": ("path",)}
_ADOBE = ("allow-access-from", "site-control", "allow-http-request-headers-from", "allow-access-from-identity")
_HTTP_ATTRIBUTES = ("http-request-headers", "http-methods")

_KNOWN = _ATTRIBUTES | {"allow-from": _HTTP_ATTRIBUTES, "resource": ("path", "include-subpaths")}
_PORTS = re.compile("([0-9]{1,5})(?:-([0-9]{1,5}))?")


def _file(uri: str = "*", port: str = "4502-4534", protocol: str = "tcp", more: str = "") -> str:
    """Return an example."""
    return f"""<access-policy>
  <cross-domain-access>
    <policy>
      <allow-from><domain uri="{uri}"/></allow-from>
      <grant-to>{more}<socket-resource port="{port}" protocol="{protocol}"/></grant-to>
    </policy>
  </cross-domain-access>
</access-policy>"""


_GOOD = _file()


def _walk(element: Element) -> Iterator[tuple[Element, Element]]:
    """Yield (parent, child) for all elements in permitted places, and for misplaced ones without their children."""
    for child in element.children:
        yield element, child
        if child.name in _INSIDE.get(element.name.lower(), ()):
            yield from _walk(child)


def _misplaced(document: LintDocument) -> Iterator[tuple[Element, Element]]:
    if document.root is not None:
        for parent, child in _walk(document.root):
            if child.name not in _INSIDE.get(parent.name.lower(), ()):
                yield parent, child


def _all(document: LintDocument, *names: str) -> Iterator[Element]:
    """Yield the elements of these names in permitted places."""
    if document.root is not None:
        for parent, child in _walk(document.root):
            if child.name in names and child.name in _INSIDE.get(parent.name.lower(), ()):
                yield child


def _values(document: LintDocument, element: str, attribute: str) -> Iterator[tuple[str, Location]]:
    for one in _all(document, element):
        if attribute in one.attributes:
            yield one.attributes[attribute], one.value_location(attribute)


@rule(
    "FP801", ERROR, "unknown-silverlight-element",
    wrong="{name} is not allowed inside {parent}", instead="write {known}",
    clients=_ONLY, bad=_file(more="<tcp/>"), good=_GOOD,
)  # fmt: skip
def unknown_element(document: LintDocument) -> Iterator[Hit]:
    for parent, child in _misplaced(document):
        if child.name not in _ADOBE:
            known = " or ".join(f"<{name}>" for name in _INSIDE.get(parent.name.lower(), ())) or "nothing there"
            yield Hit(child.location, name=child.label, parent=parent.label, known=known)


@rule(
    "FP802", ERROR, "incomplete-silverlight-policy",
    wrong="{name} contains no {missing}, so it allows nothing", instead="write <{missing}> inside it",
    clients=_ONLY, bad=_file().replace('<domain uri="*"/>', ""), good=_GOOD,
)  # fmt: skip
def incomplete(document: LintDocument) -> Iterator[Hit]:
    for element in _all(document, *_NEEDED):
        has = {child.name for child in element.children}
        needed = _NEEDED[element.name]
        if document.by_url and element.name == "grant-to" and "socket-resource" not in has:
            needed = ("resource",)
        for missing in needed:
            if missing not in has:
                yield Hit(element.location, name=element.label, missing=missing)


@rule(
    "FP803", ERROR, "missing-silverlight-attribute",
    wrong="{name} has no {attribute}", instead="write {attribute}={example}",
    clients=_ONLY, bad=_file().replace(' protocol="tcp"', ""), good=_GOOD,
)  # fmt: skip
def missing_attribute(document: LintDocument) -> Iterator[Hit]:
    examples = {
        "uri": '"http://*.example.com"', "port": f'"{LOWEST}-{HIGHEST}"', "protocol": '"tcp"', "path": '"/"',
    }  # fmt: skip
    for element in _all(document, *_ATTRIBUTES):
        for attribute in _ATTRIBUTES[element.name]:
            # An empty path voids the file, like a missing one.
            if attribute not in element.attributes or (attribute == "path" and not element.attributes[attribute]):
                yield Hit(element.location, name=element.label, attribute=attribute, example=examples[attribute])


@rule(
    "FP804", ERROR, "bad-uri",
    wrong="Silverlight does not support the uri {uri}",
    instead="{remedy}",
    clients=_ONLY, bad=_file(uri="*.example.com"), good=_file(uri="http://*.example.com"),
)  # fmt: skip
def bad_uri(document: LintDocument) -> Iterator[Hit]:
    for uri, where in _values(document, "domain", "uri"):
        try:
            Origin.parse(uri)
        except DomainError as error:
            yield Hit(where, uri=shown(uri), remedy=error.instead)


def _is_list(text: str) -> bool:
    return "," in text and all(_PORTS.fullmatch(item.strip()) for item in text.split(","))


@rule(
    "FP805", ERROR, "silverlight-port-list",
    wrong="{port} is a list: Silverlight reads one port or one range",
    instead="write one socket-resource for each port or range",
    clients=_ONLY, bad=_file(port="4502,4503"), good=_file(port="4502-4503"),
)  # fmt: skip
def port_list(document: LintDocument) -> Iterator[Hit]:
    for port, where in _values(document, "socket-resource", "port"):
        if _is_list(port):
            yield Hit(where, port=shown(port))


@rule(
    "FP806", ERROR, "silverlight-port",
    wrong="the port {port} {why}",
    instead=f'write one port or one range within {LOWEST}-{HIGHEST}',
    clients=_ONLY, bad=_file(port="*"), good=_GOOD,
)  # fmt: skip
def bad_port(document: LintDocument) -> Iterator[Hit]:
    for port, where in _values(document, "socket-resource", "port"):
        if not _is_list(port) and (why := _why_bad(port)):
            yield Hit(where, port=shown(port), why=why)


def _why_bad(port: str) -> str:
    match = _PORTS.fullmatch(port.strip())
    if not match:
        return "is neither a port nor a range, which voids the whole policy"
    low, high = int(match[1]), int(match[2] or match[1])
    if not (LOWEST <= low <= HIGHEST and LOWEST <= high <= HIGHEST):
        return f"is outside {LOWEST}-{HIGHEST}, which voids the whole policy"
    if low > high:
        return "is a reversed range, which grants nothing"
    try:
        SocketResource.parse(port)
    except PortsError:
        return "has spaces around it or begins with a zero"
    return ""


@rule(
    "FP807", ERROR, "silverlight-protocol",
    wrong="the protocol is {protocol}", instead='write "tcp", in lower case',
    clients=_ONLY, bad=_file(protocol="Tcp"), good=_GOOD,
)  # fmt: skip
def bad_protocol(document: LintDocument) -> Iterator[Hit]:
    for protocol, where in _values(document, "socket-resource", "protocol"):
        if protocol != "tcp":
            yield Hit(where, protocol=shown(protocol))


@rule(
    "FP808", ERROR, "adobe-in-silverlight",
    wrong="{name} belongs to Adobe's dialect, and this policy is in Silverlight's",
    instead="write allow-from and grant-to here, and serve a separate cross-domain-policy on port 843",
    clients=_ONLY, bad=_file(more='<allow-access-from domain="*" to-ports="4502"/>'), good=_GOOD,
)  # fmt: skip
def adobe_in_silverlight(document: LintDocument) -> Iterator[Hit]:
    for _, child in _misplaced(document):
        if child.name in _ADOBE:
            yield Hit(child.location, name=child.label)


def _says_subpaths(element: Element) -> bool:
    """Return whether include-subpaths is valid; any other value voids the file (FP814)."""
    return element.attributes.get("include-subpaths", "true") in ("true", "false")


@rule(
    "FP809", NOTE, "http-only-in-silverlight",
    wrong="{name} is for HTTP and has no effect on sockets", instead="remove it from a socket policy",
    clients=_ONLY, bad=_file(more='<resource path="/"/>'), good=_GOOD,
)  # fmt: skip
def http_only(document: LintDocument) -> Iterator[Hit]:
    if document.served_from == SILVERLIGHT_HTTP_PORT:
        return  # the same file is the site's policy for HTTP
    for element in _all(document, "resource", "allow-from"):
        if element.name == "resource" and _says_subpaths(element):
            yield Hit(element.location, name=element.label)
        for name in _HTTP_ATTRIBUTES:
            if name in element.attributes:
                yield Hit(element.name_location(name), name=name)


@rule(
    "FP810", WARNING, "nul-for-silverlight",
    wrong="a NUL follows the policy, and Silverlight takes it as a part of the XML",
    instead="end the file before the NUL: flashpol serves the policy without it",
    clients=_ONLY, bad=_GOOD + "\0", good=_GOOD,
)  # fmt: skip
def nul_at_end(document: LintDocument) -> Iterator[Hit]:
    if document.after_nul and document.fault is None:
        yield Hit(document.nul_place)


@rule(
    "FP811", ERROR, "silverlight-elsewhere",
    wrong=f"Silverlight asks for a policy on port {SILVERLIGHT_PORT}, or over HTTP on {SILVERLIGHT_HTTP_PORT}, not on"
    " {port}",
    instead=f"serve the policy on {SILVERLIGHT_PORT}, or as {SILVERLIGHT_HTTP_PATH} on a web server",
    clients=_ONLY, served_from=843, good_port=SILVERLIGHT_PORT, bad=_GOOD, good=_GOOD,
)  # fmt: skip
def elsewhere(document: LintDocument) -> Iterator[Hit]:
    if document.root is not None and document.served_from not in (None, SILVERLIGHT_PORT, SILVERLIGHT_HTTP_PORT):
        yield Hit(document.root.location, port=document.served_from)


@rule(
    "FP812", NOTE, "silverlight-allows-nothing",
    wrong="the policy grants nothing: no content may connect",
    instead="write <cross-domain-access> with a <policy> in it",
    clients=_ONLY, bad="<access-policy/>", good=_GOOD,
)  # fmt: skip
def allows_nothing(document: LintDocument) -> Iterator[Hit]:
    if document.root is not None and next(_all(document, "policy"), None) is None:
        yield Hit(document.root.location)


@rule(
    "FP813", ERROR, "unknown-silverlight-attribute",
    wrong="{element} has no attribute {name}, and Silverlight ignores the element because of it", instead="{remedy}",
    clients=_ONLY, bad=_GOOD.replace("<allow-from>", '<allow-from headers="*">'), good=_GOOD,
)  # fmt: skip
def unknown_attribute(document: LintDocument) -> Iterator[Hit]:
    if document.root is None:
        return
    for element in (document.root, *_all(document, *_INSIDE, *_ATTRIBUTES)):
        known = _KNOWN.get(element.name, ())
        for name in element.attributes:
            if name not in known:
                remedy = f"write nothing but {' and '.join(known)}" if known else "remove it"
                yield Hit(element.name_location(name), element=element.label, name=shown(name), remedy=remedy)


@rule(
    "FP814", ERROR, "bad-include-subpaths",
    wrong="include-subpaths is {value}", instead='write "true" or "false", in lower case',
    clients=_ONLY,
    bad=_file(more='<resource path="/" include-subpaths="yes"/>'),
    good=_GOOD,
)  # fmt: skip
def bad_include_subpaths(document: LintDocument) -> Iterator[Hit]:
    for element in _all(document, "resource"):
        if not _says_subpaths(element):
            where = element.value_location("include-subpaths")
            yield Hit(where, value=shown(element.attributes["include-subpaths"]))


@rule(
    "FP815", WARNING, "silverlight-sockets-by-url",
    wrong=f"for sockets Silverlight fetches {SILVERLIGHT_HTTP_PATH} from port {SILVERLIGHT_HTTP_PORT} only, and this is"
    " port {port}",
    instead=f"remove socket-resource, or serve the file on port {SILVERLIGHT_HTTP_PORT}",
    clients=_ONLY, kinds=(URL,), served_from=8080, good_port=SILVERLIGHT_HTTP_PORT, bad=_GOOD, good=_GOOD,
)  # fmt: skip
def sockets_by_url(document: LintDocument) -> Iterator[Hit]:
    if document.served_from not in (None, SILVERLIGHT_HTTP_PORT):
        for element in _all(document, "socket-resource"):
            yield Hit(element.location, port=document.served_from)
