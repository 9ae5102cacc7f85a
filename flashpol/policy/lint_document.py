"""A policy file as the rules see it: its bytes, text, elements and grants, as far as each can be read.

The strict `flash.parse` stops at the first mistake. This module keeps everything that a mistake leaves readable, so
that rules can report more: blanks replace a length prefix, HTTP headers and NULs, and straight quotes replace
typographic ones. One character replaces one character, so that every place remains the place in the file.
"""

import codecs
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from flashpol.policy import flash
from flashpol.policy.decoding import MAX_POLICY_BYTES, START, decode, split_nul
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
from flashpol.policy.xml_errors import TYPOGRAPHY, typography

SILVERLIGHT_ROOT = "access-policy"
_ROOTS = {flash.ROOT: "flash", SILVERLIGHT_ROOT: "silverlight"}

QUOTES, DASHES, SPACES = (characters for characters, _, _ in TYPOGRAPHY)
TYPOGRAPHIC = re.compile(f"[{QUOTES}{DASHES}{SPACES}]")
_STRAIGHT = str.maketrans(
    dict.fromkeys(QUOTES, '"')
    | dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u2039\u203a\u00b4\uff07", "'")
    | dict.fromkeys(SPACES, " ")
)

ROOT_TAG = re.compile(f"<({'|'.join(_ROOTS)})\\b", re.IGNORECASE)
COMMENT = re.compile("<!--.*?-->", re.DOTALL)
_LINE_END = re.compile("\r\n|\r|\n")
# Comments whose hyphens became dashes.
_DASHED_COMMENT = re.compile(f"<!-?[{DASHES}]-?.*?-?[{DASHES}]-?>", re.DOTALL)

T = TypeVar("T")


@dataclass(slots=True)
class GrantLine:
    """One `allow-access-from`, with its domain and ports if they could be read."""

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
        """Return whether the tag has typographic characters, which FP109 reports."""
        return not self.element.tag.isascii() and bool(TYPOGRAPHIC.search(self.element.tag))


class LintDocument:
    """One file, read once. Nothing here raises because of its bytes."""

    def __init__(self, data: bytes, served_from: int | None, clients: frozenset[str], *, by_url: bool = False) -> None:
        self.data = data
        self.served_from = served_from
        self.clients = clients
        self.by_url = by_url
        self.file, self.after_nul = split_nul(data)
        self.fault: DocumentError | None = None  # the mistake in the bytes
        self.malformed: DocumentError | None = None  # the mistake in the XML
        self.stray: list[DocumentError] = []  # text between elements
        self.root: Element | None = None
        self.other_root: Element | None = None  # the first element, if it is no dialect's root
        self._known: dict[object, Any] = {}
        self.text = self._read_bytes()
        self.dialect = ""
        if self.text:
            self._read_elements()
        if self.root is not None:
            self.dialect = _ROOTS[self.root.name.lower()]
        found = ROOT_TAG.search(self.text)
        # The dialect that the file is probably in, also if it cannot be read.
        self.likely_dialect = self.dialect or (_ROOTS[found[1].lower()] if found else "")

    # --------------------------------------------------------------------------------------------------- reading

    def _read_bytes(self) -> str:
        """Return the text to read elements from, empty if it cannot have any."""
        try:
            return decode(self.data)
        except DocumentError as error:
            self.fault = error
        data = self.file
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
                # FP109 reports typographic markup: what is wrong besides is another mistake.
                self.malformed = error if self.typography else first
            except GrammarError:
                return  # `other_root` is set
            else:
                self.malformed = first  # straightening helped; the mistake that it removed is reported
                return

    def _check_root(self, element: Element) -> None:
        if element.name.lower() not in _ROOTS:
            self.other_root = element
            raise GrammarError(f"the root element is {element.label}")

    # ----------------------------------------------------------------------------------------------------- views

    @cached_property
    def lines(self) -> list[str]:
        """The lines of the file as written, to be shown."""
        text = self.text
        if isinstance(self.fault, HttpReplyError | LengthPrefixError | NulError) or not text:
            text = _decoded(self.file[:MAX_POLICY_BYTES])
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
        """Typographic characters inside tags: the first place of each line, and all of that line."""
        if self.text.isascii():
            return []
        found: list[tuple[Location, str]] = []
        where, passed = START, 0
        for at, characters in typography(self.text):
            where, passed = where.after(self.text[passed:at]), at
            found.append((where, characters))
        return found

    @cached_property
    def later_root(self) -> str:
        """The name of the root element that `other_root` precedes, or an empty text. It may not contain the root."""
        if self.other_root is None:
            return ""
        text = COMMENT.sub("", self.text)
        found = ROOT_TAG.search(text)
        ended = self.other_root.tag.endswith("/>") or (found and f"</{self.other_root.name}" in text[: found.start()])
        return found[1] if found and ended else ""

    @cached_property
    def nul_place(self) -> Location:
        """The place of the NUL that ends the policy."""
        return START.after(_decoded(self.file))

    def once(self, compute: "Callable[[LintDocument], T]") -> T:
        """Return `compute(self)`, computed once: several rules use it."""
        if compute not in self._known:
            self._known[compute] = compute(self)
        known: T = self._known[compute]
        return known

    @cached_property
    def reply_bytes(self) -> int:
        """The size of the reply: the file, and a NUL."""
        return len(self.file) + 1


def _decoded(data: bytes) -> str:
    """Decode bytes that should be UTF-8 and are not all; never fails."""
    return data.decode("utf-8-sig", _IN_PLACE_OF_UTF_8)


def _windows_1252(error: UnicodeError) -> tuple[str, int]:
    """Read the bytes at fault as Windows-1252, one by one; its five holes as Latin-1."""
    if not isinstance(error, UnicodeDecodeError):
        raise AssertionError("this handler is only for decoding")
    wrong = error.object[error.start : error.end]
    return "".join(bytes((byte,)).decode("cp1252", "ignore") or chr(byte) for byte in wrong), error.end


_IN_PLACE_OF_UTF_8 = "flashpol.windows-1252"
codecs.register_error(_IN_PLACE_OF_UTF_8, _windows_1252)


def _straightened(text: str) -> str:
    """Return `text` with plain characters in place of typographic ones."""
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
