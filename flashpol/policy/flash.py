"""Adobe's dialect for sockets: reads `cross-domain-policy` XML into a `Policy`, and writes it.

    cross-domain-policy
     ├── site-control?        permitted-cross-domain-policies = none | master-only | all
     └── allow-access-from*   domain, to-ports, secure = true | false

Source: Adobe's `PolicyFileSocket.xsd` and the AS3 developer's guide, "Connecting to sockets". The reader is strict,
with one exception: `site-control` may come anywhere, since many files that work break Adobe's order.
HTTP policies (`crossdomain.xml`) share the root and some names; elements that only they may hold are refused as such.
"""

import re
from collections.abc import Callable, Mapping

from flashpol.policy.decoding import START, decode, split_nul
from flashpol.policy.grammar import check_attributes, value
from flashpol.policy.model import (
    PORTS_SINGLY,
    DocumentError,
    DomainPattern,
    GrammarError,
    Grant,
    Location,
    MetaPolicy,
    Policy,
    PortSet,
    shown,
)
from flashpol.policy.reader import Element, read
from flashpol.policy.sizes import LIGHTSPARK_READ_BYTES

ROOT = "cross-domain-policy"

# Adobe's published example names its schema in these attributes of the root element; clients ignore them.
_ROOT_ATTRIBUTES = ("xmlns:xsi", "xsi:noNamespaceSchemaLocation")
_META_ATTRIBUTES = ("permitted-cross-domain-policies",)
_GRANT_ATTRIBUTES = ("domain", "to-ports", "secure")

SILVERLIGHT_POLICY = "this is a Silverlight policy"
# Documents that are served by mistake, by the name of their root element.
_OTHER_ROOTS = {
    "access-policy": (SILVERLIGHT_POLICY, "serve it with the silverlight dialect, on port 943"),
    "policy-file-request": ("this is a client's request, not a policy", f"write <{ROOT}>...</{ROOT}>"),
    "allow-access-from": ("the root element is missing", f"write <{ROOT}> before and </{ROOT}> after the grants"),
    "site-control": ("the root element is missing", f"write <{ROOT}> before and </{ROOT}> after all elements"),
    "html": ("this is an HTML page", "serve the policy's XML itself"),
}

# A comment has this in place of a hyphen that another hyphen follows: the escape of Python and many languages.
_COMMENT_HYPHEN = r"\\x2d"

_OTHER_ELEMENTS = {
    "allow-http-request-headers-from": ("is for HTTP policies only", "remove it: sockets have no headers"),
    "allow-access-from-identity": ("is not for sockets", "remove it, or grant by domain with allow-access-from"),
    ROOT: ("is inside another", "keep one root element"),
}

_OTHER_META = {
    "by-content-type": "is for HTTP policies only",
    "by-ftp-filename": "is for FTP policies only",
    "none-this-response": "is for HTTP headers only",
}

# Lightspark hangs after a read of exactly 4,096 bytes if the server keeps the connection open, so a reply, with its NUL
# and the newline at the end of a file, should be shorter.
_REPLY_BYTES = LIGHTSPARK_READ_BYTES


def parse(data: bytes) -> Policy:
    """Read a socket policy file.

    The grammar is strict; the grants keep their order and place. One NUL at the end, a byte order mark, UTF-16,
    a DOCTYPE without [ ], comments, and white space between elements are accepted.
    Raises PolicyError (see `model` for its kinds), with line and column, for every other input, and nothing else.
    The time is proportional to the size, also for hostile bytes.
    """
    return _policy(read(decode(data), _check_root))


def compile_reply(data: bytes) -> bytes:
    """Return the reply for the policy file `data`: its own bytes, ended by exactly one NUL.

    Flash Player takes the NUL for the end ("Learning ActionScript 2.0", p. 706); it is added if the file has none, and
    bytes after it are left out. Raises PolicyError if `parse` does, and DocumentError for UTF-16, which `parse` accepts
    but which is full of NULs: every client would stop at its first character.
    """
    parse(data)
    reply, _ = split_nul(data)
    if b"\0" in reply:
        raise DocumentError(
            "the policy is UTF-16, and clients stop reading at its first NUL byte", "save the file as UTF-8", START
        )
    return reply + b"\0"


