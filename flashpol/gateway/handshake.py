"""WebSocket's opening handshake, RFC 6455 section 4.2: pure functions over the head of a request."""

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from flashpol.gateway import replies

VERSION = b"13"
# The subprotocol that websockify's clients ask for; of any others none is chosen, which RFC 6455 leaves to the server.
BINARY = b"binary"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES = 16

# The values of the fields of each name, which is in lower case.
Fields = Mapping[bytes, Sequence[bytes]]


def grouped(fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    """The fields of a head, in order, by their names."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        found.setdefault(name.lower(), []).append(value)
    return found


def values_of(fields: Fields, name: bytes) -> Sequence[bytes]:
    """The values of all fields of this name, which is in lower case."""
    return fields.get(name, ())


def _tokens(values: Iterable[bytes]) -> list[bytes]:
    return [token.strip().lower() for value in values for token in value.split(b",")]


class Refusal(NamedTuple):
    """The reply, the result as the metric names it, and the reason for the log."""

    reply: bytes
    result: str
    reason: str


NO_UPGRADE = Refusal(replies.UPGRADE_REQUIRED, "no_upgrade", "the request does not ask for a WebSocket")
OLD_HTTP = NO_UPGRADE._replace(reason="the request is HTTP/1.0, in which no WebSocket can be asked for")
OTHER_VERSION = Refusal(replies.VERSION_REQUIRED, "malformed", "the request is not for version 13 of WebSocket")
NO_KEY = Refusal(
    replies.reply(400, "The request has no Sec-WebSocket-Key of 16 bytes."),
    "malformed",
    "the request has no Sec-WebSocket-Key of 16 bytes",
)


def refusal_of(fields: Fields) -> Refusal | None:
    """Why a GET opens no WebSocket; None if it opens one."""
    if b"websocket" not in _tokens(values_of(fields, b"upgrade")) or b"upgrade" not in _tokens(
        values_of(fields, b"connection")
    ):
        return NO_UPGRADE
    if list(values_of(fields, b"sec-websocket-version")) != [VERSION]:
        return OTHER_VERSION
    if not has_key(fields):
        return NO_KEY
    return None


def has_key(fields: Fields) -> bool:
    """False if the client's key is missing, is there twice, or is not 16 bytes in base64."""
    keys = values_of(fields, b"sec-websocket-key")
    if len(keys) != 1:
        return False
    try:
        return len(base64.b64decode(keys[0], validate=True)) == _KEY_BYTES
    except binascii.Error:
        return False


def accept(fields: Fields, extensions: bytes | None = None) -> bytes:
    """The reply with status 101, for a request that `refusal_of` has nothing against."""
    key = fields[b"sec-websocket-key"][0]
    answer = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    chosen = b"Sec-WebSocket-Protocol: binary\r\n" if _offers_binary(fields) else b""
    if extensions:
        chosen += b"Sec-WebSocket-Extensions: " + extensions + b"\r\n"
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + answer + b"\r\n" + chosen + b"\r\n"
    )


def _offers_binary(fields: Fields) -> bool:
    return any(
        token.strip() == BINARY for value in values_of(fields, b"sec-websocket-protocol") for token in value.split(b",")
    )


# What each side may do with its window, and that it has none between two messages (RFC 7692 section 7.1).
_SERVER_WINDOW, _CLIENT_WINDOW = 12, 9  # bits, as the codec has them
_SWITCHES = (b"server_no_context_takeover", b"client_no_context_takeover")
_SERVER_BITS, _CLIENT_BITS = b"server_max_window_bits", b"client_max_window_bits"
_DEFLATE = b"permessage-deflate"
_AGREED = b"permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits=9"


def compression(fields: Fields) -> bytes | None:
    """What is agreed on of the client's offers to compress; None: none of them can be met.

    A client whose window cannot be limited would need 40 KB here for each message that has come in part, and is
    declined. So are malformed offers, which other servers fail on.
    """
    for value in values_of(fields, b"sec-websocket-extensions"):
        for offer in value.split(b","):
            name, *parameters = (part.strip().lower() for part in offer.split(b";"))
            if name == _DEFLATE and (windows := _windows(parameters)):
                server, client = windows
                if client is not None and client >= _CLIENT_WINDOW and (server or _SERVER_WINDOW) >= _SERVER_WINDOW:
                    return _AGREED + (b"; server_max_window_bits=%d" % _SERVER_WINDOW if server else b"")
    return None


def _windows(parameters: Sequence[bytes]) -> tuple[int | None, int | None] | None:
    """Bits of the windows that an offer is about, server's and client's; None if it is malformed."""
    found: dict[bytes, int | None] = {}
    for parameter in parameters:
        name, equals, text = (part.strip() for part in parameter.partition(b"="))
        if name in found or name not in (*_SWITCHES, _SERVER_BITS, _CLIENT_BITS):
            return None
        text = text[1:-1] if text[:1] == text[-1:] == b'"' and len(text) > 1 else text
        if equals:
            if name in _SWITCHES or text not in (b"8", b"9", b"10", b"11", b"12", b"13", b"14", b"15"):
                return None
            found[name] = int(text)
        elif name == _SERVER_BITS:
            return None
        else:
            found[name] = 15
    return found.get(_SERVER_BITS), found.get(_CLIENT_BITS)
