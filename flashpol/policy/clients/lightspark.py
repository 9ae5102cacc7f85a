"""Lightspark, as its source works and as it was observed, bugs included (LS, sources of August 2026).

- It reads on only while a read returns exactly 4,096 bytes. So a reply of more than one TCP segment is denied if the
  first read gets only a part of it: 2,000 bytes failed 6 of 6 times at 10 Mbit/s, 3 of 6 at 100, and never at 1,000
  (measured). After a read of 4,096 bytes it waits for more until the server closes, which flashpol does: replies of
  4,096 to 9,000 bytes that arrived at once were accepted. Of a server that keeps the connection open it hangs.
- Ranges are broken: of `a-b` only `a` is granted (measured). C's `atoi` reads ports into 16 bits: text that does not
  begin with a number is 0, which is no port. `*` counts alone or as an item, unless a range follows it.
- On port 843 an invalid element ends the reading, and the grants before it count if a `site-control` was read before
  it. Without one Lightspark skips the file and asks the destination port: while it reads the file its meta-policy
  counts as `none`, afterwards as `all` (`PolicyFile::load` and `getMetaPolicy`); HTTP replies on 843 were observed to
  have this effect. On other ports an invalid element voids the file.
- Invalid are: `site-control` off port 843, a second one, one without a value or with other attributes;
  `allow-access-from` without domain or to-ports, or with more than three attributes;
  `allow-http-request-headers-from`. Lightspark skips other elements with everything inside them, text, CDATA sections
  and a DOCTYPE with declarations (`CrossDomainPolicy::getNextElement`).
- `site-control` none, or an unknown value, ends the reading and denies everything. HTTP's and FTP's values count as
  `all`.
- `secure="true"` allows only a SWF from an https URL; any other value than "true" counts as false.
- Domains are compared as text in lower case: `*`, exact, or `*.suffix`, which also matches the suffix, also for
  addresses. Lightspark looks up no names.
- The 1024 rule is not enforced. Content that is not from the web is in `sandboxes`.

Where nothing is known, the stricter reading applies: content given without a URL did not come over https.
"""

import re

from flashpol.policy.clients.grant_index import EVERY_PORT, GrantIndex, Ranges, Row
from flashpol.policy.clients.query import Decision, Document, Evaluator, Query, allowed, denied, place
from flashpol.policy.flash import ROOT
from flashpol.policy.model import Location, shown
from flashpol.policy.ports import MASTER_PORT
from flashpol.policy.reader import Element
from flashpol.policy.sizes import LIGHTSPARK_READ_BYTES, SEGMENT_BYTES

CLIENT = "lightspark"
_META = "permitted-cross-domain-policies"
_EVENT = "No policy file allows socket connection"
_DENIED = f"SECURITY: DISALLOWED: No policy file explicitly allowed access\n{_EVENT}"
_FORBIDDEN = f"SECURITY: DISALLOWED: Master policy file disallows policy files\n{_EVENT}"
_ALLOWED = "SECURITY: ALLOWED: A policy file explicitly allowed access"
_ATOI = re.compile(r"[\t-\r ]*([+-]?)([0-9]+)")
_LONG = 2**63 - 1


def compile_lightspark(document: Document) -> Evaluator:
    if error := document.expect(ROOT, lenient=True):
        return _never(f"there is no policy: {error.wrong}", error.location)
    assert document.root is not None
    note = _size_note(len(document.reply or b""))
    master, other = _compile(document.root, note, master=True), _compile(document.root, note, master=False)

    def decide(query: Query) -> Decision:
        return (master if (query.served_from or MASTER_PORT) == MASTER_PORT else other)(query)

    return decide


def _size_note(size: int) -> str:
    """Return what a reply of `size` bytes, its NUL included, depends on, to be added to a reason."""
    if size <= SEGMENT_BYTES:
        return ""
    note = (
        f"; the reply has {size:,} bytes, more than one TCP segment of {SEGMENT_BYTES:,}: Lightspark denies if it"
        " arrives in parts"
    )
    if size % LIGHTSPARK_READ_BYTES == 0:
        note += f", and hangs after a read of {LIGHTSPARK_READ_BYTES:,} if the server keeps the connection open"
    return note


