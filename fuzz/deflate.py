"""The target of compressed messages: two connections that share a decompressor, compared with Python's zlib."""

import zlib
from collections.abc import Iterator, Sequence

from testkit.deflate_codec import Connection, Paths
from testkit.websocket_frames import BINARY, CONTINUATION, PING, TAIL, TEXT, deflate, frame

LIMIT = 100_000  # bytes of a message
CUTS = 4
AGREED, LARGEST = -9, -15  # windows: clients agreed to the first one


def reference(payload: bytes, window: int) -> bytes | None:
    """What a compressed message is, if that is a message within the limit. Bytes come one at a time, so no distance is
    longer than the window."""
    plain, decompressor = bytearray(), zlib.decompressobj(window)
    try:
        for byte in payload + TAIL:
            if decompressor.eof:  # the block was the last one, and another begins
                decompressor = zlib.decompressobj(window)
            plain += decompressor.decompress(bytes([byte]))
            if len(plain) > LIMIT:
                return None
    except zlib.error:
        return None
    return bytes(plain)


def messages(script: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(connection, kind, payload) of each message. Two bytes describe it, its own come behind them."""
    at = 0
    while at + 2 <= len(script):
        what, size = script[at], script[at + 1]
        yield what & 1, what >> 1 & 15, script[at + 2 : at + 2 + size]
        at += 2 + size


def wire_of(kind: int, payload: bytes, text: bool) -> tuple[bytes, bytes, bool]:
    """Its frames, what is compressed in it, and whether that is so."""
    opcode = TEXT if text and kind & 8 else BINARY
    if kind & 3 == 0:
        return frame(opcode, payload), payload, False
    if kind & 3 == 1:
        payload = deflate(payload * 50)
    half = len(payload) // 2 if kind & 4 else len(payload)
    ping = frame(PING, payload[:5]) if kind & 4 else b""
    first = frame(opcode, payload[:half], fin=not ping, rsv1=True)
    return first + (ping + frame(CONTINUATION, payload[half:]) if ping else b""), payload, True


def websocket_deflate(data: bytes) -> None:
    """Messages of two connections, their wire in pieces and whole.

    data: the settings, sizes of pieces, the messages.
    """
    text, cuts, script = bool(data[:1] and data[0] & 1), data[1 : 1 + CUTS] or b"\0", data[1 + CUTS :]
    sent: list[list[tuple[bytes, bytes | None, bytes | None]]] = [[], []]
    for who, kind, payload in messages(script):
        wire, inside, compresses = wire_of(kind, payload, text)
        plain = (reference(inside, AGREED), reference(inside, LARGEST)) if compresses else (inside, inside)
        if text and kind & 8:
            plain = (valid(plain[0]), valid(plain[1]))
        sent[who].append((wire, *plain))
    whole = run(sent, [16384], text)
    pieces = run(sent, [1 + cut * 16 for cut in cuts], text)
    for who in (0, 1):
        check(whole[who], sent[who])
        check(pieces[who], sent[who])


def valid(text: bytes | None) -> bytes | None:
    try:
        return text if text is not None and text.decode() is not None else None
    except UnicodeDecodeError:
        return None


def run(
    sent: Sequence[Sequence[tuple[bytes, bytes | None, bytes | None]]], sizes: list[int], text: bool
) -> list[Connection]:
    """The connections after their wires, in turns."""
    paths = Paths(LIMIT, text=text)
    connections = [Connection(paths), Connection(paths)]
    wires = [b"".join(wire for wire, _, _ in messages) for messages in sent]
    number = 0
    while any(wires):
        size = sizes[number // 2 % len(sizes)]
        who = number % 2
        connections[who].feed(wires[who][:size])
        wires[who] = wires[who][size:]
        number += 1
    return connections


def check(connection: Connection, sent: Sequence[tuple[bytes, bytes | None, bytes | None]]) -> None:
    """What arrived is what was sent, up to the first message that is none."""
    expected = b""
    for _, agreed, largest in sent:
        if largest is None:
            assert connection.result == "error", "accepted against zlib"
            break
        expected += largest
        if agreed is None and connection.result == "error" and len(connection.plain) <= len(expected):
            break  # the window is larger than was agreed on, which is not always noticed
    else:
        assert connection.result == "ok", "refused against zlib"
        assert connection.plain == expected, "other bytes than zlib's"
        return
    assert connection.close_code in (1007, 1009)
    if largest is not None:
        assert expected.startswith(connection.plain), "other bytes than zlib's"
    else:
        assert connection.plain[: len(expected)] == expected[: len(connection.plain)], "other bytes than zlib's"
