"""The sums over all generations of workers: a reload replaces the workers, and no counter goes back.

The arbiter keeps them, and an admin process is forked with a copy. The mappings in that copy are shared, and those of a
generation that ends while the copy is in use keep their last values.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from flashpol.counters.layout import Block, RelayBlock, TunnelBlock, WebSocketBlock
from flashpol.counters.shared import SharedCounters

K = TypeVar("K")
V = TypeVar("V")

# A listener's name and an upstream's.
Route = tuple[str, str]
# A listener's name and a WebSocket path.
PathLabel = tuple[str, str]


class CounterTotals:
    """The totals of listeners, by name, and of worker slots."""

    def __init__(self) -> None:
        self._open: list[tuple[Sequence[str], SharedCounters]] = []
        self._routes: dict[SharedCounters, Sequence[Route]] = {}
        self._paths: dict[SharedCounters, Sequence[PathLabel]] = {}
        self._tunnels: dict[SharedCounters, Sequence[str]] = {}
        self._past: dict[str, Block] = {}
        self._past_relayed: dict[Route, RelayBlock] = {}
        self._past_paths: dict[PathLabel, WebSocketBlock] = {}
        self._past_tunnels: dict[str, TunnelBlock] = {}
        self._past_restarts: dict[int, int] = {}

    def open(
        self,
        names: Sequence[str],
        shared: SharedCounters,
        routes: Sequence[Route] = (),
        paths: Sequence[PathLabel] = (),
        tunnels: Sequence[str] = (),
    ) -> None:
        """Add a generation, whose listeners have these names.

        routes: its upstreams, paths: of WebSocket, tunnels: its listeners with tunnel sessions, in order.
        """
        self._open.append((names, shared))
        self._routes[shared] = routes
        self._paths[shared] = paths
        self._tunnels[shared] = tunnels

    def close(self, shared: SharedCounters) -> None:
        """Keep only the sums of a generation whose workers have all ended."""
        names = next(names for names, each in self._open if each is shared)
        for number, name in enumerate(names):
            self._past[name] = Block.total([*_kept(self._past, name), shared.total(number)])
        for number, route in enumerate(self._routes.pop(shared)):
            self._past_relayed[route] = RelayBlock.total(
                [*_kept(self._past_relayed, route), shared.relay_total(number)]
            )
        for number, path in enumerate(self._paths.pop(shared)):
            self._past_paths[path] = WebSocketBlock.total([*_kept(self._past_paths, path), shared.path_total(number)])
        for number, name in enumerate(self._tunnels.pop(shared)):
            self._past_tunnels[name] = TunnelBlock.total(
                [*_kept(self._past_tunnels, name), shared.tunnel_total(number)]
            )
        for slot in range(shared.slots):
            self._past_restarts[slot] = self._past_restarts.get(slot, 0) + shared.process(slot).restarts
        self._open = [(names, each) for names, each in self._open if each is not shared]

    def websocket(self, path: PathLabel) -> WebSocketBlock:
        """One WebSocket path of a listener, draining workers included."""
        counted = [
            shared.path_total(number)
            for shared, paths in self._paths.items()
            for number, each in enumerate(paths)
            if each == path
        ]
        return WebSocketBlock.total([*_kept(self._past_paths, path), *counted])

    def tunnels(self, name: str) -> TunnelBlock:
        """The tunnel sessions of one listener, draining workers included."""
        counted = [
            shared.tunnel_total(number)
            for shared, names in self._tunnels.items()
            for number, each in enumerate(names)
            if each == name
        ]
        return TunnelBlock.total([*_kept(self._past_tunnels, name), *counted])

    def total(self, name: str) -> Block:
        """One listener, its draining workers included."""
        counted = [
            shared.total(number) for names, shared in self._open for number, each in enumerate(names) if each == name
        ]
        return Block.total([*_kept(self._past, name), *counted])

    def relayed(self, route: Route) -> RelayBlock:
        """One upstream of a listener, draining workers included."""
        counted = [
            shared.relay_total(number)
            for shared, routes in self._routes.items()
            for number, each in enumerate(routes)
            if each == route
        ]
        return RelayBlock.total([*_kept(self._past_relayed, route), *counted])

    def restarts(self, slot: int) -> int:
        """How many workers of this slot ended by themselves and were replaced."""
        counted: Iterator[int] = (shared.process(slot).restarts for _, shared in self._open if slot < shared.slots)
        return sum(counted, self._past_restarts.get(slot, 0))

    def draining_workers(self, current: SharedCounters) -> int:
        """Worker processes of other generations than the current one."""
        others = (shared for _, shared in self._open if shared is not current)
        return sum(bool(shared.process(slot).pid) for shared in others for slot in range(shared.slots))


def _kept(past: Mapping[K, V], key: K) -> list[V]:
    """What generations that ended have left, if anything: most often there is none, and nothing to add."""
    return [past[key]] if key in past else []
