"""Decides by the Origin field whether the content of a page may connect: what Flash Player did in the client.

A browser puts the origin of the page into the request that opens a WebSocket, and no script can change it. Ruffle plays
the content of that page and enforces no socket policy, so the server asks its own policy.

    http, https             the policy decides as for Flash content from that host; https is what `secure="true"` wants
    null, other schemes     content from nowhere: only a grant for `*` is for it
    no Origin               a program, not a page: 403, unless `without_origin`
    several, or garbage     400

An origin of another scheme (`chrome-extension://ID`, `app://HOST`, `file://`) has no host that served the content: the
program that shows the content chooses the name. So it counts as `null` does, which sandboxed frames and local files
send.

The port of an origin does not matter to a policy, as Flash compares only hosts; a list of origins compares it. An IPv6
address matches only `*`, and a host with a dot at its end is another host, as for Flash and for browsers.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import AddressValueError, IPv6Address
from typing import NamedTuple

from flashpol.config import Listener, WebSocketPath
from flashpol.policy.clients import COMPILE
from flashpol.policy.clients.query import Content, Document, Query
from flashpol.policy.model import HIGHEST_PORT, DomainError, shown

__all__ = ["ACCEPTED", "ANY", "MALFORMED", "NO_ORIGIN", "POLICY", "REFUSED", "Origins", "Verdict", "rule_of"]

# The rules of a path, beside a list of origins.
POLICY, ANY = "policy", "any"
# Results, as the metric of upgrades names them.
ACCEPTED, REFUSED, NO_ORIGIN, MALFORMED = "accepted", "origin", "no_origin", "malformed"

# A host name has at most 253 characters, and browsers' extensions have less than 100.
MAX_ORIGIN_BYTES = 512
# Verdicts that are remembered: of each kind, in each of two generations. A service has few origins, and few services
# have a thousand. A verdict takes a kilobyte or two, so random origins take some 4 MB.
GENERATION = 1024
# Characters of a reason. It quotes a grant, which may have any number of attributes.
_REASON = 400

_ORIGIN = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([1-9][0-9]{0,4}))?", re.IGNORECASE | re.ASCII)
# What programs write that serve content to themselves: the host may be empty, or have any characters.
_OTHER = re.compile(r"(?!https?:)[a-z][a-z0-9+.-]*://[!-~]*", re.IGNORECASE | re.ASCII)
# A host and a port in them, if they have those.
_AUTHORITY = re.compile(r"([a-z0-9._-]+)(?::([0-9]+))?")
_NULL = "null"
_FORM = "an origin is as in https://www.example.com, without a path"


class Verdict(NamedTuple):
    """Whether content may connect. `status` is that of the HTTP reply if it may not, 0 if it may.

    `reason` is one line of printable ASCII for the reply and the log. `origin` is the field as a log line may show it,
    empty without one. `line` and `column` are the place in the policy that decided, None if none did.
    """

    allowed: bool
    result: str
    status: int
    reason: str
    origin: str = ""
    line: int | None = None
    column: int | None = None


class Origins:
    """The rule of one WebSocket path: made once, asked for each upgrade.

    policy: the file, or the reply made of it. port: what the content connects to. rule: POLICY, ANY, or origins such as
    `https://www.example.com` and `https://*.example.com`, the latter for every host below that domain.
    without_origin: whether requests without an Origin are accepted. served_from: the port that clients ask for the
    policy; None: 843. Raises ValueError for a rule that matches no origin.
    """

    def __init__(
        self,
        policy: bytes,
        port: int,
        *,
        rule: str | Iterable[str] = POLICY,
        without_origin: bool = False,
        served_from: int | None = None,
    ) -> None:
        if isinstance(rule, str) and rule not in (POLICY, ANY):
            raise ValueError(f"there is no rule {shown(rule)}")
        self.port = port
        self._served_from = served_from
        self._decide = COMPILE["ruffle"](Document.of(policy))
        self._rule = rule if isinstance(rule, str) else ""
        self._listed = frozenset() if isinstance(rule, str) else frozenset(map(_listed, rule))
        self._without = _WITHOUT_ACCEPTED if without_origin else _WITHOUT_REFUSED
        self._allowed, self._refused = Memory(), Memory()

    def judge(self, origins: Sequence[bytes]) -> Verdict:
        """Judge the values of all Origin fields of a request. Never raises because of them."""
        if len(origins) == 1:
            origin = origins[0]
            return self._allowed.get(origin) or self._refused.get(origin) or self._judge(origin)
        if not origins:
            return self._without
        return _malformed(b", ".join(origins[:2]), f"the request has {len(origins)} Origin fields")

    def _judge(self, origin: bytes) -> Verdict:
        if len(origin) > MAX_ORIGIN_BYTES:
            return _malformed(
                origin, f"the Origin has {len(origin):,} bytes, and at most {MAX_ORIGIN_BYTES} are accepted"
            )
        text = origin.decode("latin-1")
        try:
            content = _content(text)
        except DomainError as error:
            return _malformed(origin, error.wrong)
        verdict = self._decided(text, content)
        (self._allowed if verdict.allowed else self._refused).put(origin, verdict)
        return verdict

    def _decided(self, text: str, content: Content) -> Verdict:
        if self._rule == ANY:
            return Verdict(True, ACCEPTED, 0, "origins is any", text)
        line = column = None
        if self._rule == POLICY:
            decision = self._decide(Query(content, self.port, self._served_from))
            allowed, reason, line, column = decision.allowed, decision.reason, decision.line, decision.column
            if line:
                reason = f"{reason} (line {line} of the policy)"
        elif self._listed.isdisjoint(_names(content)):
            allowed, reason = False, "origins lists others"
        else:
            allowed, reason = True, "origins lists it"
        if allowed:
            return Verdict(True, ACCEPTED, 0, _one_line(reason), text, line, column)
        reason = f"Origin {shown(text)} may not connect to port {self.port}: {reason}"
        return Verdict(False, REFUSED, 403, _one_line(reason), text, line, column)


def rule_of(listener: Listener, path: WebSocketPath, policy: bytes, port: int | None = None) -> Origins:
    """The rule of a listener's path. policy: what the listener serves. port: that clients connect to, once it is bound;
    None: the configuration says it, or the path names its own."""
    port = port or listener.public_port
    content_port = path.port or port
    assert content_port
    return Origins(policy, content_port, rule=path.origins, without_origin=path.without_origin, served_from=port)


class Memory:
    """Verdicts by Origin, in two generations: an origin that is asked for stays, and of others the oldest go.

    Allowed and refused origins have a memory each, so that no number of refused ones replaces an allowed one.
    """

    __slots__ = ("_old", "_young")

    def __init__(self) -> None:
        self._young: dict[bytes, Verdict] = {}
        self._old: dict[bytes, Verdict] = {}

    def get(self, origin: bytes) -> Verdict | None:
        if verdict := self._young.get(origin):
            return verdict
        if verdict := self._old.get(origin):
            self.put(origin, verdict)
        return verdict

    def put(self, origin: bytes, verdict: Verdict) -> None:
        if len(self._young) >= GENERATION:
            self._old, self._young = self._young, {}
        self._young[origin] = verdict

    def __contains__(self, origin: bytes) -> bool:
        return origin in self._young or origin in self._old

    def __len__(self) -> int:
        return len(self._young.keys() | self._old.keys())


def _content(text: str) -> Content:
    """The place that an Origin names. Raises DomainError if it names none."""
    found = _ORIGIN.fullmatch(text)
    if not found:
        if text == _NULL or _OTHER.fullmatch(text):
            return Content(text, text.partition(":")[0].lower(), "", None, "", ("*",))
        raise DomainError(f"the Origin {shown(text)} is not one: {_FORM}")
    scheme, host, port = found[1].lower(), found[2].lower(), int(found[3]) if found[3] else None
    if port is not None and port > HIGHEST_PORT:
        raise DomainError(f"the Origin {shown(text)} has a port above {HIGHEST_PORT}")
    try:
        if host.startswith("["):
            IPv6Address(host[1:-1])
        return Content.of_origin(text, scheme, host, port)
    except (AddressValueError, DomainError):
        raise DomainError(f"the Origin {shown(text)} has neither a host name nor an address in it") from None


def _names(content: Content) -> list[str]:
    """What a list may have written for an origin: itself, and the domains above its host."""
    scheme, host, port = content.scheme, content.host, str(content.port)
    if not host:
        found = _AUTHORITY.fullmatch(content.text.lower().partition("://")[2])
        if not found:
            return [content.text.lower()]
        host, port = found[1], found[2]
    if host.startswith("["):
        return [f"{scheme}://[{IPv6Address(host[1:-1])}]:{port}"]
    labels = [] if content.is_address else host.split(".")
    hosts = [host, *("*." + ".".join(labels[at:]) for at in range(1, len(labels)))]
    return [f"{scheme}://{each}:{port}" for each in hosts]


def _listed(entry: str) -> str:
    """An entry of a list, as `_names` writes it. Raises ValueError if no origin is written like that."""
    wildcard = "://*." in entry
    content = _content(entry.replace("://*.", "://", 1))
    if wildcard and content.is_address:
        raise DomainError(f"the origin {shown(entry)} has a wildcard, which is for host names")
    name = _names(content)[0]
    return name.replace("://", "://*.", 1) if wildcard else name


def _malformed(origin: bytes, reason: str) -> Verdict:
    text = shown(origin[:MAX_ORIGIN_BYTES].decode("latin-1"))[1:-1]
    return Verdict(False, MALFORMED, 400, _one_line(reason), text.encode("ascii", "backslashreplace").decode())


def _one_line(text: str) -> str:
    """In printable ASCII: the policy's own words may have other characters."""
    line = text.encode("ascii", "backslashreplace").decode()
    return line if len(line) <= _REASON else line[: _REASON - 3] + "..."


_WITHOUT_ACCEPTED = Verdict(True, ACCEPTED, 0, "without_origin accepts requests without an Origin")
_WITHOUT_REFUSED = Verdict(
    False, NO_ORIGIN, 403, "the request has no Origin, which browsers send; without_origin = true accepts programs"
)
