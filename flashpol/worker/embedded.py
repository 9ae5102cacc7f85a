"""The policy server for programs that have a gevent hub of their own."""

import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import gevent.event

from flashpol.config import FLASH, Address, ConfigError, ConnectionLimits, ConnectionTimeouts, Server, parse_dialect
from flashpol.counters.shared import Block, SharedCounters
from flashpol.process.sockets import bind, bound_address
from flashpol.serving.policies import compile_grants, compile_path, compile_text
from flashpol.worker.service import Service


class Listening(Protocol):
    """A socket, of whatever class."""

    def fileno(self) -> int: ...


def _duplicate(listening: Listening) -> socket.socket:
    sock = socket.socket(fileno=os.dup(listening.fileno()))
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.close()
        raise ConfigError("a PolicyServer needs a listening TCP socket: call listen() on it")
    sock.setblocking(False)
    return sock


class PolicyServer:
    """Answers policy requests inside a gevent program.

    >>> from flashpol import PolicyServer
    >>> server = PolicyServer("0.0.0.0:8430", policy="policy.xml")
    >>> server.start()

    listen: "IP:PORT" (port 0: the kernel chooses), or a listening socket of yours, gevent's or the standard one: it is
    served through a duplicate, stays open after `stop`, and is made non-blocking, as accepting in a hub needs. policy:
    a file's path, a folder's, whose *.xml are merged, or the XML itself as bytes. allow: instead of policy, grants such
    as "*.example.com:1935,8000-8100". limits: time-outs and conversations. caps: how many connections, in
    total and of an address; RLIMIT_NOFILE bounds them too, as it is when the server is made. dialect: "flash" or
    "silverlight". Raises ConfigError (one line) for an address that cannot be bound or a policy that is none.

    Make and use it in one thread; it serves whenever that thread's hub runs.
    """

    def __init__(
        self,
        listen: str | Listening,
        policy: str | os.PathLike[str] | bytes | None = None,
        *,
        allow: Sequence[str] = (),
        timeouts: ConnectionTimeouts | None = None,
        connection_limits: ConnectionLimits | None = None,
        dialect: str = FLASH,
    ) -> None:
        if (policy is None) == (not allow):
            raise ConfigError("a PolicyServer needs policy or allow, one of the two")
        if isinstance(policy, bytes):
            reply = compile_text(policy, dialect=parse_dialect(dialect))
        elif policy is not None:
            reply = compile_path(Path(policy), parse_dialect(dialect))
        else:
            reply = compile_grants(allow, dialect=parse_dialect(dialect))
        ours = isinstance(listen, str)
        self._socket = (
            bind(Address.parse(listen), 1, Server.backlog)[0] if isinstance(listen, str) else _duplicate(listen)
        )
        self._counters = SharedCounters(1, 1, connection_limits=connection_limits)
        self._stopped = gevent.event.Event()
        self._service = Service(address_limits=self._counters.address_limits.of(0), limits=connection_limits)
        block = self._counters.memory(0, 0)
        self._service.add(
            self._socket,
            reply,
            block,
            timeouts=timeouts or ConnectionTimeouts(),
            ours=ours,
            terminated=dialect == FLASH,
        )
        self.address = bound_address(self._socket)

    @property
    def counters(self) -> Block:
        """Live counters: `server.counters.replies`, `server.counters["open"]`; the fields are in `_fastpath.LAYOUT`."""
        return self._counters.block(0, 0)

    def start(self) -> None:
        """Begin to accept; returns at once. Raises RuntimeError after `stop`: make another server."""
        if self._stopped.is_set():
            raise RuntimeError("this PolicyServer was stopped; make another one")
        self._service.start()

    def serve_forever(self) -> None:
        """Start, and wait until another greenlet calls `stop`."""
        self.start()
        self._stopped.wait()

    def stop(self, timeout: float = 5.0) -> bool:
        """Accept no more, finish what is inside within `timeout` seconds. True if nothing had to be cut off."""
        if self._stopped.is_set():
            return True
        self._stopped.set()
        deadline = time.monotonic() + timeout
        emptied = self._service.stop_accepting(timeout)
        self._socket.close()
        return self._service.finish(deadline - time.monotonic()) and emptied
