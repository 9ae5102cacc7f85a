"""Lightspark, as its source does it and as it was observed, bugs included (LS, sources of August 2026).

- A reply of exactly 4,096 bytes, its NUL included, makes it wait for more for ever (measured); it needs less than
  that, and longer ones arrive whole only if every read happens to be full.
- Ranges are broken: of `a-b` only `a` is granted (measured). Ports are read by C's `atoi` into 16 bits: what does
  not begin with a number is 0, which nobody can ask for. `*` counts alone or as an item, unless a range follows it.
- On port 843 an invalid element ends the reading, and the grants before it stand if a `site-control` was read before
  it. Without one this file is passed over, and the destination port is asked all the same: while the file is being
  read its meta-policy counts as `none`, afterwards as `all` (`PolicyFile::load` and `getMetaPolicy`). So it was
  observed of HTTP replies on 843. On other ports an invalid element voids the file.
- Invalid are: `site-control` off port 843, a second one, one without a value or with other attributes;
  `allow-access-from` without domain or to-ports, or with more than three attributes;
  `allow-http-request-headers-from`. Other elements, and all inside these, are passed over.
- `site-control` none, or a value it does not know, ends the reading and denies everything. HTTP's and FTP's values
  count as `all`.
- `secure="true"` wants a SWF from an https URL; any other value than "true" counts as false.
- Domains are compared as text in lower case: `*`, exact, or `*.suffix`, which also matches the suffix, addresses
  too. No DNS.
- The 1024 rule is not enforced. A SWF from disk may not use sockets, unless it was published for the network.

Where nothing is known, the stricter reading: content given without a URL did not come over https.
"""

import re

from flashpol.policy.clients.grant_index import EVERY_PORT, GrantIndex, Ranges, Row
from flashpol.policy.clients.query import Decision, Document, Evaluator, Query, allowed, denied, place
from flashpol.policy.flash import ROOT
from flashpol.policy.model import Location, shown
from flashpol.policy.ports import MASTER_PORT
from flashpol.policy.reader import Element

CLIENT = "lightspark"
# Its read buffer: it goes on reading only while a read fills it.
READ_BYTES = 4096
_META = "permitted-cross-domain-policies"
_EVENT = "No policy file allows socket connection"
_DENIED = f"SECURITY: DISALLOWED: No policy file explicitly allowed access\n{_EVENT}"
_FORBIDDEN = f"SECURITY: DISALLOWED: Master policy file disallows policy files\n{_EVENT}"
_ALLOWED = "SECURITY: ALLOWED: A policy file explicitly allowed access"
_ATOI = re.compile(r"[\t-\r ]*([+-]?)([0-9]+)")
_LONG = 2**63 - 1


def compile_lightspark(document: Document) -> Evaluator:
    reply = document.reply
    if reply is not None and len(reply) == READ_BYTES:
        return _never(f"a reply of exactly {READ_BYTES:,} bytes makes Lightspark wait for more, for ever", None, "")
    if reply is not None and len(reply) > READ_BYTES:
        return _never(
            f"the reply has {len(reply):,} bytes with its NUL, and Lightspark needs less than {READ_BYTES:,}", None
        )
    if error := document.expect(ROOT):
        return _never(f"there is no policy: {error.wrong}", error.location)
    assert document.root is not None
    master, other = _compile(document.root, master=True), _compile(document.root, master=False)

    def decide(query: Query) -> Decision:
        return (master if (query.served_from or MASTER_PORT) == MASTER_PORT else other)(query)

    return decide


def _compile(root: Element, *, master: bool) -> Evaluator:
    rows: list[Row] = []
    controlled = False
    stopped: tuple[Element, str] | None = None
    for element in root.children:
        if wrong := _invalid(element, may_control=master and not controlled):
            if not master:
                return _never(f"{wrong}: off port 843 that voids the file for Lightspark", element.location)
            if not controlled:
                why = f"{wrong}: with no site-control before it, that makes Lightspark pass over the whole file"
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
    return _Lightspark(rows, stopped).decide


class _Lightspark:
    def __init__(self, rows: list[Row], stopped: tuple[Element, str] | None) -> None:
        self._index = GrantIndex(rows)
        self._stopped = stopped

    def decide(self, query: Query) -> Decision:
        content, port = query.content, query.port
        if outside := _outside(query):
            return outside
        row = self._index.find(content, port, https=content.scheme == "https")
        if row is not None:
            return allowed(CLIENT, f"{row.label} grants it", row.element.location, _ALLOWED)
        return self._refuse(query)

    def _refuse(self, query: Query) -> Decision:
        content, port = query.content, query.port
        if row := self._index.find(content, port, https=True):
            why = 'the grant is secure="true", only for content loaded over https'
            return denied(CLIENT, why, row.at("secure"), _DENIED)
        if self._stopped:
            element, wrong = self._stopped
            why = f"no grant for it stands before an invalid element, where Lightspark stops reading: {wrong}"
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
        return "" if len(attributes) == 1 and attributes.get(_META) else "a site-control without just its value"
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
    # Its search for the dash of a range begins behind the item, so an item counts as a range if a later one is.
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


def _outside(query: Query) -> Decision | None:
    if query.content.is_file:
        why = "content from disk may not use sockets, unless published for the network"
        return denied(CLIENT, why, None, "SecurityError: connect to network")
    return None


def _never(reason: str, at: Location | None, words: str = _DENIED) -> Evaluator:
    return lambda query: _outside(query) or denied(CLIENT, reason, at, words)
