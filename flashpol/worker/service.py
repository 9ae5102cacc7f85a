"""Serves listeners on one gevent hub: what a worker process runs, and what an embedding program runs.

Each listener has a ListenerLoop, which accepts. All share one Connections, which has the connections and sessions of
the worker, and so one account of places.
"""

import socket
import time
from collections.abc import Callable, Container
from functools import partial

import gevent

from flashpol._fastpath import PROTOCOLS, Acceptor, AddressLimits, CodecFactory, PolicyReply
from flashpol.config import ConnectionLimits, ConnectionTimeouts
from flashpol.counters.layout import Block, TunnelBlock
from flashpol.process.sockets import bound_address, prepare_listening
from flashpol.relay.group import SharedPort
from flashpol.serving.networks import Access
from flashpol.worker.connections import Connections
from flashpol.worker.limits import PlaceLimits
from flashpol.worker.listener import ListenerLoop
from flashpol.worker.old_clients_log import OldClientsLog
from flashpol.worker.refusal_log import RefusalLog
from flashpol.worker.requests import HttpPort
from flashpol.worker.tunnel_log import TunnelLog
from flashpol.worker.tunnels import TunnelSettings

# How often `finish` looks whether all connections have ended, in seconds. Only while shutting down.
FINISH_POLL = 0.02
# How long `finish` waits for the greenlets of sessions that it has cut, in seconds: they only have to wake.
CUT_TIMEOUT = 1.0
ANY_CLIENT = Access()


