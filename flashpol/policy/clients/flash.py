"""Flash Player, by Adobe's documented rules.

- A policy served from a port of 1024 or above grants only ports of 1024 and above (A60).
- `site-control` counts only in the master policy, on port 843: `none` forbids even the file that contains it;
  `master-only` and `all`, the default for sockets, let the file count. `none` wins over other values.
- `domain` is exact, `*`, or `*.suffix`, which also matches the suffix itself. An address has no wildcard, and matches
  only content that was loaded from that address: Flash looks up no names. Case does not matter.
- `to-ports` lists ports and inclusive ranges, or is `*`. It is required.
- `secure="true"` allows only content loaded over HTTPS. It is meaningful only for a server on the content's own host:
  Flash honours it for others too, with a warning.
- Flash fetches no policy from the ports in `ports.UNFETCHED` (moock's policy server page).
- Elements inside a grant void the policy; Flash skips elements that are not for sockets.
- Content that is not from the web is in `sandboxes`.

Where Adobe says nothing, the stricter reading applies: a grant that the grammar does not allow grants nothing; a
`site-control` value that sockets do not have counts as `none`; content given without a URL did not come over HTTPS;
text in the file, or a DOCTYPE with declarations, voids it.
"""

from flashpol.policy.clients.grant_index import GrantIndex, Row
from flashpol.policy.clients.query import Decision, Document, Evaluator, Query, allowed, denied, place
from flashpol.policy.flash import ROOT
from flashpol.policy.model import (
    DomainError,
    DomainPattern,
    GrammarError,
    Location,
    MetaPolicy,
    PolicyError,
    PortSet,
    shown,
)
from flashpol.policy.ports import MASTER_PORT, UNFETCHED, UNPRIVILEGED
from flashpol.policy.reader import Element

CLIENT = "flash"


def compile_flash(document: Document) -> Evaluator:
    if error := document.expect(ROOT):
        return _never(f"there is no policy: {error.wrong}", error.location)
    assert document.root is not None
    for element in document.root.children:
        for child in element.children:
            return _never(f"{child.label} is inside {element.label}, which voids the policy", child.location)
    return _Flash(document.root).decide


class _Flash:
    def __init__(self, root: Element) -> None:
        rows: list[Row] = []
        # Invalid grants, by the domain that they were meant for, or "*" if that is unknown.
        self._void: dict[str, tuple[int, PolicyError]] = {}
        for element in root.children:
            if element.name == "allow-access-from":
                try:
                    rows.append(_row(element))
                except PolicyError as error:
                    meant = "*" if isinstance(error, DomainError) else element.attributes.get("domain", "*").lower()
                    self._void.setdefault(meant, (len(self._void), error))
        self._index = GrantIndex(rows)
        self._forbidden = _forbidden(root)

    def decide(self, query: Query) -> Decision:
        content, port = query.content, query.port
        source = query.served_from or MASTER_PORT
        if outside := _outside(query):
            return outside
        if self._forbidden and source == MASTER_PORT:
            at, why = self._forbidden
            words = f"Error: Ignoring policy file at xmlsocket://SERVER:{source} due to meta-policy 'none'."
            return denied(CLIENT, why, at, f"{words}\n{_words(query)}")
        row = self._index.find(content, port, https=content.scheme == "https")
        if row is None:
            return self._refuse(query)
        warning = "" if query.local or not row.secure else "; Flash warns: secure is for a server on the content's host"
        if port < UNPRIVILEGED <= source:
            why = (
                f"a policy served from port {source} cannot grant port {port}: from 1024 up it grants only 1024 and up"
            )
            return denied(CLIENT, why, row.element.location, _words(query))
        words = (
            f"Request for resource at xmlsocket://SERVER:{port} by requestor from {content.text}"
            f" is permitted due to policy file at xmlsocket://SERVER:{source}"
        )
        return allowed(CLIENT, f"{row.label} grants it{warning}", row.element.location, words)

    def _refuse(self, query: Query) -> Decision:
        """Explain the denial by the nearest miss."""
        content, port, words = query.content, query.port, _words(query)
        if row := self._index.find(content, port, https=True):
            why = 'the grant is secure="true", only for content loaded over HTTPS'
            if not content.scheme:
                why += "; write the content's URL if it was"
            return denied(CLIENT, why, row.at("secure"), words)
        if row := self._index.nearest(content):
            ports = shown(row.element.attributes["to-ports"])
            why = f"port {port} is not in to-ports={ports}, and in no other grant for {_whom(query)}"
            return denied(CLIENT, why, row.at("to-ports"), words)
        if void := [self._void[key] for key in content.keys if key in self._void]:
            _, error = min(void)  # the first in the file: the numbers are unique
            return denied(CLIENT, f"Flash ignores a grant: {error.wrong}", error.location, words)
        return denied(CLIENT, _no_grant(self._index, query), None, words)


def _row(element: Element) -> Row:
    attributes = element.attributes
    for name in ("domain", "to-ports"):
        if name not in attributes:
            raise GrammarError(f"allow-access-from has no {name}", "", element.location)
    if attributes.get("secure", "false") not in ("true", "false"):
        raise GrammarError(f"secure is {shown(attributes['secure'])}", "", place(element, "secure"))
    try:
        domain = DomainPattern.parse(attributes["domain"])
    except PolicyError as error:
        raise error.at(place(element, "domain")) from None
    try:
        ports = PortSet.parse(attributes["to-ports"])
    except PolicyError as error:
        raise error.at(place(element, "to-ports")) from None
    return Row(element, str(domain), ports.ranges, attributes.get("secure") == "true")


def _forbidden(root: Element) -> tuple[Location, str] | None:
    """Return the place and the reason that the file forbids itself as the master policy, if it does."""
    name = "permitted-cross-domain-policies"
    for element in root.children:
        if element.name == "site-control":
            value = element.attributes.get(name)
            if value == MetaPolicy.NONE.value:
                return place(element, name), "site-control none: no policy of this host counts, this one included"
            if value not in (MetaPolicy.ALL.value, MetaPolicy.MASTER_ONLY.value):
                what = "without a value" if value is None else shown(value)
                return place(element, name), f'site-control {what} is not valid for sockets, and counts as "none"'
    return None


def _outside(query: Query) -> Decision | None:
    """Return the decision if it does not depend on any policy."""
    if query.served_from in UNFETCHED:
        return denied(CLIENT, f"Flash fetches no policy from port {query.served_from}", None, _words(query))
    return None


def _no_grant(index: GrantIndex, query: Query) -> str:
    if not index.rows:
        return "the policy has no grants"
    hint = "; no client looks up names, so an address needs its own grant" if query.content.is_address else ""
    return f"no grant is for content from {_whom(query)}{hint}"


def _whom(query: Query) -> str:
    return query.content.host or query.content.text


def _words(query: Query) -> str:
    return (
        f"Error: Request for resource at xmlsocket://SERVER:{query.port} by requestor from {query.content.text}"
        " is denied due to lack of policy file permissions.\n#2048 security sandbox violation"
    )


def _never(reason: str, at: Location | None) -> Evaluator:
    def decide(query: Query) -> Decision:
        return _outside(query) or denied(CLIENT, reason, at, _words(query))

    return decide
