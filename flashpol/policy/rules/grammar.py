"""FP2xx: Adobe's grammar, as in `PolicyFileSocket.xsd`: which elements and attributes exist, and where."""

from collections.abc import Iterator
from difflib import get_close_matches

from flashpol.policy import flash
from flashpol.policy.lint_document import COMMENT, ROOT_TAG, SILVERLIGHT_ROOT, LintDocument
from flashpol.policy.model import shown
from flashpol.policy.reader import Element
from flashpol.policy.rules.registry import (
    ADOBE,
    CLIENTS,
    ERROR,
    GOOD,
    NOTE,
    READERS,
    WARNING,
    Hit,
    control,
    flash_file,
    grant,
    rule,
)

KNOWN = {
    "allow-access-from": ("domain", "to-ports", "secure"),
    "site-control": ("permitted-cross-domain-policies",),
}
_NOT_FOR_SOCKETS = {
    "allow-http-request-headers-from": "is for HTTP policies only: sockets have no headers",
    "allow-access-from-identity": "is not for sockets",
}
_SILVERLIGHT = ("access-policy", "cross-domain-access", "policy", "allow-from", "domain", "grant-to", "socket-resource")
_SILVERLIGHT_FILE = """<access-policy>
  <cross-domain-access>
    <policy>
      <allow-from><domain uri="*"/></allow-from>
      <grant-to><socket-resource port="4502-4534" protocol="tcp"/></grant-to>
    </policy>
  </cross-domain-access>
</access-policy>"""


def likely(name: str, known: tuple[str, ...]) -> str:
    """Return the one of `known` that was probably meant, or an empty text."""

    return next(iter(get_close_matches(name[:40].lower(), known, n=1)), "")


def children(document: LintDocument) -> list[Element]:
    return document.root.children if document.root is not None else []


def wrong_root(document: LintDocument) -> Iterator[Hit]:
    if document.root is not None and document.root.name not in (flash.ROOT, SILVERLIGHT_ROOT):
        name = document.root.name.lower()
        yield Hit(document.root.location, name=document.root.label, root=f"<{name}>")
    elif document.other_root is not None and document.other_root.name not in KNOWN and not document.later_root:
        meant = likely(document.other_root.name, (flash.ROOT, SILVERLIGHT_ROOT)) or flash.ROOT
        root = f"<{meant}>"
        if document.other_root.name == "policy-file-request":
            root = f"<{flash.ROOT}>; this is the request that clients send"
        elif inside := ROOT_TAG.search(COMMENT.sub("", document.text)):
            root = f"only <{inside[1]}>, which is inside it"
        yield Hit(document.other_root.location, name=document.other_root.label, root=root)


rule(
    "FP115", ERROR, "wrong-root",
    wrong="the root element is {name}", instead="write {root}",
    clients=CLIENTS, bad="<cross-domain>\n  " + grant() + "\n</cross-domain>", good=GOOD,
)(wrong_root)  # fmt: skip


def _root_after(document: LintDocument) -> str:
    """Return the name of the root that `other_root` precedes, closed or not, or an empty text."""
    other = document.other_root
    if other is None or document.later_root or other.name not in KNOWN:
        return document.later_root
    found = ROOT_TAG.search(COMMENT.sub("", document.text))  # an element of a policy contains no root
    return found[1] if found else ""


@rule(
    "FP116", ERROR, "missing-root",
    wrong="the root element is missing: the file begins with {name}",
    instead="write <cross-domain-policy> before and </cross-domain-policy> after all elements",
    clients=CLIENTS, bad=grant() + "\n" + grant("843"), good=GOOD,
)  # fmt: skip
def missing_root(document: LintDocument) -> Iterator[Hit]:
    if document.other_root is not None and document.other_root.name in KNOWN and not _root_after(document):
        yield Hit(document.other_root.location, name=document.other_root.label)


