"""Words of shared memory, and the blocks of counters that the C code writes into it."""

from array import array
from collections.abc import Iterable
from typing import ClassVar, Self

from flashpol import _fastpath, _pump, _tunnel, _websocket

WORD = 8  # bytes
WORD_MASK = 2**64 - 1

# Fields of a block that go down again.
GAUGES = ("open", "parked", "slow_replies", "sessions", "tls", "handshaking")
RELAY_GAUGES = ("open", "connecting", "ports", "max_ports")
TUNNEL_GAUGES = ("open", "held", "buffered")
RELAY_FILES = ("open", "connecting")  # those that count descriptors


def word(index: int, where: str = "words") -> property:
    """A property of a `Words` object: word number `index` of its attribute `where`."""

    def get(self: "Words") -> int:
        return int(getattr(self, where)[index])

    def put(self: "Words", value: int) -> None:
        getattr(self, where)[index] = value

    return property(get, put)


class Words:
    """A part of a mapping, as unsigned words of 64 bits."""

    __slots__ = ("words",)

    def __init__(self, words: memoryview) -> None:
        self.words = words


class CounterBlock:
    """Counters that C code writes, or the sum of several such blocks."""

    LAYOUT: ClassVar[dict[str, tuple[int, int]]]  # field -> its offset in bytes, and how many words it has
    SIZE: ClassVar[int]  # bytes

    def __init__(self, words: "memoryview | list[int] | array[int]") -> None:
        self._words = words

    def __getitem__(self, field: str) -> int:
        return int(self._words[self.LAYOUT[field][0] // WORD])

    def all(self, field: str) -> list[int]:
        offset, count = self.LAYOUT[field]
        return list(self._words[offset // WORD : offset // WORD + count])

    def put(self, field: str, value: int, index: int = 0) -> None:
        """Only while no worker writes this block."""
        self._words[self.LAYOUT[field][0] // WORD + index] = value & WORD_MASK

    def __sub__(self, earlier: Self) -> Self:
        """The difference of each counter; of a gauge, its change."""
        return type(self)([new - old for new, old in zip(self._words, earlier._words, strict=True)])

    def packed(self) -> Self:
        """A copy that is small, for samples: there may be thousands of blocks in each."""
        return type(self)(array("Q", (word & WORD_MASK for word in self._words)))

    @classmethod
    def total(cls, blocks: Iterable[Self]) -> Self:
        """The sum; all zeros if there are no blocks."""
        rows = [list(block._words) for block in blocks]
        if len(rows) == 1:
            return cls(rows[0])
        return cls([*map(sum, zip(*rows, strict=True))] if rows else [0] * (cls.SIZE // WORD))


class Block(CounterBlock):
    """The counters of one worker slot and listener."""

    LAYOUT = _fastpath.LAYOUT
    SIZE = _fastpath.BLOCK_SIZE

    @property
    def replies(self) -> int:
        """Policies sent. They are counted in the histogram only, so the two can never differ."""
        return sum(self.all("buckets"))


_HANDSHAKE_FIELDS = ("handshakes", "resumed", "handshake_failures", "unknown_names", "truncated")
_HANDSHAKES_AT = _fastpath.LAYOUT["handshakes"][0]


class HandshakeBlock(CounterBlock):
    """What a listener's block says of handshakes and versions of TLS: small, since a sample keeps one a listener."""

    LAYOUT: ClassVar = {
        field: (offset - _HANDSHAKES_AT, count)
        for field, (offset, count) in _fastpath.LAYOUT.items()
        if field in _HANDSHAKE_FIELDS
    }
    SIZE = sum(count for _, count in LAYOUT.values()) * WORD

    @classmethod
    def of(cls, block: Block) -> Self:
        return cls(array("Q", (word & WORD_MASK for field in cls.LAYOUT for word in block.all(field))))


class WebSocketBlock(CounterBlock):
    """The counters of one worker slot and WebSocket path of a listener."""

    LAYOUT = _websocket.LAYOUT
    SIZE = _websocket.BLOCK_SIZE


class TunnelBlock(CounterBlock):
    """The counters of one worker slot and listener with tunnel sessions."""

    LAYOUT = _tunnel.LAYOUT
    SIZE = _tunnel.BLOCK_SIZE


class RelayBlock(CounterBlock):
    """The counters of one worker slot and upstream."""

    LAYOUT = _pump.LAYOUT
    SIZE = _pump.BLOCK_SIZE
