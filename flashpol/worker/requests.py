"""Carries out what the gateway decides about HTTP requests: a reply, a WebSocket session, or the relay as it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from flashpol._fastpath import REASONS, ConnectionTable, Networks, RequestHead
from flashpol._tunnel import Tunnels
from flashpol._websocket import Path
from flashpol.config import RTMPT, WebSocketPath
from flashpol.counters.refused_origins import RefusedOrigins
from flashpol.gateway import replies
from flashpol.gateway.forwarded import client_address, is_allowed
from flashpol.gateway.handshake import grouped, values_of
from flashpol.gateway.requests import Gateway, Reply, Upgrade
from flashpol.log.handler import log
from flashpol.log.rate_limit import ONCE_A_MINUTE
from flashpol.relay.group import RelayGroup
from flashpol.relay.relay import OnFailure

# Reasons for which a session finds no place, and causes of a failure that the client may try again after.
_FULL = ("connecting", "rate", "resources", "ports")


@dataclass(frozen=True)
class HttpPort:
    """What a listener needs to take HTTP. paths: those of its WebSocket, in order. forwarded: the proxies whose
    X-Forwarded-For counts, None: there are none. allowed: all but `deny_networks`, for the clients that proxies name;
    `allow_networks` is about connections, and so about the proxies. refused: where the page finds the origins that each
    path refused."""

    gateway: Gateway
    paths: tuple[tuple[WebSocketPath, Path], ...] = ()
    forwarded: Networks | None = None
    allowed: Networks | None = None
    refused: Sequence[RefusedOrigins] = ()


class Requests:
    """The requests of all listeners of a process."""

    def __init__(
        self,
        table: ConnectionTable,
        relays: RelayGroup,
        relay: Callable[[int, bytes, int], None],
        tunnels: Tunnels | None = None,
    ) -> None:
        self._table = table
        self._relays = relays
        self._relay = relay
        self._tunnels = tunnels
        self._ports: dict[int, tuple[str, HttpPort]] = {}
        self._on_failure: dict[int, list[OnFailure]] = {}  # of each path; one for all of its sessions
        self._on_open_failure: dict[int, OnFailure] = {}  # of each listener; one for all of its tunnel sessions

    def add(self, number: int, name: str, port: HttpPort) -> None:
        """The table's listener `number`, `name` in log lines, takes HTTP."""
        self._ports[number] = name, port
        self._on_failure[number] = [partial(self._fail, path) for _, path in port.paths]
        self._on_open_failure[number] = partial(self._fail_open, name)

    def decide(self, fd: int, data: bytes, number: int) -> None:
        """A hook of the table, called in the hub: `data` is a whole head, and what came behind it."""
        name, port = self._ports[number]
        head = RequestHead.parse(data)
        reason = self._identify(fd, head, port)
        if reason:
            self._table.reply_http(fd, replies.reply(403 if reason == "network" else 503), reason)
            return
        decision = port.gateway.decide(head)
        if decision is None and self._table.carries(fd):
            # A proxy's connection, on which other requests of RTMPT may follow: the application must not get those.
            self._table.reply_http(fd, replies.reply(404), "http")
        elif decision is None:
            reason = self._table.begin_session(fd)
            if reason:
                self._table.reply_http(fd, replies.reply(503), reason)
            else:
                self._relay(fd, data, number)
        elif isinstance(decision, Reply):
            self._reply(fd, decision, name, port)
        else:
            self._upgrade(fd, decision, data[head.consumed :], number, port)

    def open(self, fd: int, data: bytes, number: int) -> None:
        """A hook of the table, called in the hub: the head of a request that asks for a tunnel session."""
        name, port = self._ports[number]
        address, reason = self._find_client(fd, RequestHead.parse(data), port)
        if reason:
            self._table.refuse_open(fd, 403, reason)
            return
        session = self._table.open_tunnel(fd, address)
        if isinstance(session, str):
            self._log_refused_open(fd, name, address, session, 503)
            self._table.refuse_open(fd, 503, session)
        else:
            try:
                self._relays.relay(number, RTMPT, session, b"", self._on_open_failure[number])
            except BaseException:
                self._fail_open(name, session, "capacity", "resources")
                raise

    def _fail_open(self, name: str, fd: int, reason: str, cause: str) -> None:
        """The upstream of a tunnel session could not be reached."""
        assert self._tunnels
        self._log_refused_open(fd, name, None, cause, _status_of(cause))
        self._tunnels.refuse(fd, _status_of(cause))
        self._table.close_as(fd, reason)

    def _log_refused_open(self, fd: int, name: str, address: str | None, reason: str, status: int) -> None:
        """address: None: as the table knows it. reason: a limit, or why the upstream could not be reached."""
        try:
            ip = address or self._table.client(fd)[0]
        except OSError:
            ip = ""
        fields = {"event": "rtmpt-refused", "listener": name, "ip": ip, "reason": reason, "status": status}
        log.warning(
            "listener %s: opened no tunnel session for %s, which got %d: %s",
            name,
            ip or "a client",
            status,
            reason if reason in REASONS else f"no upstream could be reached ({reason})",
            extra=fields | {"rate": ONCE_A_MINUTE},
        )

    def _identify(self, fd: int, head: RequestHead, port: HttpPort) -> str | None:
        """Find the client behind a proxy, whose connection this is from now on. Returns why it is refused."""
        address, reason = self._find_client(fd, head, port)
        return self._table.set_client(fd, address) if address and not reason else reason

    def _find_client(self, fd: int, head: RequestHead, port: HttpPort) -> tuple[str | None, str | None]:
        """The address of the client behind a proxy, None if there is none, and why it is refused."""
        if port.forwarded is None or not head.count(b"x-forwarded-for"):
            return None, None
        entries = values_of(grouped(head.fields), b"x-forwarded-for")
        try:
            found = client_address(self._table.client(fd)[0], entries, port.forwarded)
        except OSError:  # the client has reset the connection
            return None, None
        if not found.forwarded:
            return None, None
        if port.allowed is not None and not is_allowed(found.address, port.allowed):
            return found.address, "network"
        return found.address, None

    def _reply(self, fd: int, reply: Reply, name: str, port: HttpPort) -> None:
        if reply.path is not None:
            settings, path = port.paths[reply.path]
            path.count(reply.result)
            if reply.origin and port.refused:
                port.refused[reply.path].record(reply.origin, reply.reason, reply.line)
            self._log(fd, reply, name, settings.path)
        elif reply.reason:
            self._log(fd, reply, name, None)
        self._table.reply_http(fd, reply.data, reply.outcome)

    def _log(self, fd: int, reply: Reply, name: str, path: str | None) -> None:
        try:
            ip = self._table.client(fd)[0]
        except OSError:
            ip = ""
        fields = {"event": "upgrade-refused", "listener": name, "path": path, "ip": ip, "result": reply.result or None}
        if reply.outcome == "origin":
            fields |= {"event": "origin-refused"}
        log.warning(
            "listener %s: WebSocket%s: refused %s: %s",
            name,
            f" path {path}" if path else "",
            ip or "a client",
            reply.reason,
            extra=fields | {"origin": reply.origin or None, "line": reply.line},
        )

    def _upgrade(self, fd: int, upgrade: Upgrade, rest: bytes, number: int, port: HttpPort) -> None:
        path = port.paths[upgrade.path][1]
        reason = self._table.begin_session(fd)
        if reason:
            path.count("capacity")
            self._table.reply_http(fd, replies.reply(503), reason)
            return
        self._table.wrap(fd, path.prepare(upgrade.reply, rest, compresses=upgrade.compresses))
        self._relays.relay_path(number, upgrade.path, fd, self._on_failure[number][upgrade.path])

    def _fail(self, path: Path, fd: int, reason: str, cause: str) -> None:
        """The upstream could not be reached."""
        path.count("capacity" if cause in _FULL else "upstream")
        self._table.reply_http(fd, replies.reply(_status_of(cause)), reason)


def _status_of(cause: str) -> int:
    """What a client is told when its upstream could not be reached."""
    return 503 if cause in _FULL else 504 if cause == "timeout" else 502
