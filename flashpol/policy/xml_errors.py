"""What an author did when expat says "not well-formed": words for the mistakes that operators really make."""

import re
from xml.parsers.expat import errors

from flashpol.policy.model import shown

# Characters that word processors, blogs and chat programs put in place of plain ones.
TYPOGRAPHY = (
    ("\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2032\u2033", "typographic quote", 'write a straight quote (")'),
    ("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "typographic dash", "write hyphens, and comments as <!-- -->"),
    ("\u00a0\u2002\u2003\u2007\u2009\u200b\u202f\ufeff", "special space", "write a plain space"),
)

# Errors whose number alone says enough: (what is wrong, what to write instead).
_BY_CODE = {
    errors.codes[error]: words
    for error, words in {
        errors.XML_ERROR_NO_ELEMENTS: ("the document ends before its root element does", "check for a cut-off file"),
        errors.XML_ERROR_UNCLOSED_TOKEN: ("what begins here never ends", 'check for a missing ">", "-->" or quote'),
        errors.XML_ERROR_TAG_MISMATCH: ("this does not close the element that is open", "close elements in order"),
        errors.XML_ERROR_DUPLICATE_ATTRIBUTE: ("this attribute is given twice", "keep one of the two"),
        errors.XML_ERROR_JUNK_AFTER_DOC_ELEMENT: ("something follows the root element", "put everything inside it"),
        errors.XML_ERROR_BAD_CHAR_REF: ("this refers to no character", "write the character itself"),
        errors.XML_ERROR_MISPLACED_XML_PI: ("an XML declaration in mid-document", "keep one, at the beginning"),
        errors.XML_ERROR_XML_DECL: ("the XML declaration is malformed", 'write <?xml version="1.0"?>'),
    }.items()
}

# Enough for "&" and a name after it.
_LOOK_BEHIND = 16

# For "invalid token", the first row that fits: what stands just before, what expat stumbled on, and the words.
_BY_NEIGHBOURS = tuple(
    (re.compile(before), re.compile(found), wrong, instead)
    for before, found, wrong, instead in (
        ("&[A-Za-z0-9]*$", "", 'a "&" that begins no reference', "write &amp;"),
        ("--$", "", '"--" inside a comment', "write a single hyphen there; only --> ends a comment"),
        ("=$", "", "an attribute value without quotes", 'write attributes as name="value"'),
        ("[\"']$", "[A-Za-z_]", "no space before the next attribute", "write one before each"),
        ("", "<", 'a "<" inside a tag or a value', 'check for a missing quote or ">" before it'),
        ("", "[/>]", "the tag ends in the middle of an attribute", 'write attributes as name="value"'),
        ("", "", "a character that cannot stand here", "check for wrong or missing quotes before it"),
    )
)


def explain(code: int, text: str, at: int) -> tuple[str, str]:
    """Return what is wrong and what to write instead, for expat's error `code` at character `at` of `text`."""
    before, found = text[max(0, at - _LOOK_BEHIND) : at], text[at : at + 1]
    for characters, kind, instead in TYPOGRAPHY:
        if found and found in characters:
            return f"the character U+{ord(found):04X} is a {kind}", instead
    if code in _BY_CODE:
        return _BY_CODE[code]
    if code == errors.codes[errors.XML_ERROR_SYNTAX] or (at == 0 and found != "<"):
        return f"{shown(text[at : at + 20])} stands where the root element should begin", "keep only the XML"
    if not found.isprintable():
        return f"the character U+{ord(found):04X} is not allowed", "remove it"
    for before_pattern, found_pattern, wrong, instead in _BY_NEIGHBOURS:
        if before_pattern.search(before) and found_pattern.match(found):
            return wrong, instead
    raise AssertionError("the last row fits everything")
