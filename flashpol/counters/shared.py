"""The shared memory in which the processes of one server tell each other how they are.

Anonymous shared mappings, made by the arbiter before it forks. `ServerStatus` is one for the whole life of the server:

    state, what came of the last reload         written by the arbiter
    reloads asked for                           written by the admin process

`SharedCounters` is one for each generation of workers. It holds:

    process    pid, restarts, CPU, memory;      written by the arbiter;
               up, lag, beat, files             by the process itself
    queue      accept queue, slot x listener    written by the arbiter
    block      counters, slot x listener        written by that slot's worker, in C (`_fastpath.LAYOUT`); by the
                                                arbiter once that worker is dead
    relay      counters, slot x upstream        the same (`_pump.LAYOUT`); an upstream of two listeners is two

`SharedCensus` is beside it, as large as the configuration says: each worker's connections, in all and by address,
written by that worker, in C (`_native/accept/address_limits.pxd`), and read by the others.

Every word is 64 bits and has one writer at a time, so readers need no lock. A worker that takes a slot over finds its
predecessor's counters and carries on. What all generations counted together is what `admin.ledger` knows.
"""

import mmap
import os
import time
from collections.abc import Iterable
from typing import ClassVar, Self

from flashpol import _pump
from flashpol._fastpath import ADDRESS_TABLE_HEAD, ADDRESS_TABLE_SET, BLOCK_SIZE, LAYOUT, REASONS, AddressLimits
from flashpol.config import ConnectionLimits

WORD = 8
WORD_MASK = 2**64 - 1
_BLOCK_WORDS = BLOCK_SIZE // WORD
_RELAY_WORDS = _pump.BLOCK_SIZE // WORD

# How often a worker at least shows that its loop turns, and how long it may miss that and still be called serving;
# seconds.
BEAT = 0.5
STALLED_AFTER = 3.0

GAUGES = ("open", "parked", "slow_replies", "sessions")
RELAY_GAUGES = ("open", "connecting")

STARTING, READY, DRAINING = range(3)


def _word(index: int) -> property:
    def get(self: "_Words") -> int:
        return int(self.words[index])

    def put(self: "_Words", value: int) -> None:
        self.words[index] = value

    return property(get, put)


class _Words:
    __slots__ = ("words",)

    def __init__(self, words: memoryview) -> None:
        self.words = words


class ServerStatus(_Words):
    """How the server is, in a mapping of its own."""

    state = _word(0)  # STARTING, READY or DRAINING
    reload_successful = _word(1)  # 0 or 1
    reload_timestamp = _word(2)  # of the last successful one, seconds since the epoch
    reloads_asked = _word(3)  # by the admin process
    reloads_answered = _word(4)  # how many of them are done with, successfully or not
    _length = _word(5)
    _WORDS = 6
    TEXT_BYTES = 1000

    def __init__(self) -> None:
        self._mapping = mmap.mmap(-1, self._WORDS * WORD + self.TEXT_BYTES)
        whole = memoryview(self._mapping)
        self._text = whole[self._WORDS * WORD :]
        super().__init__(whole[: self._WORDS * WORD].cast("Q"))

    @property
    def reload_error(self) -> str:
        """Why the last reload failed; empty if it did not. Cut after `TEXT_BYTES`."""
        return bytes(self._text[: min(self._length, self.TEXT_BYTES)]).decode(errors="replace")

    @reload_error.setter
    def reload_error(self, text: str) -> None:
        data = text.encode(errors="replace")[: self.TEXT_BYTES]
        self._text[: len(data)] = data
        self._length = len(data)