class Service:
    """Serves policy requests on listening sockets until it is stopped.

    It belongs to the hub of the thread that made it. It opens no listening socket and closes none. access_log: the
    share of connections, 0 to 1, that get a log line. address_limits: counts connections and limits them, in total and
    by client address. workers: of the server, which share `max_connections`. tls: a listener
    has a codec. line_files: descriptors that lines to other workers may take. tunnels: None: no listener has tunnel
    sessions.
    """

    def __init__(
        self,
        *,
        access_log: float = 0.0,
        address_limits: AddressLimits | None = None,
        limits: ConnectionLimits | None = None,
        workers: int = 1,
        tls: bool = False,
        line_files: int = 0,
        tunnels: TunnelSettings | None = None,
    ) -> None:
        self.limits = PlaceLimits.of(limits or ConnectionLimits(), workers, tls=tls, line_files=line_files)
        self.connections = Connections(
            self.limits, access_log=access_log, address_limits=address_limits, tunnels=tunnels
        )
        self._listeners: list[ListenerLoop] = []
        self._refusal_log = RefusalLog(self.limits.describe, time.monotonic())
        self._old_clients_log = OldClientsLog(time.monotonic())
        self._tunnel_log = TunnelLog(time.monotonic())

    def add(
        self,
        sock: socket.socket,
        reply: bytes,
        block: memoryview,
        *,
        timeouts: ConnectionTimeouts,
        name: str | None = None,
        exclusive: bool = True,
        terminated: bool = True,
        access: Access = ANY_CLIENT,
        shared_port: SharedPort | None = None,
        codec: CodecFactory | None = None,
        tls_only: bool = False,
        http: HttpPort | None = None,
        tunnel_block: memoryview | None = None,
    ) -> ListenerLoop:
        """Serve `reply` on the listening, non-blocking `sock`, counted in `block` (see `Acceptor`, also `terminated`).

        name: for log lines; None: the address. exclusive: no other process accepts from the socket when this service
        stops, so that its backlog may be shrunk for good. access: networks of the clients and proxies that are served.
        shared_port: relay what is no policy request, as far as its listener has an upstream for it, and what comes by
        WebSocket. codec: ends the clients' TLS; tls_only: plain text is refused. http: the rules about HTTP requests.
        tunnel_block: where its tunnel sessions (RTMPT) are counted; None: it has none.
        """
        name = name or str(bound_address(sock))
        number = self.connections.add(name, timeouts, shared_port, http, tunnel_block)
        if codec:
            self._old_clients_log.add(name, Block(block.cast("Q")))
        if tunnel_block is not None:
            self._tunnel_log.add(name, TunnelBlock(tunnel_block.cast("Q")))
        listener = shared_port.listener if shared_port else None
        make_acceptor = partial(
            Acceptor, self.connections.table, sock.fileno(), PolicyReply(reply), block, timeouts=number,
            linger_bytes=timeouts.linger_bytes, reply_timeout=timeouts.reply_timeout, terminated=terminated,
            networks=access.networks, proxies=access.proxies, shared=bool(listener and listener.shared),
            protocols=[each for each in PROTOCOLS if listener and listener.upstream_for(each)],
            codec=codec, tls_only=tls_only, http=bool(http), upgrades=bool(http and http.paths),
            rtmpt=tunnel_block is not None, max_body=timeouts.rtmpt_body,
        )  # fmt: skip
        self._listeners.append(
            ListenerLoop(
                make_acceptor,
                sock,
                name,
                exclusive=exclusive,
                evict=self.evict,
                prepare=partial(
                    prepare_listening,
                    user_timeout=timeouts.tcp_user_timeout,
                    keepalive=listener.keepalive if listener else None,
                ),
            )
        )
        return self._listeners[-1]

    def add_line(self, incarnation: int, line: socket.socket) -> None:
        """A line to another worker, a connected socket that does not block. It replaces an earlier one to the same
        incarnation. Called in the hub."""
        if self.connections.tunnels:
            self.connections.tunnels.add_line(incarnation, line)
        else:
            line.close()

    def evict(self) -> bool:
        """Make one connection give way, to free a descriptor. False if none can."""
        return self.connections.table.evict()

    def start(self) -> None:
        self.connections.start()
        for listener in self._listeners:
            listener.start()

    def log_refusals(self, *, end: bool = False) -> None:
        """Log what limits refuse and what tunnel sessions lose, if it is time; a worker calls it regularly.

        end: all that is not logged yet.
        """
        now = time.monotonic()
        self._refusal_log.update(now, self.connections.table, self.connections.names, end=end)
        self._old_clients_log.update(now, end=end)
        self._tunnel_log.update(now, end=end)

    def check(self) -> int:
        """For tests: how many connections are kept. Raises AssertionError, see `ConnectionTable.check`."""
        return self.connections.table.check()

    def stop_accepting(self, timeout: float, kept: Container[socket.socket] = ()) -> bool:
        """Accept what the kernel has queued, within `timeout` seconds, then no more.

        kept: sockets that another process goes on serving; their queues are left to it. The others can be closed
        afterwards. True if their queues are empty: a close resets the connections that wait there.
        """
        deadline = time.monotonic() + timeout
        self.connections.table.drain()
        for listener in self._listeners:
            listener.release(kept)
        empty = [listener.close(deadline) for listener in self._listeners]
        self._listeners.clear()
        return all(empty)

    def finish(self, timeout: float, time_left: Callable[[], float] | None = None, *, replaced: bool = False) -> bool:
        """Wait up to `timeout` seconds until all connections have ended, then close the rest. True if none was left.

        time_left: called again and again for the seconds left, instead of `timeout`. replaced: other workers serve.
        """
        deadline = time.monotonic() + timeout
        time_left = time_left or (lambda: deadline - time.monotonic())
        table = self.connections.table

        def busy() -> int:
            # Where the server ends, a connection that only waits for another request is not waited for.
            return table.open - (0 if replaced else table.idle)

        while busy() and time_left() > 0:
            gevent.sleep(FINISH_POLL)
            self.log_refusals()
        left = busy()
        self.connections.cut(replaced=replaced)
        deadline = time.monotonic() + CUT_TIMEOUT
        while table.sessions and time.monotonic() < deadline:
            gevent.sleep(0)
        self.connections.close()
        self.log_refusals(end=True)
        return not left
