"""A child process that serves: one gevent hub, its acceptors, its conversations."""

import signal
import socket
import time
from collections.abc import Sequence

import gevent
from gevent.event import Event

from flashpol.config import Server
from flashpol.counters import SharedCounters
from flashpol.server.service import Service

# The loop's lag is how much later than this a timer of this many seconds fires.
LAG_INTERVAL = 0.5


def run(
    slot: int, sockets: Sequence[socket.socket], replies: Sequence[bytes], server: Server, shared: SharedCounters
) -> None:
    """Serve `replies[i]` on `sockets[i]` until SIGTERM, then finish what is inside and return."""
    stop = Event()
    gevent.signal_handler(signal.SIGTERM, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
    service = Service(server.limits)
    for listener, (sock, reply) in enumerate(zip(sockets, replies, strict=True)):
        service.add(sock, reply, shared.memory(slot, listener))
    service.start()
    status = shared.process(slot)
    status.up = 1
    while not stop.is_set():
        started = time.monotonic_ns()
        if not stop.wait(LAG_INTERVAL):
            status.loop_lag_ns = max(0, time.monotonic_ns() - started - int(LAG_INTERVAL * 1e9))
    service.stop_accepting()
    for sock in sockets:
        sock.close()
    status.up = 0
    service.finish(server.shutdown_timeout)
