"""Targets of the WebSocket codec: any bytes of a client, and frames that are made from the input.

What must hold is said by a decoder of a few lines, which reads the whole stream at once.
"""

from collections.abc import Iterator

from flashpol._websocket import BLOCK_SIZE, Path, WebSocketCodec

CODEC_READ = 16384
CUTS = 8
MAX_MESSAGE = 1000
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
CONTROL = 8
MASK = b"\x37\xfa\x21\x3d"


class Broken(Exception):
    """The client broke the protocol; the code says how."""


class Reference:
    """What a stream of frames means. `plain`, `pongs`, `closed` (by the client, 1005 without a code)."""

    def __init__(self, wire: bytes, text: bool) -> None:
        self.plain, self.pongs, self.closed = bytearray(), [], 0  # type: bytearray, list[bytes], int
        self.failure = 0
        self._wire, self._text = wire, text
        self._opcode = 0
        self._message = bytearray()
        self._at = 0
        try:
            while not self.closed and self._frame():
                pass
        except Broken as error:
            self.failure = error.args[0]

    def _take(self, size: int) -> bytes | None:
        data = self._wire[self._at : self._at + size]
        if len(data) < size:
            return None
        self._at += size
        return data

    def _frame(self) -> bool:
        head = self._take(2)
        if head is None:
            return False
        first, second = head
        opcode, size = first & 15, second & 127
        if first & 0x70 or not second & 0x80:
            raise Broken(1002)
        if opcode & CONTROL:
            if opcode > PONG or not first & 0x80 or size > 125:
                raise Broken(1002)
        elif opcode > BINARY or (opcode == CONTINUATION) != (self._opcode != 0):
            raise Broken(1002)
        elif opcode == TEXT and not self._text:
            raise Broken(1003)
        if size > 125:
            # A size is judged once the mask is there too: the head is whole then.
            long = self._wire[self._at : self._at + (2 if size == 126 else 8) + 4]
            if len(long) < (6 if size == 126 else 12):
                return False
            least = 126 if size == 126 else 65536
            size = int.from_bytes(long[:-4])
            self._at += len(long) - 4
            if size < least or size >> 63:
                raise Broken(1002)
        mask = self._take(4)
        if mask is None:
            return False
        return self._payload(opcode, bool(first & 0x80), size, mask)

    def _payload(self, opcode: int, fin: bool, size: int, mask: bytes) -> bool:
        if not opcode & CONTROL:
            if opcode:
                self._opcode, self._message = opcode, bytearray()
            if len(self._message) + size > MAX_MESSAGE:
                raise Broken(1009)
        part = self._wire[self._at : self._at + size]
        self._at += len(part)
        data = bytes(byte ^ mask[at & 3] for at, byte in enumerate(part))
        whole = len(data) == size
        if opcode & CONTROL:
            if whole:
                self._control(opcode, data)
            return whole
        self._message += data
        self._judge_text(whole and fin)
        self.plain += data
        if whole and fin:
            self._opcode = 0
        return whole

    def _judge_text(self, last: bool) -> None:
        if self._opcode != TEXT:
            return
        try:
            self._message.decode()
        except UnicodeDecodeError as error:
            if last or error.reason != "unexpected end of data":
                raise Broken(1007) from None

    def _control(self, opcode: int, data: bytes) -> None:
        if opcode == PING:
            self.pongs.append(data)
        elif opcode == CLOSE:
            code = int.from_bytes(data[:2])
            if len(data) == 1 or (data and not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999)):
                raise Broken(1002)
            try:
                data[2:].decode()
            except UnicodeDecodeError:
                raise Broken(1007) from None
            self.closed = code if data else 1005


def frames_of(wire: bytes) -> list[tuple[int, bytes]]:
    """Opcode and payload of what the codec sends by itself."""
    found, at = [], 0
    while at < len(wire):
        assert wire[at] & 0x70 == 0, "a reserved bit"
        assert wire[at] & 0x80, "a fragment"
        assert wire[at + 1] <= 125, "a masked or a long control frame"
        found.append((wire[at] & 15, wire[at + 2 : at + 2 + wire[at + 1]]))
        at += 2 + wire[at + 1]
    assert at == len(wire), "a part of a frame"
    return found


