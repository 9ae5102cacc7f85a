"""RTMP on the wire: the handshake and the chunks, and the command `connect`. Nothing is sent here.

A `Stream` is fed bytes as they come, so that no byte is read twice.
"""

import struct
from collections.abc import Iterator
from os import urandom
from typing import NamedTuple

from flashpol.probe.rtmp import amf

VERSION = 3
HALF = 1536  # bytes of C1, S1, C2 and S2
GREETING = 1 + HALF  # C0 and C1
HANDSHAKE = 1 + 2 * HALF  # S0, S1 and S2
# A reply to `connect` has a few hundred bytes.
MOST_MESSAGE = 65536
_CHUNK = 128
_SET_CHUNK_SIZE, _COMMAND_AMF3, _COMMAND = 1, 17, 20
_COMMAND_STREAM = 3
_HEADERS = (11, 7, 3, 0)  # bytes of a message's header by the chunk's format
_EXTENDED = 0xFFFFFF


def greeting() -> bytes:
    """Return C0 and C1: the handshake of Flash Player before version 9, which every server takes."""
    return bytes((VERSION,)) + bytes(8) + urandom(HALF - 8)


def echoes(greeting: bytes, handshake: bytes) -> bool:
    """Whether S2 repeats C1. The server may write its time into the second field."""
    asked, came = greeting[1:GREETING], handshake[1 + HALF : HANDSHAKE]
    return came[:4] == asked[:4] and came[8:] == asked[8:]


def acknowledgement(handshake: bytes) -> bytes:
    """Return C2: S1, repeated."""
    return handshake[1:GREETING]


def connect(application: str, url: str) -> bytes:
    """Return the command as Flash Player writes it, in chunks of 128 bytes."""
    body = amf.encode(
        "connect", 1.0,
        {
            "app": application, "flashVer": "LNX 32,0,0,465", "tcUrl": url, "fpad": False, "capabilities": 239.0,
            "audioCodecs": 3575.0, "videoCodecs": 252.0, "videoFunction": 1.0, "objectEncoding": 0.0,
        },
    )  # fmt: skip
    head = struct.pack(">B", _COMMAND_STREAM) + bytes(3) + len(body).to_bytes(3, "big") + bytes((_COMMAND,)) + bytes(4)
    parts = [body[at : at + _CHUNK] for at in range(0, len(body), _CHUNK)]
    return head + bytes((0xC0 | _COMMAND_STREAM,)).join(parts)


class Message(NamedTuple):
    kind: int
    body: bytes


class Malformed(ValueError):
    """The bytes break the protocol; its words say how."""


class _Open:
    """A chunk stream: the header of its last message, and the part of a message that came."""

    def __init__(self) -> None:
        self.length = -1  # no message yet
        self.kind = 0
        self.extended = False
        self.body = bytearray()


class Stream:
    """What a server sends after the handshake, read chunk by chunk."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._size = _CHUNK
        self._streams: dict[int, _Open] = {}

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield the messages that these bytes complete. Raises Malformed, and must not be used after that."""
        self._data += data
        at = 0
        while (chunk := self._chunk(at)) is not None:
            at, message = chunk
            if message is not None:
                if message.kind == _SET_CHUNK_SIZE:
                    self._resize(message.body)
                yield message
        del self._data[:at]

    def _resize(self, body: bytes) -> None:
        size = int.from_bytes(body[:4], "big")
        if len(body) < 4 or not 1 <= size < 1 << 31:
            raise Malformed("it sets a chunk size that there is not")
        self._size = size

    def _chunk(self, at: int) -> tuple[int, Message | None] | None:
        """Return where the chunk at this offset ends, and the message if it is complete; None if more must come."""
        data = self._data
        if at >= len(data):
            return None
        form, number, at = data[at] >> 6, data[at] & 0x3F, at + 1
        more = {0: 1, 1: 2}.get(number, 0)
        if len(data) < at + more:
            return None
        if more:
            number = 64 + int.from_bytes(data[at : at + more], "little")
            at += more
        stream = self._streams.get(number) or _Open()
        header, at = data[at : at + _HEADERS[form]], at + _HEADERS[form]
        if len(data) < at:
            return None
        if form and stream.length < 0:
            raise Malformed("its first chunk leaves out the header of the message")
        if stream.body and form != 3:
            raise Malformed("a message begins before the message in front of it has ended")
        length, kind, extended = stream.length, stream.kind, stream.extended
        if form < 3:
            extended = int.from_bytes(header[:3], "big") == _EXTENDED
        if form < 2:
            length, kind = int.from_bytes(header[3:6], "big"), header[6]
        if length > MOST_MESSAGE:
            raise Malformed(f"it announces a message of {length:,} bytes")
        at += 4 * extended
        part = min(length - len(stream.body), self._size)
        if len(data) < at + part:
            return None
        stream.length, stream.kind, stream.extended = length, kind, extended
        stream.body += data[at : at + part]
        self._streams[number] = stream
        at += part
        if len(stream.body) < length:
            return at, None
        message = Message(kind, bytes(stream.body))
        stream.body.clear()
        return at, message


class Reply(NamedTuple):
    """The reply to `connect`: `succeeded` is None if the server only closes. `code` is as in NetStatusEvent."""

    succeeded: bool | None
    code: str = ""
    description: str = ""
    redirect: str = ""


def reply_in(message: Message) -> Reply | None:
    """Return the reply that a message is, None for another message. Raises Malformed if a command cannot be read."""
    if message.kind not in (_COMMAND, _COMMAND_AMF3):
        return None
    try:
        name, *values = amf.decode(message.body[message.kind == _COMMAND_AMF3 :]) or [None]
    except ValueError as error:
        raise Malformed(f"a command of it cannot be read: {error}") from None
    if name == "close":
        return Reply(None, "close")
    if name not in ("_result", "_error"):
        return None
    info = next((value for value in reversed(values) if isinstance(value, dict) and "code" in value), {})
    code, description, more = info.get("code"), info.get("description"), info.get("ex")
    redirect = more.get("redirect") if isinstance(more, dict) else None
    return Reply(
        name == "_result",
        code if isinstance(code, str) else "",
        description if isinstance(description, str) else "",
        redirect if isinstance(redirect, str) else "",
    )
