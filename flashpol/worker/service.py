"""Acceptors, the parker and conversations on one gevent hub: what a worker runs, and what an embedding program runs."""

import errno
import math
import os
import resource
import socket
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import partial

import gevent
from gevent.pool import Pool

from flashpol._fastpath import Acceptor, AddressLimits, ConnectionTable, PolicyReply
from flashpol._pump import Pump
from flashpol.config import Address, ConnectionLimits, ConnectionTimeouts, Listener, UpstreamAddress
from flashpol.hub import Readable, sleep_until_switched
from flashpol.log.handler import log
from flashpol.log.rate_limit import ONCE_A_MINUTE
from flashpol.process.privileges import spare_memory
from flashpol.process.sockets import accept_queue, bound_address, prepare_relaying
from flashpol.relay.backends import Upstreams
from flashpol.relay.rate_limit import RateLimiter
from flashpol.relay.relay import ActiveSessions, Relay
from flashpol.serving.networks import Access
from flashpol.worker.protocols import SIGNATURES
from flashpol.worker.slow_reply import finish_reply

# Out of descriptors or memory, accepting pauses this long: 20 wake-ups a second while it lasts, and a client that could
# be served again waits no longer than this.
BACK_OFF = 0.05
# How often `finish` looks whether everything inside has ended. Only while shutting down.
FINISH_POLL = 0.02
# What a conversation may take at the worst where memory is limited (RLIMIT_AS), and the share of it for all. Without
# memory a greenlet that cannot be made refuses one client, but gevent and CPython do not bear that everywhere.
CONVERSATION_BYTES = 16 << 10
SHARE_OF_MEMORY = 0.5
# Descriptors of a conversation that is relayed, and the share of all that is kept for those who ask: silent clients of
# a shared port become conversations, which never give way.
CONVERSATION_FILES = 2
KEPT_FILES, MOST_KEPT_FILES = 0.25, 1000
# How long `finish` waits for greenlets whose conversations it has cut: they only have to wake.
CUT_TIMEOUT = 1.0
# What to do about it, by errno.
ADVICE = {
    errno.EMFILE: "; raise LimitNOFILE or ulimit -n (now {limit})",
    errno.ENFILE: "; raise fs.file-max, which all programs of this host share",
}
EVERYBODY = Access()


@dataclass(frozen=True)
class Beyond:
    """What lies behind a shared port: the listener's settings, and a block for each of its upstreams."""

    listener: Listener
    blocks: Sequence[memoryview]


class Service:
    """Serves policy requests on listening sockets until it is stopped.

    It belongs to the hub of the thread that made it. It opens no listening socket and closes none. access_log: the
    share of connections, 0 to 1, of which a log line tells. census: counts the connections and bounds them.
    """

    def __init__(
        self,
        *,
        access_log: float = 0.0,
        address_limits: AddressLimits | None = None,
        limits: ConnectionLimits | None = None,
    ) -> None:
        limits = limits or ConnectionLimits()
        self._access_log = access_log
        self._max_sessions = int(min(limits.max_sessions, _relays_that_fit()))
        self._sessions = ActiveSessions()
        self._slow_replies = Pool(int(min(limits.max_slow_replies, _conversations_that_fit())))
        self._address_limits = address_limits
        self._lots: dict[ConnectionTimeouts, _Lot] = {}
        self._doors: list[Door] = []

    def add(
        self,
        sock: socket.socket,
        reply: bytes,
        block: memoryview,
        *,
        timeouts: ConnectionTimeouts,
        name: str | None = None,
        ours: bool = True,
        terminated: bool = True,
        access: Access = EVERYBODY,
        beyond: Beyond | None = None,
    ) -> "Door":
        """Serve `reply` on the listening, non-blocking `sock`, counted in `block` (see `Acceptor`, also `terminated`).

        beyond: makes it a shared port.
        name: what the log calls it; None: its address. ours: nobody else goes on accepting from the socket when we
        stop, so that its backlog may be shrunk for good. access: whom.
        """
        if timeouts not in self._lots:
            self._lots[timeouts] = _Lot(
                timeouts, self._access_log, self._address_limits, self._sessions, self._max_sessions, self._slow_replies
            )
        lot = self._lots[timeouts]
        name = name or str(bound_address(sock))
        lot.add(name, beyond)
        if beyond:
            prepare_relaying(sock, beyond.listener.keepalive)
        acceptor = partial(
            Acceptor, lot.connection_table, sock.fileno(), PolicyReply(reply), block, terminated=terminated,
            networks=access.networks, proxies=access.proxies, shared=bool(beyond),
        )  # fmt: skip
        self._doors.append(Door(acceptor, sock, name, ours=ours, evict_oldest=self.evict_oldest))
        return self._doors[-1]

    def evict_oldest(self) -> bool:
        """Whoever needs a descriptor found nobody among those with the same limits who could give way: the others."""
        return any(lot.connection_table.evict_oldest() for lot in self._lots.values())

    def start(self) -> None:
        for lot in self._lots.values():
            lot.start()
        for door in self._doors:
            door.start()

    def check(self) -> int:
        """For tests: how many connections are kept. Raises AssertionError, see `Parker.check`."""
        return sum(lot.connection_table.check() for lot in self._lots.values())

    def stop_accepting(self, timeout: float, kept: Container[socket.socket] = ()) -> bool:
        """Take in what the kernel has already accepted, within `timeout` seconds, then no more.

        kept: sockets that another process goes on serving; what waits there is left to it. The others can be closed
        afterwards. True if none is left waiting in their queues, where the close would reset it.
        """
        deadline = time.monotonic() + timeout
        for door in self._doors:
            door.leave(kept)
        empty = [door.close(deadline) for door in self._doors]
        self._doors.clear()
        return all(empty)

    def finish(self, timeout: float, patience: Callable[[], float] | None = None) -> bool:
        """Wait up to `timeout` seconds for all connections to end, then close the rest. True if there was no rest.

        patience: asked again and again how many seconds are left, instead.
        """
        deadline = time.monotonic() + timeout
        patience = patience or (lambda: deadline - time.monotonic())
        lots = self._lots.values()
        while any(lot.connection_table.open for lot in lots) and patience() > 0:
            gevent.sleep(FINISH_POLL)
        cut = sum(lot.connection_table.open for lot in lots)
        for lot in lots:
            lot.close()
        return not cut


