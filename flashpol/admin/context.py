"""What an admin process shows: one generation of workers, the totals over all, and the state of the server."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from flashpol.config import FLASH, Address, Listener
from flashpol.counters.shared import SharedCounters
from flashpol.counters.status import ServerStatus
from flashpol.counters.totals import CounterTotals, PathLabel, Route
from flashpol.policy import CLIENTS
from flashpol.serving.certificates import CertificateFacts


@dataclass(frozen=True)
class ListenerInfo:
    """A listener's name and the bytes it serves; where, and for which clients."""

    listener: str
    reply: bytes = field(repr=False)
    policy: str = ""  # its name in the configuration
    path: str = ""  # the file or folder it was made from
    address: str = ""  # as it is bound
    port: int | None = None
    served_from: int | None = None  # the port that clients ask
    dialect: str = FLASH
    clients: tuple[str, ...] = CLIENTS  # that policies of this dialect are for
    certificates: tuple[str, ...] = ()  # their names in the configuration; without one the listener speaks no TLS
    tls_profile: str = ""
    tls_only: bool = False

    @cached_property
    def sha256(self) -> str:
        """Of the policy without its NUL, as `flashpol probe` sees it from outside."""
        return hashlib.sha256(self.source).hexdigest()

    @property
    def source(self) -> bytes:
        """The policy without the NUL that ends a reply to Flash."""
        return self.reply.removesuffix(b"\0")


@dataclass(frozen=True)
class AdminContext:
    """`shared` belongs to the current generation, whose listeners are `listeners`; `totals` counts it too.

    routes: the upstreams of its shared ports, paths: their WebSocket paths, tunnels: the names of the listeners with
    tunnel sessions (RTMPT). address: of the admin endpoint.
    websocket_listeners: the configuration of those with WebSocket paths, with the names and the ports that they have in
    effect; websocket_findings: the name of one of them, and what is to be said of its paths.
    """

    status: ServerStatus
    totals: CounterTotals
    shared: SharedCounters
    listeners: Sequence[ListenerInfo]
    routes: Sequence[Route] = ()
    paths: Sequence[PathLabel] = ()
    tunnels: Sequence[str] = ()
    address: Address | None = None
    workers_are_root: bool = False
    certificates: Sequence[CertificateFacts] = ()
    websocket_listeners: Sequence[Listener] = ()
    websocket_findings: Sequence[tuple[str, str]] = ()

    @property
    def tls_listeners(self) -> list[ListenerInfo]:
        """Those that speak TLS."""
        return [each for each in self.listeners if each.certificates]

    def websocket_listener(self, name: str) -> Listener | None:
        """The configuration of this listener if it has WebSocket paths."""
        return next((each for each in self.websocket_listeners if each.name == name), None)

    def open_files(self, slot: int) -> int:
        """The descriptors that a worker has open."""
        own: int = self.shared.process(slot).base_files
        return own + self.shared.client_files(slot) + self.shared.upstream_files(slot)

    @property
    def is_exposed(self) -> bool:
        """Other hosts may reach the admin endpoint, which asks for no password."""
        return self.address is not None and not self.address.is_loopback
