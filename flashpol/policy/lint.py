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

from flashpol.policy.findings import CLIENTS, Finding, Severity, cut_out
from flashpol.policy.lint_document import LintDocument
from flashpol.policy.model import Location, PolicyError
from flashpol.policy.rules import READERS, RULES, SOCKET, URL, Hit, Rule

_OTHER_DIALECT = "FP117"


def lint(
    data: bytes, *, served_from: int | None = None, clients: Collection[str] = CLIENTS, by_url: bool = False
) -> list[Finding]:
    """Return the mistakes of the policy file `data`, in the order of the file.

    `served_from` is the port that serves it, if known; `clients` are the clients that it is for. `by_url` means that
    they fetch it by URL, as crossdomain.xml or clientaccesspolicy.xml: it decides about URLs and not about sockets.
    Never raises because of `data`. Raises ValueError if `clients` is empty or names one that is not in `CLIENTS`.
    """
    chosen = frozenset(clients)
    if not chosen or not chosen.issubset(CLIENTS):
        raise ValueError(f"clients must be some of {', '.join(CLIENTS)}, not {sorted(chosen)!r}")
    document = LintDocument(data, served_from, chosen, by_url=by_url)
    kind = URL if by_url else SOCKET
    # A file in one dialect concerns only the clients that read it; FP117 reports the other clients.
    readers = chosen & set(READERS.get(document.likely_dialect, CLIENTS)) or chosen
    findings = [
        _finding(rule, hit, document, readers)
        for rule in RULES
        if kind in rule.kinds and not readers.isdisjoint(rule.clients) and rule.dialect in ("", document.dialect)
        for hit in rule.find(document)
    ]
    findings.sort(key=lambda finding: (finding.line, finding.column, finding.code))
    return findings


def explained(error: PolicyError, data: bytes, clients: Collection[str] = CLIENTS) -> PolicyError:
    """Return `error` of the policy file `data` in lint's words, so that every command names the same cause.

    The cause is lint's first error: a mistake in the bytes or the XML before one in the grammar, then by place. If
    lint has none, or only says that the clients read the other dialect, `error` is returned.
    """
    errors = [
        finding
        for finding in lint(data, clients=clients)
        if finding.severity is Severity.ERROR and finding.code != _OTHER_DIALECT
    ]
    if not errors:
        return error
    first = min(errors, key=lambda finding: (not finding.code.startswith("FP1"), finding.line, finding.column))
    where = Location(first.line, first.column) if error.location else None
    return type(error)(first.message, first.instead, where)


def _finding(rule: Rule, hit: Hit, document: LintDocument, readers: Collection[str]) -> Finding:
    named = len(document.clients) < len(CLIENTS)
    line, column = hit.location.line, hit.location.column
    source, caret = cut_out(document.lines[line - 1] if line <= len(document.lines) else "", column)
    return Finding(
        code=rule.code,
        name=rule.name,
        severity=Severity.ERROR if rule.trap and named else rule.severity,
        message=rule.wrong.format_map(hit.values),
        instead=rule.instead.format_map(hit.values),
        clients=tuple(client for client in rule.clients if client in readers),
        line=line,
        column=column,
        source=source,
        caret=caret,
    )
