"""The listen sockets that the arbiter holds. They outlive workers and generations, and so do their accept queues."""

import socket
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace

from flashpol.config import Address, Config, ConfigError, Endpoint, SystemdSocket
from flashpol.log.handler import log
from flashpol.process.sockets import accept_queue, bind, bind_instead, preparation_for
from flashpol.supervisor.socket_options import Options, Values, of_new_socket

# An address as configured, and its number among equal ones: several listeners may ask for port 0.
Key = tuple[Address, int]
SPOILT = "a worker has spoilt a listen socket of %s: %s"


class Expected:
    """How the sockets of one address should be: `fresh`, before a worker had them; `wanted` by the running
    configuration."""

    def __init__(self, fresh: Options) -> None:
        self.fresh = self.wanted = fresh


class ListenSockets:
    """Sockets are bound when a configuration first names their address, and closed when none does any more.

    inherited: sockets from systemd. They are kept, whether a configuration names them or not.
    """

    def __init__(self, inherited: Mapping[SystemdSocket, Sequence[socket.socket]] | None = None) -> None:
        self._bound: dict[Key, list[socket.socket]] = {}
        self._inherited = dict(inherited or {})
        self._expected = {
            sock: Expected(Options.of(sock, accept_queue(sock)[1]))
            for sockets in self._inherited.values()
            for sock in sockets
        }

    def acquire_for(self, config: Config) -> list[list[socket.socket]]:
        """The sockets of each listener, one for each worker at least; after them the admin process's, if it has one.
        Raises ConfigError; then nothing has changed."""
        count = config.server.worker_count
        wanted: list[tuple[Endpoint, int]] = [(listener.address, count) for listener in config.listeners]
        if config.server.admin:
            wanted.append((config.server.admin, 1))
        # The workers prepare their sockets too, which a reload may have to change, and systemd's. Before they run, the
        # kernel completes connections that inherit what a new socket has from the start.
        prepare = [preparation_for(config, listener) for listener in config.listeners]
        return self.acquire(wanted, config.server.backlog, prepare)

    def acquire(
        self,
        wanted: Sequence[tuple[Endpoint, int]],
        backlog: int,
        prepare: Sequence[Callable[[socket.socket], object]] = (),
    ) -> list[list[socket.socket]]:
        """For each (address, count) at least `count` sockets, open ones and new ones.

        prepare: for each of `wanted`, or for the first ones; called with each new socket before it listens.
        There are more if an earlier configuration had more workers: closing one would lose the clients in its queue. A
        socket from systemd is in the list `count` times. Raises ConfigError; then nothing has changed.
        """
        seen: Counter[Endpoint] = Counter()
        bound: dict[Key, list[socket.socket]] = {}
        fresh: list[socket.socket] = []
        found: list[list[socket.socket]] = []
        try:
            for number, (address, count) in enumerate(wanted):
                if isinstance(address, SystemdSocket):
                    found.append([sock for sock in self._from_systemd(address) for _ in range(count)])
                    continue
                key = (address, seen[address])
                seen[address] += 1
                have = self._bound.get(key, [])
                if not have:
                    self._require_no_overlap(address)
                new = bind(address, max(0, count - len(have)), backlog, have, *prepare[number : number + 1])
                fresh += new
                bound[key] = [*have, *new]
                found.append(bound[key])
        except BaseException:
            for sock in fresh:
                sock.close()
            raise
        self._bound |= bound
        self._expect(bound.values(), set(fresh), backlog)
        return found

    def _expect(self, bound: Iterable[Sequence[socket.socket]], fresh: Container[socket.socket], backlog: int) -> None:
        """Note how the new sockets should be. One object for an address, and one set of values for a family, keep the
        memory small, which each child has too."""
        values: dict[int, Values] = {}
        for sockets in bound:
            first = sockets[0]
            if first in fresh:
                if first.family not in values:
                    values[first.family] = of_new_socket(first.family)
                self._expected[first] = Expected(Options.of_bound(first, backlog, values[first.family]))
            for sock in sockets:
                if sock in fresh:
                    self._expected[sock] = self._expected[first]

    def _require_no_overlap(self, address: Address) -> None:
        """Raises ConfigError for an address that cannot be bound while another one of this server is open."""
        for other, _ in self._bound:
            if address.port == other.port and other != address and (address.covers(other) or other.covers(address)):
                raise ConfigError(
                    f"{address} overlaps {other}, which is still open; restart, or remove the old address in one "
                    "reload and add the new one in the next"
                )

    def _from_systemd(self, address: SystemdSocket) -> Sequence[socket.socket]:
        if address not in self._inherited:
            names = ", ".join(map(str, self._inherited)) or "no sockets"
            raise ConfigError(f"{address}: systemd passed {names}; see FileDescriptorName= in the .socket unit")
        return self._inherited[address]

    def require(self, sockets: Iterable[socket.socket], backlog: int, values: Values) -> None:
        """From now on `restore` makes them so: with this backlog, and these options that their workers set themselves.
        Sockets of systemd have a backlog of their own."""
        inherited = {sock for sockets in self._inherited.values() for sock in sockets}
        for expected, sock in {self._expected[sock]: sock for sock in sockets}.items():
            fresh = expected.fresh
            expected.wanted = replace(
                fresh,
                backlog=fresh.backlog if sock in inherited else backlog,
                values={**fresh.values, **values} if values else fresh.values,
            )

    def restore(self, sock: socket.socket) -> socket.socket:
        """Undo what a worker did to it. Returns the socket, or another one on the same address, bound in its place: the
        old one is beyond repair then, and closed. A socket that is not held any more is left alone."""
        if sock.fileno() < 0 or sock not in self._expected:
            return sock
        expected = self._expected[sock]
        why = expected.wanted.restore(sock)
        if not why:
            return sock
        address = expected.wanted.address
        fields = {"event": "socket-spoilt", "address": str(address), "error": why}
        key = next((key for key, sockets in self._bound.items() if sock in sockets), None)
        if key is None:
            log.error(f"{SPOILT}; restart the socket unit of systemd", address, why, extra=fields)
            return sock
        sockets = self._bound[key]
        try:
            beside = [each for each in sockets if each is not sock]
            new = bind_instead(sock, address, expected.wanted.backlog, beside)
        except ConfigError as error:
            log.error(f"{SPOILT}; it cannot be replaced: %s", address, why, error, extra=fields)
            return sock
        log.error(f"{SPOILT}; replaced it, and the clients in its queue are lost", address, why, extra=fields)
        self._bound[key] = [new if each is sock else each for each in sockets]
        self._expected[new] = self._expected.pop(sock)
        expected.wanted.restore(new)
        return new

    def release(self, wanted: Iterable[socket.socket]) -> None:
        """Close the bound sockets, except `wanted`."""
        self._close_bound(set(wanted))
        for sock in [sock for sock in self._expected if sock.fileno() < 0]:
            del self._expected[sock]

    def keep_only(self, wanted: Iterable[socket.socket]) -> None:
        """Close all sockets, systemd's too, except `wanted`: in a child, and when the server stops."""
        keep = set(wanted)
        self._close_bound(keep)
        for sockets in self._inherited.values():
            _close(sockets, keep)

    def _close_bound(self, keep: Container[socket.socket]) -> None:
        for sockets in self._bound.values():
            _close(sockets, keep)
        kept = ((key, [sock for sock in sockets if sock in keep]) for key, sockets in self._bound.items())
        self._bound = {key: sockets for key, sockets in kept if sockets}


def _close(sockets: Iterable[socket.socket], keep: Container[socket.socket]) -> None:
    for sock in sockets:
        if sock not in keep:
            sock.close()
