"""Lint: finds the mistakes of a policy file, each with a code, a place and what to write instead.

    >>> from flashpol.policy import lint
    >>> policy = b'<cross-domain-policy><allow-access-from domain="*" to-ports="90-80"/></cross-domain-policy>'
    >>> for finding in lint(policy):
    ...     print(finding.code, finding.severity, finding.line, finding.column, finding.message)
    FP409 error 1 62 the range "90-80" is reversed

Severity. An error is something that Adobe's grammar forbids or that a client that the policy is for does not
understand; a correct policy has none, so a server may refuse a policy with an error. A trap (Lightspark's ranges,
Unity's domains), which only some clients misread, is a warning or a note, and becomes an error once one of those
clients is named: then the policy is for it. Rules of clients that are not named are skipped.

The rules are in `rules`; this module only runs them.
"""

from collections.abc import Collection

from flashpol.policy.decide import CLIENTS
from flashpol.policy.findings import Finding, Severity, cut_out
from flashpol.policy.lint_document import LintDocument
from flashpol.policy.rules import RULES, Hit, Rule


def lint(data: bytes, *, served_from: int | None = None, clients: Collection[str] = CLIENTS) -> list[Finding]:
    """Return the mistakes of the policy file `data`, in the order of the file.

    `served_from` is the port that serves it, if known; `clients` are the clients that it is for.
    Never raises because of `data`. Raises ValueError if `clients` is empty or names one that is not in `CLIENTS`.
    """
    chosen = frozenset(clients)
    if not chosen or not chosen.issubset(CLIENTS):
        raise ValueError(f"clients must be some of {', '.join(CLIENTS)}, not {sorted(chosen)!r}")
    document = LintDocument(data, served_from, chosen)
    findings = [
        _finding(rule, hit, document)
        for rule in RULES
        if not chosen.isdisjoint(rule.clients) and rule.dialect in ("", document.dialect)
        for hit in rule.find(document)
    ]
    findings.sort(key=lambda finding: (finding.line, finding.column, finding.code))
    return findings


def _finding(rule: Rule, hit: Hit, document: LintDocument) -> Finding:
    named = len(document.clients) < len(CLIENTS)
    line, column = hit.location.line, hit.location.column
    source, caret = cut_out(document.lines[line - 1] if line <= len(document.lines) else "", column)
    return Finding(
        code=rule.code,
        name=rule.name,
        severity=Severity.ERROR if rule.trap and named else rule.severity,
        message=rule.wrong.format_map(hit.values),
        instead=rule.instead.format_map(hit.values),
        clients=tuple(client for client in rule.clients if client in document.clients),
        line=line,
        column=column,
        source=source,
        caret=caret,
    )