def _compile(root: Element, note: str, *, master: bool) -> Evaluator:
    rows: list[Row] = []
    controlled = False
    stopped: tuple[Element, str] | None = None
    for element in root.children:
        if wrong := _invalid(element, may_control=master and not controlled):
            if not master:
                why = f"{wrong}: Lightspark then rejects the whole file, unless port 843 serves it"
                return _never(why, element.location)
            if not controlled:
                why = f"{wrong}: with no site-control before it, that makes Lightspark skip the whole file"
                return _never(why, element.location)
            stopped = element, wrong
            break
        if element.name == "site-control":
            controlled = True
            value = element.attributes[_META]
            if value not in ("all", "master-only", "by-content-type", "by-ftp-filename"):
                return _never(f"site-control {shown(value)} denies everything", place(element, _META), _FORBIDDEN)
        elif element.name == "allow-access-from":
            domain, secure = element.attributes["domain"], element.attributes.get("secure") == "true"
            rows.append(Row(element, domain.lower() if domain.isascii() else domain, _ports(element), secure))
    return _Lightspark(rows, stopped, note).decide


class _Lightspark:
    def __init__(self, rows: list[Row], stopped: tuple[Element, str] | None, note: str) -> None:
        self._index = GrantIndex(rows)
        self._stopped = stopped
        self._note = note

    def decide(self, query: Query) -> Decision:
        content, port = query.content, query.port
        row = self._index.find(content, port, https=content.scheme == "https")
        if row is not None:
            return allowed(CLIENT, f"{row.label} grants it{self._note}", row.element.location, _ALLOWED)
        return self._refuse(query)

    def _refuse(self, query: Query) -> Decision:
        content, port = query.content, query.port
        if row := self._index.find(content, port, https=True):
            why = 'the grant is secure="true", only for content loaded over https'
            return denied(CLIENT, why, row.at("secure"), _DENIED)
        if self._stopped:
            element, wrong = self._stopped
            why = f"no grant for it precedes an invalid element, where Lightspark stops reading: {wrong}"
            return denied(CLIENT, why, element.location, _DENIED)
        if row := self._index.nearest(content):
            text = row.element.attributes["to-ports"]
            bug = ", and of a range Lightspark grants only the first port" if "-" in text else ""
            why = f"port {port} is not in to-ports={shown(text)}{bug}"
            return denied(CLIENT, why, row.at("to-ports"), _DENIED)
        if not self._index.rows:
            return denied(CLIENT, "the policy has no grants", None, _DENIED)
        return denied(CLIENT, f"no grant is for content from {content.host or content.text}", None, _DENIED)


def _invalid(element: Element, *, may_control: bool) -> str:
    """Return what makes the element invalid, or nothing if it is not."""
    attributes = element.attributes
    if element.name == "site-control":
        if not may_control:
            return "a site-control that is not the first of a file on port 843"
        return "" if len(attributes) == 1 and attributes.get(_META) else "a site-control with other than its value"
    if element.name == "allow-access-from":
        for name in ("domain", "to-ports"):
            if not attributes.get(name):
                return f"an allow-access-from without {name}"
        return "an allow-access-from with more than three attributes" if len(attributes) > 3 else ""
    return f"{element.label} in a socket policy" if element.name == "allow-http-request-headers-from" else ""


def _ports(element: Element) -> Ranges:
    text = element.attributes["to-ports"]
    if text == "*":
        return EVERY_PORT
    items = text.split(",")
    # Lightspark searches the dash of a range after the item, so an item counts as a range if a later one is.
    last_dash = max((at for at, item in enumerate(items) if "-" in item), default=0)
    singles: list[tuple[int, int]] = []
    for at, item in enumerate(items):
        if item == "*" and at >= last_dash:
            return EVERY_PORT
        port = _atoi(item)
        singles.append((port, port))
    return singles


def _atoi(text: str) -> int:
    """C's `atoi` where int has 32 bits and long 64, stored in 16 bits."""
    match = _ATOI.match(text)
    if not match:
        return 0
    digits = match[2].lstrip("0")
    size = int(digits or "0") if len(digits) < 20 else _LONG + 1
    number = max(-size, -_LONG - 1) if match[1] == "-" else min(size, _LONG)
    return number & 0xFFFF


def _never(reason: str, at: Location | None, words: str = _DENIED) -> Evaluator:
    return lambda query: denied(CLIENT, reason, at, words)
