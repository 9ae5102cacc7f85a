"""A policy file as the rules see it: bytes, text, elements and grants, as far as each can be had.

The strict `flash.parse` stops at the first mistake. Here everything is kept that one mistake leaves readable, so that
a rule can still speak of the rest: blanks take the place of a length prefix, of HTTP headers and of NULs, straight
quotes that of typographic ones, always one character for one, so that every place remains the place in the file.
"""

import codecs
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from flashpol.policy import flash
from flashpol.policy.decoding import MAX_POLICY_BYTES, decode
from flashpol.policy.model import (
    DocumentError,
    DomainPattern,
    EncodingError,
    GrammarError,
    HttpReplyError,
    LengthPrefixError,
    Location,
    NulError,
    PolicyError,
    PortSet,
)
from flashpol.policy.reader import Element, read
from flashpol.policy.xml_errors import TYPOGRAPHY

SILVERLIGHT_ROOT = "access-policy"
_ROOTS = {flash.ROOT: "flash", SILVERLIGHT_ROOT: "silverlight"}

QUOTES, DASHES, SPACES = (characters for characters, _, _ in TYPOGRAPHY)
TYPOGRAPHIC = re.compile(f"[{QUOTES}{DASHES}{SPACES}]")
_STRAIGHT = str.maketrans(
    dict.fromkeys(QUOTES, '"') | dict.fromkeys("\u2018\u2019\u201a\u201b\u2032", "'") | dict.fromkeys(SPACES, " ")
)

# Comments, whose text is the author's own; then tags, as they are written or as they end up in a blog.
_MARKUP = re.compile(r"<!--.*?(?:-->|\Z)|<[^<>]*", re.DOTALL)
_LINE_END = re.compile("\r\n|\r|\n")
# Comments whose hyphens became dashes.
_DASHED_COMMENT = re.compile(f"<!-?[{DASHES}]-?.*?-?[{DASHES}]-?>", re.DOTALL)

T = TypeVar("T")


@dataclass(slots=True)
class GrantLine:
    """One `allow-access-from`, with what could be read of it."""

    element: Element
    domain: DomainPattern | None
    ports: PortSet | None
    secure: bool

    @property
    def domain_text(self) -> str:
        return self.element.attributes.get("domain", "")

    @property
    def ports_text(self) -> str:
        return self.element.attributes.get("to-ports", "")

    @property
    def domain_place(self) -> Location:
        return self.element.value_location("domain")

    @property
    def ports_place(self) -> Location:
        return self.element.value_location("to-ports")

    @property
    def unreadable(self) -> bool:
        """Whether typographic characters were written, which a rule of their own reports."""
        return not self.element.tag.isascii() and bool(TYPOGRAPHIC.search(self.element.tag))