@rule(
    "FP119", ERROR, "element-before-root",
    wrong="{name} precedes the root element <{root}>", instead="{remedy}",
    clients=CLIENTS, bad=grant() + "\n" + GOOD, good=GOOD,
)  # fmt: skip
def element_before_root(document: LintDocument) -> Iterator[Hit]:
    if document.other_root is not None and (root := _root_after(document)):
        members = KNOWN if root.lower() == flash.ROOT else _SILVERLIGHT
        meant = likely(document.other_root.name, tuple(members))
        remedy = f"write <{meant}>, and move it inside <{root}>" if meant else "remove it"
        if meant == document.other_root.name:
            remedy = f"move it inside <{root}>"
        yield Hit(document.other_root.location, name=document.other_root.label, root=root, remedy=remedy)


@rule(
    "FP117", ERROR, "other-dialect",
    wrong="this is {dialect} policy, which {clients} cannot read", instead="write {remedy}",
    clients=CLIENTS, bad=_SILVERLIGHT_FILE, good=GOOD,
)  # fmt: skip
def other_dialect(document: LintDocument) -> Iterator[Hit]:
    readers = READERS.get(document.dialect, CLIENTS)
    if document.root is not None and document.clients.isdisjoint(readers):
        is_flash = document.dialect == "flash"
        yield Hit(
            document.root.location,
            dialect="an Adobe" if is_flash else "a Silverlight",
            clients=" and ".join(client for client in CLIENTS if client in document.clients),
            remedy=f"<{SILVERLIGHT_ROOT if is_flash else flash.ROOT}>",
        )


@rule(
    "FP201", ERROR, "unknown-element",
    wrong="{name} is not known in socket policies", instead="write {remedy}",
    clients=ADOBE, bad=flash_file('<allow-acces-from domain="*" to-ports="1935"/>'), good=GOOD,
)  # fmt: skip
def unknown_element(document: LintDocument) -> Iterator[Hit]:
    for element in children(document):
        if element.name not in KNOWN and not (
            element.name in _NOT_FOR_SOCKETS or element.name in _SILVERLIGHT or element.name == flash.ROOT
        ):
            meant = likely(element.name, tuple(KNOWN))
            yield Hit(
                element.location,
                name=element.label,
                remedy=f"<{meant}>" if meant else "allow-access-from or site-control",
            )


@rule(
    "FP202", ERROR, "not-for-sockets",
    wrong="{name} {why}", instead="remove it",
    clients=ADOBE,
    bad=flash_file(grant(), '<allow-http-request-headers-from domain="*" headers="*"/>'), good=GOOD,
)  # fmt: skip
def not_for_sockets(document: LintDocument) -> Iterator[Hit]:
    for element in children(document):
        if element.name in _NOT_FOR_SOCKETS:
            yield Hit(element.location, name=element.label, why=_NOT_FOR_SOCKETS[element.name])


@rule(
    "FP203", ERROR, "mixed-dialects",
    wrong="{name} belongs to Silverlight's dialect, and this policy is in Adobe's",
    instead="write allow-access-from here, and serve a separate access-policy on port 943",
    clients=ADOBE,
    bad=flash_file(grant(), '<socket-resource port="4502" protocol="tcp"/>'), good=GOOD,
)  # fmt: skip
def mixed_dialects(document: LintDocument) -> Iterator[Hit]:
    for element in children(document):
        if element.name in _SILVERLIGHT:
            yield Hit(element.location, name=element.label)


@rule(
    "FP204", ERROR, "nested-element",
    wrong="{name} is inside {parent}", instead="write one after the other: {remedy}",
    clients=ADOBE,
    bad=flash_file('<allow-access-from domain="*" to-ports="1935">', "  " + grant("843"), "</allow-access-from>"),
    good=flash_file(grant("1935"), grant("843")),
)  # fmt: skip
def nested_element(document: LintDocument) -> Iterator[Hit]:
    for element in children(document):
        if element.name == flash.ROOT:
            yield Hit(element.location, name=element.label, parent="another", remedy="keep one root element")
        elif element.name in KNOWN:
            for child in element.children:
                remedy = f"close {element.name} with /> first"
                yield Hit(child.location, name=child.label, parent=element.label, remedy=remedy)