def _conversations_that_fit() -> float:
    spare = spare_memory()
    return math.inf if spare is None else spare * SHARE_OF_MEMORY // CONVERSATION_BYTES


def _relays_that_fit() -> float:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return math.inf
    return (files - min(files * KEPT_FILES, MOST_KEPT_FILES)) // CONVERSATION_FILES


class _Lot:
    """Where the connections with the same limits wait, and the greenlets of those that have one."""

    def __init__(
        self,
        timeouts: ConnectionTimeouts,
        access_log: float,
        address_limits: AddressLimits | None,
        sessions: ActiveSessions,
        max_sessions: int,
        slow_replies: Pool,
    ) -> None:
        self.names: list[str] = []  # of its listeners, in the order of their acceptors
        self._relays: list[Relay | None] = []  # and where those that are shared relay to
        self._pump: Pump | None = None
        self._pump_watcher: Readable | None = None
        self._sessions = sessions
        self._max_sessions = max_sessions
        self._timeouts = timeouts
        self._slow_replies = slow_replies
        self.connection_table = ConnectionTable(
            on_slow_reply=self._converse,
            on_error=lambda error: log.error(
                "a connection's hook failed", exc_info=error, extra={"event": "hook-failed"}
            ),
            signatures=SIGNATURES,
            capacity=resource.getrlimit(resource.RLIMIT_NOFILE)[0] % 2**63,  # RLIM_INFINITY is -1: the Parker bounds it
            request_timeout=timeouts.request_timeout,
            terminator_grace=timeouts.terminator_grace,
            linger_timeout=timeouts.linger_timeout,
            linger_bytes=timeouts.linger_bytes,
            on_access=self._tell_access,
            access_log=access_log,
            address_limits=address_limits,
            on_session=self._relay,
            first_byte_timeout=timeouts.first_byte_timeout,
        )
        self.watcher = Readable(self.connection_table.fileno(), self.connection_table.ready)

    def add(self, name: str, beyond: Beyond | None) -> None:
        """A listener that has no acceptor yet."""
        self.names.append(name)
        self._relays.append(self._make_relay(name, beyond) if beyond else None)

    def _make_relay(self, name: str, beyond: Beyond) -> Relay:
        if self._pump is None:
            self._pump = Pump(
                sleep=sleep_until_switched(),
                on_error=lambda error: log.error(
                    "a conversation failed", exc_info=error, extra={"event": "conversation-failed"}
                ),
                capacity=self._max_sessions,
                connect_timeout=self._timeouts.connect_timeout,
                idle_timeout=self._timeouts.idle_timeout,
                max_duration=self._timeouts.max_duration,
            )
            self._pump_watcher = Readable(self._pump.fileno(), self._pump.ready)

        def unknown(remote: UpstreamAddress, error: OSError) -> None:
            log.warning(
                "listener %s: upstream %s: its name cannot be looked up: %s",
                name,
                remote,
                error.strerror or error,
                extra={"event": "upstream-unknown", "listener": name, "upstream": str(remote), "rate": ONCE_A_MINUTE},
            )

        listener = beyond.listener
        upstreams = Upstreams(
            listener.upstream,
            beyond.blocks,
            balance=listener.balance,
            keepalive=listener.keepalive,
            on_error=unknown,
        )
        return Relay(
            self.connection_table,
            self._pump,
            upstreams,
            crowd=self._sessions,
            proxy=listener.upstream_proxy,
            pace=RateLimiter(listener.connect_rate),
            connect_timeout=self._timeouts.connect_timeout,
        )

    def start(self) -> None:
        self.watcher.start()
        if self._pump_watcher:
            self._pump_watcher.start()
        for relay in self._relays:
            if relay:
                relay.start()

    def _relay(self, fd: int, data: bytes, listener: int) -> None:
        """Called in the hub: must not block."""
        relay = self._relays[listener]
        if relay is None:
            raise AssertionError("only a shared listener hands connections over")
        if self._sessions.count >= self._max_sessions:
            self.connection_table.close_as(fd, "max_sessions")
        else:
            relay.begin(fd, data)

    def _tell_access(
        self, listener: int, ip: str, port: int, outcome: str, seconds: float, sent: int, left_out: int
    ) -> None:
        """Called in the hub, at most as often as the fast path samples."""
        name = self.names[listener]
        fields = {"event": "access", "listener": name, "ip": ip, "port": port, "outcome": outcome}
        fields |= {"seconds": round(seconds, 6), "bytes": sent, "left_out": left_out, "rate": None}
        log.info(
            "listener %s: %s: %s after %.6f s, %d bytes%s",
            name,
            Address(ip, port),
            outcome,
            seconds,
            sent,
            f"; {left_out:,} others were left out" if left_out else "",
            extra=fields,
        )

    def _converse(self, fd: int) -> None:
        """Called in the hub: must not block, so a full pool refuses instead of waiting."""
        if self._slow_replies.free_count() == 0:
            self.connection_table.close_as(fd, "max_slow_replies")
        else:
            self._slow_replies.spawn(finish_reply, self.connection_table, fd, self._timeouts.reply_timeout)

    def close(self) -> None:
        self.watcher.close()  # nobody is handed over any more
        self._slow_replies.kill()
        for relay in self._relays:
            if relay:
                relay.stop()
        if self._pump and self._pump_watcher:
            self._pump.cut_all()
            deadline = time.monotonic() + CUT_TIMEOUT
            while self._sessions.count and time.monotonic() < deadline:
                gevent.sleep(0)
            self._pump_watcher.close()
        self.connection_table.close_all()


