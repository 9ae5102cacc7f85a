"""Acceptors, the parker and conversations on one gevent hub: what a worker runs, and what an embedding program runs."""

import errno
import logging
import os
import resource
import socket
import time
from collections.abc import Container
from functools import partial

import gevent
from gevent.pool import Pool

from flashpol._fastpath import Acceptor, Parker, PolicyReply
from flashpol.config import Limits
from flashpol.gateway.conversation import finish_reply
from flashpol.gateway.hub import Readable
from flashpol.gateway.sniff import SIGNATURES
from flashpol.server.sockets import accept_queue, bound_address

# Out of descriptors or memory, accepting pauses this long: 20 wake-ups a second while it lasts, and a client that could
# be served again waits no longer than this.
BACK_OFF = 0.05
# One line says that descriptors ran out; another no sooner than this, however often accepting stops and resumes.
LOG_INTERVAL = 60.0
# How often `finish` looks whether everything inside has ended. Only while shutting down.
FINISH_POLL = 0.02
# What to do about it, by errno.
ADVICE = {
    errno.EMFILE: "; raise LimitNOFILE or ulimit -n (now {limit})",
    errno.ENFILE: "; raise fs.file-max, which all programs of this host share",
}

log = logging.getLogger("flashpol")


class Service:
    """Serves policy requests on listening sockets until it is stopped.

    It belongs to the hub of the thread that made it. It opens no listening socket and closes none.
    """

    def __init__(self) -> None:
        self._lots: dict[Limits, _Lot] = {}
        self._doors: list[_Door] = []

    def add(
        self,
        sock: socket.socket,
        reply: bytes,
        block: memoryview,
        *,
        limits: Limits,
        ours: bool = True,
        terminated: bool = True,
    ) -> None:
        """Serve `reply` on the listening, non-blocking `sock`, counted in `block` (see `Acceptor`, also `terminated`).

        ours: nobody else goes on accepting from the socket when we stop, so that its backlog may be shrunk for good.
        """
        if limits not in self._lots:
            self._lots[limits] = _Lot(limits)
        parker = self._lots[limits].parker
        self._doors.append(_Door(parker, sock, PolicyReply(reply), block, ours=ours, terminated=terminated))

    def start(self) -> None:
        for lot in self._lots.values():
            lot.watcher.start()
        for door in self._doors:
            door.watcher.start()

    def stop_accepting(self, timeout: float, kept: Container[socket.socket] = ()) -> bool:
        """Take in what the kernel has already accepted, within `timeout` seconds, then no more.

        kept: sockets that another process goes on serving; what waits there is left to it. The others can be closed
        afterwards. True if none is left waiting in their queues, where the close would reset it.
        """
        deadline = time.monotonic() + timeout
        for door in self._doors:
            if door.socket in kept:
                door.watcher.close()
        empty = [door.close(deadline) for door in self._doors if door.socket not in kept]
        self._doors.clear()
        return all(empty)

    def finish(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for all connections to end, then close the rest. True if there was no rest."""
        deadline = time.monotonic() + timeout
        lots = self._lots.values()
        while any(lot.parker.open for lot in lots) and time.monotonic() < deadline:
            gevent.sleep(FINISH_POLL)
        cut = sum(lot.parker.open for lot in lots)
        for lot in lots:
            lot.close()
        return not cut


class _Lot:
    """Where the connections with the same limits wait, and the greenlets of those that have one."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._conversations = Pool(limits.max_conversations)
        self.parker = Parker(
            on_conversation=self._converse,
            on_error=lambda error: log.error("a connection's hook failed", exc_info=error),
            signatures=SIGNATURES,
            capacity=resource.getrlimit(resource.RLIMIT_NOFILE)[0] % 2**63,  # RLIM_INFINITY is -1: the Parker bounds it
            request_timeout=limits.request_timeout,
            terminator_grace=limits.terminator_grace,
            linger_timeout=limits.linger_timeout,
            linger_bytes=limits.linger_bytes,
        )
        self.watcher = Readable(self.parker.fileno(), self.parker.ready)

    def _converse(self, fd: int) -> None:
        """Called in the hub: must not block, so a full pool refuses instead of waiting."""
        if self._conversations.free_count() == 0:
            self.parker.abandon(fd, "capacity")
        else:
            self._conversations.spawn(finish_reply, self.parker, fd, self._limits.reply_timeout)

    def close(self) -> None:
        self._conversations.kill()
        self.parker.close_all()
        self.watcher.close()


class _Door:
    """One acceptor with its watcher and its back-off."""

    def __init__(
        self,
        parker: Parker,
        sock: socket.socket,
        reply: PolicyReply,
        block: memoryview,
        *,
        ours: bool,
        terminated: bool,
    ) -> None:
        on_exhausted = partial(_Door._back_off, self)
        self.acceptor = Acceptor(parker, sock.fileno(), reply, block, on_exhausted=on_exhausted, terminated=terminated)
        self.watcher = Readable(sock.fileno(), self.acceptor.ready)
        self.socket = sock
        self._ours = ours
        self._address = str(bound_address(sock))
        self._quiet_until = 0.0

    def _back_off(self, error: int) -> None:
        self.watcher.pause(BACK_OFF)
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + LOG_INTERVAL
            log.warning(
                "%s: accepting pauses, those inside are served: %s%s",
                self._address,
                os.strerror(error),
                ADVICE.get(error, "").format(limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
            )

    def close(self, deadline: float) -> bool:
        """Empty the accept queue, waiting for descriptors if it must. True if it is empty."""
        waiting, _ = accept_queue(self.socket)
        if self._ours:
            # With this backlog the kernel lets one more into the queue at most: it can be emptied under any load.
            self.socket.listen(0)
        try:
            while waiting > 0:
                taken = self.acceptor.ready()
                if taken == 0:
                    if accept_queue(self.socket)[0] == 0:
                        break
                    if time.monotonic() >= deadline:
                        return False
                    gevent.sleep(BACK_OFF)
                # Somebody else's queue goes on being filled: what waited when we began is what we owe.
                waiting = accept_queue(self.socket)[0] if self._ours else waiting - taken
            return True
        finally:
            self.watcher.close()