@rule(
    "FP205", ERROR, "unknown-attribute",
    wrong="{element} has no attribute {name}", instead="write {remedy}",
    clients=ADOBE, bad=flash_file('<allow-access-from domain="*" toports="1935"/>'), good=GOOD,
)  # fmt: skip
def unknown_attribute(document: LintDocument) -> Iterator[Hit]:
    if document.root is None:
        return
    for element in (document.root, *document.root.children):
        known = ("xmlns:xsi", "xsi:noNamespaceSchemaLocation") if element is document.root else KNOWN.get(element.name)
        for name in element.attributes:
            if known is not None and name not in known:
                meant = likely(name, known)
                yield Hit(
                    element.name_location(name),
                    element=element.label,
                    name=shown(name),
                    remedy="the element without a namespace"
                    if name == "xmlns"
                    else meant or f"nothing but {', '.join(known)}",
                )


def lacks(element: Element, name: str) -> bool:
    """Return whether an attribute is missing; a misspelt one is not missing, but reported as unknown."""
    known = KNOWN.get(element.name, ())
    return name not in element.attributes and not any(
        likely(other, known) == name for other in element.attributes if other not in known
    )


@rule(
    "FP206", ERROR, "bad-secure",
    wrong="secure is {value}", instead='write "true" or "false", in lower case, or remove the attribute',
    clients=ADOBE, bad=flash_file(grant(more=' secure="no"')), good=flash_file(grant(more=' secure="false"')),
)  # fmt: skip
def bad_secure(document: LintDocument) -> Iterator[Hit]:
    for line in document.grants:
        value = line.element.attributes.get("secure", "false")
        if value not in ("true", "false"):
            yield Hit(line.element.value_location("secure"), value=shown(value))


_SCHEMA = ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation='


@rule(
    "FP207", NOTE, "other-schema",
    wrong="the schema {schema} is not the schema of socket policies",
    instead="write PolicyFileSocket.xsd, or remove the attribute",
    clients=ADOBE,
    bad=GOOD.replace(">", f'{_SCHEMA}"http://www.adobe.com/xml/schemas/PolicyFile.xsd">', 1),
    good=GOOD.replace(">", f'{_SCHEMA}"http://www.adobe.com/xml/schemas/PolicyFileSocket.xsd">', 1),
)  # fmt: skip
def other_schema(document: LintDocument) -> Iterator[Hit]:
    name = "xsi:noNamespaceSchemaLocation"
    if document.root is not None and name in document.root.attributes:
        schema = document.root.attributes[name]
        if not schema.endswith("PolicyFileSocket.xsd"):
            yield Hit(document.root.value_location(name), schema=shown(schema))


@rule(
    "FP209", WARNING, "undeclared-prefix",
    wrong="the prefix {prefix} is not declared: readers that know namespaces refuse the file",
    instead="declare it, as in xmlns:{prefix}=..., or remove {name}",
    clients=ADOBE,
    bad=GOOD.replace(">", ' xsi:noNamespaceSchemaLocation="PolicyFileSocket.xsd">', 1), good=GOOD,
)  # fmt: skip
def undeclared_prefix(document: LintDocument) -> Iterator[Hit]:
    if document.root is None:
        return
    for name in document.root.attributes:
        prefix, colon, _ = name.partition(":")
        if colon and prefix not in ("xml", "xmlns") and f"xmlns:{prefix}" not in document.root.attributes:
            yield Hit(document.root.name_location(name), prefix=prefix, name=name)


@rule(
    "FP208", WARNING, "late-site-control",
    wrong="site-control comes after {first}",
    instead="write site-control first: Adobe's grammar has it before all grants",
    clients=ADOBE, bad=flash_file(grant(), control("all")), good=flash_file(control("all"), grant()),
)  # fmt: skip
def late_site_control(document: LintDocument) -> Iterator[Hit]:
    seen = ""
    for element in children(document):
        if element.name == "allow-access-from":
            seen = seen or f"a grant (line {element.location.line})"
        elif element.name == "site-control" and seen:
            yield Hit(element.location, first=seen)
