"""What was counted over all generations of workers: a reload changes the processes, and no counter goes back.

The arbiter keeps the ledger, and an admin process is forked with a copy: the mappings in it are shared, and those of a
generation that ends while the copy is in use keep their last values.
"""

from collections.abc import Iterator, Sequence

from flashpol.counters import Block, SharedCounters


class Ledger:
    """The totals of listeners, by name, and of worker slots."""

    def __init__(self) -> None:
        self._open: list[tuple[Sequence[str], SharedCounters]] = []
        self._past: dict[str, Block] = {}
        self._past_restarts: dict[int, int] = {}

    def open(self, names: Sequence[str], shared: SharedCounters) -> None:
        """A generation begins, whose listeners have these names."""
        self._open.append((names, shared))

    def close(self, shared: SharedCounters) -> None:
        """All workers of that generation have ended: only its sums are kept."""
        names = next(names for names, each in self._open if each is shared)
        for number, name in enumerate(names):
            self._past[name] = Block.total([self._past_of(name), shared.total(number)])
        for slot in range(shared.slots):
            self._past_restarts[slot] = self._past_restarts.get(slot, 0) + shared.process(slot).restarts
        self._open = [(names, each) for names, each in self._open if each is not shared]

    def _past_of(self, name: str) -> Block:
        return self._past.get(name) or Block.total([])

    def total(self, name: str) -> Block:
        """Of one listener, also what workers count that are finishing."""
        counted = [
            shared.total(number) for names, shared in self._open for number, each in enumerate(names) if each == name
        ]
        return Block.total([self._past_of(name), *counted])

    def restarts(self, slot: int) -> int:
        """How many workers of this slot died and were replaced."""
        counted: Iterator[int] = (shared.process(slot).restarts for _, shared in self._open if slot < shared.slots)
        return sum(counted, self._past_restarts.get(slot, 0))

    def finishing(self, current: SharedCounters) -> int:
        """Worker processes of other generations than the current one."""
        others = (shared for _, shared in self._open if shared is not current)
        return sum(bool(shared.process(slot).pid) for shared in others for slot in range(shared.slots))
