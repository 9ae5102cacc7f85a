"""The findings about a policy server: one registry, from which `docs/probe.md` is generated.

registry  what a finding is              searching     PB4xx  several ports together, and the decision
reaching  PB1xx  reaching the server     tls           PB50x, PB53x  handshakes, versions, plain text beside TLS
replies   PB2xx  the reply               certificates  PB51x, PB52x  the certificate
requests  PB3xx  how requests are treated              websocket     PB60x to PB62x  refusals of a WebSocket
opened    PB63x, PB64x  a WebSocket that was opened    rtmp          PB70x, PB71x  reaching a media server
tunnel    PB72x to PB74x  RTMPT, `connect`              markdown      docs/probe.md

Lint finds what is wrong with the policy itself; its codes begin with FP.
"""

from collections.abc import Iterator
from functools import lru_cache

from flashpol.policy import CLIENTS, lint
from flashpol.policy.findings import Finding as PolicyFinding
from flashpol.probe.client_models import Conclusion, conclusions
from flashpol.probe.findings import (
    certificates,
    opened,
    reaching,
    replies,
    requests,
    rtmp,
    searching,
    tls,
    tunnel,
    websocket,
)
from flashpol.probe.findings.registry import (
    ERROR,
    GROUPS,
    NOTE,
    TABLE,
    WARNING,
    Finding,
    Hit,
    Rule,
    Severity,
    View,
    askers,
    is_silverlights,
)
from flashpol.probe.model import Observation, Target
from flashpol.probe.tls.offers import READS_INSIDE_TLS

# Importing a module adds its rows to the registry.
_MODULES = (reaching, replies, requests, searching, tls, certificates, websocket, opened, rtmp, tunnel)

RULES: tuple[Rule, ...] = tuple(TABLE[code] for code in sorted(TABLE))
# Findings about a reply and how requests are treated.
_ABOUT_POLICIES = frozenset(rule.code for rule in RULES if rule.code[:3] in ("PB2", "PB3"))
# Findings that say the same with less: what a port does instead of serving inside TLS the policy that it has.
_WITHOUT_POLICY = frozenset(("PB201", "PB202", "PB203", "PB204", "PB206"))
_ORDER = {severity: number for number, severity in enumerate(Severity)}

__all__ = ["ERROR", "GROUPS", "NOTE", "RULES", "WARNING", "Finding", "Rule", "of"]


def of(observation: Observation, concluded: tuple[Conclusion, ...] | None = None) -> list[Finding]:
    """Return all findings, errors first, without those that `observation.question` ignores."""
    if concluded is None:
        concluded = conclusions(observation)
    view = View(observation, concluded)
    found = [
        _finding(rule, hit, clients, observation)
        for rule in RULES
        for hit in rule.find(view)
        if (clients := tuple(c for c in rule.clients if c in hit.clients and c in observation.question.clients))
    ]
    # No client notices mistakes in a policy that no client reads, as PB401 says.
    unread = searching.unread(view)
    found = [finding for finding in found if finding.where not in unread or finding.code not in _ABOUT_POLICIES]
    inside = {finding.where for finding in found if finding.code == "PB504"}
    found = [finding for finding in found if finding.where not in inside or finding.code not in _WITHOUT_POLICY]
    large = {finding.where for finding in found if finding.code == "PB213"}
    found += (
        _of_policy(target, finding)
        for target in view.serving
        if target.where not in unread
        for finding in _linted(target, observation)
        if finding.code != "FP705" or target.where not in large  # the same, for segments of Ethernet
    )
    kept = [finding for finding in found if finding.code not in observation.question.ignored]
    return sorted(kept, key=lambda finding: _ORDER[finding.severity])


def _finding(rule: Rule, hit: Hit, clients: tuple[str, ...], observation: Observation) -> Finding:
    if hit.target is not None and hit.target.secure and rule.code in _ABOUT_POLICIES and "port" in hit.values:
        hit.values["port"] = f"{hit.values['port']} (inside TLS)"
    return Finding(
        code=rule.code,
        name=rule.name,
        severity=ERROR if rule.trap and observation.question.named else rule.severity,
        where=hit.target.where if hit.target else "",
        message=rule.wrong.format_map(hit.values),
        evidence=hit.evidence,
        instead=rule.instead.format_map(hit.values),
        clients=clients,
    )


def _linted(target: Target, observation: Observation) -> Iterator[PolicyFinding]:
    silverlight = is_silverlights(target)
    # For lint, traps of named clients are errors, and naming all clients is the same as naming none.
    named = tuple(c for c in observation.question.named if (c == "silverlight") is silverlight) or None
    if named is None and observation.question.named:
        return
    if target.secure and named is not None:
        named = READS_INSIDE_TLS
    data = target.reply.data if silverlight else target.reply.file
    for finding in _lint(data, target.served_from, named or CLIENTS):
        if _readers(finding, target):
            yield finding


def _readers(finding: PolicyFinding, target: Target) -> tuple[str, ...]:
    """Return the clients that a finding of lint's concerns at this target.

    Lint does not know that Unity reads neither the policies of IPv6 addresses nor those of destinations, and that only
    Flash Player asks inside TLS.
    """
    if target.secure:
        return tuple(client for client in finding.clients if client in READS_INSIDE_TLS)
    return tuple(client for client in finding.clients if client != "unity" or client in askers(target))


# The addresses of a host usually serve the same policy.
@lru_cache(maxsize=64)
def _lint(data: bytes, served_from: int, clients: tuple[str, ...]) -> tuple[PolicyFinding, ...]:
    # FP710 warns of what may happen at the destination; PB402 says what does.
    return tuple(each for each in lint(data, served_from=served_from, clients=clients) if each.code != "FP710")


def _of_policy(target: Target, finding: PolicyFinding) -> Finding:
    return Finding(
        code=finding.code,
        name=finding.name,
        severity=finding.severity,
        where=target.where,
        message=finding.message,
        evidence=f"line {finding.line}, column {finding.column}",
        instead=finding.instead,
        clients=_readers(finding, target),
        policy=finding,
    )
