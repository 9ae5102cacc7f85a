"""What WebSocket clients say and hear: opening handshakes, frames, and requests that are none. Good ones and bad ones.

A file of frames has at most `LARGEST` bytes, so that an attacker with TLS sends it as one record.
"""

import base64
import hashlib
import zlib
from random import Random

from faults.hello import LARGEST, SEED, VARIED
from flashpol.gateway.url_policies import reply

CONTENT_PORT = 1935  # what the policy of the server's listeners allows
REFUSED_PORT = 25  # and what it does not
ORIGIN = "https://games.example"
FORWARDED = "2001:db8::0000:0000"  # its digits are other ones for each attacker
URL_POLICY = b'<cross-domain-policy><allow-access-from domain="*.example"/></cross-domain-policy>'
URL_PATH = "/crossdomain.xml"
CONTINUATION, BINARY, CLOSE, PING = 0, 2, 8, 9
DEFLATE = "permessage-deflate; client_max_window_bits"
DEFLATE_WINDOW = 9  # bits, which the server chooses
_KEY = b"x3JJHMbDL1EzLkh9GBhXDw=="
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MASK = b"\x5a\xc3\x17\x88"
_NORMAL = (1000).to_bytes(2, "big")


def request(path: str = "/", *, origin: str = ORIGIN, fields: str = "") -> bytes:
    """The head of an opening handshake. fields: more of them, each with its CRLF."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: games.example\r\nOrigin: {origin}\r\n{fields}Connection: Upgrade\r\n"
        f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {_KEY.decode()}\r\n\r\n"
    ).encode()


def switched() -> bytes:
    """The reply that opens a WebSocket."""
    key = base64.b64encode(hashlib.sha1(_KEY + _GUID, usedforsecurity=False).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + key + b"\r\n\r\n"
    )


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, compressed: bool = False, masked: bool = True
) -> bytes:
    """One frame; a client's is masked."""
    size = len(payload)
    length = bytes((126,)) + size.to_bytes(2, "big") if size > 125 else bytes((size,))
    if masked:
        length = bytes((length[0] | 0x80,)) + length[1:] + _MASK
        payload = bytes(byte ^ _MASK[at & 3] for at, byte in enumerate(payload))
    return bytes((opcode | fin << 7 | compressed << 6,)) + length + payload


def many(one: bytes) -> bytes:
    """As many of this frame as a record has room for."""
    return one * (LARGEST // len(one))


def bomb(size: int) -> bytes:
    """A compressed message of so many bytes, all of them zero."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -DEFLATE_WINDOW)
    packed = packer.compress(bytes(size)) + packer.flush(zlib.Z_SYNC_FLUSH)
    pieces = [packed[at : at + LARGEST // 2] for at in range(0, len(packed) - 4, LARGEST // 2)]
    pieces[-1] = packed[(len(pieces) - 1) * (LARGEST // 2) : -4]
    return b"".join(
        frame(CONTINUATION if number else BINARY, piece, fin=number == len(pieces) - 1, compressed=not number)
        for number, piece in enumerate(pieces)
    )


def messages(hello: bytes, film: bytes) -> dict[str, bytes]:
    """By name, as `server.MESSAGES`. hello: what players say. film: what asks for one."""
    random = Random(SEED)
    filler = "a" * 60_000
    return {
        "ws-open": request(),
        "ws-switched": switched(),
        "ws-hello": frame(BINARY, hello),
        "ws-echo": frame(BINARY, hello, masked=False),
        "ws-film": frame(BINARY, film),
        "ws-close": frame(CLOSE, _NORMAL),
        "ws-closed": frame(CLOSE, _NORMAL, masked=False),
        "url-request": f"GET {URL_PATH} HTTP/1.1\r\nHost: games.example\r\n\r\n".encode(),
        "url-reply": reply(URL_PATH, URL_POLICY),
        # Heads that are not complete, too large, or of another origin or client each.
        "head-half": f"GET / HTTP/1.1\r\nHost: games.example\r\nX: {filler[:8_000]}".encode(),
        "head-large": f"GET / HTTP/1.1\r\nHost: games.example\r\nX: {filler}".encode(),
        "head-stranger": request("/strict", origin=f"https://{VARIED}"),
        "head-origin": request(origin=f"https://{VARIED}"),
        "head-forged": request(fields=f"X-Forwarded-For: {FORWARDED}\r\n"),
        "head-compressed": request("/packed", fields=f"Sec-WebSocket-Extensions: {DEFLATE}\r\n"),
        **{f"head-{path}": request(f"/{path}") for path in ("refusing", "dead", "mute", "pinged")},
        # Frames.
        "ws-tiny": many(frame(BINARY, b"e")),
        "ws-empty": many(frame(BINARY)),
        "ws-begin": frame(BINARY, b"e", fin=False),
        "ws-continued": many(frame(CONTINUATION, fin=False)),
        "ws-fragment": frame(CONTINUATION, bytes(LARGEST - 8), fin=False),
        "ws-cut": frame(BINARY, bytes(LARGEST - 8))[:-1],
        "ws-pings": many(frame(PING, b"p" * 125)),
        "ws-empty-pings": many(frame(PING)),
        "ws-large": frame(BINARY, bytes(LARGEST - 8)),
        "ws-bomb": bomb(16 << 20),
        "ws-small-bomb": bomb(1 << 20),
        "ws-garbage": random.randbytes(LARGEST),
    }
