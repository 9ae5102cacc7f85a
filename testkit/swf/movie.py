"""The SWF file: header and tags (SWF File Format Specification, version 19)."""

import struct
from collections.abc import Iterable

FILE_ATTRIBUTES, SET_BACKGROUND_COLOR, SHOW_FRAME, END = 69, 9, 1, 0
DO_ACTION, DO_ABC, SYMBOL_CLASS = 12, 82, 76
ACTIONSCRIPT_3 = 0x08  # a flag of FileAttributes
TWIPS = 20  # in a pixel
LONG = 0x3F  # in the length of a tag: 32 bits with the length follow
AVM1_VERSION, AVM2_VERSION = 8, 11  # 8: the first with ExternalInterface


def tag(number: int, content: bytes = b"") -> bytes:
    if len(content) < LONG:
        return struct.pack("<H", number << 6 | len(content)) + content
    return struct.pack("<HI", number << 6 | LONG, len(content)) + content


def rectangle(width: int, height: int) -> bytes:
    """RECT from 0, 0; in pixels."""
    sides = (0, width * TWIPS, 0, height * TWIPS)
    bits = max(sides).bit_length() + 1  # they have a sign
    text = f"{bits:05b}" + "".join(f"{side:0{bits}b}" for side in sides)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def file(version: int, tags: Iterable[bytes], width: int, height: int, rate: int = 30) -> bytes:
    """An uncompressed SWF of one frame."""
    body = rectangle(width, height) + struct.pack("<HH", rate << 8, 1) + b"".join(tags)
    return b"FWS" + struct.pack("<BI", version, 8 + len(body)) + body


def avm1_movie(actions: bytes, width: int = 320, height: int = 240, background: int = 0xFFFFFF) -> bytes:
    """A movie whose one frame has the code of `avm1`. background: 0xRRGGBB."""
    tags = [
        tag(FILE_ATTRIBUTES, bytes(4)),
        tag(SET_BACKGROUND_COLOR, background.to_bytes(3, "big")),
        tag(DO_ACTION, actions + b"\0"),
        tag(SHOW_FRAME),
        tag(END),
    ]
    return file(AVM1_VERSION, tags, width, height)


def avm2_movie(abc: bytes, document_class: str, width: int = 320, height: int = 240) -> bytes:
    """A movie that is an instance of a class of `avm2`."""
    main = struct.pack("<HH", 1, 0) + document_class.encode() + b"\0"
    tags = [
        tag(FILE_ATTRIBUTES, struct.pack("<I", ACTIONSCRIPT_3)),
        tag(DO_ABC, struct.pack("<I", 0) + b"\0" + abc),
        tag(SYMBOL_CLASS, main),
        tag(SHOW_FRAME),
        tag(END),
    ]
    return file(AVM2_VERSION, tags, width, height)
