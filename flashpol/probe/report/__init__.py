"""The results of a probe, and the formats in which they are written.

text      for people: events on the wire, the clients' conclusions, the findings
document  JSON                            metrics  for node_exporter's textfile collector
nagios    one line and an exit status     changes  differences from the previous probe
secure    what text and document say about TLS         websocket  what they say about a WebSocket
rtmp      what they say about a media server
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from flashpol.probe import findings
from flashpol.probe.client_models import Conclusion, conclusions
from flashpol.probe.exchange import Address, Reached
from flashpol.probe.findings import Finding
from flashpol.probe.findings.registry import Severity
from flashpol.probe.model import Observation, Target

__all__ = ["Result", "counted", "counts", "title"]


@dataclass(frozen=True, slots=True)
class Result:
    """One host: the observation, the clients' conclusions, the findings."""

    observation: Observation
    conclusions: tuple[Conclusion, ...]
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, observation: Observation) -> Self:
        concluded = conclusions(observation)
        return cls(observation, concluded, tuple(findings.of(observation, concluded)))

    @property
    def host(self) -> str:
        """The host as it was given; the URL of a WebSocket or of a media server."""
        url = self.observation.question.websocket or self.observation.question.rtmp
        return self.observation.host if url is None else str(url)

    @property
    def failed(self) -> bool:
        return any(finding.severity is Severity.ERROR for finding in self.findings)

    @property
    def tried(self) -> set[Address]:
        """The addresses to which this machine could send something; nothing is known about the others."""
        targets = self.observation.all_targets()
        return {target.address for target in targets if target.asked.reached is not Reached.UNTRIED}

    @property
    def serving(self) -> list[Target]:
        return [target for target in self.observation.all_targets() if target.serves]


def counts(results: Sequence[Result]) -> dict[Severity, int]:
    return {
        severity: sum(finding.severity is severity for result in results for finding in result.findings)
        for severity in Severity
    }


def counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' if number != 1 else ''}"


def title(results: Sequence[Result]) -> str:
    """Return a summary such as `1 error, 2 notes`."""
    parts = [counted(number, severity) for severity, number in counts(results).items() if number]
    return ", ".join(parts) or "nothing found"
