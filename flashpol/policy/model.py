"""Values of a socket policy: which content may connect to which ports.

No class here knows XML, files or sockets. Every class is frozen, validates its fields on construction,
and compares by meaning: the `Location` that a grant was read at is not compared.

    Policy ── meta: MetaPolicy | None
       └──── grants: Grant, Grant, ...
                       ├── domain: DomainPattern    where the content comes from
                       ├── ports: PortSet           where it may connect to
                       └── secure: bool             only content that was loaded over HTTPS

Errors. All of them blame the text that was given, never this program:

    PolicyError(ValueError)      the text cannot be used as a policy
     ├── DocumentError           the bytes are not a readable document; this class itself: malformed XML
     │    ├── LimitError         larger or deeper than any policy is, perhaps well-formed
     │    ├── EmptyError         nothing but white space
     │    ├── EncodingError      bytes that are not text, or not in the declared encoding
     │    ├── EntityError        entities declared or used
     │    ├── HtmlPageError      an HTML page
     │    ├── HttpReplyError     HTTP headers before the XML
     │    ├── LengthPrefixError  two bytes before the XML
     │    ├── NulError           a NUL byte before the end
     │    └── TypographyError    typographic quotes, dashes or spaces in the markup
     ├── GrammarError            a document, but not a policy: unknown, nested, missing elements or attributes
     ├── DomainError             a domain no client can match
     └── PortsError              a port list no client can read
"""

import enum
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

__all__ = [
    "DocumentError",
    "DomainError",
    "DomainPattern",
    "GrammarError",
    "Grant",
    "LimitError",
    "Location",
    "MetaPolicy",
    "Policy",
    "PolicyError",
    "PortSet",
    "PortsError",
    "shown",
]

# Runs of up to this many ports are written singly, for clients that misread ranges. At 6 bytes a port such a run has
# at most 96 bytes, a fortieth of a reply.
PORTS_SINGLY = 16

# TCP's limits; no client can connect to port 0.
LOWEST_PORT, HIGHEST_PORT = 1, 65535

