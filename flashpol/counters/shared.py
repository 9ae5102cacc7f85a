"""The mappings of one generation of workers, made by the arbiter before it forks.

`SharedCounters` has pages that the arbiter alone writes, then pages of each slot, and of the admin process, that only
this process writes, and the arbiter once it is dead:

    arbiter's   process    pid, restarts, CPU, memory of each slot and the admin process
                queue      accept queue, slot x listener
    a slot's    block      counters, one for each listener, written in C (`_fastpath.LAYOUT`)
                websocket  counters, one for each WebSocket path (`_websocket.LAYOUT`)
                tunnel     counters, one for each listener with tunnel sessions (`_tunnel.LAYOUT`)
                relay      counters, one for each upstream (`_pump.LAYOUT`); an upstream of two listeners is two
                origins    the last that each WebSocket path refused, as text (`refused_origins`)
                report     up, lag, heartbeat, files

`SharedAddressLimits` lies beside it, as large as the configuration says: each worker's connections, in total and by
address, on pages of its own, written in C (`_native/accept/address_limits.pxd`), and read by the others.

A worker that replaces another in a slot finds the counters of its predecessor and adds to them.
"""

import os

from flashpol._fastpath import ADDRESS_TABLE_HEAD, ADDRESS_TABLE_SET, REASONS, AddressLimits, Networks
from flashpol._pump import ENDS
from flashpol.config import ConnectionLimits
from flashpol.counters.layout import (
    GAUGES,
    RELAY_FILES,
    RELAY_GAUGES,
    TUNNEL_GAUGES,
    WORD,
    Block,
    RelayBlock,
    TunnelBlock,
    WebSocketBlock,
)
from flashpol.counters.mapping import Part, SharedMapping, whole_pages
from flashpol.counters.refused_origins import SIZE as ORIGINS_SIZE
from flashpol.counters.refused_origins import RefusedOrigin, RefusedOrigins, merged
from flashpol.counters.status import ProcessStatus, QueueStatus


