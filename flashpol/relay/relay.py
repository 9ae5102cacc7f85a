"""The conversation of a shared port: everything but the bytes, which the pump moves.

A greenlet owns each. It chooses an upstream, says whom the connection is for, sleeps until all is over, and accounts
for it. It is a bare greenlet: nobody waits for it, and there are tens of thousands.
"""

from dataclasses import dataclass

import gevent
import gevent.event

from flashpol._fastpath import ConnectionTable
from flashpol._pump import FAILURES, Pump
from flashpol.hub import start_greenlet
from flashpol.relay import proxy_header
from flashpol.relay.backends import Address, Upstreams
from flashpol.relay.rate_limit import RateLimiter

# Addresses that one conversation tries: each may cost connect_timeout, and the client waits.
TRIES = 3
# What they are for the client, where it is not the upstream's fault.
_OURS = {"resources": "capacity", "cut": "shutdown"}


@dataclass
class ActiveSessions:
    """How many conversations there are of the relays that share it: those that wait to be connected are among them."""

    count: int = 0


class Relay:
    """Relays what one listener hands over.

    crowd: where its conversations are counted. proxy: version of the PROXY protocol's header, or None. pace: how fast
    upstreams are connected to. connect_timeout: seconds, here for names to be looked up and for the pace.
    """

    def __init__(
        self,
        connection_table: ConnectionTable,
        pump: Pump,
        upstreams: Upstreams,
        *,
        crowd: ActiveSessions,
        proxy: str | None,
        pace: RateLimiter,
        connect_timeout: float,
    ) -> None:
        self._connection_table = connection_table
        self._pump = pump
        self.upstreams = upstreams
        self._crowd = crowd
        self._proxy = proxy
        self._pace = pace
        self._connect_timeout = connect_timeout
        self._stopped = gevent.event.Event()

    def start(self) -> None:
        self.upstreams.start()

    def stop(self) -> None:
        """Connect no more: whoever waits for its turn is let go. Those that are connected are the pump's to cut."""
        self._stopped.set()
        self.upstreams.stop()

    def begin(self, fd: int, data: bytes) -> None:
        """Relay `fd`, of which `data` was read. Called in the hub or anywhere; does not block."""
        self._crowd.count += 1
        start_greenlet(self._converse, fd, data)

    def _converse(self, fd: int, data: bytes) -> None:
        try:
            reason, sent = self._relay(fd, data)
        except gevent.GreenletExit:
            reason, sent = "shutdown", 0
        except BaseException:
            self._connection_table.close_as(fd, "capacity")
            raise
        finally:
            self._crowd.count -= 1
        if reason:
            self._connection_table.close_as(fd, reason)
        else:
            self._connection_table.close_relayed(fd, sent)

    def _relay(self, fd: int, data: bytes) -> tuple[str | None, int]:
        """Why it was not relayed, if so; bytes sent to the client."""
        if self._proxy:
            data = proxy_header.encode(self._proxy, *self._connection_table.endpoints(fd)) + data
        if not self.upstreams.wait(self._connect_timeout) and not self._stopped.is_set():
            self.upstreams.unresolved()
        tried: list[Address] = []
        while len(tried) < TRIES and not self._stopped.is_set():
            address = self.upstreams.choose(tried)
            if address is None:
                break
            if not self._wait_for_turn():
                if not self._stopped.is_set():
                    address.destination.count_failure("rate")
                break
            outcome, sent = self._pump.run_session(fd, address.destination, data)
            if outcome not in FAILURES:
                return None, sent
            if outcome in _OURS:
                return _OURS[outcome], 0
            self.upstreams.failed(address)
            tried.append(address)
        return "shutdown" if self._stopped.is_set() else "upstream", 0

    def _wait_for_turn(self) -> bool:
        """False: it would take too long, or the relay was stopped."""
        delay = self._pace.reserve(self._connect_timeout)
        if delay is None:
            return False
        return delay == 0 or not self._stopped.wait(delay)
