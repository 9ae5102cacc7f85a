"""What tests of the serving parts share: clients that do as they are told, and a server on a hub of its own."""

import fcntl
import queue
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

import gevent
import gevent.event

from flashpol._fastpath import REASONS
from flashpol.config import Address, ConnectionLimits, ConnectionTimeouts, Listener, UpstreamAddress
from flashpol.counters.shared import Block, SharedCounters
from flashpol.process.sockets import bind, bound_address
from flashpol.worker.service import Beyond, Service

REQUEST = b"<policy-file-request/>\0"
BARE = REQUEST[:-1]
REPLY = b'<cross-domain-policy><allow-access-from domain="*" to-ports="1935"/></cross-domain-policy>\0'
# More than the kernel takes from the server at once (net.ipv4.tcp_wmem ends at 4 MB), whatever the client's window.
LARGE = REPLY[:-1] + b" " * (8 << 20) + b"\0"

# Long enough for a busy machine to do what is due before them, short enough to wait for.
TIMEOUTS = ConnectionTimeouts(request_timeout=1.0, terminator_grace=0.1, linger_timeout=0.5, reply_timeout=1.0)
PATIENCE = 4.0  # how long a test waits for what must happen

T = TypeVar("T")


class Turning:
    """A loop that a test turns by hand."""

    def turn(self, timeout: float = 0) -> bool:
        """One wake-up, if there is work within `timeout` seconds."""
        raise NotImplementedError

    def drain(self) -> None:
        while self.turn():
            pass

    def until(self, condition: Callable[[], object], timeout: float = PATIENCE) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout} s"
            self.turn(0.01)


def eventually(condition: Callable[[], T], what: object = "", timeout: float = PATIENCE) -> T:
    """Poll until `condition` is true, and return what it said."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {timeout} s: {what or condition}"
        time.sleep(0.001)
    return found


# ------------------------------------------------------------------------------------------------------------- clients


def connect(address: tuple[str, int], receive_buffer: int = 0, source: str = "") -> socket.socket:
    client = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    client.settimeout(PATIENCE)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    if source:
        client.bind((source, 0))
    client.connect(tuple(address))
    return client


def delivered(client: socket.socket) -> bool:
    """All that was sent has been acknowledged: it is in the other end's receive queue, or read."""
    return fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4)) == bytes(4)


def deliver(client: socket.socket, data: bytes) -> None:
    client.sendall(data)
    eventually(lambda: delivered(client), "acknowledgement")


def until_end(client: socket.socket) -> tuple[bytes, str]:
    """What the client receives until the stream ends, and how it ends: "fin" or "rst"."""
    received = bytearray()
    try:
        while data := client.recv(1 << 16):
            received += data
    except (ConnectionResetError, BrokenPipeError):  # the latter when the reset came after the FIN
        return bytes(received), "rst"
    return bytes(received), "fin"


def reset(client: socket.socket) -> None:
    """Close with RST."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def ask(address: tuple[str, int], request: bytes = REQUEST) -> bytes:
    with connect(address) as client:
        client.sendall(request)
        return until_end(client)[0]


# ------------------------------------------------------------------------------------------------------------ counters


def outcomes(block: Block) -> dict[str, int]:
    """How connections ended, by outcome; none that did not occur."""
    found = {"reply": block.replies, "timeout": block["timeouts"], "reset": block["resets"]}
    found |= dict(zip(REASONS, block.all("refused"), strict=True))
    found["relayed"] = sum(block.all("relayed"))
    return {name: count for name, count in found.items() if count}


def assert_settled(block: Block) -> None:
    """Nothing is open, and every connection ended in exactly one way."""
    assert [block[gauge] for gauge in ("open", "parked", "slow_replies", "sessions")] == [0] * 4
    assert block["accepted"] == sum(outcomes(block).values())


# ------------------------------------------------------------------------------------------------------------- servers


class Hub:
    """A thread with a gevent hub that runs what other threads ask of it."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(PATIENCE)

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
                del job, function, result  # or they would keep what they refer to alive until the next job

    def call(self, function: Callable[..., T], *args: object) -> T:
        """Run `function` in the hub's thread; return what it returned."""
        result: Future[T] = Future()
        self._jobs.put((lambda: function(*args), result))
        self._wake.send()
        return result.result(2 * PATIENCE)

    def close(self) -> None:
        self._jobs.put(None)
        self._wake.send()
        self._thread.join(PATIENCE)
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
        **relaying: Any,
    ) -> None:
        """upstream: makes it a shared port; relaying: more settings of such a Listener."""
        self.reply = reply
        self._upstream = tuple(upstream)
        self._relaying = relaying
        self.access_log = access_log
        self.limits = limits
        self.terminated = terminated
        self.timeouts = timeouts
        self.socket = bind(Address("127.0.0.1", 0), 1, 4096)[0]
        self.address = tuple(bound_address(self.socket))
        shared = SharedCounters(1, 1, upstreams=len(upstream))
        self.counters = shared.block(0, 0)
        self.relayed = [shared.relay_block(0, number) for number in range(len(upstream))]
        self.hub = Hub()
        self.service = self.hub.call(self._start, shared)

    def _start(self, shared: SharedCounters) -> Service:
        service = Service(access_log=self.access_log, limits=self.limits)
        beyond = None
        if self._upstream:
            listener = Listener("shared", Address(*self.address), "p", upstream=self._upstream, **self._relaying)
            beyond = Beyond(listener, [shared.relay_memory(0, number) for number in range(len(self._upstream))])
        service.add(
            self.socket,
            self.reply,
            shared.memory(0, 0),
            timeouts=self.timeouts,
            terminated=self.terminated,
            beyond=beyond,
        )
        service.start()
        return service

    def connect(self, receive_buffer: int = 0) -> socket.socket:
        return connect(self.address, receive_buffer)

    def ask(self, request: bytes = REQUEST) -> bytes:
        return ask(self.address, request)

    @property
    def outcomes(self) -> dict[str, int]:
        return outcomes(self.counters)

    def settle(self) -> dict[str, int]:
        """Wait until nothing is open; every connection was counted exactly once. How they ended."""
        eventually(lambda: self.counters["open"] == 0, "all connections ended")
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