class SharedAddressLimits:
    """The address tables of `workers` workers, in a mapping."""

    def __init__(self, workers: int, connection_limits: ConnectionLimits) -> None:
        self._workers = workers
        self._connection_limits = connection_limits
        self._key = os.urandom(16)  # a client must not know which addresses share a set
        self._sets = 1 << max(0, (connection_limits.address_table_size // 8 - 1).bit_length())
        self._stride = whole_pages(ADDRESS_TABLE_HEAD + self._sets * ADDRESS_TABLE_SET)
        self._mapping = SharedMapping(workers * self._stride)

    def of(self, slot: int, exempt: Networks | None = None) -> AddressLimits:
        """The limits as worker `slot` enforces them: it writes its own table and reads the others'.

        exempt: `exempt_networks`, compiled.
        """
        connection_limits = self._connection_limits
        return AddressLimits(
            self._mapping.memory,
            worker=slot,
            workers=self._workers,
            sets=self._sets,
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
        self._mapping.memory[start : start + self._stride] = bytes(self._stride)

    def written_by(self, slot: int) -> Part:
        return self._mapping.part(slot * self._stride, self._stride)


class SharedCounters:
    """The counters of `slots` workers and `listeners` listeners, in a mapping.

    upstreams, paths: of all listeners together, numbered one after the other. tunnels: listeners with tunnel sessions,
    numbered likewise. connection_limits: none if None.
    """

    def __init__(
        self,
        slots: int,
        listeners: int,
        upstreams: int = 0,
        paths: int = 0,
        tunnels: int = 0,
        *,
        connection_limits: ConnectionLimits | None = None,
    ) -> None:
        self.slots = slots
        self.listeners = listeners
        self.upstreams = upstreams
        self.paths = paths
        self.tunnels = tunnels
        pairs = slots * listeners
        self._processes_at = pairs * QueueStatus.SIZE * WORD
        self._slots_at = whole_pages(self._processes_at + (slots + 1) * ProcessStatus.SIZE * WORD)
        # From the start of a slot's pages. Blocks first: each is to lie on cache lines of its own.
        self._paths_at = listeners * Block.SIZE
        self._tunnels_at = self._paths_at + paths * WebSocketBlock.SIZE
        self._relays_at = self._tunnels_at + tunnels * TunnelBlock.SIZE
        self._origins_at = self._relays_at + upstreams * RelayBlock.SIZE
        self._report_at = self._origins_at + paths * ORIGINS_SIZE
        self._stride = whole_pages(self._report_at + ProcessStatus.REPORTED_SIZE * WORD)
        self._mapping = SharedMapping(self._slots_at + (slots + 1) * self._stride)
        self.address_limits = SharedAddressLimits(slots, connection_limits or ConnectionLimits())

    def written_by(self, slot: int) -> list[Part]:
        """What the worker of a slot writes."""
        return [self._pages(slot), self.address_limits.written_by(slot)]

    @property
    def written_by_admin(self) -> list[Part]:
        return [self._pages(self.slots)]

    def _pages(self, slot: int) -> Part:
        return self._mapping.part(self._slots_at + slot * self._stride, self._stride)

    def _bytes(self, at: int, size: int) -> memoryview:
        return self._mapping.memory[at : at + size]

    def _words(self, at: int, count: int) -> memoryview:
        return self._bytes(at, count * WORD).cast("Q")

    def process(self, slot: int) -> ProcessStatus:
        own = self._processes_at + slot * ProcessStatus.SIZE * WORD
        reported = self._slots_at + slot * self._stride + self._report_at
        return ProcessStatus(self._words(own, ProcessStatus.SIZE), self._words(reported, ProcessStatus.REPORTED_SIZE))

    @property
    def admin(self) -> ProcessStatus:
        """The admin process, which comes after the last worker."""
        return self.process(self.slots)

    def queue(self, slot: int, listener: int) -> QueueStatus:
        at = (slot * self.listeners + listener) * QueueStatus.SIZE * WORD
        return QueueStatus(self._words(at, QueueStatus.SIZE))

    def memory(self, slot: int, listener: int) -> memoryview:
        """The writable bytes of one block, for an Acceptor."""
        return self._bytes(self._slots_at + slot * self._stride + listener * Block.SIZE, Block.SIZE)

    def block(self, slot: int, listener: int) -> Block:
        return Block(self.memory(slot, listener).cast("Q"))

    def relay_memory(self, slot: int, upstream: int) -> memoryview:
        """The writable bytes of one block, for a Destination."""
        at = self._slots_at + slot * self._stride + self._relays_at + upstream * RelayBlock.SIZE
        return self._bytes(at, RelayBlock.SIZE)

    def relay_block(self, slot: int, upstream: int) -> RelayBlock:
        return RelayBlock(self.relay_memory(slot, upstream).cast("Q"))

    def tunnel_memory(self, slot: int, tunnel: int) -> memoryview:
        """The writable bytes of one block, for a `_tunnel.Tunnels`."""
        at = self._slots_at + slot * self._stride + self._tunnels_at + tunnel * TunnelBlock.SIZE
        return self._bytes(at, TunnelBlock.SIZE)

    def tunnel_block(self, slot: int, tunnel: int) -> TunnelBlock:
        return TunnelBlock(self.tunnel_memory(slot, tunnel).cast("Q"))

    def tunnel_total(self, tunnel: int) -> TunnelBlock:
        """The tunnel sessions of one listener, over all slots."""
        return TunnelBlock.total(self.tunnel_block(slot, tunnel) for slot in range(self.slots))

    def path_memory(self, slot: int, path: int) -> memoryview:
        """The writable bytes of one block, for a `_websocket.Path`."""
        at = self._slots_at + slot * self._stride + self._paths_at + path * WebSocketBlock.SIZE
        return self._bytes(at, WebSocketBlock.SIZE)

    def path_block(self, slot: int, path: int) -> WebSocketBlock:
        return WebSocketBlock(self.path_memory(slot, path).cast("Q"))

    def path_total(self, path: int) -> WebSocketBlock:
        """One WebSocket path, over all slots."""
        return WebSocketBlock.total(self.path_block(slot, path) for slot in range(self.slots))

    def refused_origins(self, slot: int, path: int) -> RefusedOrigins:
        """The last origins that one WebSocket path refused."""
        at = self._slots_at + slot * self._stride + self._origins_at + path * ORIGINS_SIZE
        return RefusedOrigins(self._bytes(at, ORIGINS_SIZE))

    def last_refused(self, path: int) -> list[RefusedOrigin]:
        """The same over all slots, the last first."""
        return merged(self.refused_origins(slot, path) for slot in range(self.slots))

    def settle(self, slot: int) -> None:
        """Close the account of a slot whose worker is dead: its open connections and sessions count as crashed."""
        for listener in range(self.listeners):
            block = self.block(slot, listener)
            decided = block.replies + block["served"] + block["timeouts"] + block["resets"]
            decided += sum(block.all("refused")) + sum(block.all("relayed"))
            crashed = REASONS.index("crashed")
            counted = block.all("refused")[crashed]
            block.put("refused", counted + max(0, block["accepted"] - decided), crashed)
            for field in GAUGES:
                block.put(field, 0)
        for upstream in range(self.upstreams):
            relayed, crashed = self.relay_block(slot, upstream), ENDS.index("crashed")
            ends = relayed.all("ends")
            relayed.put("ends", ends[crashed] + max(0, relayed["opened"] - sum(ends)), crashed)
            for field in RELAY_GAUGES:
                relayed.put(field, 0)
        for tunnel in range(self.tunnels):
            tunneled, crashed = self.tunnel_block(slot, tunnel), ENDS.index("crashed")
            ends = tunneled.all("ends")
            tunneled.put("ends", ends[crashed] + max(0, tunneled["sessions"] - sum(ends)), crashed)
            for field in TUNNEL_GAUGES:
                tunneled.put(field, 0)
        for path in range(self.paths):
            self.path_block(slot, path).put("open", 0)
        self.address_limits.clear(slot)

    def client_files(self, slot: int) -> int:
        """Descriptors of one slot that are connections of clients."""
        return sum(self.block(slot, listener)["open"] for listener in range(self.listeners))

    def total(self, listener: int) -> Block:
        """One listener, over all slots."""
        return Block.total(self.block(slot, listener) for slot in range(self.slots))

    def upstream_files(self, slot: int) -> int:
        """Descriptors of one slot that are connected, or connecting, to upstreams."""
        blocks = [self.relay_block(slot, upstream) for upstream in range(self.upstreams)]
        return sum(block[field] for block in blocks for field in RELAY_FILES)

    def relay_total(self, upstream: int) -> RelayBlock:
        """One upstream, over all slots."""
        return RelayBlock.total(self.relay_block(slot, upstream) for slot in range(self.slots))
