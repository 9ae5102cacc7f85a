"""Acceptors, the parker and conversations on one gevent hub: what a worker runs, and what an embedding program runs."""

import errno
import os
import resource
import socket
import time
from functools import partial

import gevent
from gevent.pool import Pool

from flashpol._fastpath import Acceptor, Parker, PolicyReply
from flashpol.config import Limits
from flashpol.gateway.conversation import finish_reply
from flashpol.gateway.hub import Readable
from flashpol.gateway.sniff import SIGNATURES
from flashpol.server.log import log
from flashpol.server.loglimit import ONCE_A_MINUTE
from flashpol.server.sockets import accept_queue, bound_address

# Out of descriptors or memory, accepting pauses this long: 20 wake-ups a second while it lasts, and a client that could
# be served again waits no longer than this.
BACK_OFF = 0.05
# How often `finish` looks whether everything inside has ended. Only while shutting down.
FINISH_POLL = 0.02
# What to do about it, by errno.
ADVICE = {
    errno.EMFILE: "; raise LimitNOFILE or ulimit -n (now {limit})",
    errno.ENFILE: "; raise fs.file-max, which all programs of this host share",
}


class Service:
    """Serves policy requests on listening sockets until it is stopped.

    It belongs to the hub of the thread that made it. It opens no listening socket and closes none.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._conversations = Pool(limits.max_conversations)
        self._parker = Parker(
            on_conversation=self._converse,
            on_error=lambda error: log.error(
                "a connection's hook failed", exc_info=error, extra={"event": "hook-failed"}
            ),
            signatures=SIGNATURES,
            capacity=resource.getrlimit(resource.RLIMIT_NOFILE)[0] % 2**63,  # RLIM_INFINITY is -1: the Parker bounds it
            request_timeout=limits.request_timeout,
            terminator_grace=limits.terminator_grace,
            linger_timeout=limits.linger_timeout,
            linger_bytes=limits.linger_bytes,
        )
        self._parking = Readable(self._parker.fileno(), self._parker.ready)
        self._doors: list[_Door] = []

    def add(
        self, sock: socket.socket, reply: bytes, block: memoryview, *, ours: bool = True, terminated: bool = True
    ) -> None:
        """Serve `reply` on the listening, non-blocking `sock`, counted in `block` (see `Acceptor`, also `terminated`).

        ours: nobody else goes on accepting from the socket when we stop, so that its backlog may be shrunk for good.
        """
        self._doors.append(_Door(self._parker, sock, PolicyReply(reply), block, ours=ours, terminated=terminated))

    def start(self) -> None:
        self._parking.start()
        for door in self._doors:
            door.watcher.start()

    def stop_accepting(self, timeout: float) -> bool:
        """Take in what the kernel has already accepted, within `timeout` seconds, then no more.

        The sockets can be closed afterwards. True if none is left waiting in a queue, where the close would reset it.
        """
        deadline = time.monotonic() + timeout
        empty = [door.close(deadline) for door in self._doors]
        self._doors.clear()
        return all(empty)

    def finish(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for all connections to end, then close the rest. True if there was no rest."""
        deadline = time.monotonic() + timeout
        while self._parker.open and time.monotonic() < deadline:
            gevent.sleep(FINISH_POLL)
        cut = self._parker.open
        self._conversations.kill()
        self._parker.close_all()
        self._parking.close()
        return not cut

    def _converse(self, fd: int) -> None:
        """Called in the hub: must not block, so a full pool refuses instead of waiting."""
        if self._conversations.free_count() == 0:
            self._parker.abandon(fd, "capacity")
        else:
            self._conversations.spawn(finish_reply, self._parker, fd, self._limits.reply_timeout)


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
        self._socket = sock
        self._ours = ours
        self._address = str(bound_address(sock))

    def _back_off(self, error: int) -> None:
        self.watcher.pause(BACK_OFF)
        log.warning(
            "%s: accepting pauses, those inside are served: %s%s",
            self._address,
            os.strerror(error),
            ADVICE.get(error, "").format(limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
            # However often accepting stops and resumes.
            extra={"event": "exhausted", "listener": self._address, "errno": error, "rate": ONCE_A_MINUTE},
        )

    def close(self, deadline: float) -> bool:
        """Empty the accept queue, waiting for descriptors if it must. True if it is empty."""
        waiting, _ = accept_queue(self._socket)
        if self._ours:
            # With this backlog the kernel lets one more into the queue at most: it can be emptied under any load.
            self._socket.listen(0)
        try:
            while waiting > 0:
                taken = self.acceptor.ready()
                if taken == 0:
                    if accept_queue(self._socket)[0] == 0:
                        break
                    if time.monotonic() >= deadline:
                        return False
                    gevent.sleep(BACK_OFF)
                # Somebody else's queue goes on being filled: what waited when we began is what we owe.
                waiting = accept_queue(self._socket)[0] if self._ours else waiting - taken
            return True
        finally:
            self.watcher.close()
