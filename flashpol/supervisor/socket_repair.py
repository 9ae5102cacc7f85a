"""When listen sockets are put right again (`socket_options` says what a worker can have done to them).

    a worker ended          the sockets that it had: its own, and those of siblings that it was lent (queue failover)
    a generation serves     all of its sockets, as its configuration wants them

A socket that cannot be put right is replaced, also in all generations, whose processes that have it end.
"""

import socket
from collections.abc import Iterable, Sequence

from flashpol.process.sockets import preparation_for
from flashpol.supervisor.child import Child
from flashpol.supervisor.generation import Generation
from flashpol.supervisor.listen_sockets import ListenSockets
from flashpol.supervisor.socket_options import set_by


class SocketRepair:
    def __init__(self, listen_sockets: ListenSockets) -> None:
        self._listen_sockets = listen_sockets

    def require(self, generation: Generation, generations: Sequence[Generation]) -> None:
        """`generation` serves from now on: its configuration says how its listen sockets have to be."""
        config = generation.plan.config
        for listener, sockets in zip(config.listeners, generation.sockets, strict=True):
            # What `Service.add` does with the socket.
            values = set_by(preparation_for(config, listener))
            self._listen_sockets.require(sockets, config.server.backlog, values)
        if generation.admin_socket:
            self._listen_sockets.require([generation.admin_socket], config.server.backlog, {})
        self._restore([*generation.all_sockets], generations)

    def after(self, child: Child, generation: Generation, generations: Sequence[Generation]) -> None:
        """A child of `generation` has ended."""
        self._restore(_sockets_of(child, generation), generations)
        child.lent.clear()

    def _restore(self, sockets: Iterable[socket.socket], generations: Sequence[Generation]) -> None:
        for sock in dict.fromkeys(sockets):
            new = self._listen_sockets.restore(sock)
            if new is not sock:
                for generation in generations:
                    _replace(sock, new, generation)


def _sockets_of(child: Child, generation: Generation) -> list[socket.socket]:
    """The listen sockets that a process has, or had."""
    if child is generation.admin:
        return [generation.admin_socket] if generation.admin_socket else []
    slot, count = generation.workers.index(child), len(generation.workers)
    return [*(sock for sockets in generation.sockets for sock in sockets[slot::count]), *child.lent]


def _replace(old: socket.socket, new: socket.socket, generation: Generation) -> None:
    for child in generation.children:
        if child.pid and old in _sockets_of(child, generation):
            child.kill()  # its successor gets the new one
        child.lent.discard(old)
    for sockets in generation.sockets:
        sockets[:] = [new if sock is old else sock for sock in sockets]
    if generation.admin_socket is old:
        generation.admin_socket = new
