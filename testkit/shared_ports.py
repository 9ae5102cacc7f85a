"""A Service with several shared ports, as a worker composes it."""

from collections.abc import Sequence
from typing import Any

from flashpol._pump import ENDS, FAILURES
from flashpol.config import Address, ConnectionLimits, ConnectionTimeouts, Listener, UpstreamAddress
from flashpol.counters.shared import SharedCounters
from flashpol.process.local_ports import LocalPorts
from flashpol.process.sockets import bind, bound_address
from flashpol.relay.group import SharedPort
from flashpol.worker.service import Service
from testkit.accounts import outcomes
from testkit.polling import eventually
from testkit.serving import REPLY, Hub


class SharedPorts:
    """One shared port for each upstream. `addresses` are theirs."""

    def __init__(
        self,
        upstreams: Sequence[UpstreamAddress],
        timeouts: ConnectionTimeouts,
        limits: ConnectionLimits | None = None,
        *,
        host: str = "127.0.0.1",
        local_ports: LocalPorts | None = None,
        **relaying: Any,
    ) -> None:
        """local_ports: of this host. relaying: more settings of each listener."""
        self.hub = Hub()
        self._local_ports = local_ports or LocalPorts()
        self._relaying = relaying
        self.sockets = [bind(Address(host, 0), 1, 4096)[0] for _ in upstreams]
        self.addresses = [tuple(bound_address(sock)) for sock in self.sockets]
        self.shared = SharedCounters(1, len(upstreams), upstreams=len(upstreams))
        self.counters = [self.shared.block(0, number) for number in range(len(upstreams))]
        self.relayed = [self.shared.relay_block(0, number) for number in range(len(upstreams))]
        self.service = self.hub.call(self._start, upstreams, timeouts, limits)

    def _start(
        self, upstreams: Sequence[UpstreamAddress], timeouts: ConnectionTimeouts, limits: ConnectionLimits | None
    ) -> Service:
        service = Service(limits=limits)
        for number, (sock, upstream) in enumerate(zip(self.sockets, upstreams, strict=True)):
            address = Address(*self.addresses[number])
            listener = Listener(f"shared-{number}", address, "p", upstream=(upstream,), **self._relaying)
            service.add(
                sock,
                REPLY,
                self.shared.memory(0, number),
                name=listener.name,
                timeouts=timeouts,
                shared_port=SharedPort(listener, [self.shared.relay_memory(0, number)], self._local_ports),
            )
        service.start()
        return service

    def refused(self, number: int) -> dict[str, int]:
        """The connections of a port that have ended, but for the relayed ones."""
        return {outcome: count for outcome, count in outcomes(self.counters[number]).items() if outcome != "relayed"}

    def sessions(self, number: int) -> dict[str, int]:
        """How sessions of a port ended, and why attempts to connect failed."""
        block = self.relayed[number]
        counts = zip((*ENDS, *FAILURES), (*block.all("ends"), *block.all("failures")), strict=True)
        return {name: count for name, count in counts if count}

    def settle(self) -> None:
        """Wait until nothing is open."""
        eventually(lambda: not any(block["open"] for block in self.counters))
        eventually(lambda: self.service.connections.table.sessions == 0)
        assert self.hub.call(self.service.check) == 0

    def close(self) -> None:
        """Cut off what is open."""
        assert self.hub.call(self.service.stop_accepting, 5)
        for sock in self.sockets:
            sock.close()
        self.hub.call(self.service.finish, 0)
        del self.service
        self.hub.close()
