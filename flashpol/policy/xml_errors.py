"""Explains malformed XML: finds the first mistake of a text, in words for the mistakes that operators make.

Expat only decides whether a text is well-formed: its messages and the places where it stops differ between releases.
So the scanner here finds the cause by itself, with the same words whatever the release.

The scanner knows debris of program source (quotes that were escaped, doubled or concatenated, escapes that no compiler
read, markup escaped as text) and the characters that word processors put in place of plain ones.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from flashpol.policy.model import DocumentError, EntityError, TypographyError, shown

# Characters that word processors, blogs and chat programs put in place of plain ones.
TYPOGRAPHY = (
    (
        "\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2032\u2033\u00ab\u00bb\u2039\u203a\u00b4\uff02\uff07",
        "typographic quote",
        'write a straight quote (")',
    ),
    ("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "typographic dash", "write hyphens, and comments as <!-- -->"),
    ("\u00a0\u2002\u2003\u2007\u2009\u200b\u202f\ufeff", "special space", "write a plain space"),
)
_TYPOGRAPHIC = re.compile("[" + "".join(characters for characters, _, _ in TYPOGRAPHY) + "]")
# Typographic characters in UTF-8, of which a program read each byte as a character of Windows-1252 or Latin-1.
_ENCODED_TWICE = re.compile("\u00e2(?:\u20ac[^\\s<>=\"']?|\u0080[\u0080-\u00bf])")
# Comments, whose text is the author's own; then tags, as they are written or as they end up in a blog.
_MARKUP = re.compile(r"<!--.*?(?:-->|\Z)|<[^<>]*", re.DOTALL)

TYPOGRAPHY_WRONG = "{characters} in the markup, as word processors and blogs insert {them}"
TYPOGRAPHY_INSTEAD = "write straight quotes, hyphens and plain spaces"

_BLANKS = " \t\r\n"
_LINE_END = re.compile("[\r\n]")
_QUOTES = "\"'`"
_BLANK = re.compile(f"[{_BLANKS}]*")
_NAME = re.compile(r"(?:[^\W\d]|[:_])[-\w.:\u00b7]*")
_NO_CHARACTER = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_REFERENCE = re.compile(r"&(?:#([0-9]+)|#x([0-9a-fA-F]+)|([A-Za-z_:][\w.:-]*));")
_PREDEFINED = ("amp", "lt", "gt", "quot", "apos")
_ESCAPED_QUOTE = re.compile(r"\\+(?:[\"']|x2[27]|u002[27]|04[27])|%2[27]", re.IGNORECASE)
_QUOTE_ENTITY = re.compile(r"(?:&amp;)*&(?:quot|apos|#34|#39|#x22|#x27);", re.IGNORECASE)
# Variables, placeholders and concatenation, which a program was to replace.
CODE_IN_VALUE = r"[\"']\s*[+.&]|[+.&]\s*[\"']|\$[\w{(]|\{\{?\s*\w*\s*\}\}?|%[sd]|%\(?\w+\)?[sd%]|<%|%>|(?<![\w.-])@\w"
_CODE_IN_VALUE = re.compile(CODE_IN_VALUE)
_CONCATENATION = re.compile(r"\s*(?:\+|\.|&)\s")
_DOCTYPE = re.compile(
    r"""<!DOCTYPE\s+(?:[^\W\d]|[:_])[-\w.:\u00b7]*(?:\s+(?:SYSTEM|PUBLIC\s+(?:"[^"]*"|'[^']*'))\s+(?:"[^"]*"|'[^']*'))?\s*[>\[]"""
)
_SUBSET_END = re.compile(r"]\s*>")
_ENCODING = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")

# Elements of both dialects that belong inside a root element.
_MEMBERS = ("allow-access-from", "site-control", "cross-domain-access", "allow-http-request-headers-from")
_ROOTS = ("cross-domain-policy", "access-policy")

# Debris of program source and of encodings, by how it begins: a pattern, its name, and what to do.
_NUL_INSTEAD = "remove it: flashpol sends a NUL byte; a server of your own must send a byte of value 0"
_LINE_INSTEAD = "remove it, or write a line break"
_MARKUP_INSTEAD = "write < and > themselves, not their escapes"
_TEXT_INSTEAD = "write the text that the program makes"
_PHP = "PHP code that was not run"
_STATEMENT = "a statement of program source"
_ENCODED_AGAIN = "save the file as plain ASCII"
_DEBRIS = tuple(
    (re.compile(pattern, re.IGNORECASE), name, instead)
    for pattern, name, instead in (
        ("\u00ef\u00bb\u00bf", "a byte order mark that was encoded twice", f"remove it, and {_ENCODED_AGAIN}"),
        (_ENCODED_TWICE.pattern, "a typographic character that was encoded twice", _ENCODED_AGAIN),
        ("\u00c2\u00a0", "a special space that was encoded twice", _ENCODED_AGAIN),
        ("\ufeff", "a byte order mark", "remove U+FEFF"),
        (r"\\+(?:x3c|u003c)", 'markup with escapes of program source ("{found}" for "<")', _MARKUP_INSTEAD),
        (
            r"(?:\\+(?:[rntvfe]|x0[ad]|u000[ad]|01[25]))+",
            'the characters "{found}" in place of a line break',
            _LINE_INSTEAD,
        ),
        (r"\\+(?:x0+|u0{4}|0+|z)", 'the characters "{found}" in place of a NUL byte', _NUL_INSTEAD),
        (r"\\+[\"']", "a quote escaped with a backslash ({found})", "write plain quotes, without backslashes"),
        (r"\\+/", "a slash escaped with a backslash ({found})", "write plain slashes, without backslashes"),
        (r"\\c", 'the characters "{found}" of `echo -e`', "remove it"),
        (r"-[neE]+\s*\Z", 'the option "{found}" of `echo`', "remove it"),
        (r"%[cds]", 'a conversion of `printf` ("{found}")', "remove it"),
        (r"/0(?!\w)", 'the characters "{found}" in place of a NUL byte', _NUL_INSTEAD),
        (r"(?:/[rnt])+(?![\w>])", 'the characters "{found}" in place of a line break', _LINE_INSTEAD),
        (r"%00", 'the URL-encoded "{found}" in place of a NUL byte', _NUL_INSTEAD),
        (r"(?:%0[ad])+", 'the URL-encoded "{found}" in place of a line break', _LINE_INSTEAD),
        (r"%3c", 'URL-encoded markup ("{found}" for "<")', _MARKUP_INSTEAD),
        (r"&#(?:0+|x0+);", 'the reference "{found}" in place of a NUL byte, which XML cannot refer to', _NUL_INSTEAD),
        (
            r"(?:0|0x0+|x00|\^@|\u2400|null?|nil|chr\(0\)|\(char\) ?0)\Z",
            'the text "{found}" in place of a NUL byte',
            _NUL_INSTEAD,
        ),
        (r"(?:&amp;)*&(?:amp;)*(?:lt|gt|#60|#62|#x3c|#x3e);", 'markup escaped as text ("{found}")', _MARKUP_INSTEAD),
        (r"(?:&amp;)*&(?:quot|apos|#34|#39|#x22|#x27);", 'a quote escaped as text ("{found}")', 'write the quote (")'),
        (r"[\"'`]*\s*(?:\+|\.|&(?!\w)|\|\||<<)\s*[\"'`($\w]", "string concatenation of program source", _TEXT_INSTEAD),
        (r"[bruflw@$]{1,3}[\"'`]", "a quote of program source ({found})", "remove it"),
        (r"(?:return|echo|print|var|let|const|string|char|static)\b[^<]*[\"'`(]\s*\Z", _STATEMENT, _TEXT_INSTEAD),
        (r"[\w$.\[\]>-]+\s*(?:\+|\.|:)?=\s*[\"'`(]", _STATEMENT, _TEXT_INSTEAD),
        (r"[\"'`]\s*(?:\+|\.|&)?\s*\\?\s*\Z", "a quote of program source", "remove it"),
        (r"[\"'`]?[)\]}]*;", 'the end of a statement of program source ("{found}")', "remove it"),
        (r"\"{3}|'{3}|`{3}", "the quotes of a text in program source or a blog ({found})", "remove them"),
        (r"[\"'`]{2}", "doubled quotes ({found})", "remove them"),
        (r"[\"'`]", "a quote of program source", "remove it"),
        (r"\?>", 'the end of PHP code ("{found}")', "remove it"),
        (r"]]>", 'the end of a CDATA section ("{found}")', "remove it"),
        (r"[)\]}]|[(\[{]\s*[\"'`]", "a bracket of program source", "remove it"),
        (r"\\", "a backslash of program source", "remove it"),
        (r",", "a comma", "remove it"),
        (r"\+", "string concatenation of program source", _TEXT_INSTEAD),
        (r"[\w$@\[(][^<]*[\"'`(\[{=]\s*\Z", _STATEMENT, _TEXT_INSTEAD),
    )
)


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake at character `at` of a text, from 0; `error` is the kind of error to raise for it."""

    at: int
    wrong: str
    instead: str
    error: type[DocumentError] = DocumentError


class _Found(Exception):
    """A mistake at `at` that the scanner noticed at `noticed`, if that is later."""

    def __init__(
        self, at: int, wrong: str, instead: str, error: type[DocumentError] = DocumentError, noticed: int = 0
    ) -> None:
        self.mistake = Mistake(at, wrong, instead, error)
        self.noticed = max(at, noticed)


def find_mistake(text: str) -> Mistake | None:
    """Return the cause of the first mistake that makes `text` malformed; None if the scanner finds none.

    Typographic characters in the markup before that mistake are its cause.
    """
    mistake, noticed = None, 0
    try:
        _Scanner(text).scan()
    except _Found as found:
        mistake, noticed = found.mistake, found.noticed
    character = _NO_CHARACTER.search(text, 0, mistake.at if mistake else len(text))
    if character:
        mistake = Mistake(character.start(), f"the character U+{ord(character[0]):04X} is not allowed", "remove it")
    if mistake is not None:
        for at, characters in typography(text):
            if at <= noticed:
                return _typography_mistake(at, characters)
            break
        for markup in () if text.isascii() else _MARKUP.finditer(text, 0, noticed + 1):
            if not markup[0].startswith("<!--") and (found_twice := _ENCODED_TWICE.search(markup[0])):
                return Mistake(markup.start() + found_twice.start(), *debris(found_twice[0]))
    return mistake


def find_declaration_mistake(text: str) -> Mistake | None:
    """Return the mistake in the XML declaration that `text` begins with, if there is one.

    Releases of expat differ in what they accept there, so it is checked first.
    """
    if not text.startswith("<?xml") or text[5:6] not in _BLANKS:
        return None
    try:
        _Scanner(text).declaration()
    except _Found as found:
        for at, characters in typography(text[: found.noticed + 1]):
            return _typography_mistake(at, characters)
        return found.mistake
    return None


def debris(text: str) -> tuple[str, str]:
    """Return a name for the debris that `text` begins with and what to do about it; two empty texts for other text."""
    for pattern, name, instead in _DEBRIS:
        if match := pattern.match(text):
            return name.format(found=match[0]), instead
    for characters, kind, instead in TYPOGRAPHY:
        if text[:1] and text[0] in characters:
            return f"the character U+{ord(text[0]):04X}, a {kind}", instead
    return "", ""


def explain_value(value: str) -> str:
    """Return what debris of program source an attribute's value is, to be added to a message; mostly an empty text."""
    if _CODE_IN_VALUE.search(value):
        return ": program source that was not evaluated"
    if re.match(r"\.\w", value):
        return ""  # a name without its beginning, and no concatenation
    rest = value.lstrip("0123456789-* ")  # debris may follow ports
    is_list = any(c.isdigit() for c in rest) and rest[0] not in _QUOTES
    name = "" if is_list else debris(rest)[0]
    return f": {name}" if name else ""


def explain_text(words: str) -> tuple[str, str]:
    """Return what is wrong with the text `words` between elements, and what to write instead."""
    if words.startswith("<"):  # only a CDATA section makes text of it
        return "markup in a CDATA section, where it is text", 'remove "<![CDATA[" and "]]>"'
    name, instead = debris(words)
    if name:
        return f"{name} between elements", instead
    return f"the text {shown(words)} between elements", "remove it, or write <!-- --> around it"


def typography(text: str) -> Iterator[tuple[int, str]]:
    """Yield the typographic characters inside tags, by line: the place of the first, and all of that line."""
    if text.isascii():
        return
    first, seen, end = -1, "", 0
    for markup in _MARKUP.finditer(text):
        if markup[0].startswith("<!--") or markup[0].isascii():
            continue
        for character in _TYPOGRAPHIC.finditer(text, markup.start(), markup.end()):
            if first >= 0 and _LINE_END.search(text, end, character.start()):
                yield first, seen
                first, seen = -1, ""
            first = character.start() if first < 0 else first
            seen, end = seen + character[0], character.end()
    if first >= 0:
        yield first, seen


def typography_values(characters: str) -> dict[str, str]:
    """Return the values for TYPOGRAPHY_WRONG."""
    kinds = sorted({f"U+{ord(c):04X}" for c in characters})
    if len(characters) == 1:
        return {"characters": f"the typographic character {kinds[0]}", "them": "it"}
    return {"characters": f"{len(characters)} typographic characters ({', '.join(kinds)})", "them": "them"}


def _typography_mistake(at: int, characters: str) -> Mistake:
    wrong = TYPOGRAPHY_WRONG.format_map(typography_values(characters))
    return Mistake(at, wrong, TYPOGRAPHY_INSTEAD, TypographyError)


class _Scanner:
    """Reads a text once, from token to token, and raises _Found at the first mistake."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._open: list[tuple[str, int]] = []  # names of the open elements, and where they begin
        self._root = ""  # the name of the root element, once it began
        self._php = -1  # where the first `<?php` is
        self._self_closed = -1  # where <root/> is written inside the root element

    def scan(self) -> None:
        text = self._text
        if text.startswith("<?xml") and text[5:6] in _BLANKS:
            self.declaration()
        while self._at < len(text):
            if text[self._at] != "<":
                end = text.find("<", self._at)
                self._characters(self._at, len(text) if end < 0 else end)
            elif text.startswith("<!--", self._at):
                self._comment()
            elif text.startswith("<?", self._at):
                self._instruction()
            elif text.startswith("<!DOCTYPE", self._at):
                self._doctype()
            elif text.startswith("<![CDATA[", self._at):
                self._cdata()
            elif text.startswith("</", self._at):
                self._end_tag()
            else:
                self._start_tag()
        self._check_end()

    def _check_end(self) -> None:
        text = self._text
        if self._open:
            name, _ = self._open[-1]
            if len(self._open) > 1 and name == self._root:
                raise _Found(self._open[-1][1], f"<{name}> begins a second time here", f"write </{name}> to end it")
            if self._self_closed >= 0:
                wrong = f"<{name}/> in place of the end tag"
                raise _Found(self._self_closed, wrong, f"write </{name}>", noticed=len(text))
            raise _Found(len(text), "the document ends before its root element does", "check for a cut-off file")
        if not self._root:
            if self._php >= 0:
                raise _Found(self._php, _PHP, _TEXT_INSTEAD)
            raise _Found(len(text), "the document has no root element", "write <cross-domain-policy>")

    # ------------------------------------------------------------------------------------------ outside of elements

    @property
    def _after_root(self) -> bool:
        return bool(self._root) and not self._open

    def _refuse_after_root(self, what: str, instead: str) -> None:
        if self._after_root:
            raise _Found(self._at, f"something follows the root element: {what}", instead)

    def _characters(self, begin: int, end: int) -> None:
        words = self._text[begin:end].strip(_BLANKS)
        if words and not self._open:
            at = self._text.index(words[0], begin)
            name, instead = debris(words)
            if self._root:
                if instead == _NUL_INSTEAD and self._root == "access-policy":
                    instead = "remove it: Silverlight's policies end without a NUL"
                raise _Found(
                    at,
                    f"something follows the root element: {name or f'the text {shown(words)}'}",
                    instead or "remove it",
                )
            if self._php >= 0:
                raise _Found(self._php, _PHP, _TEXT_INSTEAD, noticed=at)
            if name:
                raise _Found(at, f"{name} precedes the root element", instead)
            raise _Found(at, f"the text {shown(words[:20])} precedes the root element", "keep only the XML")
        self._references(begin, end)
        if self._open and "]]>" in words:
            raise _Found(self._text.index("]]>", begin), 'the end of a CDATA section ("]]>") in a text', "remove it")
        self._at = end

    def _references(self, begin: int, end: int) -> None:
        at = self._text.find("&", begin, end)
        while at >= 0:
            match = _REFERENCE.match(self._text, at, end)
            if match is None:
                raise _Found(at, 'a "&" that begins no reference', "write &amp;")
            decimal, hexadecimal, name = match.groups()
            if name is not None:
                if name not in _PREDEFINED:
                    raise _Found(
                        at,
                        f"the entity {shown(match[0])} is not defined",
                        "write the characters themselves",
                        EntityError,
                    )
            else:
                digits, base = (decimal, 10) if decimal else (hexadecimal, 16)
                code = int(digits, base) if len(digits.lstrip("0")) < 8 else 0x110000
                if code > 0x10FFFF or _NO_CHARACTER.match(chr(code)):
                    name, instead = debris(match[0])
                    raise _Found(
                        at, name or f"{shown(match[0])} refers to no character", instead or "write the character itself"
                    )
            at = self._text.find("&", match.end(), end)

    def _comment(self) -> None:
        inside = self._at + 4
        hyphens = self._text.find("--", inside)
        if hyphens < 0:
            raise _Found(self._at, "the comment that begins here never ends", 'write "-->" at its end')
        if self._text[hyphens + 2 : hyphens + 3] != ">":
            if "-->" not in self._text[hyphens:]:
                raise _Found(self._at, "the comment that begins here never ends", 'write "-->" at its end')
            raise _Found(hyphens + 2, '"--" inside a comment', "write a single hyphen there; only --> ends a comment")
        self._at = hyphens + 3

    def _instruction(self) -> None:
        name = _NAME.match(self._text, self._at + 2)
        if name and name[0].lower() == "xml":
            self._refuse_after_root("a second XML document", "keep one document")
            if self._at == 0:
                raise _Found(0, f'the XML declaration begins with "<?{name[0]}"', 'write "<?xml" in lower case')
            raise _Found(self._at, "an XML declaration in mid-document", "keep one, at the beginning")
        if self._text.startswith("<?=", self._at):
            raise _Found(self._at, _PHP, _TEXT_INSTEAD)
        if not name:
            following = self._skip_blanks(self._at + 2)
            if following > self._at + 2 and _NAME.match(self._text, following):
                raise _Found(self._at, 'a space after "<?"', "remove the space")
            raise _Found(self._at, "a processing instruction without a name", "remove it")
        if name[0] == "php" and self._php < 0:
            self._php = self._at
        end = self._text.find("?>", name.end())
        if end < 0 and name[0] == "php":
            raise _Found(self._at, _PHP, _TEXT_INSTEAD)
        if end < 0:
            raise _Found(self._at, "the processing instruction that begins here never ends", "remove it")
        if end > name.end() and self._text[name.end()] not in _BLANKS:
            if name[0] == "version":
                raise _Found(self._at, 'the XML declaration lacks "xml"', 'write <?xml version="1.0"?>')
            raise _Found(self._at, "a processing instruction that is malformed", "remove it")
        self._at = end + 2

    def _doctype(self) -> None:
        if self._root:
            self._refuse_after_root("a DOCTYPE", "write it before the root element, or remove it")
            raise _Found(
                self._at, "a DOCTYPE inside the root element", "write it before the root element, or remove it"
            )
        match = _DOCTYPE.match(self._text, self._at)
        if match is None:
            raise _Found(self._at, "the DOCTYPE is malformed", "remove the DOCTYPE: no client needs it")
        end = match.end()
        if match[0].endswith("["):  # `reader` has seen to it that it declares nothing that matters
            close = _SUBSET_END.search(self._text, end)
            if close is None:
                raise _Found(
                    self._at, "the DOCTYPE that begins here never ends", "remove the DOCTYPE: no client needs it"
                )
            end = close.end()
        self._at = end

    def _cdata(self) -> None:
        self._refuse_after_root("a CDATA section", "remove it")
        if not self._open:
            raise _Found(self._at, "a CDATA section precedes the root element", 'remove "<![CDATA[" and "]]>"')
        end = self._text.find("]]>", self._at)
        if end < 0:
            raise _Found(self._at, "the CDATA section that begins here never ends", 'write "]]>" at its end')
        self._at = end + 3

    # ------------------------------------------------------------------------------------------------------- tags

    def _end_tag(self) -> None:
        name = _NAME.match(self._text, self._at + 2)
        written = f"</{name[0][:40]}>" if name else "</"
        if self._after_root:
            second = "a second end tag" if name and name[0] == self._root else "an end tag without a start tag:"
            raise _Found(self._at, f"something follows the root element: {second} {written}", "remove it")
        if not name:
            following = self._skip_blanks(self._at + 2)
            if following > self._at + 2 and _NAME.match(self._text, following):
                raise _Found(self._at, 'a space after "</"', "remove the space")
            raise _Found(self._at, 'an end tag without a name ("</")', "write the name of the element that it ends")
        if not self._open:
            raise _Found(
                self._at, f"the end tag {written} has no start tag", "write the root element's start tag first"
            )
        end = self._skip_blanks(name.end())
        if self._text[end : end + 1] != ">":
            found = self._text[end : end + 1]
            if not found or found == "<":
                raise _Found(self._at, f'the end tag {written[:-1]} has no ">"', 'write ">" at its end')
            self._raise_debris(end, written, "")
        open_name, _ = self._open.pop()
        if name[0] != open_name:
            instead = f'end <{open_name[:40]}> with "/>"' if name[0] == self._root else "end elements in order"
            if name[0].lower() == open_name.lower():
                instead = f"write </{open_name[:40]}>: upper and lower case differ"
            raise _Found(
                self._at,
                f"{written} does not end <{open_name[:40]}>, which is open",
                instead,
            )
        self._at = end + 1

    def _start_tag(self) -> None:
        text, begin = self._text, self._at
        name = _NAME.match(text, begin + 1)
        if not name:
            self._refuse_after_root(f"the text {shown(text[begin:].strip(_BLANKS))}", "remove it")
            if text.startswith("\\/", begin + 1):
                self._raise_debris(begin + 1, "", "")
            following = self._skip_blanks(begin + 1)
            if following > begin + 1 and (
                text[following : following + 1] in tuple("?!/") or _NAME.match(text, following)
            ):
                raise _Found(begin, 'a space after "<"', "remove the space")
            self._explain_no_tag(begin)
            raise _Found(begin + 1, 'a "<" that begins no tag', "remove it, or write &lt;", noticed=begin + 4)
        self._refuse_element_after_root(name[0])
        at, closed = self._attributes(name.end(), name[0][:40], begin, ("/>", ">"))
        self._root = self._root or name[0]
        if not closed:
            self._open.append((name[0], begin))
        elif name[0] == self._root and self._open:
            self._self_closed = begin
        self._at = at

    def _explain_no_tag(self, begin: int) -> None:
        """Raise _Found for what begins with "<", is no tag, and has a usual cause."""
        text = self._text
        if text.startswith("\\", begin + 1) and (name := _NAME.match(text, begin + 2)):
            raise _Found(begin, 'a backslash in place of "/"', f"write </{name[0][:40]}>")
        if text.startswith("<", begin + 1):
            name = _NAME.match(text, begin + 2)
            if text.startswith("?xml", begin + 2) or (name and name[0] in (*_MEMBERS, *_ROOTS)):
                raise _Found(begin, 'a doubled "<"', 'write one "<"')
            raise _Found(begin, 'an operator of program source ("<<")', _TEXT_INSTEAD)
        if text[begin : begin + 9].upper() == "<!DOCTYPE":
            raise _Found(begin, "the DOCTYPE is not in capital letters", "remove the DOCTYPE: no client needs it")
        if text.startswith("<!", begin):
            raise _Found(begin, 'a "<!" that begins no comment', "write comments as <!-- -->", noticed=begin + 4)

    def _refuse_element_after_root(self, name: str) -> None:
        if name in _ROOTS:
            what = "a second root element" if name == self._root else "a second root element, of the other dialect"
            instead = (
                "put all grants inside one root element" if name == self._root else "give each dialect its own file"
            )
            self._refuse_after_root(f"{what}, <{name}>", instead)
        elif name in _MEMBERS:
            self._refuse_after_root(f"the element <{name}>", f"move it inside <{self._root[:40]}>")
        else:
            self._refuse_after_root(f"the element <{name[:40]}>", "remove it")

    def declaration(self) -> None:
        """Scan the XML declaration at the beginning of the text."""
        known = ("version", "encoding", "standalone")
        found: list[tuple[str, str, int]] = []
        at, _ = self._attributes(5, "?xml", 0, ("?>",), found)
        names = [name for name, _, _ in found]
        instead = 'write <?xml version="1.0"?>'
        for name, value, where in found:
            if name not in known:
                raise _Found(where, f"the XML declaration is malformed: it has no attribute {shown(name)}", instead)
            if name == "version" and value != "1.0":
                lookalike = ", with a letter in place of the digit 1" if value in ("l.0", "I.0") else ""
                raise _Found(0, f"the XML version is {shown(value)}{lookalike}", 'write version="1.0"')
            if (name == "encoding" and not _ENCODING.fullmatch(value)) or (
                name == "standalone" and value not in ("yes", "no")
            ):
                raise _Found(where, f"the XML declaration is malformed: {name} is {shown(value)}", instead)
        if names[:1] != ["version"] or names != [name for name in known if name in names]:
            raise _Found(
                0, "the XML declaration is malformed: version, encoding and standalone come in this order", instead
            )
        self._at = at

    def _attributes(
        self, at: int, tag: str, begin: int, ends: tuple[str, ...], found: list[tuple[str, str, int]] | None = None
    ) -> tuple[int, bool]:
        """Scan attributes up to one of `ends`; return where the tag ends, and whether it is the first of `ends`."""
        text = self._text
        names: set[str] = set()
        while True:
            blank = at
            at = self._skip_blanks(at)
            for end in ends:
                if text.startswith(end, at):
                    return at + len(end), end == ends[0]
            if tag == "?xml" and text[at : at + 1] in ("", "?", ">", "/", "<"):
                raise _Found(begin, 'the XML declaration does not end with "?>"', 'write <?xml version="1.0"?>')
            if at >= len(text) or text[at] == "<":
                raise _Found(begin, f'the tag <{tag}> has no ">"', f'write "{ends[0]}" at its end', noticed=at)
            name = _NAME.match(text, at)
            if not name:
                self._raise_debris(at, f"<{tag}>", " between attributes")
            if blank == at:
                raise _Found(at, "no space before the next attribute", "write one before each")
            equals = self._skip_blanks(name.end())
            if text[equals : equals + 1] in ("'", '"') and name[0].endswith(":"):
                raise _Found(at, f'a colon in place of "=" after {name[0][:40]}', 'write attributes as name="value"')
            if text[equals : equals + 1] != "=":
                if text[equals : equals + 1] not in ("", "/", ">", "<") and not _NAME.match(text, equals):
                    self._raise_debris(equals, f"<{tag}>", f" after the attribute name {name[0][:40]}")
                raise _Found(
                    at, f"the attribute {name[0][:40]} has no value", f'write attributes as {name[0][:40]}="value"'
                )
            if name[0] in names:
                raise _Found(at, f"the attribute {name[0][:40]} is given twice", "keep one of the two")
            names.add(name[0])
            value = self._skip_blanks(equals + 1)
            end_of_value = self._value(value, name[0][:40])
            if found is not None:
                found.append((name[0], text[value + 1 : end_of_value], at))
            at = end_of_value + 1

    def _value(self, at: int, name: str) -> int:
        """Scan a value that should begin at `at`; return where its closing quote is."""
        text = self._text
        quote = text[at : at + 1]
        self._check_quote(at, name)
        end = text.find(quote, at + 1)
        missing = f"the value of {name} has no closing quote"
        if end < 0:
            raise _Found(at, missing, f"write {quote} at the end of the value", noticed=len(text))
        following = text[end + 1 : end + 2]
        if end == at + 1 and following not in ("", *_BLANKS, "/", ">", "?"):
            if _CONCATENATION.match(text, end + 1):
                self._raise_debris(self._skip_blanks(end + 1), "", "")
            raise _Found(at, f"doubled quotes ({quote * 2}) around the value of {name}", "write one quote on each side")
        if re.fullmatch(r"\s*[+.&]\s*", text[at + 1 : end]) and following and following not in "/>?" + _BLANKS:
            raise _Found(at, "string concatenation of program source", _TEXT_INSTEAD)
        less = text.find("<", at + 1, end)
        if less >= 0:
            if re.search(r"[\r\n]|/?>\s*\Z", text[at + 1 : less]):
                raise _Found(at, missing, f"write {quote} at the end of the value", noticed=less)
            if text[less + 1] in "?%":
                raise _Found(less, f"program source in the value of {name} that was not evaluated", _TEXT_INSTEAD)
            raise _Found(less, f'a "<" in the value of {name}', "write &lt;, or check for a missing quote before it")
        if following not in ("", *_BLANKS, "/", ">", "?") and re.search(r"\s[\w:-]+\s*=\s*\Z", text[at + 1 : end]):
            raise _Found(at, missing, f"write {quote} at the end of the value", noticed=end)
        self._references(at + 1, end)
        return end

    def _check_quote(self, at: int, name: str) -> None:
        text = self._text
        quote = text[at : at + 1]
        escaped = _ESCAPED_QUOTE.match(text, at)
        if escaped:
            if escaped[0].startswith("%"):
                raise _Found(at, f"the quotes are URL-encoded ({escaped[0]})", "write the quotes themselves")
            raise _Found(
                at, f"the quotes are escaped with backslashes ({escaped[0]})", "write plain quotes, without backslashes"
            )
        entity = _QUOTE_ENTITY.match(text, at)
        if entity:
            raise _Found(at, f"the quotes are escaped as text ({entity[0]})", 'write the quotes themselves (")')
        if quote == "`":
            raise _Found(at, "backticks in place of quotes", f'write {name}="value"')
        if not quote or quote not in "\"'":
            name_of_debris, instead = debris(text[at:]) if quote > "~" else ("", "")
            if name_of_debris:
                raise _Found(at, name_of_debris, instead)
            raise _Found(at, "an attribute value without quotes", f'write attributes as {name}="value"')

    def _raise_debris(self, at: int, tag: str, where: str) -> NoReturn:
        name, instead = debris(self._text[at:])
        found = self._text[at : at + 1]
        if found == ",":
            raise _Found(at, f"a comma{where}", "remove it: spaces separate attributes")
        if found == ";":
            raise _Found(at, f"a semicolon{where}", "remove it: spaces separate attributes")
        if found in ('"', "'") and name.startswith("a quote"):
            raise _Found(at, f"a stray quote ({found}){where}", "remove it")
        if self._text.startswith("\\>", at):
            raise _Found(at, 'a backslash in place of "/"', 'end the tag with "/>"')
        if found == "/":
            raise _Found(at, f'a "/"{where} that does not end the tag', 'end the tag with "/>"')
        if found == "&":
            raise _Found(at, name or f'a "&"{where}', instead or "remove it")
        if name:
            raise _Found(at, f"{name}{where}", instead)
        raise _Found(
            at, f"the character {shown(found)} is not allowed in the tag {tag}", "check for wrong or missing quotes"
        )

    def _skip_blanks(self, at: int) -> int:
        match = _BLANK.match(self._text, at)
        return match.end() if match else at
