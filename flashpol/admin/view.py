"""What an admin process shows: one generation, what all have counted, and how the server is."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from flashpol.admin.ledger import Ledger
from flashpol.counters import ServerStatus, SharedCounters


@dataclass(frozen=True)
class PolicyFacts:
    """A listener's name and the bytes it serves."""

    listener: str
    reply: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.reply).hexdigest()


@dataclass(frozen=True)
class View:
    """`shared` belongs to the current generation, which `facts` describe; its counters are in the ledger too."""

    status: ServerStatus
    ledger: Ledger
    shared: SharedCounters
    facts: Sequence[PolicyFacts]