# Characters of a wrong value that an error quotes: an error is one line of a terminal or a log.
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """A place in a text: line and column, both from 1. Columns count characters, a tab is one."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}"

    def after(self, text: str) -> "Location":
        """Return the place where `text`, starting here, ends. LF, CRLF and CR end a line, as in XML."""
        lines = re.split("\r\n|\r|\n", text)
        if len(lines) == 1:
            return Location(self.line, self.column + len(text))
        return Location(self.line + len(lines) - 1, 1 + len(lines[-1]))


class PolicyError(ValueError):
    """A text cannot be used as a policy.

    `wrong` says what is wrong and `instead` what to write instead (may be empty); `location` is the place, or None
    if the text has no lines (a command-line argument). `str()` is one line made of all three.
    """

    def __init__(self, wrong: str, instead: str = "", location: Location | None = None) -> None:
        super().__init__(wrong, instead, location)  # all three, so that the error survives pickling
        self.wrong = wrong
        self.instead = instead
        self.location = location

    @property
    def line(self) -> int | None:
        """Line, from 1, if known."""
        return self.location.line if self.location else None

    @property
    def column(self) -> int | None:
        """Column in characters, from 1, if known."""
        return self.location.column if self.location else None

    def at(self, location: Location) -> Self:
        """Return the same error, placed at `location`."""
        return type(self)(self.wrong, self.instead, location)

    def __str__(self) -> str:
        where = f"{self.location}: " if self.location else ""
        return f"{where}{self.wrong}" + (f"; {self.instead}" if self.instead else "")


class DocumentError(PolicyError):
    """The bytes are not a readable document: empty, in an unknown encoding, malformed, or with entities."""


class LimitError(DocumentError):
    """The document exceeds a limit that no real policy comes near."""


class EmptyError(DocumentError):
    """The document is empty."""


class EncodingError(DocumentError):
    """The bytes are not text, or not in the declared encoding."""


class EntityError(DocumentError):
    """The document declares or uses entities."""


class TypographyError(DocumentError):
    """The markup has characters of a word processor in place of plain quotes, hyphens or spaces."""


class HtmlPageError(DocumentError):
    """The document is an HTML page."""


class HttpReplyError(DocumentError):
    """The document is an HTTP reply, with its headers."""


class LengthPrefixError(DocumentError):
    """Two bytes of length precede the document."""


class NulError(DocumentError):
    """The document contains a NUL byte before its end, where clients stop reading."""


class GrammarError(PolicyError):
    """The document is XML but not a policy: an element or attribute is unknown, misplaced or missing."""


class DomainError(PolicyError):
    """A domain that no client can match."""


class PortsError(PolicyError):
    """A port list that no client can read."""


def shown(text: str) -> str:
    """Return `text` in quotes, shortened, on one line, harmless to a terminal: for use in messages."""
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
    # ascii() escapes what does not print; quotes and backslashes are left as the author wrote them.
    return '"' + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut) + '"'


class MetaPolicy(enum.Enum):
    """Which policies of a host count: `site-control permitted-cross-domain-policies`.

    Sockets allow three values (Adobe AS3 developer's guide, "Policy file controls"). The meta-policy counts only in
    the policy that port 843 serves; a policy without one means `ALL`.
    """

    NONE = "none"  # not even the policy that carries it
    MASTER_ONLY = "master-only"  # only the one on port 843
    ALL = "all"  # any socket policy of this host


@dataclass(frozen=True, slots=True)
class PortSet:
    """Ports that a grant opens: sorted inclusive ranges that neither overlap nor touch, or `*` (`any`).

    `singles` are ports that are listed by themselves beside a range that contains them, as in `8000-8100,8100`. They
    add no port, but clients that misread ranges read them, so they are kept.

    `*` and `1-65535` hold the same ports and are not equal: clients read them differently (Lightspark
    understands no ranges), so one must not turn into the other.

    Raises PortsError: no port at all, a port outside 1..65535, a reversed range.
    """

    ranges: tuple[tuple[int, int], ...] = ()
    any: bool = False
    singles: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        given = [(LOWEST_PORT, HIGHEST_PORT)] if self.any else [*self.ranges, *((port, port) for port in self.singles)]
        ranges = _normalised(given)
        # A frozen dataclass can normalise its own fields only in this way.
        object.__setattr__(self, "ranges", ranges)
        object.__setattr__(self, "singles", () if self.any else _singles(given, ranges))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `to-ports`: `*`, or ports and `a-b` ranges between commas, such as `1935,8000-8100`.

        Spaces around commas are accepted, since published examples have them; the canonical form has none.
        Raises PortsError.
        """
        if text.strip(" ") == "*":
            return cls(any=True)
        if not text.strip(" "):
            raise PortsError("the port list is empty", 'write ports such as "1935,8000-8100", or "*" for all')
        if text.count(",") >= HIGHEST_PORT:  # more items than ports: only hostile texts, which must not take long
            raise PortsError(f"the port list has more than {HIGHEST_PORT:,} items", 'write ranges, or "*" for all')
        return cls(tuple(_item(item.strip(" "), text) for item in text.split(",")))

    def __contains__(self, port: object) -> bool:
        if not isinstance(port, int):
            return False
        index = bisect_right(self.ranges, port, key=lambda ports: ports[0]) - 1
        return index >= 0 and port <= self.ranges[index][1]

    def __str__(self) -> str:
        """Return the shortest text that `parse` reads back as this set."""
        return self.listed(singly=1)

    def listed(self, *, singly: int) -> str:
        """Return the set as text, with runs of up to `singly` ports written out one by one.

        For clients that misread ranges: Lightspark grants only the first port of one (measured), Unity omits
        the last (mono `SocketPolicyClient.cs`). Both read single ports.
        """
        if self.any:
            return "*"
        return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in self.items(singly=singly))

    def items(self, *, singly: int) -> list[tuple[int, int]]:
        """Return the items that `listed` writes, as (first, last); the two are equal for a single port."""
        items: list[tuple[int, int]] = []
        at = 0
        for low, high in self.ranges:
            end = bisect_right(self.singles, high, at)
            if high - low < singly:
                items.extend((port, port) for port in range(low, high + 1))
            else:
                items.append((low, high))
                items.extend((port, port) for port in self.singles[at:end])
            at = end
        return items


