"""A listener's accept loop: one Acceptor, and the listening sockets that it accepts from."""

import errno
import os
import resource
import socket
import time
from collections.abc import Callable, Container
from functools import partial

import gevent

from flashpol._fastpath import Acceptor
from flashpol.hub import Readable
from flashpol.log.handler import log
from flashpol.log.rate_limit import ONCE_A_MINUTE
from flashpol.process.sockets import accept_queue

# Out of descriptors or memory, accept pauses for so many seconds: 20 wake-ups a second while it lasts, and a client
# that could be served again waits no longer than this.
BACK_OFF = 0.05
# What the log says of an accept that failed, by errno; of others what the C library says.
_CAUSES = {
    errno.EMFILE: "out of file descriptors (limit {limit}: raise LimitNOFILE or ulimit -n)",
    errno.ENFILE: "this host is out of file descriptors (raise fs.file-max, which all its programs share)",
}


class ListenerLoop:
    """Accepts from the listener's own socket, and during queue failover from those of siblings as well.

    make_acceptor: makes the Acceptor, given `on_exhausted`. exclusive: no other process accepts from `sock` when this
    one stops. evict: closes a connection of the worker that may give way, False if there is none. prepare: sets the
    options that accepted connections inherit, of each socket that is accepted from.
    """

    def __init__(
        self,
        make_acceptor: Callable[..., Acceptor],
        sock: socket.socket,
        name: str,
        *,
        exclusive: bool,
        evict: Callable[[], bool],
        prepare: Callable[[socket.socket], object],
    ) -> None:
        self.acceptor = make_acceptor(on_exhausted=partial(ListenerLoop._back_off, self))
        self._own = sock
        self._watchers = {sock: Readable(sock.fileno(), self.acceptor.ready, f"clients of listener {name}")}
        self._exclusive = exclusive
        self._name = name
        self._evict = evict
        self._prepare = prepare
        prepare(sock)

    def start(self) -> None:
        for watcher in self._watchers.values():
            watcher.start()

    def adopt(self, sock: socket.socket) -> None:
        """Accept from a sibling's listening, non-blocking socket too; its connections are counted as our own."""
        self._prepare(sock)
        ready = partial(self.acceptor.ready, sock.fileno())
        what = f"clients of listener {self._name}, for another worker"
        watcher = self._watchers[sock] = Readable(sock.fileno(), ready, what)
        watcher.start()

    def release(self, sockets: Container[socket.socket]) -> None:
        """Accept no more from these: what waits in their queues is left to other processes. They may then be closed."""
        for sock in [sock for sock in self._watchers if sock in sockets]:
            self._watchers.pop(sock).close()

    def _back_off(self, error: int) -> None:
        if error in _CAUSES and self._evict():
            return  # the watchers are level-triggered: accept goes on
        for watcher in self._watchers.values():
            watcher.pause(BACK_OFF)
        cause = _CAUSES.get(error, os.strerror(error)).format(limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        log.warning(
            "listener %s: %s; pausing accept for %.0f ms, open connections are unaffected",
            self._name,
            cause,
            BACK_OFF * 1e3,
            # However often accept stops and resumes.
            extra={"event": "exhausted", "listener": self._name, "errno": error, "rate": ONCE_A_MINUTE},
        )

    def close(self, deadline: float) -> bool:
        """Empty the accept queues, and wait for descriptors until `deadline` if need be. True if they are empty."""
        try:
            empty = [self._empty(sock, deadline) for sock in self._watchers]
        finally:
            for watcher in self._watchers.values():
                watcher.close()
        return all(empty)

    def _empty(self, sock: socket.socket, deadline: float) -> bool:
        waiting, _ = accept_queue(sock)
        exclusive = self._exclusive and sock is self._own  # a sibling, which may go on, shrinks its own backlog itself
        if exclusive:
            # With this backlog the kernel puts at most one more into the queue: it can be emptied under any load.
            sock.listen(0)
        while waiting > 0:
            taken = self.acceptor.ready(sock.fileno())
            if taken == 0:
                if accept_queue(sock)[0] == 0:
                    break
                if time.monotonic() >= deadline:
                    return False
                gevent.sleep(BACK_OFF)
            # A queue that another process serves too goes on being filled: we owe what waited when we began.
            waiting = accept_queue(sock)[0] if exclusive else waiting - taken
        return True
