"""One session of a shared port: everything but its bytes, which the pump moves.

A greenlet runs each session. It chooses a backend, sends the PROXY header, sleeps until the session has ended, and
closes the client's connection with the outcome.
"""

from collections.abc import Callable

import gevent
import gevent.event

from flashpol._fastpath import ConnectionTable
from flashpol._pump import FAILURES, Place, Pump
from flashpol.relay import proxy_header
from flashpol.relay.backends import Backend, Upstreams, version_of
from flashpol.relay.client_address import ClientAddress
from flashpol.relay.connecting import ConnectingMember
from flashpol.relay.local_ports import PortLog, address_key
from flashpol.relay.rate_limit import RateLimiter

# Backends that one session tries: each may cost connect_timeout, and the client waits.
MAX_TRIES = 3
# Called when a session could not begin: with the descriptor, the reason that its connection counts as refused for, and
# the cause as the pump names it. It closes the connection.
OnFailure = Callable[[int, str, str], object]
# Failures of the pump that no backend is to blame for, and the reasons that the client's connection is closed with.
_OWN_FAILURES = {"resources": "capacity", "cut": "shutdown"}


class Relay:
    """Relays the sessions of one listener.

    proxy: version of the PROXY header that is sent to backends, or None. proxy_tls: it says as well which TLS the
    client has. connect_rate: limits the connects.
    connect_timeout: seconds that a session waits for a name to be looked up, and for its turn at connect_rate. places:
    of sessions that are not connected yet. port_log: of this listener. client_address: sessions connect from it; None:
    from addresses of this host.
    """

    def __init__(
        self,
        connection_table: ConnectionTable,
        pump: Pump,
        upstreams: Upstreams,
        *,
        proxy: str | None,
        proxy_tls: bool = False,
        connect_rate: RateLimiter,
        connect_timeout: float,
        places: ConnectingMember,
        port_log: PortLog,
        client_address: ClientAddress | None = None,
    ) -> None:
        self._connection_table = connection_table
        self._pump = pump
        self._upstreams = upstreams
        self._proxy = proxy
        self._proxy_tls = proxy_tls
        self._connect_rate = connect_rate
        self._connect_timeout = connect_timeout
        self._places = places
        self._port_log = port_log
        self._client_address = client_address
        self._stopped = gevent.event.Event()

    def start(self) -> None:
        self._upstreams.start()

    def stop(self) -> None:
        """Connect no more: sessions that wait to be connected end. The pump cuts the connected ones."""
        self._stopped.set()
        self._upstreams.stop()

    def run(self, fd: int, data: bytes, on_failure: OnFailure | None = None) -> None:
        """Relay `fd`, of which `data` was read, until the session ends; then close it. Blocks this greenlet.

        on_failure: replies to a client whose session cannot begin; None: the connection is closed.
        """
        place: Place | None = None
        try:
            place = self._places.take()
            reason, cause, sent = self._relay(fd, data, place) if place else self._refuse()
        except gevent.GreenletExit:
            reason, cause, sent = "shutdown", "", 0
        except BaseException:
            self._connection_table.close_as(fd, "capacity")
            raise
        finally:
            if place:
                place.release()
        if reason and on_failure and reason != "shutdown":
            on_failure(fd, reason, cause)
        elif reason:
            self._connection_table.close_as(fd, reason)
        else:
            self._connection_table.close_relayed(fd, sent)

    def _refuse(self) -> tuple[str, str, int]:
        self._upstreams.count_failure("connecting")
        return "upstream", "connecting", 0

    def _relay(self, fd: int, data: bytes, place: Place) -> tuple[str | None, str, int]:
        """The reason if it was not relayed, its cause, and the number of bytes sent to the client."""
        cause = "unresolved"
        header = self._header(fd)
        first = header + data
        address = address_key(self._connection_table, fd)
        if not self._upstreams.wait(self._connect_timeout) and not self._stopped.is_set():
            self._upstreams.count_unresolved()
        client = self._endpoints(fd)[0] if self._client_address else None
        tried: list[Backend] = []
        while len(tried) < MAX_TRIES and not self._stopped.is_set():
            backend = self._upstreams.choose(tried, version_of(client[0]) if client else None)
            if backend is None:
                break
            if not self._wait_for_turn():
                if not self._stopped.is_set():
                    backend.destination.count_failure("rate")
                cause = "rate"
                break
            self._port_log.check(backend)
            source = self._client_address.towards(backend, client[0]) if self._client_address and client else None
            outcome, sent = self._pump.run_session(
                fd,
                backend.destination,
                first,
                header_size=len(header),
                place=place,
                address=address,
                client_address=source,
            )
            if outcome not in FAILURES:
                return None, "", sent
            cause = outcome
            if outcome in _OWN_FAILURES:
                return _OWN_FAILURES[outcome], cause, 0
            if outcome == "ports":  # another backend has ports of its own
                if self._client_address and source:
                    self._client_address.refused(backend, source)
                else:
                    self._port_log.exhausted(backend)
            else:
                self._upstreams.mark_failed(backend, outcome)
            tried.append(backend)
        return "shutdown" if self._stopped.is_set() else "upstream", cause, 0

    def _header(self, fd: int) -> bytes:
        """The PROXY header, if backends get one."""
        if not self._proxy:
            return b""
        facts = self._connection_table.tls_facts(fd) if self._proxy_tls else None
        fields = proxy_header.tls_fields(*facts) if facts else b""
        return proxy_header.encode(self._proxy, *self._endpoints(fd), fields)

    def _endpoints(self, fd: int) -> tuple[tuple[str, int] | None, tuple[str, int] | None]:
        """The client as backends see it, and the address that it connected to: see `ConnectionTable.endpoints`."""
        return self._connection_table.endpoints(fd)

    def _wait_for_turn(self) -> bool:
        """False: the turn would come later than connect_timeout, or the relay was stopped."""
        delay = self._connect_rate.reserve(self._connect_timeout)
        if delay is None:
            return False
        return delay == 0 or not self._stopped.wait(delay)
