"""What a probe is asked, the targets it looks at, and what it saw there: plain values."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from flashpol.policy import CLIENTS
from flashpol.policy.ports import MASTER_PORT, SILVERLIGHT_PORT
from flashpol.probe.exchange import Address, Exchange, Reached, Timeouts
from flashpol.probe.reply import NUL, REQUEST, Kind, Reply


class Role(enum.StrEnum):
    """Why a client asks at a port."""

    MASTER = "master"  # 843, which Adobe's clients ask first; only its meta-policy counts
    LOCATION = "location"  # what the content names with loadPolicyFile
    DESTINATION = "destination"  # the application's own port
    SILVERLIGHT = "silverlight"  # 943
    ELSEWHERE = "elsewhere"  # where no client asks: to find a server that listens on the wrong port


@dataclass(frozen=True, slots=True)
class Question:
    """`port` is where content wants to connect, `content` its URL or domain, `location` a port that it names.

    `policy_port` and `silverlight_port` are asked as if they were 843 and 943. `named` are the clients that the user
    cares for: what only others would stumble over is no error. `tries` and `idle` (seconds) are for the experiments.
    """

    port: int | None = None
    content: str | None = None
    location: int | None = None
    named: tuple[str, ...] = ()
    thorough: bool = False
    policy_port: int = MASTER_PORT
    silverlight_port: int = SILVERLIGHT_PORT
    timeouts: Timeouts = field(default_factory=Timeouts)
    idle: float = 15.0
    ignored: frozenset[str] = frozenset()

    @property
    def clients(self) -> tuple[str, ...]:
        return self.named or CLIENTS

    @property
    def tries(self) -> int:
        """How often a port is asked whether it loses replies, the first time included."""
        return 20 if self.thorough else 3

    def ports(self) -> dict[Role, int]:
        """What clients ask. A port that two roles share is asked once, as the first of them."""
        wanted = {
            Role.MASTER: self.policy_port,
            Role.LOCATION: self.location,
            Role.DESTINATION: self.port,
            Role.SILVERLIGHT: self.silverlight_port,
        }
        found: dict[Role, int] = {}
        for role, port in wanted.items():
            if port is not None and port not in found.values():
                found[role] = port
        return found


@dataclass(slots=True)
class Target:
    """A port of an address: `asked` is the exchange as clients have it, `tried` the experiments by name."""

    role: Role
    address: Address
    port: int
    asked: Exchange
    tried: dict[str, list[Exchange]] = field(default_factory=dict)

    @property
    def where(self) -> str:
        return self.address.at(self.port)

    @property
    def served_from(self) -> int:
        """The port as the policy's rules take it."""
        return {Role.MASTER: MASTER_PORT, Role.SILVERLIGHT: SILVERLIGHT_PORT}.get(self.role, self.port)

    @property
    def request(self) -> bytes:
        return request(self.role)

    @property
    def reply(self) -> Reply:
        """The first policy that came; else what came when it was first asked."""
        replies = [Reply.of(exchange) for exchange in self.repeats]
        return next((reply for reply in replies if reply.is_policy), replies[0])

    @property
    def serves(self) -> bool:
        """It answered with what is, or was meant to be, a policy."""
        return self.reply.is_policy

    @property
    def unanswered(self) -> bool:
        """Connected, and nothing came, whether or not it was ended."""
        return self.asked.reached is Reached.CONNECTED and self.reply.kind is Kind.NOTHING

    @property
    def hangs_up(self) -> bool:
        """Instead of an answer."""
        return self.unanswered and not self.asked.silent

    @property
    def repeats(self) -> list[Exchange]:
        """All exchanges with the whole request in one segment."""
        return [self.asked, *self.tried.get("again", ())]


def request(role: Role) -> bytes:
    """Silverlight sends the 22 bytes alone."""
    return REQUEST if role is Role.SILVERLIGHT else REQUEST + NUL


@dataclass(frozen=True, slots=True)
class Observation:
    """One host: its targets by address, or why its name means none. `left_out` addresses were not asked.

    `connections` is how many were made, `seconds` how long all took.
    """

    host: str
    question: Question
    targets: Mapping[Address, tuple[Target, ...]] = field(default_factory=dict)
    unresolved: str = ""
    left_out: int = 0
    connections: int = 0
    seconds: float = 0.0

    def all_targets(self, *roles: Role) -> tuple[Target, ...]:
        """Those of these roles, or all of them that clients ask."""
        chosen = roles or tuple(role for role in Role if role is not Role.ELSEWHERE)
        return tuple(target for targets in self.targets.values() for target in targets if target.role in chosen)