class ProcessStatus(_Words):
    pid = _word(0)
    restarts = _word(1)
    up = _word(2)  # 0 or 1
    loop_lag_ns = _word(3)
    beat_ns = _word(4)  # when its loop last turned, CLOCK_MONOTONIC
    cpu_ns = _word(5)
    resident_bytes = _word(6)
    started_ms = _word(7)  # milliseconds since the epoch; 0: not known yet
    base_files = _word(8)  # descriptors that are open without any connection
    max_files = _word(9)  # RLIMIT_NOFILE
    accepts_no_more = _word(10)  # 0 or 1: it has been told to finish
    SIZE = 11

    @property
    def observed(self) -> bool:
        """There is a process, and what the kernel says of it is known."""
        return bool(self.pid and self.started_ms)

    def silent_for(self) -> float:
        """Seconds by which the next beat is overdue."""
        late: float = (time.monotonic_ns() - self.beat_ns) / 1e9 - BEAT
        return max(0.0, late)

    @property
    def lag(self) -> float:
        """Seconds by which its last timer was late, or by which its next beat is overdue."""
        last: float = self.loop_lag_ns / 1e9
        return max(last, self.silent_for() if self.up else 0.0)

    @property
    def serving(self) -> bool:
        """It is up, and its loop turns."""
        return bool(self.up) and self.silent_for() < STALLED_AFTER


class QueueStatus(_Words):
    length = _word(0)  # connections waiting to be accepted
    limit = _word(1)
    SIZE = 2