def _normalised(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Sort, check, and unite ranges that overlap or touch."""
    united: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if low > high:
            raise PortsError(f"the range {low}-{high} is reversed", f'write "{high}-{low}"')
        for port in (low, high):
            if not LOWEST_PORT <= port <= HIGHEST_PORT:
                raise PortsError(f"there is no port {port}", f"write a port from {LOWEST_PORT} to {HIGHEST_PORT}")
        if united and low <= united[-1][1] + 1:
            united[-1] = (united[-1][0], max(high, united[-1][1]))
        else:
            united.append((low, high))
    if not united:
        raise PortsError("a grant needs at least one port", 'write ports, or "*" for all')
    return tuple(united)


def _singles(given: Sequence[tuple[int, int]], united: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Return the single ports of `given` that one of its ranges contains, by the ranges `united` that it makes.

    The first port of a range is left out, which all clients read, and so are ports of short ranges, which are written
    singly anyway. Single ports that only touch each other are no part of a range.
    """
    ranges = [each for each in given if each[0] < each[1]]
    singles = {low for low, high in given if low == high}
    if not ranges or not singles:
        return ()
    wide = _normalised(ranges)
    found = []
    for port in sorted(singles):
        at = bisect_right(wide, port, key=_first) - 1
        low, high = united[bisect_right(united, port, key=_first) - 1]
        if at >= 0 and port <= wide[at][1] and port != low and high - low >= PORTS_SINGLY:
            found.append(port)
    return tuple(found)


def _first(ports: tuple[int, int]) -> int:
    return ports[0]


def _item(item: str, text: str) -> tuple[int, int]:
    """Read one port or one range out of the list `text`."""
    if not item:
        raise PortsError(f"an item of the port list {shown(text)} is empty", "remove the extra comma")
    if item == "*":
        raise PortsError(f'"*" is mixed with ports in {shown(text)}', 'write "*" alone, or only ports')
    low, dash, high = item.partition("-")
    for number in (low, high) if dash else (low,):
        if not (number.isascii() and number.isdigit()):
            raise PortsError(
                f"{shown(item)} is neither a port nor a range",
                'write ports as "1935" or "8000-8100", separated by commas',
            )
        # The length is checked before int(), which refuses thousands of digits with an error of its own.
        if len(number) > len(str(HIGHEST_PORT)) or int(number) > HIGHEST_PORT or int(number) < LOWEST_PORT:
            raise PortsError(f"there is no port {shown(number)}", f"write a port from {LOWEST_PORT} to {HIGHEST_PORT}")
        if number.startswith("0"):
            raise PortsError(f"the port {shown(number)} begins with a zero", f'write "{int(number)}"')
    return int(low), int(high) if dash else int(low)


# A label of a host name. RFC 1123 has no underscore in host names, but DNS has such names and browsers load content
# from them.
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_OCTET = re.compile(r"0|[1-9][0-9]{0,2}")
_HOST_CHARACTERS = 253  # DNS, RFC 1035 section 2.3.4, without the final dot


@dataclass(frozen=True, slots=True)
class DomainPattern:
    """The content that a grant is for: a host or IPv4 address, `*`, or `*.suffix`. Held in lower case.

    `wildcard` with a `host` is `*.host`; with an empty host it is `*`. There are no other forms: no other wildcard,
    and none inside an IP address (Adobe's cross-domain policy file specification). Clients look up no names, so an
    address matches only content that was loaded from that address.

    Raises DomainError: not a host name, a wildcard elsewhere, a URL, a port, IPv6, or non-ASCII.
    """

    host: str
    wildcard: bool = False

    def __post_init__(self) -> None:
        if not (self.wildcard and self.host == ""):
            object.__setattr__(self, "host", _host(self.host, wildcard=self.wildcard))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a `domain` attribute. Raises DomainError."""
        if text == "*":
            return cls("", wildcard=True)
        if text.startswith("*.") and text != "*.":  # "*." has no suffix, and must not become "*"
            return cls(text[2:], wildcard=True)
        return cls(text)

    def matches(self, host: str) -> bool:
        """Return whether content from `host` (a name or IPv4 address, in any case) is meant.

        `*.foo.com` also matches `foo.com` itself (Adobe's cross-domain policy file specification).
        """
        if not self.host:
            return True
        # lower() turns some non-ASCII letters into ASCII ones: U+212A, the Kelvin sign, must not match a k.
        if not host.isascii():
            return False
        host = host.lower()
        return host == self.host or (self.wildcard and host.endswith("." + self.host))

    def __str__(self) -> str:
        """Return the text that `parse` reads back as this pattern."""
        if not self.wildcard:
            return self.host
        return f"*.{self.host}" if self.host else "*"


def _host(text: str, *, wildcard: bool) -> str:
    """Check a host name, or the suffix of a wildcard, and return it in lower case."""
    whole = f"*.{text}" if wildcard else text
    if not whole:
        raise DomainError("the domain is empty", 'write a host name, "*.example.com", or "*" for every site')
    if whole.strip() != whole:
        raise DomainError(f"the domain {shown(whole)} has spaces around it", f"write {shown(whole.strip())}")
    if not whole.isascii():
        raise DomainError(
            f"the domain {shown(whole)} has non-ASCII characters", 'write the "xn--" form of an international name'
        )
    if "://" in whole or "/" in whole:
        raise DomainError(f"the domain {shown(whole)} is a URL", "write only its host name")
    if text.count(":") > 1 or text.startswith("["):
        # No source says that a client compares IPv6 literals, or in which spelling.
        raise DomainError(
            f"the domain {shown(whole)} is an IPv6 address", "write the host name that the content is loaded from"
        )
    if ":" in text:
        raise DomainError(f"the domain {shown(whole)} contains a port", "write ports in to-ports, not in the domain")
    if "*" in text:
        raise DomainError(
            f"the domain {shown(whole)} has a wildcard in a place that no client supports",
            'write "*" alone, or "*." before a whole name, as in "*.example.com"',
        )
    host = text.lower()
    labels = host.split(".")
    if labels[-1].isdigit():  # no top-level domain is a number, so this can only be meant as an address
        if wildcard:
            raise DomainError(f"the domain {shown(whole)} has a wildcard in an IP address", "write addresses in full")
        if len(labels) != 4 or not all(_OCTET.fullmatch(label) and int(label) <= 255 for label in labels):
            raise DomainError(f"the domain {shown(whole)} is not an IPv4 address", 'write it as in "192.0.2.1"')
    elif len(host) > _HOST_CHARACTERS or not all(map(_LABEL.fullmatch, labels)):
        raise DomainError(f"the domain {shown(whole)} is not a host name", 'write a name such as "example.com"')
    return host


@dataclass(frozen=True, slots=True)
class Grant:
    """One `allow-access-from`: content of `domain` may connect to `ports`.

    `secure`: only content that was loaded over HTTPS; sockets default to false (Adobe's guide).
    `location`: the place it was read at, if any; not compared.
    """

    domain: DomainPattern
    ports: PortSet
    secure: bool = False
    location: Location | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Policy:
    """The contents of one policy file. A policy without grants is valid and allows no content.

    `meta` is None if the file has no `site-control`, which clients take as `MetaPolicy.ALL`. The grants keep the
    order of the file. `meta_location` is the place that `site-control` was read at; not compared.
    """

    grants: tuple[Grant, ...] = ()
    meta: MetaPolicy | None = None
    meta_location: Location | None = field(default=None, compare=False)