def check(wire: bytes, sizes: list[int], text: bool, rest: int) -> None:
    """The codec and the reference agree, however the bytes arrive; `rest` of them come with the request."""
    expected = Reference(wire, text)
    codec = WebSocketCodec(
        Path(memoryview(bytearray(BLOCK_SIZE)), max_message=MAX_MESSAGE, text=text), reply=b"", rest=wire[:rest]
    )
    result, plain, reply = codec.work()
    at = min(rest, len(wire))
    number = 0
    while at < len(wire) and result == "ok":
        size = sizes[number % len(sizes)]
        result, more, sent = codec.decode(wire[at : at + size])
        plain += more
        reply += sent
        at, number = at + size, number + 1
    # What comes before a byte that breaks a text, or behind it in one part, may be passed on or not.
    if expected.failure == 1007:
        assert bytes(expected.plain).startswith(plain[: len(expected.plain)])
    else:
        assert plain == expected.plain, "other bytes"
    frames = frames_of(reply)
    closing = [(CLOSE, b"" if expected.closed == 1005 else expected.closed.to_bytes(2))] if expected.closed else []
    if expected.failure:
        closing = [(CLOSE, expected.failure.to_bytes(2))]
    assert frames == [(PONG, data) for data in expected.pongs] + closing
    assert result == ("error" if expected.failure else "end" if expected.closed else "ok")
    assert codec.finished == bool(closing)
    if codec.finished:
        assert (codec.encode(b"x"), codec.finish(), codec.ping()) == (b"", b"", b"")
    elif codec.encode(b"x") != b"\x82\x01x":
        raise AssertionError("not a message")


def websocket(data: bytes) -> None:
    """data: settings, sizes of pieces, the bytes of a client."""
    if len(data) < 2 + CUTS:
        return
    settings, rest, cuts, wire = data[0], data[1], data[2 : 2 + CUTS], data[2 + CUTS :]
    sizes = [CODEC_READ] if settings & 2 else [1 + cut for cut in cuts]
    check(wire, sizes, bool(settings & 1), rest if settings & 4 else 0)


def websocket_frames(data: bytes) -> None:
    """data: settings, sizes of pieces, then for each frame its first byte, its size and the bytes of its payload."""
    if len(data) < 2 + CUTS:
        return
    settings, rest, cuts, program = data[0], data[1], data[2 : 2 + CUTS], data[2 + CUTS :]
    wire, at = bytearray(), 0
    while at + 2 <= len(program):
        first, size = program[at], program[at + 1]
        payload = program[at + 2 : at + 2 + (size & 127)]
        at += 2 + len(payload)
        if size & 128:
            payload *= 5
        head = (
            bytes([first & 0x8F, 0x80 | len(payload)])
            if len(payload) < 126
            else (bytes([first & 0x8F, 0xFE]) + len(payload).to_bytes(2))
        )
        wire += head + MASK + bytes(byte ^ MASK[number & 3] for number, byte in enumerate(payload))
    sizes = [CODEC_READ] if settings & 2 else [1 + cut for cut in cuts]
    check(bytes(wire), sizes, bool(settings & 1), rest if settings & 4 else 0)


def seeds() -> Iterator[tuple[str, str, bytes]]:
    """(target, name, input). ``python -m fuzz.websocket`` writes them."""
    from testkit.websocket import close, frame, message

    cuts = bytes([0, 1, 2, 5, 13, 60, 200, 255])
    streams = {
        "message": frame(BINARY, b"hello") + frame(BINARY, bytes(200)),
        "fragments": message(b"hello, world", 3, 0, 4) + frame(PING, b"?"),
        "text": frame(TEXT, "grüß κόσμε \U0001f600".encode()),
        "bad-text": frame(TEXT, b"ab\xed\xa0\x80cd"),
        "close": frame(BINARY, b"x") + close(1000, b"bye") + frame(PING),
        "bad-close": close(1005),
        "unmasked": frame(BINARY, b"x", mask=None),
        "long": frame(BINARY, size=2000),
        "not-minimal": frame(BINARY, b"x", form=3),
        "pings": frame(PING, b"?") * 30,
    }
    for name, wire in streams.items():
        for settings in (1, 3, 5):
            yield "websocket", f"{name}-{settings}", bytes([settings, 20]) + cuts + wire
    programs = {
        "message": bytes([0x82, 3]) + b"abc" + bytes([0x89, 1]) + b"?",
        "fragments": bytes([0x01, 2]) + b"a\xc3" + bytes([0x80, 2]) + b"\xa4b",
        "long": bytes([0x82, 0xFF]) + bytes(127),
        "close": bytes([0x88, 2, 3, 0xE8]),
    }
    for name, program in programs.items():
        for settings in (1, 3, 5):
            yield "websocket_frames", f"{name}-{settings}", bytes([settings, 9]) + cuts + program


def main() -> None:
    from pathlib import Path as Folder

    for target, name, data in seeds():
        folder = Folder(__file__).parent / "seeds" / target
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
