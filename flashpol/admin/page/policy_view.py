"""Policies with their findings, and decisions, as the templates show them: cut to what a page can hold."""

from collections.abc import Sequence
from dataclasses import dataclass

from flashpol.admin.context import ListenerInfo
from flashpol.admin.policy_analysis import AnalysisCache, PolicyAnalysis
from flashpol.policy import Decision, Finding

# A policy may have a megabyte and thousands of findings: the page shows the beginning and says where the rest is.
SHOWN_LINES, SHOWN_CHARACTERS, SHOWN_FINDINGS = 400, 20_000, 50
# A thousand listeners may each have a port of their own, with findings of their own.
SHOWN_POLICIES = 50
# Characters of the line that decides, which may be the whole file.
SHOWN_OF_LINE = 200

CLIENT_NAMES = {
    "flash": "Flash Player",
    "lightspark": "Lightspark",
    "unity": "Unity Web Player",
    "silverlight": "Silverlight",
    "ruffle": "Ruffle, on a web page",
}


@dataclass(frozen=True)
class PolicyCard:
    """One policy: the listeners that serve it, the beginning of its text and of its findings."""

    listener: ListenerInfo
    served_on: str
    findings: Sequence[Finding]
    finding_count: int
    lines: Sequence[str]
    line_count: int
    is_cut: bool

    @property
    def ends_with_nul(self) -> bool:
        return self.listener.reply.endswith(b"\0")


def policy_cards(analyses: AnalysisCache) -> list[PolicyCard]:
    """The first `SHOWN_POLICIES`. Blocks until they have been linted."""
    return [
        _card(group, analyses.analysis(group[0].listener), analyses.findings(group[0].listener))
        for group in analyses.groups[:SHOWN_POLICIES]
    ]


def _card(group: Sequence[ListenerInfo], analysis: PolicyAnalysis, findings: Sequence[Finding]) -> PolicyCard:
    lines = analysis.lines[:-1] if len(analysis.lines) > 1 and not analysis.lines[-1] else analysis.lines
    shown, room = [], SHOWN_CHARACTERS
    for line in lines[:SHOWN_LINES]:
        shown.append(line[:room])
        room -= len(shown[-1]) + 1
        if room <= 0:
            break
    return PolicyCard(
        listener=group[0],
        served_on=", ".join(dict.fromkeys(map(_place, group))),
        findings=findings[:SHOWN_FINDINGS],
        finding_count=len(findings),
        lines=shown,
        line_count=len(lines),
        is_cut=sum(map(len, shown)) < sum(map(len, lines)),
    )


def _place(listener: ListenerInfo) -> str:
    """A listener without a name is called by its address."""
    if listener.listener == listener.address:
        return listener.address
    return f"{listener.listener} ({listener.address})"


@dataclass(frozen=True)
class DecisionRow:
    """What one client decides: excerpt is the line that decides, or None; words are the client's own messages."""

    client: str
    allowed: bool
    reason: str
    line: int | None
    excerpt: str | None
    words: Sequence[str]


def decision_rows(decisions: Sequence[Decision], lines: Sequence[str]) -> list[DecisionRow]:
    return [
        DecisionRow(
            CLIENT_NAMES[each.client],
            each.allowed,
            each.reason,
            each.line,
            _shown_line(lines[each.line - 1], each.column) if each.line else None,
            [line for line in each.client_words.split("\n") if line],
        )
        for each in decisions
    ]


def _shown_line(line: str, column: int | None) -> str:
    start = max(0, (column or 1) - 1 - SHOWN_OF_LINE // 2) if len(line) > SHOWN_OF_LINE else 0
    part = line[start : start + SHOWN_OF_LINE]
    return f"{'…' if start else ''}{part.strip()}{'…' if start + SHOWN_OF_LINE < len(line) else ''}"
