"""`/-/decide`: may content from there connect to that port? The query of an HTTP request, and what clients decide."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from flashpol.admin.context import AdminContext
from flashpol.admin.policy_analysis import AnalysisCache
from flashpol.config import WebSocketPath
from flashpol.gateway.decisions import with_gateway
from flashpol.gateway.origins import Origins, rule_of
from flashpol.policy import Decision, PolicyError

LISTENER, CONTENT, PORT = FIELDS = ("listener", "from", "port")
# Characters that a query may have in these fields: what the library takes of a URL, and the digits of a port.
MAX_CONTENT, MAX_PORT = 2048, 5


@dataclass(frozen=True)
class DecideResult:
    """The query as it was sent; its decisions, or the reason why there are none.

    There is one for each client, and for Ruffle one for each WebSocket path that is for the port.
    """

    query: Mapping[str, str]
    served_from: int | None = None
    decisions: Sequence[Decision] = ()
    lines: Sequence[str] = ()  # of the policy
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        if self.error:
            return {"error": self.error}
        return {
            "listener": self.query[LISTENER],
            "from": self.query[CONTENT],
            "port": int(self.query[PORT]),
            "served_from": self.served_from,
            "decisions": [asdict(decision) for decision in self.decisions],
        }


def decide(query: Mapping[str, str], analyses: AnalysisCache, context: AdminContext) -> DecideResult:
    """Never raises because of the query."""
    missing = [name for name in FIELDS if not query.get(name)]
    if missing:
        return DecideResult(query, error=f"{missing[0]} is missing: ask with {', '.join(FIELDS)}")
    name, content, port = (query[field] for field in FIELDS)
    if name not in analyses:
        return DecideResult(query, error="there is no such listener: /-/status names them")
    if not (port.isascii() and port.isdecimal() and len(port) <= MAX_PORT):
        return DecideResult(query, error="port is no number from 1 to 65535")
    served_from = analyses.listener(name).served_from
    analysis = analyses.analysis(name)
    try:
        by_policy = analysis.decider.decide(content, int(port), served_from=served_from)
    except PolicyError as error:
        return DecideResult(query, error=str(error))
    decisions = _with_gateway(by_policy, name, content, int(port), analyses, context)
    return DecideResult(query, served_from, decisions, analysis.lines)


def _with_gateway(
    decisions: Sequence[Decision], name: str, content: str, port: int, analyses: AnalysisCache, context: AdminContext
) -> list[Decision]:
    policy = analyses.listener(name).source
    listener = context.websocket_listener(name)

    def rule(path: WebSocketPath) -> Origins:
        assert listener
        return analyses.once((Origins, name, path.path), partial(rule_of, listener, path, policy))

    return with_gateway(decisions, listener, name, content, port, rule)