def render(policy: Policy, comments: Mapping[Grant | MetaPolicy, str] | None = None) -> bytes:
    """Return `policy` as a file: canonical ASCII XML without NUL and without a newline at the end.

    `parse` reads it back as an equal policy, within the limits of `reader` and `decoding`.

    The file has no DOCTYPE: no client needs one, and a reader that resolves it would fetch a DTD. Short runs of ports
    are written one by one, for clients that misread ranges, unless the reply would then reach 4,096 bytes.
    `comments` are written as XML comments before the grants, or the meta-policy, that they belong to.
    """
    comments = comments or {}
    data = _render(policy, comments, lambda ports: ports.listed(singly=PORTS_SINGLY))
    if len(data) + len("\n\0") >= _REPLY_BYTES:
        data = _render(policy, comments, str)
    return data


def _render(policy: Policy, comments: Mapping[Grant | MetaPolicy, str], ports: Callable[[PortSet], str]) -> bytes:
    lines: list[str] = []
    if policy.meta is not None:
        lines.extend(_comment(comments.get(policy.meta)))
        lines.append(f'<site-control permitted-cross-domain-policies="{policy.meta.value}"/>')
    for grant in policy.grants:
        lines.extend(_comment(comments.get(grant)))
        # Nothing needs escaping: patterns and port sets contain no character that is special to XML.
        secure = ' secure="true"' if grant.secure else ""
        lines.append(f'<allow-access-from domain="{grant.domain}" to-ports="{ports(grant.ports)}"{secure}/>')
    root = [f"<{ROOT}>", *lines, f"</{ROOT}>"] if lines else [f"<{ROOT}/>"]
    return "\n".join(['<?xml version="1.0"?>', *root]).encode("ascii")


def _comment(text: str | None) -> list[str]:
    """Return no line or one: a well-formed XML comment whatever `text` is, so without "--" or control characters."""
    if text is None:
        return []
    plain = "".join(c if c.isascii() and c.isprintable() else ascii(c)[1:-1] for c in text)
    return [f"<!-- {re.sub('-(?=-)', _COMMENT_HYPHEN, plain)} -->"]


def _check_root(element: Element) -> None:
    if element.name != ROOT:
        wrong, instead = _OTHER_ROOTS.get(
            element.name.lower(), (f"the root element is {element.label}", f"write <{ROOT}>, in lower case")
        )
        raise GrammarError(wrong, instead, element.location)
    check_attributes(element, _ROOT_ATTRIBUTES)


def _policy(root: Element) -> Policy:
    grants: list[Grant] = []
    meta: MetaPolicy | None = None
    meta_location: Location | None = None
    for element in root.children:
        if element.name == "allow-access-from":
            grants.append(_grant(element))
        elif element.name == "site-control":
            if meta_location is not None:
                raise GrammarError(
                    f"a second site-control, after the one at {meta_location}", "keep one", element.location
                )
            meta, meta_location = _meta(element), element.location
        else:
            wrong, instead = _OTHER_ELEMENTS.get(
                element.name, ("is not known in socket policies", "write allow-access-from or site-control")
            )
            raise GrammarError(f"{element.label} {wrong}", instead, element.location)
        for child in element.children:
            wrong = f"{child.label} is inside {element.name}"
            raise GrammarError(wrong, f"close {element.name} with /> first", child.location)
    return Policy(tuple(grants), meta, meta_location)


def _grant(element: Element) -> Grant:
    check_attributes(element, _GRANT_ATTRIBUTES)
    domain = value(element, "domain", DomainPattern.parse, 'write domain="*.example.com", or "*" for every site')
    ports = value(element, "to-ports", PortSet.parse, 'write to-ports="1935,8000-8100", or "*" for all')
    secure = "secure" in element.attributes and value(element, "secure", _secure, "")
    return Grant(domain, ports, secure, element.location)


def _secure(text: str) -> bool:
    if text not in ("true", "false"):
        raise GrammarError(f"secure is {shown(text)}", 'write "true" or "false"')
    return text == "true"


def _meta(element: Element) -> MetaPolicy:
    check_attributes(element, _META_ATTRIBUTES)
    return value(element, _META_ATTRIBUTES[0], _meta_value, f'write {_META_ATTRIBUTES[0]}="master-only"')


def _meta_value(text: str) -> MetaPolicy:
    try:
        return MetaPolicy(text)
    except ValueError:
        why = _OTHER_META.get(text, "is not a meta-policy")
        raise GrammarError(f"{shown(text)} {why}", 'write "none", "master-only" or "all"') from None
