"""All that is wrong with a policy file, each with a code, a place and what to write instead.

    >>> from flashpol.policy import lint
    >>> policy = b'<cross-domain-policy><allow-access-from domain="*" to-ports="90-80"/></cross-domain-policy>'
    >>> for finding in lint(policy):
    ...     print(finding.code, finding.severity, finding.line, finding.column, finding.message)
    FP409 error 1 62 the range "90-80" is reversed

How severe. An error is what Adobe's grammar forbids or what a client that the policy is for does not understand; a
correct policy has none, so a server may refuse what has one. What only some clients misread (a trap: Lightspark's
ranges, Unity's domains) is a warning or a note, and becomes an error as soon as those clients are named: then the
policy is for them. Rules of clients that are not named are silent.

The rules are in `rules`, one table; this only runs them.
"""

from collections.abc import Collection

from flashpol.policy.decide import CLIENTS
from flashpol.policy.findings import Finding, Severity, cut_out
from flashpol.policy.lint_document import LintDocument
from flashpol.policy.rules import RULES, Hit, Rule


def lint(data: bytes, *, served_from: int | None = None, clients: Collection[str] = CLIENTS) -> list[Finding]:
    """Return everything that is wrong with the policy file `data`, in the order of the file.

    `served_from` is the port it is (to be) served from, where that is known; `clients` are those it is for.
    Whatever the bytes, this does not raise. Raises ValueError for a client that is not one of `CLIENTS`, or none.
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
