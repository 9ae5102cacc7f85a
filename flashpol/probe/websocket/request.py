"""The bytes that a browser sends: the request of a WebSocket, as Chromium writes it for Ruffle, and masked frames."""

import re
from binascii import b2a_base64
from os import urandom
from typing import NamedTuple

from flashpol.probe.websocket.url import Url

_USER_AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
# Whether a connection counts as secure -> the codings that Chromium offers.
_ENCODINGS = {False: "gzip, deflate", True: "gzip, deflate, br, zstd"}
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_ASKED = re.compile(rb"\r\nOrigin: ([^\r]*)\r\n(?:.*?\r\nSec-WebSocket-Key: ([^\r]*)\r\n)?", re.S)

PING, CLOSE = 0x9, 0x8
PING_DATA = b"flashpol"


class Asked(NamedTuple):
    """What a request said; `key` is empty if it asked for no WebSocket."""

    origin: str
    key: str


def new_key() -> str:
    return b2a_base64(urandom(16), newline=False).decode()


def accept_for(key: str) -> str:
    """Return the Sec-WebSocket-Accept that belongs to a key."""
    from hashlib import sha1  # loads OpenSSL, 3 ms

    return b2a_base64(sha1(f"{key}{_GUID}".encode(), usedforsecurity=False).digest(), newline=False).decode()


def request(url: Url, origin: str, key: str) -> bytes:
    """Return the request. Without a key it is the same GET, and asks for no WebSocket."""
    lines = [
        f"GET {url.target} HTTP/1.1",
        f"Host: {url.authority}",
        f"Connection: {'Upgrade' if key else 'close'}",
        "Pragma: no-cache",
        "Cache-Control: no-cache",
        f"User-Agent: {_USER_AGENT}",
        *["Upgrade: websocket"] * bool(key),
        f"Origin: {origin}",
        *["Sec-WebSocket-Version: 13"] * bool(key),
        f"Accept-Encoding: {_ENCODINGS[url.secure or url.is_loopback] if key else 'identity'}",
        "Accept-Language: en-US,en;q=0.9",
    ]
    if key:
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def asked(data: bytes) -> Asked:
    """Return what the bytes of a request asked for."""
    match = _ASKED.search(data)
    return Asked(match[1].decode(), (match[2] or b"").decode()) if match else Asked("", "")


def frame(opcode: int, payload: bytes = b"") -> bytes:
    """Return a masked frame of a client's, of 125 bytes at most."""
    mask = urandom(4)
    return bytes((0x80 | opcode, 0x80 | len(payload))) + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))
