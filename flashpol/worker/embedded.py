"""PolicyServer: serves policies inside a program that has a gevent hub of its own."""

import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import gevent.event

from flashpol.config import FLASH, Address, ConfigError, ConnectionLimits, ConnectionTimeouts, Server, parse_dialect
from flashpol.counters.layout import Block
from flashpol.counters.shared import SharedCounters
from flashpol.process.sockets import bind, bound_address
from flashpol.serving.networks import exempt_from_limits
from flashpol.serving.policies import compile_grants, compile_path, compile_text
from flashpol.worker.service import Service


class ListeningSocket(Protocol):
    """A listening socket: gevent's or the standard library's."""

    def fileno(self) -> int: ...


def _duplicate(listening: ListeningSocket) -> socket.socket:
    sock = socket.socket(fileno=os.dup(listening.fileno()))
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.close()
        raise ConfigError("a PolicyServer needs a listening TCP socket: call listen() on it")
    sock.setblocking(False)
    return sock


class PolicyServer:
    """Replies to policy requests inside a gevent program.

    >>> from flashpol import PolicyServer
    >>> server = PolicyServer("0.0.0.0:8430", policy="policy.xml")
    >>> server.start()

    listen: "IP:PORT" (port 0: the kernel chooses), or a listening socket of the program's. Such a socket is served
    through a duplicate and stays open after `stop`; it is made non-blocking, and gets TCP_USER_TIMEOUT. policy: the
    path of a file, or of a folder whose *.xml are merged, or the XML itself as bytes. allow: instead of policy, grants
    such as "*.example.com:1935,8000-8100". timeouts, connection_limits: as the settings of the same names in the
    configuration; RLIMIT_NOFILE, as it is when the server is made, limits the connections too. dialect: "flash" or
    "silverlight".
    Raises ConfigError, whose text is one line, for an address that cannot be bound and a policy that is not valid.

    Make and use it in one thread; it serves whenever that thread's hub runs.
    """

    def __init__(
        self,
        listen: str | ListeningSocket,
        policy: str | os.PathLike[str] | bytes | None = None,
        *,
        allow: Sequence[str] = (),
        timeouts: ConnectionTimeouts | None = None,
        connection_limits: ConnectionLimits | None = None,
        dialect: str = FLASH,
    ) -> None:
        if (policy is None) == (not allow):
            raise ConfigError("a PolicyServer needs either policy or allow")
        if isinstance(policy, bytes):
            reply = compile_text(policy, dialect=parse_dialect(dialect))
        elif policy is not None:
            reply = compile_path(Path(policy), parse_dialect(dialect))
        else:
            reply = compile_grants(allow, dialect=parse_dialect(dialect))
        self._socket = (
            bind(Address.parse(listen), 1, Server.backlog)[0] if isinstance(listen, str) else _duplicate(listen)
        )
        self._counters = SharedCounters(1, 1, connection_limits=connection_limits)
        self._stopped = gevent.event.Event()
        limits = connection_limits or ConnectionLimits()
        address_limits = self._counters.address_limits.of(0, exempt_from_limits(limits))
        self._service = Service(address_limits=address_limits, limits=limits)
        block = self._counters.memory(0, 0)
        self._service.add(
            self._socket,
            reply,
            block,
            timeouts=timeouts or ConnectionTimeouts(),
            exclusive=isinstance(listen, str),
            terminated=dialect == FLASH,
        )
        self.address = bound_address(self._socket)

    @property
    def counters(self) -> Block:
        """Live counters: `server.counters.replies`, `server.counters["open"]`; the fields are in `_fastpath.LAYOUT`."""
        return self._counters.block(0, 0)

    def start(self) -> None:
        """Start to accept; returns at once. Raises RuntimeError after `stop`: make another server."""
        if self._stopped.is_set():
            raise RuntimeError("this PolicyServer was stopped; make another one")
        self._service.start()

    def serve_forever(self) -> None:
        """Start, and wait until another greenlet calls `stop`."""
        self.start()
        self._stopped.wait()

    def stop(self, timeout: float = 5.0) -> bool:
        """Stop accepting, and wait up to `timeout` seconds for connections to end. False if some had to be cut off."""
        if self._stopped.is_set():
            return True
        self._stopped.set()
        deadline = time.monotonic() + timeout
        emptied = self._service.stop_accepting(timeout)
        self._socket.close()
        return self._service.finish(deadline - time.monotonic()) and emptied
