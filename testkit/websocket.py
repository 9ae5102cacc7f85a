"""WebSocket as a client writes and reads it, by hand: every bit of a frame is the test's to choose."""

import base64
import hashlib
from typing import NamedTuple

from flashpol._websocket import BLOCK_SIZE, CLOSE_CODES, LAYOUT, RESULTS, SIDES, Path

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10
KEY = base64.b64encode(b"0123456789abcdef")
ACCEPT = base64.b64encode(hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\n"


class Frame(NamedTuple):
    """A frame of the server."""

    opcode: int
    payload: bytes
    fin: bool = True


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    flags: int = FIN,
    mask: bytes | None = b"\x11\x22\x33\x44",
    form: int = 0,
    size: int | None = None,
) -> bytes:
    """A client's frame. mask: None is an unmasked one. form: how many bytes the size has, 1, 3 or 9; 0: as few as it
    takes. size: what it says instead of the size of the payload."""
    size = len(payload) if size is None else size
    form = form or (1 if size < 126 else 3 if size < 65536 else 9)
    bit = 0x80 if mask is not None else 0
    head = bytes([flags | opcode, bit | {1: size, 3: 126, 9: 127}[form]]) + (
        b"" if form == 1 else size.to_bytes(form - 1)
    )
    if mask is None:
        return head + payload
    keys = mask * (len(payload) // 4 + 1)
    return head + mask + bytes(a ^ b for a, b in zip(payload, keys, strict=False))


def message(payload: bytes, *parts: int, opcode: int = BINARY) -> bytes:
    """A message in frames: parts are their sizes, and the last frame has the rest."""
    frames = []
    for number, size in enumerate((*parts, len(payload) - sum(parts))):
        last = number == len(parts)
        frames.append(frame(CONTINUATION if number else opcode, payload[:size], flags=FIN if last else 0))
        payload = payload[size:]
    return b"".join(frames)


def close(code: int | None = None, reason: bytes = b"") -> bytes:
    return frame(CLOSE, (b"" if code is None else code.to_bytes(2)) + reason)


def split(wire: bytes) -> tuple[list[Frame], bytes]:
    """The whole frames of the server, and what follows them. A server masks none and uses no reserved bit."""
    frames, at = [], 0
    while len(wire) - at >= 2:
        first, size = wire[at], wire[at + 1]
        assert not first & (RSV1 | RSV2 | RSV3), "a reserved bit"
        assert not size & 0x80, "a masked frame of a server"
        begin = at + 2
        if size >= 126:
            length = 2 if size == 126 else 8
            size = int.from_bytes(wire[begin : begin + length])
            assert size >= (126 if length == 2 else 65536) or len(wire) < begin + length, "a size is not minimal"
            begin += length
        if len(wire) < begin + size:
            break
        frames.append(Frame(first & 15, wire[begin : begin + size], bool(first & FIN)))
        at = begin + size
    return frames, wire[at:]


def frames_of(wire: bytes) -> list[Frame]:
    """All of it is whole frames."""
    frames, rest = split(wire)
    assert rest == b"", "a part of a frame"
    return frames


def closed(code: int | None = None) -> Frame:
    """The Close of a server."""
    return Frame(CLOSE, b"" if code is None else code.to_bytes(2))


def request(path: str = "/", *, without: tuple[str, ...] = (), **fields: str) -> bytes:
    """A browser's request. fields: with "_" for "-"; without: names of those that it does not have."""
    head = {
        "Host": "games.example.com",
        "Connection": "keep-alive, Upgrade",
        "Upgrade": "websocket",
        "Origin": "https://www.example.com",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": KEY.decode(),
    }
    head |= {name.replace("_", "-"): value for name, value in fields.items()}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items() if name not in without)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class PathCounters:
    """A counter block of a path, and what it says; without what is 0."""

    def __init__(self) -> None:
        self.memory = memoryview(bytearray(BLOCK_SIZE))
        self._words = self.memory.cast("q")

    def path(self, *, max_message: int = 1 << 20, text: bool = False) -> Path:
        return Path(self.memory, max_message=max_message, text=text)

    def all(self, field: str) -> list[int]:
        at, count = LAYOUT[field]
        return self._words[at // 8 : at // 8 + count].tolist()

    def __getitem__(self, field: str) -> int:
        [value] = self.all(field)
        return value

    @property
    def upgrades(self) -> dict[str, int]:
        return {name: count for name, count in zip(RESULTS, self.all("upgrades"), strict=True) if count}

    @property
    def closes(self) -> dict[tuple[str, str], int]:
        """By code and side."""
        names = [(code, side) for side in SIDES for code in CLOSE_CODES]
        return {name: count for name, count in zip(names, self.all("closes"), strict=True) if count}
