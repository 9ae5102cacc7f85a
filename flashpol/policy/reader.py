"""From text to elements: XML read so that nothing hostile in it can be slow, recursive or fetched.

Every policy dialect is built of elements and attributes alone, so this reader refuses what else XML has:

    DOCTYPE [ ... ]   entities and attribute defaults would let a file mean what it does not say
    &name;            only XML's own five and character references; expat itself would drop an unknown one
                      from an attribute without a word as soon as the DOCTYPE names a DTD
    text              no element holds any; what stands there is a mistake or markup that was stripped

An external DTD may be named, as Adobe's examples do. It is never fetched: there is no code here that could.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn
from xml.parsers import expat

from flashpol.policy.decoding import START
from flashpol.policy.model import DocumentError, EntityError, LimitError, Location, shown
from flashpol.policy.xml_errors import explain

# The deepest dialect, Silverlight's, nests 5. Each level is a live object, and a dialect's reader may recurse.
MAX_DEPTH = 8
# MAX_POLICY_BYTES holds 20,000 grants of the shortest kind, or 260,000 elements of no meaning.
MAX_ELEMENTS = 20_000
# The most any element of a dialect has is 3; some add namespaces.
MAX_ATTRIBUTES = 16

_WHITESPACE = " \t\r\n"
_BLANK = re.compile(f"[{_WHITESPACE}]+")
_ATTRIBUTE = re.compile(r"""([^\s=<>/"']+)\s*=\s*("[^"]*"|'[^']*')""")
_TAG = re.compile(rb"""<(?:[^>"']|"[^"]*"|'[^']*')*>""")
_UNKNOWN_REFERENCE = re.compile(r"&(?!(?:amp|lt|gt|quot|apos|#[0-9]+|#x[0-9a-fA-F]+);)[^;]*;?")
_UNDEFINED_ENTITY = expat.errors.codes[expat.errors.XML_ERROR_UNDEFINED_ENTITY]
_DOCTYPE_TOKEN = re.compile(r"""[\[>]|"[^"]*"|'[^']*'""")


@dataclass(slots=True)
class Element:
    """An element: its name, its attributes in the order written, its children, and where it begins."""

    name: str
    attributes: dict[str, str]
    location: Location
    tag: str  # as written; places inside it are looked up only when a message needs one
    children: "list[Element]" = field(default_factory=list)

    @property
    def label(self) -> str:
        """The name for messages, shortened; XML lets no control character into it."""
        return f"<{self.name[:40]}>"

    def name_location(self, attribute: str) -> Location:
        """Return where the name of an attribute stands. Raises KeyError if the element does not have it."""
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

    `check_root` sees the root as soon as its tag is read, before what follows can be found malformed, and raises
    if it is not the dialect's: of a file that lacks its root, that is the mistake to report.
    `on_text`, if given, is told of text between elements instead of having it raised, once for each run of it.
    Raises DocumentError, LimitError, and what `check_root` raises.
    """
    # Blank lines before an XML declaration are not XML, but PHP and editors put them there and clients read on.
    body = text.lstrip(_WHITESPACE)
    begin = START.after(text[: len(text) - len(body)])
    if body.startswith("\ufeff"):
        # The file's own byte order mark is gone by now. Expat would skip this one, and with it our look ahead.
        raise DocumentError("a second byte order mark, or one after blanks", "remove U+FEFF", begin)
    _refuse_internal_subset(body, begin)
    return _Builder(body, begin, check_root, on_text).build()


def _refuse_internal_subset(text: str, begin: Location) -> None:
    """Find `<!DOCTYPE ... [` before expat does.

    An exception in an expat handler does not stop expat, it only silences it: entities would still be declared
    and expanded, in releases before 2.7 with unbounded recursion. So expat must not see them. It knows a DOCTYPE
    only behind blanks, comments and processing instructions; so does this.
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
            return
    for token in _DOCTYPE_TOKEN.finditer(text, at):
        if token[0] == ">":
            return
        if token[0] == "[":
            raise _internal_subset(begin.after(text[: token.start()]))


def _internal_subset(where: Location) -> EntityError:
    return EntityError(
        "the DOCTYPE declares entities or the like between [ and ]", "remove the DOCTYPE: no client needs it", where
    )


class _Builder:
    """Builds the tree while expat runs. One text, one use."""

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
        self._text_told = False  # expat hands over one run of text in several pieces
        self._open: list[Element] = []
        self._root: Element | None = None
        self._elements = 0
        # The encoding is given because the text is decoded already: what the declaration says is history.
        self._expat = parser = expat.ParserCreate("utf-8")
        parser.ordered_attributes = True
        parser.XmlDeclHandler = self._declaration
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.SkippedEntityHandler = self._skipped

    def build(self) -> Element:
        try:
            self._expat.Parse(self._data, True)
        except expat.ExpatError as error:
            at = len(self._data[: self._expat.ErrorByteIndex].decode(errors="ignore"))
            place = self._place(error.lineno, error.offset)
            if error.code == _UNDEFINED_ENTITY and (reference := _UNKNOWN_REFERENCE.search(self._text, at)):
                # Found in a value, it is reported for the whole tag.
                self._refuse_reference(reference[0], place.after(self._text[at : reference.start()]))
            raise DocumentError(*explain(error.code, self._text, at), place) from None
        if self._root is None:
            raise AssertionError("expat reports an error for a document without a root element")
        return self._root

    def _place(self, line: int, column: int) -> Location:
        """Turn expat's line from 1 and column from 0, relative to where the XML begins, into a place in the file."""
        indent = self._begin.column if line == 1 else 1
        return Location(self._begin.line + line - 1, indent + column)

    def _here(self) -> Location:
        return self._place(self._expat.CurrentLineNumber, self._expat.CurrentColumnNumber)

    def _declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        if version != "1.0":
            lookalike = ", with a letter in place of the digit 1" if version in ("l.0", "I.0") else ""
            raise DocumentError(f"the XML version is {shown(version)}{lookalike}", 'write version="1.0"', self._here())

    def _doctype(self, name: str, system: str | None, public: str | None, has_internal_subset: bool) -> None:
        # `read` looked ahead for this, so it does not happen; should it, the file must still not be believed.
        if has_internal_subset:
            raise _internal_subset(self._here())

    def _start(self, name: str, pairs: list[str]) -> None:
        here = self._here()
        self._text_told = False
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
        self._text_told = False
        self._open.pop()

    def _characters(self, text: str) -> None:
        words = text.strip(_WHITESPACE)
        if words and not self._text_told:
            where = self._here().after(text[: text.index(words[0])])
            error = DocumentError(
                f"the text {shown(words)} stands between elements", "remove it, or write <!-- --> around it", where
            )
            if self._on_text is None:
                raise error
            self._text_told = True
            self._on_text(error)

    def _skipped(self, name: str, is_parameter: bool) -> None:
        self._refuse_reference(f"&{name};", self._here())

    def _refuse_reference(self, reference: str, where: Location) -> NoReturn:
        raise EntityError(f"the entity {shown(reference)} is not defined", "write the characters themselves", where)