class _Block:
    """Counters that C code writes, or the sum of several such blocks."""

    LAYOUT: ClassVar[dict[str, tuple[int, int]]]
    SIZE: ClassVar[int]  # bytes

    def __init__(self, words: memoryview | list[int]) -> None:
        self._words = words

    def __getitem__(self, field: str) -> int:
        return self.all(field)[0]

    def all(self, field: str) -> list[int]:
        offset, count = self.LAYOUT[field]
        return [int(word) for word in self._words[offset // WORD : offset // WORD + count]]

    def put(self, field: str, value: int, index: int = 0) -> None:
        """Only where nobody else writes."""
        self._words[self.LAYOUT[field][0] // WORD + index] = value & WORD_MASK

    def __sub__(self, earlier: Self) -> Self:
        """What was counted since; of gauges, how they changed."""
        return type(self)([new - old for new, old in zip(self._words, earlier._words, strict=True)])

    @classmethod
    def total(cls, blocks: Iterable[Self]) -> Self:
        """The sum; of none it is all zeros."""
        columns = zip([0] * (cls.SIZE // WORD), *(list(block._words) for block in blocks), strict=True)
        return cls([sum(column) for column in columns])


class Block(_Block):
    """The counters of one worker slot and listener."""

    LAYOUT = LAYOUT
    SIZE = BLOCK_SIZE

    @property
    def replies(self) -> int:
        """Answers given. Kept nowhere but in the histogram, so that the two can never differ."""
        return sum(self.all("buckets"))


class RelayBlock(_Block):
    """The counters of one worker slot and upstream."""

    LAYOUT = _pump.LAYOUT
    SIZE = _pump.BLOCK_SIZE


class SharedAddressLimits:
    """A mapping: `workers` tables of connections."""

    def __init__(self, workers: int, connection_limits: ConnectionLimits) -> None:
        self._workers = workers
        self._connection_limits = connection_limits
        self._key = os.urandom(16)  # so that nobody knows which addresses share a set
        by_address = connection_limits.max_address_connections or connection_limits.max_address_rate
        sets = 1 << max(0, (connection_limits.address_table_size // 8 - 1).bit_length()) if by_address else 1
        self._stride = ADDRESS_TABLE_HEAD + sets * ADDRESS_TABLE_SET
        self._mapping = mmap.mmap(-1, workers * self._stride)

    def of(self, slot: int) -> AddressLimits:
        """The census as worker `slot` sees it."""
        connection_limits = self._connection_limits
        return AddressLimits(
            memoryview(self._mapping)[: self._workers * self._stride],
            slot=slot,
            workers=self._workers,
            key=self._key,
            max_connections=connection_limits.max_connections,
            max_worker_connections=connection_limits.max_worker_connections,
            max_address_connections=connection_limits.max_address_connections,
            max_address_rate=connection_limits.max_address_rate,
            ipv4_prefix=connection_limits.ipv4_prefix,
            ipv6_prefix=connection_limits.ipv6_prefix,
        )

    def clear(self, slot: int) -> None:
        """The worker of this slot is dead: it holds nothing any more."""
        start = slot * self._stride
        self._mapping[start : start + self._stride] = bytes(self._stride)


class SharedCounters:
    """A mapping: `slots` workers, `listeners` listeners; the admin process has the status after the last worker's.

    upstreams: of all listeners together, which are numbered one after the other. caps: none of them if None.
    """

    def __init__(
        self, slots: int, listeners: int, upstreams: int = 0, *, connection_limits: ConnectionLimits | None = None
    ) -> None:
        self.slots = slots
        self.listeners = listeners
        self.upstreams = upstreams
        pairs = slots * listeners
        # Blocks first: they need the alignment of the mapping's start to lie on cache lines of their own.
        self._relays_at = pairs * _BLOCK_WORDS
        self._queues_at = self._relays_at + slots * upstreams * _RELAY_WORDS
        self._processes_at = self._queues_at + pairs * QueueStatus.SIZE
        self._mapping = mmap.mmap(-1, (self._processes_at + (slots + 1) * ProcessStatus.SIZE) * WORD)
        self._words = memoryview(self._mapping).cast("Q")
        self.address_limits = SharedAddressLimits(slots, connection_limits or ConnectionLimits())

    def process(self, slot: int) -> ProcessStatus:
        return ProcessStatus(self._words[self._processes_at + slot * ProcessStatus.SIZE :][: ProcessStatus.SIZE])

    @property
    def admin(self) -> ProcessStatus:
        return self.process(self.slots)

    def queue(self, slot: int, listener: int) -> QueueStatus:
        at = self._queues_at + (slot * self.listeners + listener) * QueueStatus.SIZE
        return QueueStatus(self._words[at : at + QueueStatus.SIZE])

    def _block_words(self, slot: int, listener: int) -> memoryview:
        return self._words[(slot * self.listeners + listener) * _BLOCK_WORDS :][:_BLOCK_WORDS]

    def memory(self, slot: int, listener: int) -> memoryview:
        """The writable bytes of one block, for an Acceptor."""
        return self._block_words(slot, listener).cast("B")

    def block(self, slot: int, listener: int) -> Block:
        return Block(self._block_words(slot, listener))

    def _relay_words(self, slot: int, upstream: int) -> memoryview:
        return self._words[self._relays_at + (slot * self.upstreams + upstream) * _RELAY_WORDS :][:_RELAY_WORDS]

    def relay_memory(self, slot: int, upstream: int) -> memoryview:
        """The writable bytes of one block, for a Destination."""
        return self._relay_words(slot, upstream).cast("B")

    def relay_block(self, slot: int, upstream: int) -> RelayBlock:
        return RelayBlock(self._relay_words(slot, upstream))

    def settle(self, slot: int) -> None:
        """The worker of this slot is dead: nothing is open any more, and what was undecided ended with it."""
        for listener in range(self.listeners):
            block = self.block(slot, listener)
            decided = block.replies + block["timeouts"] + block["resets"]
            decided += sum(block.all("refused")) + sum(block.all("relayed"))
            crashed = REASONS.index("crashed")
            counted = block.all("refused")[crashed]
            block.put("refused", counted + max(0, block["accepted"] - decided), crashed)
            for field in GAUGES:
                block.put(field, 0)
        for upstream in range(self.upstreams):
            for field in RELAY_GAUGES:
                self.relay_block(slot, upstream).put(field, 0)
        self.address_limits.clear(slot)

    def slot_total(self, slot: int) -> Block:
        """One slot, over all listeners."""
        return Block.total(self.block(slot, listener) for listener in range(self.listeners))

    def total(self, listener: int) -> Block:
        """One listener, over all slots."""
        return Block.total(self.block(slot, listener) for slot in range(self.slots))

    def upstream_files(self, slot: int) -> int:
        """Descriptors that one slot has open to upstreams."""
        blocks = [self.relay_block(slot, upstream) for upstream in range(self.upstreams)]
        return sum(block[field] for block in blocks for field in RELAY_GAUGES)

    def relay_total(self, upstream: int) -> RelayBlock:
        """One upstream, over all slots."""
        return RelayBlock.total(self.relay_block(slot, upstream) for slot in range(self.slots))
