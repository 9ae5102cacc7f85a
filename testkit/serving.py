"""A Service as a worker composes it, on a gevent hub in a thread of its own, and what it serves in tests."""

import queue
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

import gevent
import gevent.event

from flashpol.config import Address, ConnectionLimits, ConnectionTimeouts, Listener, UpstreamAddress
from flashpol.counters.shared import SharedCounters
from flashpol.process.sockets import bind, bound_address
from flashpol.relay.group import SharedPort
from flashpol.worker.service import Service
from testkit.accounts import assert_settled, outcomes
from testkit.clients import REQUEST, ask, connect
from testkit.polling import DEADLINE, eventually
from testkit.tls_serving import Tls

REPLY = b'<cross-domain-policy><allow-access-from domain="*" to-ports="1935"/></cross-domain-policy>\0'
# More than the kernel takes from the server at once (net.ipv4.tcp_wmem ends at 4 MB), whatever the client's window.
LARGE = REPLY[:-1] + b" " * (8 << 20) + b"\0"

# Long enough for what a busy machine has to do before they expire, short enough to wait for.
TIMEOUTS = ConnectionTimeouts(request_timeout=1.0, terminator_grace=0.1, linger_timeout=0.5, reply_timeout=1.0)

T = TypeVar("T")


class Hub:
    """A thread with a gevent hub, which runs functions for other threads."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(DEADLINE)

    def _run(self, ready: threading.Event) -> None:
        hub = gevent.get_hub()
        asked = gevent.event.Event()
        self._wake = hub.loop.async_()
        self._wake.start(asked.set)
        ready.set()
        while True:
            asked.wait()
            asked.clear()
            while not self._jobs.empty():
                job = self._jobs.get()
                if job is None:
                    self._wake.close()
                    hub.destroy(destroy_loop=True)
                    return
                function, result = job
                try:
                    result.set_result(function())
                except BaseException as error:
                    result.set_exception(error)
                del job, function, result  # else they keep what they refer to alive until the next job

    def call(self, function: Callable[..., T], *args: object) -> T:
        """Run `function` in the hub's thread; return what it returned."""
        result: Future[T] = Future()
        self._jobs.put((lambda: function(*args), result))
        self._wake.send()
        return result.result(2 * DEADLINE)

    def close(self) -> None:
        self._jobs.put(None)
        self._wake.send()
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()


class Serving:
    """A Service with one listener, as a worker composes it, on a hub of its own. `counters` are live and exact."""

    def __init__(
        self,
        reply: bytes,
        timeouts: ConnectionTimeouts,
        *,
        terminated: bool = True,
        access_log: float = 0.0,
        limits: ConnectionLimits | None = None,
        upstream: Sequence[UpstreamAddress] = (),
        tls: Tls | None = None,
        **relaying: Any,
    ) -> None:
        """upstream: makes it a shared port. tls: with plain text beside it. relaying: more settings of its Listener."""
        self.reply = reply
        self._upstream = tuple(upstream)
        self._tls = tls
        self._relaying = relaying
        self.access_log = access_log
        self.limits = limits
        self.terminated = terminated
        self.timeouts = timeouts
        self.socket = bind(Address("127.0.0.1", 0), 1, 4096)[0]
        self.address = tuple(bound_address(self.socket))
        shared = SharedCounters(1, 1, upstreams=len(upstream), connection_limits=limits)
        self.counters = shared.block(0, 0)
        self.relayed = [shared.relay_block(0, number) for number in range(len(upstream))]
        self.hub = Hub()
        self.service = self.hub.call(self._start, shared)

    def _start(self, shared: SharedCounters) -> Service:
        service = Service(access_log=self.access_log, limits=self.limits, address_limits=shared.address_limits.of(0))
        shared_port = None
        if self._upstream:
            listener = Listener("shared", Address(*self.address), "p", upstream=self._upstream, **self._relaying)
            shared_port = SharedPort(
                listener, [shared.relay_memory(0, number) for number in range(len(self._upstream))]
            )
        service.add(
            self.socket,
            self.reply,
            shared.memory(0, 0),
            timeouts=self.timeouts,
            terminated=self.terminated,
            shared_port=shared_port,
            **({"codec": self._tls.context(), "tls_only": self._tls.only} if self._tls else {}),
        )
        service.start()
        return service

    def connect(self, receive_buffer: int = 0, source: str = "") -> socket.socket:
        """source: the client's IP."""
        return connect(self.address, receive_buffer=receive_buffer, source=source)

    def ask(self, request: bytes = REQUEST) -> bytes:
        return ask(self.address, request)

    @property
    def outcomes(self) -> dict[str, int]:
        return outcomes(self.counters)

    def settle(self) -> dict[str, int]:
        """Wait until nothing is open. Returns how the connections ended; each was counted exactly once."""
        eventually(
            lambda: self.counters["open"] == 0 and self.counters["accepted"] == sum(self.outcomes.values()),
            "all connections ended",
        )
        assert_settled(self.counters)
        assert self.hub.call(self.service.check) == 0, "a record leaked"
        return self.outcomes

    def stop_accepting(self) -> None:
        assert self.hub.call(lambda: self.service.stop_accepting(5))
        self.socket.close()

    def finish(self, timeout: float) -> bool:
        return self.hub.call(self.service.finish, timeout)

    def close(self) -> None:
        if self.socket.fileno() >= 0:
            self.stop_accepting()
            self.finish(0)
        with suppress(AttributeError):
            del self.service
        self.hub.close()