class Door:
    """One acceptor with its back-off, and the sockets that it accepts from: its own, and those of absent siblings."""

    def __init__(
        self,
        acceptor: Callable[..., Acceptor],
        sock: socket.socket,
        name: str,
        *,
        ours: bool,
        evict_oldest: Callable[[], bool],
    ) -> None:
        """acceptor: makes one, given `on_exhausted`. make_room: has somebody give a descriptor back, if anybody can."""
        self.acceptor = acceptor(on_exhausted=partial(Door._back_off, self))
        self._own = sock
        self._watchers = {sock: Readable(sock.fileno(), self.acceptor.ready)}
        self._ours = ours
        self._name = name
        self._evict_oldest = evict_oldest

    def start(self) -> None:
        for watcher in self._watchers.values():
            watcher.start()

    def stand_in(self, sock: socket.socket) -> None:
        """Accept also from the listening, non-blocking `sock`, and count that as our own."""
        watcher = self._watchers[sock] = Readable(sock.fileno(), partial(self.acceptor.ready, sock.fileno()))
        watcher.start()

    def leave(self, sockets: Container[socket.socket]) -> None:
        """Accept no more from these, which can be closed afterwards: what waits there is left to others."""
        for sock in [sock for sock in self._watchers if sock in sockets]:
            self._watchers.pop(sock).close()

    def _back_off(self, error: int) -> None:
        if error in ADVICE and self._evict_oldest():
            return  # the watchers are level-triggered: accepting goes on
        for watcher in self._watchers.values():
            watcher.pause(BACK_OFF)
        log.warning(
            "listener %s: accepting pauses, those inside are served: %s%s",
            self._name,
            os.strerror(error),
            ADVICE.get(error, "").format(limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
            # However often accepting stops and resumes.
            extra={"event": "exhausted", "listener": self._name, "errno": error, "rate": ONCE_A_MINUTE},
        )

    def close(self, deadline: float) -> bool:
        """Empty the accept queues, waiting for descriptors if it must. True if they are empty."""
        try:
            empty = [self._empty(sock, deadline) for sock in self._watchers]
        finally:
            for watcher in self._watchers.values():
                watcher.close()
        return all(empty)

    def _empty(self, sock: socket.socket, deadline: float) -> bool:
        waiting, _ = accept_queue(sock)
        ours = self._ours and sock is self._own  # a sibling's is shrunk by the sibling, which may go on
        if ours:
            # With this backlog the kernel lets one more into the queue at most: it can be emptied under any load.
            sock.listen(0)
        while waiting > 0:
            taken = self.acceptor.ready(sock.fileno())
            if taken == 0:
                if accept_queue(sock)[0] == 0:
                    break
                if time.monotonic() >= deadline:
                    return False
                gevent.sleep(BACK_OFF)
            # Somebody else's queue goes on being filled: what waited when we began is what we owe.
            waiting = accept_queue(sock)[0] if ours else waiting - taken
        return True
