"""Malformed XML: each classic mistake, where it is seen, and the words for it."""

import pytest

from flashpol.policy import DocumentError, parse


def body(inside: str) -> str:
    return f"<cross-domain-policy>\n  {inside}\n</cross-domain-policy>"


@pytest.mark.parametrize(
    ("text", "line", "column", "fragment"),
    [
        ("just words", 1, 1, '"just words" stands where the root element should begin'),
        ("&lt;cross-domain-policy/&gt;", 1, 1, "stands where the root element should begin"),
        ("<cross-domain-policy>", 1, 22, "the document ends before its root element does"),
        ("<!-- only a comment -->", 1, 24, "the document ends before its root element does"),
        ("<cross-domain-policy/><a/>", 1, 23, "something follows the root element"),
        ("<cross-domain-policy/>\nx", 2, 1, "something follows the root element"),
        ("<?xml versoin='1.0'?><a/>", 1, 7, "the XML declaration is malformed"),
        ("<?xml version=\u201c1.0\u201d?><a/>", 1, 15, "the character U+201C is a typographic quote"),
        ("<!-- a --><?xml version='1.0'?><a/>", 1, 11, "an XML declaration in mid-document"),
        (body("<!\u2013 x \u2013>"), 2, 5, "U+2013 is a typographic dash; write hyphens, and comments as"),
        (body("<!-- a -- b -->"), 2, 12, '"--" inside a comment'),
        (body("<!-- unfinished"), 2, 3, "what begins here never ends"),
        (body("<allow-access-from domain=\u201c*\u201d/>"), 2, 29, "U+201C is a typographic quote"),
        (body("<allow-access-from domain=\u2018*\u2019/>"), 2, 29, "U+2018 is a typographic quote"),
        (body("<allow-access-from\u00a0domain='*'/>"), 2, 21, "U+00A0 is a special space; write a plain space"),
        (body('<allow-access-from domain="x"to-ports="*"/>'), 2, 32, "no space before the next attribute"),
        (body("<allow-access-from domain=*/>"), 2, 29, "an attribute value without quotes"),
        (body("<allow-access-from secure/>"), 2, 28, "the tag ends in the middle of an attribute"),
        (body('<allow-access-from domain="* to-ports="*"/>'), 2, 42, "check for wrong or missing quotes"),
        (body('<allow-access-from domain="*'), 3, 1, 'a "<" inside a tag or a value; check for a missing quote'),
        (body('<allow-access-from domain="*"'), 3, 1, 'a "<" inside a tag or a value'),
        (body('<allow-access-from domain="*" domain="*"/>'), 2, 33, "this attribute is given twice"),
        (body("<allow-access-from domain='a&b'/>"), 2, 33, 'a "&" that begins no reference; write &amp;'),
        (body("<allow-access-from domain='a & b'/>"), 2, 33, 'a "&" that begins no reference'),
        (body("<allow-access-from domain='&#0;'/>"), 2, 30, "this refers to no character"),
        (body("<allow-access-from domain='&x;'/>"), 2, 30, 'the entity "&x;" is not defined'),
        (body('<allow-access-from domain="*" to-ports="*">'), 3, 3, "this does not close the element that is open"),
        (body("\x01"), 2, 3, "the character U+0001 is not allowed"),
        (body("\ufffe"), 2, 3, "the character U+FFFE is not allowed"),
        (body("<1/>"), 2, 4, "a character that cannot stand here"),
    ],
)
def test_parse_malformed_xml_names_cause_and_place(text: str, line: int, column: int, fragment: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse(text.encode())
    assert fragment in str(caught.value)
    assert (caught.value.line, caught.value.column) == (line, column)