class LintDocument:
    """One file, one look. Nothing here raises, whatever the bytes."""

    def __init__(self, data: bytes, served_from: int | None, clients: frozenset[str]) -> None:
        self.data = data
        self.served_from = served_from
        self.clients = clients
        self.fault: DocumentError | None = None  # what is wrong with the bytes
        self.malformed: DocumentError | None = None  # what is wrong with the XML
        self.stray: list[DocumentError] = []  # text between elements
        self.root: Element | None = None
        self.other_root: Element | None = None  # the root element, if it is that of no dialect
        self._known: dict[object, Any] = {}
        self.text = self._read_bytes()
        self.dialect = ""
        if self.text:
            self._read_elements()
        if self.root is not None:
            self.dialect = _ROOTS[self.root.name.lower()]

    # --------------------------------------------------------------------------------------------------- reading

    def _read_bytes(self) -> str:
        """Return text to look for elements in, empty if there can be none."""
        try:
            return decode(self.data)
        except DocumentError as error:
            self.fault = error
        data = self.data.removesuffix(b"\0")
        if isinstance(self.fault, LengthPrefixError):
            return "  " + _decoded(data[2:])
        if isinstance(self.fault, NulError):
            return _decoded(data).replace("\0", " ")
        if isinstance(self.fault, HttpReplyError):
            head, blank_line, body = re.split("(\r\n\r\n|\n\n|\\Z)", _decoded(data), maxsplit=1)
            if re.match(r"\s*<(\?xml|!DOCTYPE cross|cross-domain-policy|access-policy)", body):
                return re.sub("[^\r\n]", " ", head) + blank_line + body
        if isinstance(self.fault, EncodingError) and b"\0" not in data:
            return _decoded(data)
        return ""

    def _read_elements(self) -> None:
        first: DocumentError | None = None
        for text in (self.text, _straightened(self.text)):
            self.stray.clear()
            try:
                self.root = read(text, self._check_root, self.stray.append)
            except DocumentError as error:
                first = first or error
                self.malformed = error
            except GrammarError:
                return  # other_root is set
            else:
                self.malformed = first  # straightening helped; what it helped with is still to be said
                return

    def _check_root(self, element: Element) -> None:
        if element.name.lower() not in _ROOTS:
            self.other_root = element
            raise GrammarError(f"the root element is {element.label}")

    # ----------------------------------------------------------------------------------------------------- views

    @cached_property
    def lines(self) -> list[str]:
        """The file's lines as they are, to be shown."""
        text = self.text
        if isinstance(self.fault, HttpReplyError | LengthPrefixError | NulError) or not text:
            text = _decoded(self.data[:MAX_POLICY_BYTES].removesuffix(b"\0"))
        return _LINE_END.split(text)

    @cached_property
    def grants(self) -> list[GrantLine]:
        """All `allow-access-from` of a Flash policy, in order."""
        return [_grant_line(element) for element in self._children("allow-access-from")]

    @cached_property
    def controls(self) -> list[Element]:
        """All `site-control` of a Flash policy, in order."""
        return list(self._children("site-control"))

    def _children(self, name: str) -> Iterator[Element]:
        if self.root is not None and self.dialect == "flash":
            yield from (child for child in self.root.children if child.name == name)

    @cached_property
    def meta(self) -> str:
        """The meta-policy of the only `site-control`, or an empty text."""
        if len(self.controls) != 1:
            return ""
        return self.controls[0].attributes.get("permitted-cross-domain-policies", "")

    @cached_property
    def typography(self) -> list[tuple[Location, str]]:
        """Typographic characters inside tags: the first of each line and tag, and all of that line."""
        if self.text.isascii():
            return []
        found: dict[int, tuple[Location, str]] = {}
        line, line_begin = 1, 0
        ends = list(_LINE_END.finditer(self.text))
        passed = 0
        for markup in _MARKUP.finditer(self.text):
            if markup[0].startswith("<!--"):
                continue
            for character in TYPOGRAPHIC.finditer(self.text, markup.start(), markup.end()):
                while passed < len(ends) and ends[passed].end() <= character.start():
                    line, line_begin, passed = line + 1, ends[passed].end(), passed + 1
                where, others = found.get(line, (Location(line, character.start() - line_begin + 1), ""))
                found[line] = where, others + character[0]
        return list(found.values())

    def once(self, compute: "Callable[[LintDocument], T]") -> T:
        """Return `compute(self)`, computed when first asked for: what several rules look at."""
        if compute not in self._known:
            self._known[compute] = compute(self)
        known: T = self._known[compute]
        return known

    @cached_property
    def reply_bytes(self) -> int:
        """How many bytes a server sends: the file, and a NUL."""
        return len(self.data.removesuffix(b"\0")) + 1


def _decoded(data: bytes) -> str:
    """Text out of bytes that should be UTF-8 and are not all; never fails."""
    return data.decode("utf-8-sig", _IN_PLACE_OF_UTF_8)


def _windows_1252(error: UnicodeError) -> tuple[str, int]:
    """Read the bytes at fault as Windows-1252, one by one; its five holes as Latin-1."""
    if not isinstance(error, UnicodeDecodeError):
        raise AssertionError("only for decoding")
    wrong = error.object[error.start : error.end]
    return "".join(bytes((byte,)).decode("cp1252", "ignore") or chr(byte) for byte in wrong), error.end


_IN_PLACE_OF_UTF_8 = "flashpol.windows-1252"
codecs.register_error(_IN_PLACE_OF_UTF_8, _windows_1252)


def _straightened(text: str) -> str:
    """Return `text` with what typography did to its markup undone, every character in its place."""
    plain = _DASHED_COMMENT.sub(lambda comment: re.sub("[^\r\n]", " ", comment[0]), text)
    return plain.translate(_STRAIGHT)


def _grant_line(element: Element) -> GrantLine:
    domain: DomainPattern | None = None
    ports: PortSet | None = None
    with suppress(KeyError, PolicyError):
        domain = DomainPattern.parse(element.attributes["domain"])
    with suppress(KeyError, PolicyError):
        ports = PortSet.parse(element.attributes["to-ports"])
    return GrantLine(element, domain, ports, element.attributes.get("secure") == "true")
