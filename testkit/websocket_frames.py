"""Frames of RFC 6455 as a client in a test writes and reads them: also those that no client should send."""

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN, RSV1 = 0x80, 0x40
TAIL = b"\x00\x00\xff\xff"  # that no sender of a compressed message sends


def mask(data: bytes, key: bytes) -> bytes:
    keys = (key * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "little") ^ int.from_bytes(keys, "little")).to_bytes(len(data), "little")


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv1: bool = False) -> bytes:
    """A frame of a client."""
    first, size, key = opcode | FIN * fin | RSV1 * rsv1, len(payload), os.urandom(4)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, 0xFE, size)
    else:
        head = struct.pack("!BBQ", first, 0xFF, size)
    return head + key + mask(payload, key)


@dataclass
class Frame:
    opcode: int
    payload: bytes
    fin: bool
    rsv1: bool
    masked: bool = False  # a client's

    def __bytes__(self) -> bytes:
        """As a server sends it."""
        first, size = self.opcode | FIN * self.fin | RSV1 * self.rsv1, len(self.payload)
        if size < 126:
            head = struct.pack("!BB", first, size)
        elif size < 65536:
            head = struct.pack("!BBH", first, 126, size)
        else:
            head = struct.pack("!BBQ", first, 127, size)
        return head + self.payload


class Frames:
    """The frames in a stream of bytes, of a client or of a server: `feed` returns those that are complete."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        self._buffer += data
        return list(self._complete())

    def _complete(self) -> Iterator[Frame]:
        at, buffer = 0, self._buffer
        while len(buffer) - at >= 2:
            size, begin = buffer[at + 1] & 0x7F, at + 2
            if size > 125:
                width = 2 if size == 126 else 8
                if len(buffer) < begin + width:
                    break
                size = int.from_bytes(buffer[begin : begin + width], "big")
                begin += width
            masked = buffer[at + 1] & 0x80
            if masked:
                key = bytes(buffer[begin : begin + 4])
                begin += 4
            if len(buffer) < begin + size:
                break
            payload, first = bytes(buffer[begin : begin + size]), buffer[at]
            at = begin + size
            payload = mask(payload, key) if masked else payload
            yield Frame(first & 15, payload, bool(first & FIN), bool(first & RSV1), bool(masked))
        del buffer[:at]


def inflate(message: bytes) -> bytes:
    """What a compressed message is, whose sender had no window before it."""
    return zlib.decompressobj(-15).decompress(message + TAIL)


def deflate(message: bytes, window: int = 9, level: int = 9) -> bytes:
    """A compressed message, by a sender that has no window before it."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -window)
    return (compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)
