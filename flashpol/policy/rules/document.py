"""FP1xx: mistakes in the bytes and the XML, which prevent reading the file as a policy.

The readers stop at their first mistake and name it; the rules here give each kind its code. The examples are in
Adobe's dialect, also where a rule concerns Silverlight.
"""

import codecs
from collections.abc import Iterator

from flashpol.policy.decoding import START
from flashpol.policy.lint_document import DASHES, LintDocument
from flashpol.policy.model import (
    DocumentError,
    EmptyError,
    EncodingError,
    EntityError,
    HtmlPageError,
    HttpReplyError,
    LengthPrefixError,
    LimitError,
    Location,
    NulError,
)
from flashpol.policy.rules.registry import CLIENTS, ERROR, GOOD, WARNING, Finder, Hit, flash_file, grant, rule

_BLANK = " \t\r\n"


def _said(kind: type[DocumentError]) -> Finder:
    """Report the mistakes that the readers refused as `kind`, in their words."""

    def find(document: LintDocument) -> Iterator[Hit]:
        for error in (document.fault, document.malformed):
            if type(error) is kind:
                yield Hit(error.location or START, reason=error.wrong, remedy=error.instead)

    return find


rule(
    "FP101", ERROR, "too-large",
    wrong="the file is larger than any policy: {reason}", instead="remove elements: {remedy}",
    clients=CLIENTS, bad=flash_file(*["<a>"] * 9, *["</a>"] * 9), good=GOOD,
)(_said(LimitError))  # fmt: skip

rule(
    "FP102", ERROR, "empty",
    wrong="the policy is empty", instead="write at least <cross-domain-policy/>, which allows nothing",
    clients=CLIENTS, bad="\n", good=GOOD,
)(_said(EmptyError))  # fmt: skip

rule(
    "FP103", ERROR, "http-reply",
    wrong="this is an HTTP reply with its headers: clients ask for socket policies without HTTP",
    instead="keep only the XML; a crossdomain.xml that a web server sends allows no socket",
    clients=CLIENTS, bad="HTTP/1.1 200 OK\nContent-Type: text/xml\n\n" + GOOD, good=GOOD,
)(_said(HttpReplyError))  # fmt: skip

rule(
    "FP104", ERROR, "html-page",
    wrong="this is an HTML page", instead="serve the policy's XML itself",
    clients=CLIENTS, bad="<!DOCTYPE html>\n<html><body>404 Not Found</body></html>", good=GOOD,
)(_said(HtmlPageError))  # fmt: skip

rule(
    "FP105", ERROR, "length-prefix",
    wrong="two bytes of length precede the XML, as Java's writeUTF writes them",
    instead="remove them, and send bytes instead of calling writeUTF",
    clients=CLIENTS, bad=len(GOOD).to_bytes(2, "big") + GOOD.encode(), good=GOOD,
)(_said(LengthPrefixError))  # fmt: skip


@rule(
    "FP106", ERROR, "utf-16",
    wrong="the policy is UTF-16, and clients stop reading at its first NUL byte", instead="save the file as UTF-8",
    clients=CLIENTS, bad=codecs.BOM_UTF16_LE + GOOD.encode("utf-16-le"), good=GOOD,
)  # fmt: skip
def utf_16(document: LintDocument) -> Iterator[Hit]:
    if document.fault is None and b"\0" in document.data.removesuffix(b"\0"):
        yield Hit(START)


rule(
    "FP107", ERROR, "nul-inside",
    wrong="a NUL byte inside the policy, where clients stop reading",
    instead="remove it; one NUL is allowed at the end",
    clients=CLIENTS, bad=GOOD.replace("\n", "\n\0", 1), good=GOOD,
)(_said(NulError))  # fmt: skip


@rule(
    "FP108", ERROR, "encoding",
    wrong="the bytes are not text in the expected encoding: {reason}",
    instead="save the file as plain ASCII, or as UTF-8 with no other encoding declared",
    clients=CLIENTS,
    bad=flash_file("<!-- caf\u00e9 -->", grant()).encode("latin-1"),
    good=flash_file("<!-- caf\u00e9 -->", grant()),
)  # fmt: skip
def encoding(document: LintDocument) -> Iterator[Hit]:
    if not document.typography:  # FP109 explains those bytes better
        yield from _said(EncodingError)(document)


