"""FP9xx: Adobe's dialect in a file that is fetched by URL, `crossdomain.xml`, as in `PolicyFileHttp.xsd`.

cross-domain-policy
 ├── site-control?                        permitted-cross-domain-policies = none | master-only | by-content-type |
 │                                            by-ftp-filename | all
 ├── allow-access-from*                   domain, secure = true (default) | false
 ├── allow-access-from-identity*          signatory, certificate: not checked here
 └── allow-http-request-headers-from*     domain, headers, secure

Such a file decides what content of other sites may load by URL from this scheme, host and port. It opens no socket.
Its `secure` is true by default: then content that came without HTTPS may not load over HTTPS.
"""

from collections.abc import Iterator

from flashpol.policy import flash
from flashpol.policy.decoding import START
from flashpol.policy.lint_document import LintDocument
from flashpol.policy.model import DomainPattern, PolicyError, shown
from flashpol.policy.reader import Element
from flashpol.policy.rules.grammar import children, likely
from flashpol.policy.rules.registry import ADOBE, ERROR, NAMES, NOTE, URL, WARNING, Hit, control, flash_file, rule

_META = "permitted-cross-domain-policies"
_VALUES = ("none", "master-only", "by-content-type", "by-ftp-filename", "all")
_HEADERS = "allow-http-request-headers-from"
_HEADER_ATTRIBUTES = ("domain", "headers", "secure")
_KNOWN = ("allow-access-from", "site-control", _HEADERS, "allow-access-from-identity")
_ONLY_URL = (URL,)


def _grant(domain: str = "www.example.com", more: str = "") -> str:
    """Return an example's `allow-access-from`."""
    return f'<allow-access-from domain="{domain}"{more}/>'


_GOOD = flash_file(_grant())


@rule(
    "FP901", WARNING, "ports-by-url",
    wrong="to-ports is for sockets: in a file by URL it limits nothing, and the grant opens every URL of this server",
    instead="remove to-ports, or remove the grant and write it into the socket policy",
    clients=ADOBE, kinds=_ONLY_URL, bad=flash_file(_grant(more=' to-ports="1935"')), good=_GOOD,
)  # fmt: skip
def ports_by_url(document: LintDocument) -> Iterator[Hit]:
    for line in document.grants:
        if "to-ports" in line.element.attributes:
            yield Hit(line.element.name_location("to-ports"))


@rule(
    "FP902", ERROR, "unknown-element-by-url",
    wrong="{name} is not known in policies by URL", instead="write {remedy}",
    clients=ADOBE, kinds=_ONLY_URL, bad=flash_file('<allow-acces-from domain="*"/>'), good=_GOOD,
)  # fmt: skip
def unknown_element(document: LintDocument) -> Iterator[Hit]:
    for element in children(document):
        if element.name not in (*_KNOWN, flash.ROOT):  # FP204 reports a second root
            meant = likely(element.name, _KNOWN)
            yield Hit(element.location, name=element.label, remedy=f"<{meant}>" if meant else "allow-access-from")


@rule(
    "FP903", ERROR, "bad-headers-grant",
    wrong="allow-http-request-headers-from {why}", instead="{remedy}",
    clients=NAMES, kinds=_ONLY_URL, bad=flash_file(_grant(), f'<{_HEADERS} domain="www.example.com"/>'),
    good=flash_file(_grant(), f'<{_HEADERS} domain="www.example.com" headers="SOAPAction"/>'),
)  # fmt: skip
def bad_headers_grant(document: LintDocument) -> Iterator[Hit]:
    for element in children(document):
        if element.name == _HEADERS:
            yield from _headers_grant(element)


