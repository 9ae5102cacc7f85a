"""One reply to a POST: its head, its body as far as it came, and where the next reply begins."""

import re
from typing import NamedTuple

from flashpol.probe.websocket.reply import Head, read_head

_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[^\r\n]*\r?\n")
_CONTENT_LENGTH = re.compile(rb"\n([Cc]ontent-[Ll]ength)[ \t]*:")
_BODILESS = (204, 304)
_MAX_INTERIM = 5


class Reply(NamedTuple):
    """`size` is where the next reply begins. `closes` says that the server ends the connection after this one.

    `lower_case` says that names of fields are in lower case, `chunked` that the body came in chunks.
    """

    head: Head
    body: bytes
    size: int
    closes: bool
    chunked: bool
    lower_case: bool

    @property
    def found(self) -> bool:
        return self.head.status == 200


def read_reply(data: bytes, *, ended: bool = False) -> Reply | None:
    """Return the reply that begins these bytes, None if it is not complete. `ended`: the connection has ended."""
    begin = 0
    for _ in range(_MAX_INTERIM):
        head = read_head(data[begin:])
        if head is None:
            return None
        if not 100 <= head.status < 200:
            break
        begin += head.size
    else:
        return None
    at = begin + head.size
    chunked = "chunked" in head.tokens("transfer-encoding")
    length = head.get("content-length")
    until_end = not chunked and not length and head.status not in _BODILESS
    if head.status in _BODILESS:
        body, size = b"", at
    elif chunked:
        read = _read_chunks(data, at)
        if read is None:
            return None
        body, size = read
    elif until_end:
        if not ended:
            return None
        body, size = data[at:], len(data)
    else:
        if not length.isdecimal() or len(length) > 9 or len(data) < at + int(length):
            return None
        size = at + int(length)
        body = data[at:size]
    tokens = head.tokens("connection")
    closes = until_end or "close" in tokens or (head.version == "HTTP/1.0" and "keep-alive" not in tokens)
    name = _CONTENT_LENGTH.search(data, begin, at)
    return Reply(head, body, size, closes, chunked, name is not None and name[1].islower())


def _read_chunks(data: bytes, at: int) -> tuple[bytes, int] | None:
    body = bytearray()
    while match := _CHUNK_SIZE.match(data, at):
        size, at = int(match[1], 16), match.end()
        if not size:
            end = data.find(b"\r\n", at)  # trailers are not read: none are used here
            return (bytes(body), end + 2) if end >= 0 else None
        if len(data) < at + size + 2:
            return None
        body += data[at : at + size]
        at += size + 2
    return None


def can_be_http(data: bytes) -> bool:
    """Whether a reply of HTTP can begin so."""
    return data[:5] == b"HTTP/"[: len(data)]
