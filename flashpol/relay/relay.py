"""One session of a shared port: everything but its bytes, which the pump moves.

A greenlet owns each session. It chooses the next backend when one fails, and closes the client's connection with the
outcome. `Relay.begin` says when it runs.
"""

from collections.abc import Callable
from functools import partial

import gevent
import gevent.event

from flashpol._fastpath import ConnectionTable
from flashpol._pump import FAILURES, Place, Pump
from flashpol.hub import start_greenlet
from flashpol.relay import proxy_header
from flashpol.relay.backends import Backend, Upstreams, version_of
from flashpol.relay.client_address import ClientAddress
from flashpol.relay.connecting import ConnectingMember
from flashpol.relay.local_ports import LOW, PortLog, address_key
from flashpol.relay.rate_limit import RateLimiter

# Backends that one session tries: each may cost connect_timeout, and the client waits.
MAX_TRIES = 3
# Called when a session could not begin: with the descriptor, the reason that its connection counts as refused for, and
# the cause as the pump names it. It closes the connection.
OnFailure = Callable[[int, str, str], object]
_FAILURES = frozenset(FAILURES)
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
        self._is_stopped = False
        self._stopped = gevent.event.Event()

    def start(self) -> None:
        self._upstreams.start()

    def stop(self) -> None:
        """Connect no more: sessions that wait to be connected end. The pump cuts the connected ones."""
        self._is_stopped = True
        self._stopped.set()
        self._upstreams.stop()

    def begin(self, fd: int, data: bytes, on_failure: OnFailure | None = None) -> None:
        """Relay `fd`, of which `data` was read, until its session ends; then close it. Returns at once.

        Where nothing has to be waited for, the session begins to connect now. Its greenlet runs when
        there is something to decide: how to close, or which backend is next. Until then it has no stack, which would
        take 4 KB.
        on_failure: replies to a client whose session cannot begin; None: the connection is closed.
        """
        place: Place | None = None
        if not (self._client_address or self._connect_rate.limits or self._is_stopped) and self._upstreams.are_known:
            place = self._places.take_now()
        if place is None:
            start_greenlet(self._complete, fd, data, on_failure, None, None, "")
            return
        try:
            backend = self._upstreams.choose()
            assert backend  # one is known
            destination = backend.destination
            if backend.ports_low or destination.exceeds_ports(LOW):
                self._port_log.check(backend)
            header = self._header(fd) if self._proxy else b""
            end = partial(self._end, fd, data, on_failure, place, backend)
            address = self._connection_table.address_key(fd) or address_key(self._connection_table, fd)
            first = header + data if header else data
            if not self._pump.begin_session(fd, destination, first, end, len(header), place, address):
                start_greenlet(end, "resources", 0)
        except BaseException:
            place.release()
            raise

    def _end(
        self,
        fd: int,
        data: bytes,
        on_failure: OnFailure | None,
        place: Place,
        backend: Backend,
        outcome: str,
        sent: int,
    ) -> None:
        """The session has ended or has failed, as the pump says in `outcome`: what its greenlet does."""
        if outcome in _FAILURES:
            self._complete(fd, data, on_failure, place, backend, outcome)
        else:
            self._connection_table.close_relayed(fd, sent)

    def _complete(
        self, fd: int, data: bytes, on_failure: OnFailure | None, place: Place | None, failed: Backend | None, why: str
    ) -> None:
        """Relay `fd` until its session ends, after it has failed at one backend or none; then close it. Blocks this
        greenlet."""
        try:
            place = place or self._places.take()
            reason, cause, sent = self._relay(fd, data, place, failed, why) if place else self._refuse()
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

    def _relay(
        self, fd: int, data: bytes, place: Place, failed: Backend | None, why: str
    ) -> tuple[str | None, str, int]:
        """The reason if it was not relayed, its cause, and the number of bytes sent to the client."""
        cause = "unresolved"
        header = self._header(fd)
        first = header + data
        address = address_key(self._connection_table, fd)
        tried: list[Backend] = []
        if failed:
            cause = why
            if cause in _OWN_FAILURES:
                return _OWN_FAILURES[cause], cause, 0
            self._note_failure(failed, cause, None)
            tried.append(failed)
        elif not self._upstreams.wait(self._connect_timeout) and not self._stopped.is_set():
            self._upstreams.count_unresolved()
        client = self._endpoints(fd)[0] if self._client_address else None
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
            if outcome not in _FAILURES:
                return None, "", sent
            cause = outcome
            if outcome in _OWN_FAILURES:
                return _OWN_FAILURES[outcome], cause, 0
            self._note_failure(backend, outcome, source)
            tried.append(backend)
        return "shutdown" if self._stopped.is_set() else "upstream", cause, 0

    def _note_failure(self, backend: Backend, outcome: str, source: str | None) -> None:
        """A session found no way to `backend`, from the client's address `source` or from one of this host."""
        if outcome != "ports":
            self._upstreams.mark_failed(backend, outcome)
        elif self._client_address and source:
            self._client_address.refused(backend, source)
        else:
            self._port_log.exhausted(backend)  # another backend has ports of its own

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