@rule(
    "FP109", ERROR, "typographic-characters",
    wrong="{characters} in the markup, as word processors and blogs insert {them}",
    instead="write straight quotes, hyphens and plain spaces",
    clients=CLIENTS,
    bad=flash_file("<allow-access-from domain=\u201c*\u201d to-ports=\u201c1935\u201d/>"), good=GOOD,
)  # fmt: skip
def typographic_characters(document: LintDocument) -> Iterator[Hit]:
    for where, characters in document.typography:
        kinds = sorted({f"U+{ord(c):04X}" for c in characters})
        many = len(characters) > 1
        yield Hit(
            where,
            characters=f"{len(characters)} typographic characters ({', '.join(kinds)})"
            if many
            else f"the typographic character {kinds[0]}",
            them="them" if many else "it",
        )


@rule(
    "FP110", ERROR, "malformed-xml",
    wrong="this is not well-formed XML: {reason}", instead="{remedy}",
    clients=CLIENTS,
    bad=flash_file('<allow-access-from domain="*"to-ports="1935"/>'), good=GOOD,
)  # fmt: skip
def malformed_xml(document: LintDocument) -> Iterator[Hit]:
    told = {where.line for where, _ in document.typography}
    for hit in _said(DocumentError)(document):
        # A "<!–" or a quote that FP109 reports is not reported again as malformed XML.
        if hit.location.line not in told and not _is_typographic(document, hit.location):
            yield hit


def _is_typographic(document: LintDocument, where: Location) -> bool:
    return any(
        any(c in DASHES for c in characters) and place.line <= where.line for place, characters in document.typography
    )


rule(
    "FP111", ERROR, "entities",
    wrong="entities are refused: {reason}", instead="write the characters themselves, and no DOCTYPE with [ ]",
    clients=CLIENTS,
    bad='<!DOCTYPE cross-domain-policy [<!ENTITY host "*">]>\n' + GOOD,
    good='<!DOCTYPE cross-domain-policy SYSTEM "http://www.adobe.com/xml/dtds/cross-domain-policy.dtd">\n' + GOOD,
)(_said(EntityError))  # fmt: skip


@rule(
    "FP112", ERROR, "stray-text",
    wrong="text is not allowed here: {reason}", instead="remove it, or write <!-- --> around it",
    clients=CLIENTS,
    bad=flash_file("allow the game:", grant()), good=flash_file("<!-- allow the game: -->", grant()),
)  # fmt: skip
def stray_text(document: LintDocument) -> Iterator[Hit]:
    for error in document.stray:
        yield Hit(error.location or START, reason=error.wrong, remedy=error.instead)


@rule(
    "FP113", WARNING, "byte-order-mark",
    wrong="a byte order mark precedes the XML: no document says that Flash or Unity skip it",
    instead='save the file as "UTF-8 without BOM", or as plain ASCII',
    clients=("flash", "unity"), bad="\ufeff" + GOOD, good=GOOD,
)  # fmt: skip
def byte_order_mark(document: LintDocument) -> Iterator[Hit]:
    if document.data.startswith(codecs.BOM_UTF8):
        yield Hit(START)


@rule(
    "FP114", WARNING, "blank-before-declaration",
    wrong="white space precedes the XML declaration, which XML forbids: strict readers refuse the file",
    instead="begin the file with <?xml, or remove the declaration",
    clients=("flash", "unity"), bad='\n<?xml version="1.0"?>\n' + GOOD, good='<?xml version="1.0"?>\n' + GOOD,
)  # fmt: skip
def blank_before_declaration(document: LintDocument) -> Iterator[Hit]:
    text = document.text
    if document.fault is None and text[:1] in tuple(_BLANK) and text.lstrip(_BLANK).startswith("<?xml"):
        yield Hit(START)
