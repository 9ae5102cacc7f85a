"""A WebSocket codec that compresses, without a socket: bytes in, and what it makes of them."""

import struct
import zlib

from flashpol._websocket import BLOCK_SIZE, LAYOUT, Path, WebSocketCodec
from testkit.tls_codec import CODEC_READ
from testkit.websocket_frames import CLOSE, CONTINUATION, TAIL, Frames, deflate, frame

MAX_MESSAGE = 1 << 24


class Paths:
    """A path and its counters."""

    def __init__(self, max_message: int = MAX_MESSAGE, *, text: bool = False) -> None:
        self._block = bytearray(BLOCK_SIZE)
        self.path = Path(self._block, max_message=max_message, text=text, compression=True)

    def count(self, name: str) -> tuple[int, ...]:
        offset, words = LAYOUT[name]
        return struct.unpack_from(f"{words}Q", self._block, offset)


class Connection:
    """One connection of a path; `plain` is what its application got, `wire` what its client got."""

    def __init__(self, paths: Paths, *, compresses: bool = True) -> None:
        self.codec = WebSocketCodec(paths.path, compresses=compresses)
        self.plain, self.wire, self.result = bytearray(), bytearray(), "ok"
        self.pieces: list[int] = []  # sizes of what it made at a time
        self._take(self.codec.work())

    def _take(self, made: tuple[str, bytes, bytes]) -> None:
        self.result, plain, wire = made
        self.plain += plain
        self.wire += wire
        self.pieces.append(len(plain))

    def feed(self, wire: bytes, size: int = CODEC_READ) -> "Connection":
        """In pieces of `size` bytes."""
        for begin in range(0, len(wire), size):
            if self.result not in ("ok", "work"):
                break
            self._take(self.codec.decode(wire[begin : begin + size]))
            while self.result == "work":
                self._take(self.codec.work())
        return self

    @property
    def close_code(self) -> int | None:
        """Of the Close that the client got."""
        closes = [each for each in Frames().feed(bytes(self.wire)) if each.opcode == CLOSE]
        return int.from_bytes(closes[0].payload[:2], "big") if closes else None


def compressed(payload: bytes, *cuts: int, opcode: int = 2) -> bytes:
    """The frames of a compressed message, whose compressed bytes are cut there."""
    ends = [*sorted(cut for cut in cuts if cut < len(payload)), len(payload)]
    out, begin = b"", 0
    for end in ends:
        first = begin == 0 and not out
        out += frame(opcode if first else CONTINUATION, payload[begin:end], fin=end == ends[-1], rsv1=first)
        begin = end
    return out


def with_last_block(message: bytes) -> bytes:
    """A compressed message that ends with a block that says it is the last (RFC 7692 section 7.2.3.4)."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -9)
    return compressor.compress(message) + compressor.flush(zlib.Z_FINISH) + b"\x00"


def bomb_of(size: int) -> bytes:
    """A compressed message of `size` zeros, whole megabytes: a thousandth of it."""
    return ((deflate(bytes(1 << 20)) + TAIL) * (size >> 20)).removesuffix(TAIL)
