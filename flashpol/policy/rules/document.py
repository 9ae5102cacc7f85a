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
from flashpol.policy.rules.registry import ADOBE, CLIENTS, ERROR, GOOD, WARNING, Finder, Hit, flash_file, grant, rule
from flashpol.policy.xml_errors import TYPOGRAPHY_INSTEAD, TYPOGRAPHY_WRONG, typography_values

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
    wrong="{reason}", instead="{remedy}", about="the file is larger or deeper than any policy",
    clients=CLIENTS, bad=flash_file(*["<a>"] * 9, *["</a>"] * 9), good=GOOD,
)(_said(LimitError))  # fmt: skip

rule(
    "FP102", ERROR, "empty",
    wrong="the policy is empty", instead="write at least <cross-domain-policy/>, which allows nothing",
    clients=CLIENTS, bad="\n", good=GOOD,
)(_said(EmptyError))  # fmt: skip

rule(
    "FP103", ERROR, "http-reply",
    wrong="this is an HTTP reply with its headers, which are no part of a policy",
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
    wrong="the policy is UTF-16, and {why}", instead="save the file as UTF-8",
    clients=CLIENTS, bad=codecs.BOM_UTF16_LE + GOOD.encode("utf-16-le"), good=GOOD,
)  # fmt: skip
def utf_16(document: LintDocument) -> Iterator[Hit]:
    if document.fault is None and b"\0" in document.file:
        if document.likely_dialect != "silverlight":
            yield Hit(START, why="clients stop reading at its first NUL byte")
        elif not document.file.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            yield Hit(START, why="Silverlight reads that only with a byte order mark")


rule(
    "FP107", ERROR, "nul-inside",
    wrong="a NUL byte inside the policy, where clients stop reading",
    instead="remove it; one NUL is allowed at the end",
    clients=CLIENTS, bad=GOOD.replace("\n", "\n\0", 1), good=GOOD,
)(_said(NulError))  # fmt: skip


@rule(
    "FP108", ERROR, "encoding",
    wrong="{reason}", instead="{remedy}", about="the bytes are not text, or not in the declared encoding",
    clients=CLIENTS,
    bad=flash_file("<!-- caf\u00e9 -->", grant()).encode("latin-1"),
    good=flash_file("<!-- caf\u00e9 -->", grant()),
)  # fmt: skip
def encoding(document: LintDocument) -> Iterator[Hit]:
    if not document.typography:  # FP109 explains those bytes better
        yield from _said(EncodingError)(document)


@rule(
    "FP109", ERROR, "typographic-characters",
    wrong=TYPOGRAPHY_WRONG,
    instead=TYPOGRAPHY_INSTEAD,
    clients=CLIENTS,
    bad=flash_file("<allow-access-from domain=\u201c*\u201d to-ports=\u201c1935\u201d/>"), good=GOOD,
)  # fmt: skip
def typographic_characters(document: LintDocument) -> Iterator[Hit]:
    for where, characters in document.typography:
        yield Hit(where, **typography_values(characters))


@rule(
    "FP110", ERROR, "malformed-xml",
    wrong="{reason}", instead="{remedy}", about="this is not well-formed XML",
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
    wrong="{reason}", instead="{remedy}", about="entities, or a DOCTYPE with declarations",
    clients=CLIENTS,
    bad='<!DOCTYPE cross-domain-policy [<!ENTITY host "*">]>\n' + GOOD,
    good='<!DOCTYPE cross-domain-policy SYSTEM "http://www.adobe.com/xml/dtds/cross-domain-policy.dtd">\n' + GOOD,
)(_said(EntityError))  # fmt: skip


@rule(
    "FP112", ERROR, "stray-text",
    wrong="{reason}", instead="{remedy}", about="text between elements",
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
    second = document.text.startswith("\ufeff")  # FP110 reports both
    if document.file.startswith(codecs.BOM_UTF8) and document.likely_dialect != "silverlight" and not second:
        yield Hit(START)


@rule(
    "FP114", WARNING, "blank-before-declaration",
    wrong="white space precedes the XML declaration, which XML forbids: strict readers refuse the file",
    instead="begin the file with <?xml, or remove the declaration",
    clients=("flash", "unity"), bad='\n<?xml version="1.0"?>\n' + GOOD, good='<?xml version="1.0"?>\n' + GOOD,
)  # fmt: skip
def blank_before_declaration(document: LintDocument) -> Iterator[Hit]:
    text = document.text
    if document.likely_dialect == "silverlight":
        return  # Silverlight skips white space
    if document.fault is None and text[:1] in tuple(_BLANK) and text.lstrip(_BLANK).startswith("<?xml"):
        yield Hit(START)


@rule(
    "FP118", WARNING, "after-the-nul",
    wrong="{number} the NUL that ends the policy, where clients stop reading",
    instead="end the file with one NUL or none: flashpol serves the policy with one NUL",
    clients=ADOBE, bad=GOOD + "\0\0", good=GOOD + "\0",
)  # fmt: skip
def after_the_nul(document: LintDocument) -> Iterator[Hit]:
    rest = len(document.after_nul) - 1
    if rest > 0 and document.likely_dialect != "silverlight":
        yield Hit(document.nul_place, number=f"{rest:,} bytes follow" if rest > 1 else "a byte follows")
