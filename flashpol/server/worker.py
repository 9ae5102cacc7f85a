"""A child process that serves: one gevent hub, its acceptors, its conversations."""

import socket
import time
from collections.abc import Sequence

from gevent.event import Event

from flashpol.config import Config
from flashpol.counters import BEAT, SharedCounters
from flashpol.server.log import log, tell
from flashpol.server.service import Service


def run(
    slot: int,
    sockets: Sequence[socket.socket],
    replies: Sequence[bytes],
    config: Config,
    shared: SharedCounters,
    stop: Event,
    *,
    access_log: float = 0.0,
) -> None:
    """Serve `replies[i]` on `sockets[i]`, of `config.listeners[i]`, until `stop` is set; finish what is inside.

    access_log: the share of connections, 0 to 1, that are logged.
    """
    service = Service(config.server.limits, access_log=access_log)
    for number, (listener, sock, reply) in enumerate(zip(config.listeners, sockets, replies, strict=True)):
        service.add(sock, reply, shared.memory(slot, number), name=listener.name, terminated=listener.terminated)
    service.start()
    status = shared.process(slot)
    status.up = 1
    while not stop.is_set():
        tell()
        status.beat_ns = started = time.monotonic_ns()
        if not stop.wait(BEAT):
            status.loop_lag_ns = max(0, time.monotonic_ns() - started - int(BEAT * 1e9))
    deadline = time.monotonic() + config.server.shutdown_timeout
    service.stop_accepting(config.server.shutdown_timeout)
    for sock in sockets:
        sock.close()
    status.up = 0
    if not service.finish(deadline - time.monotonic()):
        log.warning("connections were cut off: they did not end within shutdown_timeout", extra={"event": "cut-off"})
