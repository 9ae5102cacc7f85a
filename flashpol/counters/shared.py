"""The mappings of one generation of workers: anonymous shared memory, made by the arbiter before it forks.

`SharedCounters` holds:

    process    pid, restarts, CPU, memory;          written by the arbiter;
               up, lag, heartbeat, files            by the process itself
    queue      accept queue, slot x listener        written by the arbiter
    block      counters, slot x listener            written by that slot's worker, in C (`_fastpath.LAYOUT`); by the
                                                    arbiter once that worker is dead
    relay      counters, slot x upstream            the same (`_pump.LAYOUT`); an upstream of two listeners is two

`SharedAddressLimits` lies beside it, as large as the configuration says: each worker's connections, in total and by
address, written by that worker, in C (`_native/accept/address_limits.pxd`), and read by the others.

A worker that replaces another in a slot finds the counters of its predecessor and adds to them.
"""

import mmap
import os

from flashpol._fastpath import ADDRESS_TABLE_HEAD, ADDRESS_TABLE_SET, REASONS, AddressLimits, Networks
from flashpol.config import ConnectionLimits
from flashpol.counters.layout import GAUGES, RELAY_GAUGES, WORD, Block, RelayBlock
from flashpol.counters.status import ProcessStatus, QueueStatus

_BLOCK_WORDS = Block.SIZE // WORD
_RELAY_WORDS = RelayBlock.SIZE // WORD


class SharedAddressLimits:
    """The address tables of `workers` workers, in a mapping."""

    def __init__(self, workers: int, connection_limits: ConnectionLimits) -> None:
        self._workers = workers
        self._connection_limits = connection_limits
        self._key = os.urandom(16)  # a client must not know which addresses share a set
        sets = 1 << max(0, (connection_limits.address_table_size // 8 - 1).bit_length())
        self._stride = ADDRESS_TABLE_HEAD + sets * ADDRESS_TABLE_SET
        self._mapping = mmap.mmap(-1, workers * self._stride)

    def of(self, slot: int, exempt: Networks | None = None) -> AddressLimits:
        """The limits as worker `slot` enforces them: it writes its own table and reads the others'.

        exempt: `exempt_networks`, compiled.
        """
        connection_limits = self._connection_limits
        return AddressLimits(
            memoryview(self._mapping)[: self._workers * self._stride],
            worker=slot,
            workers=self._workers,
            key=self._key,
            max_connections=connection_limits.max_connections,
            max_worker_connections=connection_limits.max_worker_connections,
            max_address_connections=connection_limits.max_address_connections,
            max_address_rate=connection_limits.max_address_rate,
            max_address_sessions=connection_limits.max_address_sessions,
            ipv4_prefix=connection_limits.ipv4_prefix,
            ipv6_prefix=connection_limits.ipv6_prefix,
            exempt=exempt,
        )

    def clear(self, slot: int) -> None:
        """Forget the connections of a slot whose worker is dead."""
        start = slot * self._stride
        self._mapping[start : start + self._stride] = bytes(self._stride)


class SharedCounters:
    """The counters of `slots` workers and `listeners` listeners, in a mapping.

    upstreams: of all listeners together, numbered one after the other. connection_limits: none if None.
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
        """The admin process, which comes after the last worker."""
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
        """Close the account of a slot whose worker is dead: its open connections count as crashed."""
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
        """Descriptors of one slot that are connected, or connecting, to upstreams."""
        blocks = [self.relay_block(slot, upstream) for upstream in range(self.upstreams)]
        return sum(block[field] for block in blocks for field in RELAY_GAUGES)

    def relay_total(self, upstream: int) -> RelayBlock:
        """One upstream, over all slots."""
        return RelayBlock.total(self.relay_block(slot, upstream) for slot in range(self.slots))
