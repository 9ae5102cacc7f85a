"""The last origins that a WebSocket path refused, as text in shared memory: a worker writes it, the page shows it.

Ruffle tells its content that it is connected before the handshake is over, so a page that is refused only sees a
connection that closes. Numbers would not say which page, and the log may be on another host.

Each worker keeps four origins of each path, and of these the last reason. A fifth replaces the one that was refused
longest ago, so a flood of origins leaves its last four.
"""

import struct
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

# Browsers have no origin that is longer, and the gateway cuts reasons at 400 characters.
ORIGIN_BYTES, REASON_BYTES = 256, 416
ENTRIES = 4
# Whether it is being written, milliseconds since the epoch, times, line of the policy or 0, and the texts.
_ENTRY = struct.Struct(f"=QQQQ{ORIGIN_BYTES}s{REASON_BYTES}s")
_VERSION = struct.Struct("=Q")
SIZE = ENTRIES * _ENTRY.size


class RefusedOrigin(NamedTuple):
    """`line` is that of the policy, None if none decided. time: of the last refusal, in seconds since the epoch."""

    origin: str
    reason: str
    line: int | None
    times: int
    time: float


class RefusedOrigins:
    """Of one worker slot and path; only the worker of this slot may call `record`."""

    __slots__ = ("_memory",)

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory

    def record(self, origin: str, reason: str, line: int | None, now: float | None = None) -> None:
        """An upgrade was refused. now: seconds since the epoch."""
        name = origin.encode("ascii", "replace")[:ORIGIN_BYTES]
        found = [self._read(number) for number in range(ENTRIES)]
        number = next((number for number, each in enumerate(found) if each[4] == name), None)
        if number is None:
            number, count = min(range(ENTRIES), key=lambda each: found[each][1]), 1
        else:
            count = found[number][2] + 1
        at, version = number * _ENTRY.size, found[number][0] | 1
        moment = int((time.time() if now is None else now) * 1e3)
        text = reason.encode("ascii", "replace")
        # An odd version: what follows is being written.
        _VERSION.pack_into(self._memory, at, version)
        _ENTRY.pack_into(self._memory, at, version, moment, count % 2**64, line or 0, name, text)
        _VERSION.pack_into(self._memory, at, (version + 1) % 2**64)

    def entries(self) -> Iterator[RefusedOrigin]:
        """Those that are not being written at this moment."""
        for number in range(ENTRIES):
            version, moment, count, line, origin, reason = self._read(number)
            if count and version % 2 == 0 and _VERSION.unpack_from(self._memory, number * _ENTRY.size)[0] == version:
                yield RefusedOrigin(_text(origin), _text(reason), line or None, count, moment / 1e3)

    def _read(self, number: int) -> tuple[int, int, int, int, bytes, bytes]:
        *words, origin, reason = _ENTRY.unpack_from(self._memory, number * _ENTRY.size)
        version, moment, count, line = words
        return version, moment, count, line, origin.rstrip(b"\0"), reason.rstrip(b"\0")


def merged(rings: Iterable[RefusedOrigins]) -> list[RefusedOrigin]:
    """Of several workers, the last refused first: an origin has one entry, with its last reason."""
    found: dict[str, RefusedOrigin] = {}
    for each in (entry for ring in rings for entry in ring.entries()):
        known = found.get(each.origin)
        if known:
            last = max(known, each, key=lambda entry: entry.time)
            found[each.origin] = last._replace(times=known.times + each.times)
        else:
            found[each.origin] = each
    return sorted(found.values(), key=lambda entry: entry.time, reverse=True)


def _text(data: bytes) -> str:
    """What a worker wrote, as a terminal may show it: a worker that was taken over may write anything."""
    return "".join(c if c.isprintable() else "?" for c in data.decode("ascii", "replace"))
