"""What an admin process shows: one generation, what all have counted, and how the server is."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from flashpol.config import FLASH
from flashpol.counters.shared import SharedCounters
from flashpol.counters.status import ServerStatus
from flashpol.counters.totals import CounterTotals, Route
from flashpol.policy import CLIENTS


@dataclass(frozen=True)
class ListenerInfo:
    """A listener's name and the bytes it serves; where, and for whom."""

    listener: str
    reply: bytes = field(repr=False)
    policy: str = ""  # its name in the configuration
    address: str = ""  # as it is bound
    port: int | None = None
    served_from: int | None = None  # the port that clients ask
    dialect: str = FLASH
    clients: tuple[str, ...] = CLIENTS  # that policies of this dialect are for

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.reply).hexdigest()

    @property
    def source(self) -> bytes:
        """The policy without the NUL that ends a reply to Flash."""
        return self.reply.removesuffix(b"\0")


@dataclass(frozen=True)
class AdminContext:
    """`shared` belongs to the current generation, which `facts` describe; its counters are in the ledger too.

    routes: the upstreams of its shared ports.
    """

    status: ServerStatus
    totals: CounterTotals
    shared: SharedCounters
    facts: Sequence[ListenerInfo]
    routes: Sequence[Route] = ()
