"""The frames of a server: RFC 6455, section 5, read as strictly as browsers read them."""

from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_NAMES = {CONTINUATION: "continuation", TEXT: "text", BINARY: "binary", CLOSE: "Close", PING: "ping", PONG: "pong"}
_SMALL, _MAX_CONTROL = 126, 125
# RFC 6455, section 7.4; 1012 to 1014 are in IANA's registry.
CLOSE_CODES = {
    1000: "normal", 1001: "going away", 1002: "protocol error", 1003: "unsupported data", 1007: "not UTF-8",
    1008: "against a policy", 1009: "message too big", 1010: "extension required", 1011: "internal error",
    1012: "service restart", 1013: "try again later", 1014: "bad gateway",
}  # fmt: skip


class Frame(NamedTuple):
    """`kind` is the opcode of the message that it belongs to, `end` the offset of its last byte plus one."""

    opcode: int
    kind: int
    payload: bytes
    end: int

    @property
    def name(self) -> str:
        return _NAMES.get(self.opcode, f"opcode {self.opcode}")

    @property
    def close_code(self) -> int | None:
        """The code of a Close, None if it has none."""
        return int.from_bytes(self.payload[:2], "big") if len(self.payload) >= 2 else None

    @property
    def close_words(self) -> str:
        """Code and reason, as in `1011 (internal error) "no upstream"`."""
        if self.close_code is None:
            return "without a code"
        reason = self.payload[2:].decode("utf-8", "replace")
        meaning = CLOSE_CODES.get(self.close_code)
        return str(self.close_code) + (f" ({meaning})" if meaning else "") + (f' "{reason}"' if reason else "")


class Frames(NamedTuple):
    """The frames through the first Close, and what is wrong with the next one: `error` is empty if nothing is.

    `cut` says that the bytes end within a frame.
    """

    frames: tuple[Frame, ...]
    error: str = ""
    cut: bool = False

    def of_kind(self, kind: int) -> list[Frame]:
        return [frame for frame in self.frames if frame.kind == kind]

    @property
    def close(self) -> Frame | None:
        return next(iter(self.of_kind(CLOSE)), None)


def read_frames(data: bytes, *, compressed: bool = False) -> Frames:
    """Read what came after 101, which may end within a frame. `compressed`: the server chose permessage-deflate."""
    found: list[Frame] = []
    at, message = 0, -1  # the opcode of the message that is open
    while len(data) - at >= 2:
        opcode, length = data[at] & 0x0F, data[at + 1] & 0x7F
        if error := _error_of_header(data[at], data[at + 1], message, compressed=compressed):
            return Frames(tuple(found), error)
        extra = {126: 2, 127: 8}.get(length, 0)
        begin = at + 2 + extra
        if len(data) < begin:
            break
        if extra:
            length = int.from_bytes(data[at + 2 : begin], "big")
            if length < (_SMALL if extra == 2 else 1 << 16) or length >> 63:
                return Frames(tuple(found), f"a {_NAMES[opcode]} frame has its length in more bytes than it needs")
        kind = message if opcode == CONTINUATION else opcode
        if opcode < CLOSE:
            message = -1 if data[at] & 0x80 else kind
        if len(data) < begin + length:
            if opcode < CLOSE:  # a part of a message is enough to know its kind
                found.append(Frame(opcode, kind, data[begin:], len(data)))
            return Frames(tuple(found), cut=True)
        frame = Frame(opcode, kind, data[begin : begin + length], begin + length)
        if opcode == CLOSE and (error := _error_of_close(frame)):
            return Frames(tuple(found), error)
        found.append(frame)
        if opcode == CLOSE:
            break
        at = frame.end
    return Frames(tuple(found))


def _error_of_header(first: int, second: int, message: int, *, compressed: bool) -> str:
    opcode, final, reserved = first & 0x0F, bool(first & 0x80), first & 0x70
    name = _NAMES.get(opcode, "")
    usable = 0x40 if compressed and opcode in (TEXT, BINARY) else 0
    wrong = (
        (not name, f"a frame has the reserved opcode {opcode}"),
        (second & 0x80, f"a {name} frame is masked, which only those of clients may be"),
        (reserved & ~usable, f"a {name} frame has a reserved bit that no extension uses"),
        (
            opcode >= CLOSE and (not final or second & 0x7F > _MAX_CONTROL),
            f"a {name} frame is fragmented, or longer than {_MAX_CONTROL} bytes",
        ),
        (opcode == CONTINUATION and message < 0, "a continuation frame continues nothing"),
        (
            opcode in (TEXT, BINARY) and message >= 0,
            f"a {name} frame begins before the message in front of it has ended",
        ),
    )
    return next((words for is_wrong, words in wrong if is_wrong), "")


def _error_of_close(frame: Frame) -> str:
    code = frame.close_code
    if len(frame.payload) == 1 or (code is not None and not (code in CLOSE_CODES or 3000 <= code < 5000)):
        return f"a Close frame has the code {code}, which must not be sent" if code else "a Close frame has half a code"
    try:
        frame.payload[2:].decode()
    except UnicodeDecodeError:
        return "the reason of a Close frame is not UTF-8"
    return ""
