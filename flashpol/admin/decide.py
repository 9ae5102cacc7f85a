"""May content from there connect to that port? A question as it comes over HTTP, and what each client answers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flashpol.admin.page import policies
from flashpol.admin.page.markup import Markup
from flashpol.admin.policy_analysis import Library
from flashpol.policy import Decision, PolicyError

LISTENER, CONTENT, PORT = FIELDS = ("listener", "from", "port")


@dataclass(frozen=True)
class Answer:
    """The question as it was asked, and decisions, or the reason why there are none."""

    asked: Mapping[str, str]
    served_from: int | None = None
    decisions: Sequence[Decision] = ()
    lines: Sequence[str] = ()  # of the policy
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        if self.error:
            return {"error": self.error}
        return {
            "listener": self.asked[LISTENER],
            "from": self.asked[CONTENT],
            "port": int(self.asked[PORT]),
            "served_from": self.served_from,
            "decisions": [asdict(decision) for decision in self.decisions],
        }

    def as_html(self) -> Markup:
        if self.error:
            return policies.refused(self.error)
        question = f"{self.asked[CONTENT]} to port {self.asked[PORT]} by {self.asked[LISTENER]}"
        return policies.answer(self.decisions, self.lines, question)


def answer(asked: Mapping[str, str], library: Library) -> Answer:
    """Never raises because of what is asked."""
    missing = [name for name in FIELDS if not asked.get(name)]
    if missing:
        return Answer(asked, error=f"{missing[0]} is missing: ask with {', '.join(FIELDS)}")
    name, content, port = (asked[field] for field in FIELDS)
    if name not in library:
        return Answer(asked, error="there is no such listener: /-/status names them")
    if not (port.isascii() and port.isdecimal() and len(port) <= policies.LONGEST_PORT):
        return Answer(asked, error="port is no number from 1 to 65535")
    served_from = library.facts(name).served_from
    reading = library.read(name)
    try:
        decisions = reading.decider.decide(content, int(port), served_from=served_from)
    except PolicyError as error:
        return Answer(asked, error=str(error))
    return Answer(asked, served_from, decisions, reading.lines)