def _headers_grant(element: Element) -> Iterator[Hit]:
    for name in element.attributes:
        if name not in _HEADER_ATTRIBUTES:
            remedy = f"write nothing but {', '.join(_HEADER_ATTRIBUTES)}"
            yield Hit(element.name_location(name), why=f"has no attribute {shown(name)}", remedy=remedy)
    for name, example in (("domain", "*.example.com"), ("headers", "SOAPAction")):
        if not element.attributes.get(name, "").strip():
            yield Hit(element.location, why=f"names no {name}", remedy=f'write {name}="{example}", or "*" for all')
    try:
        DomainPattern.parse(element.attributes.get("domain") or "*")
    except PolicyError as error:
        remedy = error.instead or 'write a name such as "example.com"'
        yield Hit(element.value_location("domain"), why=f"cannot be read: {error.wrong}", remedy=remedy)
    secure = element.attributes.get("secure", "true")
    if secure not in ("true", "false"):
        yield Hit(element.value_location("secure"), why=f"has secure={shown(secure)}", remedy='write "true" or "false"')
    for child in element.children:
        yield Hit(child.location, why=f"contains {child.label}", remedy=f"close {_HEADERS} with /> first")


@rule(
    "FP904", ERROR, "unknown-meta-policy-by-url",
    wrong="{value} {why}", instead=f"write one of {', '.join(_VALUES)}",
    clients=NAMES, kinds=_ONLY_URL, bad=flash_file(control("none-this-response"), _grant()),
    good=flash_file(control("by-content-type"), _grant()),
)  # fmt: skip
def unknown_meta_policy(document: LintDocument) -> Iterator[Hit]:
    for element in document.controls:
        value = element.attributes.get(_META)
        if value is not None and value not in _VALUES:
            why = "is for the header X-Permitted-Cross-Domain-Policies only"
            is_header = value == "none-this-response"
            yield Hit(
                element.value_location(_META), value=shown(value), why=why if is_header else "is not a meta-policy"
            )


@rule(
    "FP905", WARNING, "insecure-by-url",
    wrong='secure="false" lets content that came without HTTPS, which anyone on its way can change, load over HTTPS',
    instead="remove it, and serve the content over HTTPS",
    clients=NAMES, kinds=_ONLY_URL, bad=flash_file(_grant(more=' secure="false"')), good=_GOOD,
)  # fmt: skip
def insecure(document: LintDocument) -> Iterator[Hit]:
    for element in children(document):
        if element.name in ("allow-access-from", _HEADERS) and element.attributes.get("secure") == "false":
            yield Hit(element.value_location("secure"))


@rule(
    "FP906", NOTE, "every-site-by-url",
    wrong="content of every site may load what this server sends, with the cookies of its visitor",
    instead='write the sites, as in domain="*.example.com", unless nothing here depends on who asks',
    clients=ADOBE, kinds=_ONLY_URL, bad=flash_file(_grant("*")), good=_GOOD,
)  # fmt: skip
def every_site(document: LintDocument) -> Iterator[Hit]:
    for line in document.grants:
        if line.domain is not None and line.domain == DomainPattern("", wildcard=True):
            yield Hit(line.domain_place)


@rule(
    "FP907", WARNING, "nul-by-url",
    wrong="a NUL follows the policy: it ends a policy for sockets, and is no XML",
    instead="end the file before the NUL: flashpol serves it by URL without",
    clients=ADOBE, kinds=_ONLY_URL, bad=_GOOD + "\0", good=_GOOD,
)  # fmt: skip
def nul_by_url(document: LintDocument) -> Iterator[Hit]:
    if document.after_nul and document.fault is None:
        yield Hit(document.nul_place)


@rule(
    "FP908", WARNING, "utf-16-by-url",
    wrong="the policy is UTF-16: no document says that clients read that",
    instead="save the file as UTF-8",
    clients=ADOBE, kinds=_ONLY_URL, bad=_GOOD.encode("utf-16"), good=_GOOD,
)  # fmt: skip
def utf_16_by_url(document: LintDocument) -> Iterator[Hit]:
    if document.fault is None and b"\0" in document.file:
        yield Hit(START)
