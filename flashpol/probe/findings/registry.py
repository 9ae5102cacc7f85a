"""What a finding is, and the registry of all rules; it has the same form as that of lint's rules.

    @rule("PB102", WARNING, "dropped", wrong="port {port} …", instead="…", seen="the SYN gets no answer", …)
    def dropped(view): yield Hit(target, evidence, port=843)

`wrong` and `instead` are templates that a finding fills with the values of its `Hit`; `seen` says how the probe finds
it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from flashpol.policy import CLIENTS
from flashpol.policy.findings import Finding as PolicyFinding
from flashpol.policy.findings import Severity
from flashpol.probe.client_models import Conclusion
from flashpol.probe.model import Observation, Role, Target
from flashpol.probe.rtmp.url import CLIENTS as RTMP_CLIENTS
from flashpol.probe.tls.offers import READS_INSIDE_TLS, TLS_CLIENTS

__all__ = [
    "ADOBE", "BROWSER", "ERROR", "GROUPS", "NOTE", "RTMP_CLIENTS", "TABLE", "WARNING", "Finder", "Finding", "Hit",
    "Rule", "Severity", "View", "rule",
]  # fmt: skip

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
ADOBE = ("flash", "lightspark", "unity")
SILVERLIGHT = ("silverlight",)
BROWSER = ("browser",)

# Prefix of the codes -> title of the group.
GROUPS = {
    "PB1": "Reaching the server",
    "PB2": "The reply",
    "PB3": "How requests are treated",
    "PB4": "The search for a policy, and what it allows",
    "PB5": "TLS",
    "PB6": "WebSocket",
    "PB7": "RTMP and its tunnel",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem: what is wrong, where, the evidence, and what to do.

    `where` is ADDRESS:PORT, empty if it concerns the whole host. `policy` is lint's finding, for codes that begin with
    FP.
    """

    code: str
    name: str
    severity: Severity
    where: str
    message: str
    evidence: str
    instead: str
    clients: tuple[str, ...]
    policy: PolicyFinding | None = None


class Hit:
    """A target with a problem, the evidence, and the values for the templates.

    `clients` are the clients that it concerns, by default all clients that ask there.
    """

    __slots__ = ("clients", "evidence", "target", "values")

    def __init__(
        self, target: Target | None, evidence: str, clients: tuple[str, ...] | None = None, **values: object
    ) -> None:
        self.target = target
        self.evidence = evidence
        self.clients = clients or ((*CLIENTS, *TLS_CLIENTS, *RTMP_CLIENTS) if target is None else askers(target))
        self.values = values


def askers(target: Target) -> tuple[str, ...]:
    """The clients that ask this target: Unity uses IPv4 only and does not ask the destination.

    Inside TLS some clients ask nowhere and connect to the destination. Browsers ask for WebSockets, and three clients
    for RTMP.
    """
    if target.role is Role.WEBSOCKET:
        return BROWSER
    if target.role is Role.RTMP:
        return RTMP_CLIENTS
    if target.secure:
        return TLS_CLIENTS if target.content_connects else READS_INSIDE_TLS
    if is_silverlights(target):
        return SILVERLIGHT
    unity = not target.address.is_ipv6 and target.role is not Role.DESTINATION
    return ADOBE if unity else tuple(client for client in ADOBE if client != "unity")


def is_silverlights(target: Target) -> bool:
    return target.role in (Role.SILVERLIGHT, Role.SILVERLIGHT_HTTP)


class View:
    """An observation as the rules see it: with the clients' conclusions and the targets that should serve a policy."""

    def __init__(self, observation: Observation, conclusions: tuple[Conclusion, ...]) -> None:
        self.observation = observation
        self.question = observation.question
        self.conclusions = conclusions

    @property
    def expected(self) -> list[Target]:
        """The targets that should serve a policy: an application's port only if it serves one."""
        return [target for target in self.observation.all_targets() if self._is_expected(target)]

    @property
    def serving(self) -> list[Target]:
        return [target for target in self.expected if target.serves]

    @property
    def connected(self) -> list[Target]:
        return [target for target in self.expected if target.asked.opened]

    @property
    def secure(self) -> list[Target]:
        """The targets that accepted a connection on which TLS was tried."""
        return [target for target in self.observation.all_targets() if target.handshake is not None]

    @property
    def diagnosed(self) -> list[Target]:
        """The connected targets, and the destinations that are the last place where a policy could be."""
        return [
            target
            for target in self.observation.all_targets()
            if target.asked.opened and (self._is_expected(target) or (self._is_last_place(target) and self._has_adobe))
        ]

    def _is_last_place(self, target: Target) -> bool:
        return target.role is Role.DESTINATION and not self.observation.serves_adobe(target.address)

    @property
    def _has_adobe(self) -> bool:
        return not {*ADOBE}.isdisjoint(self.question.clients)

    def _is_expected(self, target: Target) -> bool:
        if target.role is Role.RTMP:
            return False
        if target.role is Role.DESTINATION:
            return target.serves
        # Few hosts serve Silverlight: 943 counts if the user names that client, or if a policy is served there. Port 80
        # is an alternative to it.
        if is_silverlights(target):
            return target.serves or (target.role is Role.SILVERLIGHT and "silverlight" in self.question.named)
        return self._has_adobe


Finder = Callable[[View], Iterable[Hit]]


class Rule(NamedTuple):
    """One row of the registry."""

    code: str
    severity: Severity
    name: str
    wrong: str
    instead: str
    seen: str
    clients: tuple[str, ...]
    find: Finder
    thorough: bool = False  # its experiment runs only with `thorough`
    trap: bool = False  # a problem of these clients only: an error if one of them is named


TABLE: dict[str, Rule] = {}


def rule(
    code: str,
    severity: Severity,
    name: str,
    *,
    wrong: str,
    instead: str,
    seen: str,
    clients: tuple[str, ...] = CLIENTS,
    thorough: bool = False,
    trap: bool = False,
) -> Callable[[Finder], Finder]:
    """Add the decorated function to the registry."""

    def add(find: Finder) -> Finder:
        if code in TABLE:
            raise AssertionError(f"{code} is in the registry twice")
        TABLE[code] = Rule(code, severity, name, wrong, instead, seen, clients, find, thorough, trap)
        return find

    return add
