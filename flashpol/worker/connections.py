"""The connections of a worker: the table of the fast path, and what happens to those that leave it."""

from collections.abc import Sequence

import gevent

from flashpol._fastpath import AddressLimits, ConnectionTable
from flashpol.config import Address, ConnectionTimeouts
from flashpol.gateway import replies
from flashpol.hub import Readable
from flashpol.log.handler import log
from flashpol.relay.group import RelayGroup, SharedPort
from flashpol.worker.limits import PlaceLimits
from flashpol.worker.protocols import SIGNATURES
from flashpol.worker.requests import HttpPort, Requests
from flashpol.worker.slow_reply import finish_reply
from flashpol.worker.tunnels import TunnelSessions, TunnelSettings


class Connections:
    """One ConnectionTable, and what happens to connections that leave the fast path: slow replies, sessions, log lines.

    access_log: the share of connections, 0 to 1, that get a line. tunnels: None: no listener has tunnel sessions.
    """

    def __init__(
        self,
        limits: PlaceLimits,
        *,
        access_log: float,
        address_limits: AddressLimits | None,
        tunnels: TunnelSettings | None = None,
    ) -> None:
        self._names: list[str] = []  # of the listeners, in the order of their acceptors
        self._reply_timeouts: list[float] = []
        self._timeouts: dict[ConnectionTimeouts, int] = {}  # their numbers in the table
        self._slow_replies: set[gevent.Greenlet] = set()
        self._forget_slow_reply = self._slow_replies.discard  # one method for all greenlets
        account = limits.account(address_limits)
        self.table = ConnectionTable(
            on_slow_reply=self._start_slow_reply,
            on_error=lambda error: log.error(
                "a hook failed; its connection was closed", exc_info=error, extra={"event": "hook-failed"}
            ),
            account=account,
            signatures=SIGNATURES,
            on_access=self._log_access,
            access_log=access_log,
            on_session=self._start_session,
            on_request=self._decide,
            on_open=self._open,
            http_replies=replies.BY_STATUS,
        )
        self._relays = RelayGroup(self.table, account, buffers=limits.buffers)
        self.tunnels = TunnelSessions(self.table, account, tunnels) if tunnels else None
        self.requests = Requests(
            self.table, self._relays, self._start_session, self.tunnels.table if self.tunnels else None
        )
        self._watcher = Readable(self.table.fileno(), self.table.ready, "waiting clients", self.table.wake)

    @property
    def names(self) -> Sequence[str]:
        """Of the listeners, by the numbers of their acceptors."""
        return self._names

    def add(
        self,
        name: str,
        timeouts: ConnectionTimeouts,
        shared_port: SharedPort | None,
        http: HttpPort | None = None,
        tunnel_block: memoryview | None = None,
    ) -> int:
        """A listener; its Acceptor is to be made next. shared_port: where to relay what is no policy request, or what
        comes by WebSocket. http: the rules about HTTP requests. tunnel_block: where its tunnel sessions are counted;
        None: it has none.

        Returns the number of its timeouts in the table.
        """
        if shared_port:
            self._relays.add(len(self._names), name, shared_port, timeouts)
        if http:
            self.requests.add(len(self._names), name, http)
        if self.tunnels and tunnel_block is not None:
            self.tunnels.add(len(self._names), tunnel_block, timeouts)
        self._names.append(name)
        self._reply_timeouts.append(timeouts.reply_timeout)
        if timeouts not in self._timeouts:
            self._timeouts[timeouts] = self.table.add_timeouts(
                request_timeout=timeouts.request_timeout,
                terminator_grace=timeouts.terminator_grace,
                linger_timeout=timeouts.linger_timeout,
                first_byte_timeout=timeouts.first_byte_timeout,
                tls_handshake_timeout=timeouts.tls_handshake_timeout,
                http_idle_timeout=timeouts.http_idle_timeout,
            )
        return self._timeouts[timeouts]

    def start(self) -> None:
        self._watcher.start()
        self._relays.start()
        if self.tunnels:
            self.tunnels.start()

    def cut(self, *, replaced: bool = False) -> None:
        """Hand over no more connections, end the slow replies, and tell the sessions to end: their greenlets do.

        replaced: other workers serve from now on.
        """
        self._watcher.close()
        gevent.killall(list(self._slow_replies))
        self._relays.cut(replaced=replaced)

    def close(self) -> None:
        """After `cut`: close all connections that are left."""
        self._relays.close()
        if self.tunnels:
            self.tunnels.close()
        self.table.close_all()
        if left_out := self.table.take_left_out():
            text = "the access log ends; sampled connections that were left out: %s"
            log.info(text, f"{left_out:,}", extra={"event": "access-left-out", "left_out": left_out, "rate": None})

    # ---------------------------------------------- hooks of the table, called in the hub: they must not block

    def _start_slow_reply(self, fd: int, listener: int) -> None:
        # Forgotten by a link, not by a function around `finish_reply`: a Python frame would cost each greenlet 4 KB.
        greenlet = gevent.Greenlet(finish_reply, self.table, fd, self._reply_timeouts[listener])
        greenlet.rawlink(self._forget_slow_reply)
        self._slow_replies.add(greenlet)
        try:
            greenlet.start()
        except BaseException:
            self._slow_replies.discard(greenlet)
            raise

    def _start_session(self, fd: int, data: bytes, listener: int) -> None:
        self._relays.relay(listener, self.table.protocol(fd), fd, data)

    def _decide(self, fd: int, data: bytes, listener: int) -> None:
        self.requests.decide(fd, data, listener)

    def _open(self, fd: int, data: bytes, listener: int) -> None:
        self.requests.open(fd, data, listener)

    def _log_access(
        self,
        listener: int,
        ip: str,
        port: int,
        outcome: str,
        seconds: float,
        sent: int,
        left_out: int,
        protocol: str | None,
        tls: bool,
    ) -> None:
        """Called as often as the fast path samples; it bounds the rate."""
        name = self._names[listener]
        fields = {"event": "access", "listener": name, "ip": ip, "port": port, "outcome": outcome}
        fields |= {"seconds": round(seconds, 6), "bytes": sent, "left_out": left_out, "rate": None}
        fields |= {"protocol": protocol, "tls": tls}
        log.info(
            "listener %s: %s: %s after %.6f s, %d bytes%s%s%s",
            name,
            Address(ip, port),
            outcome,
            seconds,
            sent,
            f", {protocol}" if protocol else "",
            ", TLS" if tls else "",
            f"; {left_out:,} more are not logged" if left_out else "",
            extra=fields,
        )
