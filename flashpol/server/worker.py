"""A child process that serves: one gevent hub, its acceptors, its conversations."""

import socket
import time
from collections.abc import Sequence

from gevent.event import Event

from flashpol.config import Config
from flashpol.counters import BEAT, SharedCounters
from flashpol.server.service import Service


def run(
    slot: int,
    sockets: Sequence[socket.socket],
    replies: Sequence[bytes],
    config: Config,
    shared: SharedCounters,
    stop: Event,
) -> None:
    """Serve `replies[i]` on `sockets[i]`, of `config.listeners[i]`, until `stop` is set; finish what is inside."""
    service = Service(config.server.limits)
    for number, (listener, sock, reply) in enumerate(zip(config.listeners, sockets, replies, strict=True)):
        service.add(sock, reply, shared.memory(slot, number), terminated=listener.terminated)
    service.start()
    status = shared.process(slot)
    status.up = 1
    while not stop.is_set():
        status.beat_ns = started = time.monotonic_ns()
        if not stop.wait(BEAT):
            status.loop_lag_ns = max(0, time.monotonic_ns() - started - int(BEAT * 1e9))
    deadline = time.monotonic() + config.server.shutdown_timeout
    service.stop_accepting(config.server.shutdown_timeout)
    for sock in sockets:
        sock.close()
    status.up = 0
    service.finish(deadline - time.monotonic())
