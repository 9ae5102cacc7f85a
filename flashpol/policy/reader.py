"""Reads text into elements, so that nothing hostile in the XML can be slow, recursive or fetched.

Policies consist of elements and attributes, so this reader refuses all other parts of XML:

    DOCTYPE [ ... ]   entities and attribute defaults would let a file mean what it does not say
    &name;            except XML's own five and character references: expat silently drops an unknown one from an
                      attribute as soon as the DOCTYPE names a DTD
    text              no element of a policy contains text: it is a mistake, or markup that was stripped

`read_leniently` reads files as clients do, which accept text and an internal subset that declares nothing of effect.
A file may name an external DTD, as Adobe's examples do. It is never fetched: no code here could.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn
from xml.parsers import expat

from flashpol.policy.decoding import START
from flashpol.policy.model import DocumentError, EntityError, LimitError, Location, shown
from flashpol.policy.xml_errors import Mistake, explain_text, find_declaration_mistake, find_mistake

# Silverlight's dialect nests deepest, with 5 levels. Each level is a live object, and a dialect's reader may recurse.
MAX_DEPTH = 8
# MAX_POLICY_BYTES holds 20,000 grants of the shortest kind, or 260,000 elements of no meaning.
MAX_ELEMENTS = 20_000
# No element of a dialect has more than 3; some files add namespaces.
MAX_ATTRIBUTES = 16

_WHITESPACE = " \t\r\n"
_BLANK = re.compile(f"[{_WHITESPACE}]+")
_ATTRIBUTE = re.compile(r"""([^\s=<>/"']+)\s*=\s*("[^"]*"|'[^']*')""")
_TAG = re.compile(rb"""<(?:[^>"']|"[^"]*"|'[^']*')*>""")
_UNKNOWN_REFERENCE = re.compile(r"&(?!(?:amp|lt|gt|quot|apos|#[0-9]+|#x[0-9a-fA-F]+);)[^;]*;?")
_DOCTYPE_TOKEN = re.compile(r"""[\[>]|"[^"]*"|'[^']*'""")
# The parts of an internal subset that change no element: comments, processing instructions and element types.
_HARMLESS_SUBSET = re.compile(
    r"""\[(?:[ \t\r\n]|<!--(?:(?!--).)*-->|<\?(?:(?!\?>).)*\?>|<!ELEMENT[^<>&%"']*>)*\]""", re.DOTALL
)
# Bytes of a text that a message may need: more than it quotes.
_QUOTED_BYTES = 300


@dataclass(slots=True)
class Element:
    """An element: its name, its attributes in the order written, its children, its place, and its tag as written."""

    name: str
    attributes: dict[str, str]
    location: Location
    tag: str  # places inside it are looked up only when a message needs one
    children: "list[Element]" = field(default_factory=list)

    @property
    def label(self) -> str:
        """Return the name for messages, shortened; XML allows no control character in it."""
        return f"<{self.name[:40]}>"

    def name_location(self, attribute: str) -> Location:
        """Return where the name of an attribute is. Raises KeyError if the element does not have it."""
        return self.location.after(self.tag[: self._written(attribute).start(1)])

    def value_location(self, attribute: str) -> Location:
        """Return where the value of an attribute begins, inside its quotes. Raises KeyError likewise."""
        return self.location.after(self.tag[: self._written(attribute).start(2) + 1])

    def _written(self, attribute: str) -> re.Match[str]:
        for match in _ATTRIBUTE.finditer(self.tag):
            if match[1] == attribute:
                return match
        raise KeyError(attribute)


def read(
    text: str, check_root: Callable[[Element], None], on_text: Callable[[DocumentError], None] | None = None
) -> Element:
    """Return the root element of `text`.

    `check_root` gets the root as soon as its tag is read, before any mistake after it, and raises if it is not the
    dialect's: if a file lacks its root, that is the mistake to report.
    `on_text`, if given, gets the error for each run of text between elements, which is otherwise raised.
    Raises DocumentError, LimitError, and the errors of `check_root`.
    """
    body, begin = _body(text)
    if subset := _internal_subset_at(body):
        raise _internal_subset(begin.after(body[:subset]))
    return _Builder(body, begin, check_root, on_text).build()


def read_leniently(text: str) -> tuple[Element, DocumentError | None]:
    """Return the root element of `text`, as lenient clients read it, and the error that `read` raises first, if any.

    Text is accepted anywhere, and so is an internal subset without entities and attribute defaults. Raises
    DocumentError and LimitError for everything else that `read` refuses.
    """
    body, begin = _body(text)
    errors: list[DocumentError] = []
    subset = _internal_subset_at(body)
    if subset:
        errors.append(_internal_subset(begin.after(body[:subset])))
        if not _HARMLESS_SUBSET.match(body, subset):
            raise errors[0]
    builder = _Builder(body, begin, lambda root: None, errors.append)
    builder.allows_subset = bool(subset)
    return builder.build(), next(iter(errors), None)


def _body(text: str) -> tuple[str, Location]:
    """Return the XML in `text`, and where it begins. Raises DocumentError for mistakes at its beginning."""
    # White space before an XML declaration is not XML, but PHP and editors write it and clients accept it.
    body = text.lstrip(_WHITESPACE)
    begin = START.after(text[: len(text) - len(body)])
    if body.startswith("\ufeff"):
        # The file's own byte order mark is already removed. Expat would skip this one, and the look ahead would not.
        raise DocumentError("a second byte order mark, or one after white space", "remove U+FEFF", begin)
    if mistake := find_declaration_mistake(body):
        raise _error(mistake, body, begin)
    return body, begin


def _error(mistake: Mistake, text: str, begin: Location) -> DocumentError:
    return mistake.error(mistake.wrong, mistake.instead, begin.after(text[: mistake.at]))


def _internal_subset_at(text: str) -> int:
    """Return where the "[" of `<!DOCTYPE ... [` is, 0 if there is none.

    Expat must not see the declarations. An exception in an expat handler does not stop expat, it only silences it:
    entities would still be declared and expanded, in releases before 2.7 with unbounded recursion. Expat accepts a
    DOCTYPE only after white space, comments and processing instructions; so does this.
    """
    at = 0
    while not text.startswith("<!DOCTYPE", at):
        if blank := _BLANK.match(text, at):
            at = blank.end()
            continue
        for opening, closing in (("<?", "?>"), ("<!--", "-->")):
            if text.startswith(opening, at) and (end := text.find(closing, at + len(opening))) >= 0:
                at = end + len(closing)
                break
        else:
            return 0
    for token in _DOCTYPE_TOKEN.finditer(text, at):
        if token[0] in "[>":
            return token.start() if token[0] == "[" else 0
    return 0


def _internal_subset(where: Location) -> EntityError:
    return EntityError("the DOCTYPE has declarations between [ and ]", "remove the DOCTYPE: no client needs it", where)


class _Builder:
    """Builds the tree of one text while expat runs."""

    def __init__(
        self,
        text: str,
        begin: Location,
        check_root: Callable[[Element], None],
        on_text: Callable[[DocumentError], None] | None = None,
    ) -> None:
        self._text = text
        self._data = text.encode()
        self._begin = begin
        self._check_root = check_root
        self._on_text = on_text
        self.allows_subset = False
        self._text_reported = False  # expat passes one run of text in several pieces
        self._open: list[Element] = []
        self._root: Element | None = None
        self._elements = 0
        # The encoding is fixed because the text is already decoded: the declared one no longer matters.
        self._expat = parser = expat.ParserCreate("utf-8")
        parser.ordered_attributes = True

        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.SkippedEntityHandler = self._skipped

    def build(self) -> Element:
        try:
            self._expat.Parse(self._data, True)
        except expat.ExpatError as error:
            if mistake := find_mistake(self._text):
                raise _error(mistake, self._text, self._begin) from None
            wrong, instead = "something is not allowed here", "check for wrong or missing quotes before it"
            raise DocumentError(wrong, instead, self._place(error.lineno, error.offset)) from None
        if self._root is None:
            raise AssertionError("expat reports an error for a document without a root element")
        return self._root

    def _place(self, line: int, column: int) -> Location:
        """Turn expat's line from 1 and column from 0, relative to where the XML begins, into a place in the file."""
        indent = self._begin.column if line == 1 else 1
        return Location(self._begin.line + line - 1, indent + column)

    def _here(self) -> Location:
        return self._place(self._expat.CurrentLineNumber, self._expat.CurrentColumnNumber)

    def _doctype(self, name: str, system: str | None, public: str | None, has_internal_subset: bool) -> None:
        # `read` looked ahead for this, so it does not happen; if it did, the file must not be trusted.
        if has_internal_subset and not self.allows_subset:
            raise _internal_subset(self._here())

    def _start(self, name: str, pairs: list[str]) -> None:
        here = self._here()
        self._text_reported = False
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            raise LimitError(f"more than {MAX_ELEMENTS:,} elements", "grant to *.suffix or * instead", here)
        if len(self._open) >= MAX_DEPTH:
            raise LimitError(f"elements nest deeper than {MAX_DEPTH}", "close elements before the next begins", here)
        if len(pairs) > 2 * MAX_ATTRIBUTES:
            raise LimitError(f"more than {MAX_ATTRIBUTES} attributes in one tag", "remove those not needed", here)
        written = _TAG.match(self._data, self._expat.CurrentByteIndex)
        if written is None:
            raise AssertionError("expat reports only start tags that are complete")
        tag = written[0].decode()
        if reference := _UNKNOWN_REFERENCE.search(tag):
            self._refuse_reference(reference[0], here.after(tag[: reference.start()]))
        element = Element(name, dict(zip(pairs[::2], pairs[1::2], strict=True)), here, tag)
        if self._root is None:
            self._check_root(element)
            self._root = element
        else:
            self._open[-1].children.append(element)
        self._open.append(element)

    def _end(self, name: str) -> None:
        self._text_reported = False
        self._open.pop()

    def _characters(self, text: str) -> None:
        words = text.strip(_WHITESPACE)
        if words and not self._text_reported:
            where = self._here().after(text[: text.index(words[0])])
            # References are quoted as written: "&lt;" says more than the "<" that expat passes.
            at = self._expat.CurrentByteIndex
            source = self._data[at : at + _QUOTED_BYTES].decode(errors="ignore")
            written = re.split("<|]]>", source, maxsplit=1)[0].strip(_WHITESPACE)
            error = DocumentError(*explain_text(written or words), where)
            if self._on_text is None:
                raise error
            self._text_reported = True
            self._on_text(error)

    def _skipped(self, name: str, is_parameter: bool) -> None:
        self._refuse_reference(f"&{name};", self._here())

    def _refuse_reference(self, reference: str, where: Location) -> NoReturn:
        raise EntityError(f"the entity {shown(reference)} is not defined", "write the characters themselves", where)
