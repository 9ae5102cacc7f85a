"""Unity Web Player, as its source works, bugs included (UN; the manual, UM, says less).

- Unity receives once, at most 5,000 bytes, and cuts them at the first NUL; a policy that is then incomplete is none.
  The file should be ASCII (UM): the reader supports no encodings, and no byte order mark.
- Only `domain="*"` counts, whatever the content is.
- Ranges exclude their end: `1200-1220` omits 1220, `80-80` grants nothing. Spaces around numbers are accepted. Unity
  skips items that it cannot read.
- A grant without `to-ports` opens every port.
- A policy served from a port above 1024 does not grant ports below 1024; a policy served from 1024 itself does.
- `site-control` is parsed and never used for sockets: `IsSocketConnectionAllowed` compares only ports and domain, so
  even `none` forbids nothing. `secure` must be "true" or "false", or the whole file is void; it is never used.
- Unity skips unknown elements, but an element inside any other than the root voids the file.

Inferred: a reversed range counts up to 2^31 and through all negative numbers, and runs out of memory, which voids
the file; so does a range of more than ten million ports.
"""

import re
from collections.abc import Iterator

from flashpol.policy.clients.grant_index import EVERY_PORT, GrantIndex, Ranges, Row
from flashpol.policy.clients.query import Decision, Document, Evaluator, Query, allowed, denied, place
from flashpol.policy.flash import ROOT
from flashpol.policy.model import Location, shown
from flashpol.policy.ports import MASTER_PORT, UNPRIVILEGED
from flashpol.policy.reader import Element
from flashpol.policy.sizes import UNITY_BYTES

CLIENT = "unity"
_MEMORY_PORTS = 10_000_000
_WORDS = "SecurityException: Unable to connect, as no valid crossdomain policy was found"
# .NET's Int32.TryParse: blanks around, a sign, digits.
_INT32 = re.compile(r"[\t-\r ]*([+-]?[0-9]+)[\t-\r ]*")
_WITH_SECURE = ("allow-access-from", "allow-http-request-headers-from")
_UTF8_MARK = b"\xef\xbb\xbf"


class _Void(Exception):
    def __init__(self, wrong: str, at: Location) -> None:
        self.wrong = wrong
        self.at = at


def compile_unity(document: Document) -> Evaluator:
    cut = ""
    if document.data is not None and len(document.data) > UNITY_BYTES:
        document = Document.of(document.data[:UNITY_BYTES])
        cut = f"Unity receives only the first {UNITY_BYTES:,} bytes, and in those "
    if document.data is not None and document.data.startswith(_UTF8_MARK):
        return _never(
            "there is no policy: Unity reads ASCII, and the file begins with a byte order mark", Location(1, 1)
        )
    if error := document.expect(ROOT):
        return _never(f"{cut}there is no policy: {error.wrong}", error.location)
    assert document.root is not None
    try:
        return _Unity(document.root).decide
    except _Void as void:
        return _never(f"{void.wrong}, which voids the policy", void.at)


class _Unity:
    def __init__(self, root: Element) -> None:
        rows: list[Row] = []
        for element in root.children:
            secure = element.attributes.get("secure", "true")
            if element.name in _WITH_SECURE and secure not in ("true", "false"):
                raise _Void(f"secure is {shown(secure)}", place(element, "secure"))
            if element.name == "allow-access-from":
                rows.append(Row(element, element.attributes.get("domain", ""), _ports(element)))
            for child in element.children:
                raise _Void(f"{child.label} is inside {element.label}", child.location)
        self._rows = rows
        self._index = GrantIndex([row for row in rows if row.domain == "*"])
        self._ends: dict[int, Row] = {}
        for row in self._index.rows:
            for end in _ends(row.element.attributes.get("to-ports", "")):
                self._ends.setdefault(end, row)

    def decide(self, query: Query) -> Decision:
        source, port = query.served_from or MASTER_PORT, query.port
        row = self._index.find(query.content, port, https=True)
        if row is None:
            return self._refuse(port)
        if source > UNPRIVILEGED and port < UNPRIVILEGED:
            why = (
                f"a policy served from port {source} cannot grant port {port}: Unity wants 1024 and up from above 1024"
            )
            return denied(CLIENT, why, row.element.location, _WORDS)
        every = "" if "to-ports" in row.element.attributes else ", every port since it has no to-ports"
        return allowed(CLIENT, f"{row.label} grants it{every}", row.element.location)

    def _refuse(self, port: int) -> Decision:
        if row := self._ends.get(port):
            ports = shown(row.element.attributes["to-ports"])
            why = f"port {port} ends a range of to-ports={ports}, and Unity leaves out the end of a range"
            return denied(CLIENT, why, row.at("to-ports"), _WORDS)
        if self._index.rows:
            row = self._index.rows[0]
            ports = shown(row.element.attributes["to-ports"])
            why = f"port {port} is not in to-ports={ports}, and in no other grant for *"
            return denied(CLIENT, why, row.at("to-ports"), _WORDS)
        if self._rows:
            first = self._rows[0].element
            why = f'Unity counts only grants for domain="*", not for {shown(first.attributes.get("domain", ""))}'
            return denied(CLIENT, why, place(first, "domain"), _WORDS)
        return denied(CLIENT, "the policy has no grants", None, _WORDS)


def _ports(element: Element) -> Ranges:
    text = element.attributes.get("to-ports")
    if text is None or text == "*":
        return EVERY_PORT
    ranges: list[tuple[int, int]] = []
    for item in text.split(","):
        if "-" not in item:
            port = _int32(item)
            if port is not None:
                ranges.append((port, port))
            continue
        numbers = [_int32(number) for number in item.split("-")]
        if len(numbers) != 2 or numbers[0] is None or numbers[1] is None:
            continue
        low, end = numbers[0], numbers[1]
        if not 0 <= end - low <= _MEMORY_PORTS:
            raise _Void(f"the range {shown(item.strip())} makes Unity run out of memory", place(element, "to-ports"))
        if low < end:
            ranges.append((low, end - 1))
    return ranges


def _ends(text: str) -> Iterator[int]:
    """Yield the last ports of the ranges."""
    for item in text.split(","):
        low, dash, end = item.partition("-")
        if dash and _int32(low) is not None and (port := _int32(end)) is not None:
            yield port


def _int32(text: str) -> int | None:
    match = _INT32.fullmatch(text)
    # Eleven characters hold any Int32; leading zeros are as rare as the numbers that are longer.
    if not match or len(match[1].lstrip("+-0")) > 10:
        return None
    number = int(match[1].lstrip("+-0") or "0") * (-1 if match[1].startswith("-") else 1)
    return number if -(2**31) <= number < 2**31 else None


def _never(reason: str, at: Location | None) -> Evaluator:
    return lambda query: denied(CLIENT, reason, at, _WORDS)
