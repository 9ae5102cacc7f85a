"""Grants by domain and port: a decision costs the same in a file of five grants and of five thousand.

Each domain pattern, as text, has a map from ports to the first grant of the file that opens them: ports are cut into
segments once, and a look-up is one bisection. Only a few patterns match a host (`Content.keys`).
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from flashpol.policy.clients.query import Content, place
from flashpol.policy.model import Location, shown
from flashpol.policy.reader import Element

Ranges = Sequence[tuple[int, int]]

EVERY_PORT: Ranges = ((0, 65535),)
_NONE = 1 << 60  # later than any grant


@dataclass(frozen=True, slots=True)
class Row:
    """A grant as one client understands it: `domain` in lower case, `ports` as inclusive ranges in any order."""

    element: Element
    domain: str
    ports: Ranges
    secure: bool = False
    _known: dict[str, Location] = field(default_factory=dict, compare=False)  # places that were looked up before
    _labels: list[str] = field(default_factory=list, compare=False)

    @property
    def label(self) -> str:
        """Return the grant as written, for messages."""
        if not self._labels:
            pairs = (f"{name}={shown(value)}" for name, value in self.element.attributes.items())
            self._labels.append(" ".join((self.element.name, *pairs)))
        return self._labels[0]

    def at(self, attribute: str) -> Location:
        """Return where the value of an attribute begins, or the grant's place if it lacks the attribute."""
        if attribute not in self._known:
            self._known[attribute] = place(self.element, attribute)
        return self._known[attribute]


class GrantIndex:
    """Rows in the order of the file; the first matching row decides."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        grouped: dict[str, list[tuple[int, Row]]] = {}
        for index, row in enumerate(rows):
            grouped.setdefault(row.domain, []).append((index, row))
        self._any = {domain: _Ports(members) for domain, members in grouped.items()}
        self._plain = self._any
        if any(row.secure for row in rows):
            plain = {domain: [m for m in members if not m[1].secure] for domain, members in grouped.items()}
            self._plain = {domain: _Ports(members) for domain, members in plain.items() if members}

    def find(self, content: Content, port: int, *, https: bool) -> Row | None:
        """Return the first grant that opens `port` to the content; secure grants only match with `https`."""
        maps = self._any if https else self._plain
        found = _NONE
        for key in content.keys:
            if (ports := maps.get(key)) and (index := ports.first(port)) < found:
                found = index
        return None if found == _NONE else self.rows[found]

    def nearest(self, content: Content) -> Row | None:
        """Return the first grant for the content, with any ports."""
        first = min((ports.index for key in content.keys if (ports := self._any.get(key))), default=_NONE)
        return None if first == _NONE else self.rows[first]


class _Ports:
    """Maps each port to the lowest index of the rows that open it."""

    __slots__ = ("_starts", "_winners", "index")

    def __init__(self, rows: list[tuple[int, Row]]) -> None:
        self.index = rows[0][0]
        ranges = sorted((low, high, index) for index, row in rows for low, high in row.ports)
        self._starts: list[int] = []
        self._winners: list[int] = []
        edges = sorted({edge for low, high, _ in ranges for edge in (low, high + 1)})
        self._sweep(edges, ranges)

    def _sweep(self, edges: Iterable[int], ranges: list[tuple[int, int, int]]) -> None:
        open_rows: list[tuple[int, int]] = []  # a heap of (index, last port)
        at = 0
        for edge in edges:
            while at < len(ranges) and ranges[at][0] == edge:
                heappush(open_rows, (ranges[at][2], ranges[at][1]))
                at += 1
            while open_rows and open_rows[0][1] < edge:
                heappop(open_rows)
            self._starts.append(edge)
            self._winners.append(open_rows[0][0] if open_rows else _NONE)

    def first(self, port: int) -> int:
        at = bisect_right(self._starts, port) - 1
        return self._winners[at] if at >= 0 else _NONE
