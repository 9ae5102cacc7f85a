"""WebSocket's opening handshake, RFC 6455 section 4.2: pure functions over the head of a request."""

import base64
import binascii
import hashlib
from collections.abc import Iterable, Sequence

from flashpol.gateway import replies

VERSION = b"13"
# The subprotocol that websockify's clients ask for; of any others none is chosen, which RFC 6455 leaves to the server.
BINARY = b"binary"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES = 16

Fields = Sequence[tuple[bytes, bytes]]


def values_of(fields: Fields, name: bytes) -> list[bytes]:
    """The values of all fields of this name, which is in lower case."""
    return [value for each, value in fields if each.lower() == name]


def _tokens(values: Iterable[bytes]) -> list[bytes]:
    return [token.strip().lower() for value in values for token in value.split(b",")]


def refusal_of(fields: Fields) -> tuple[bytes, str] | None:
    """The reply and the result, as the metric names it, for a GET that opens no WebSocket; None if it opens one."""
    if b"websocket" not in _tokens(values_of(fields, b"upgrade")) or b"upgrade" not in _tokens(
        values_of(fields, b"connection")
    ):
        return replies.UPGRADE_REQUIRED, "no_upgrade"
    if values_of(fields, b"sec-websocket-version") != [VERSION]:
        return replies.VERSION_REQUIRED, "malformed"
    if key_of(fields) is None:
        return replies.reply(400, "The request has no Sec-WebSocket-Key of 16 bytes."), "malformed"
    return None


def key_of(fields: Fields) -> bytes | None:
    """The client's key; None if it is missing, is there twice, or is not 16 bytes in base64."""
    keys = values_of(fields, b"sec-websocket-key")
    if len(keys) != 1:
        return None
    try:
        return keys[0] if len(base64.b64decode(keys[0], validate=True)) == _KEY_BYTES else None
    except binascii.Error:
        return None


def accept(fields: Fields) -> bytes:
    """The reply with status 101, for a request that `refusal_of` has nothing against."""
    key = key_of(fields) or b""
    answer = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    chosen = b"Sec-WebSocket-Protocol: binary\r\n" if _offers_binary(fields) else b""
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + answer + b"\r\n" + chosen + b"\r\n"
    )


def _offers_binary(fields: Fields) -> bool:
    return any(
        token.strip() == BINARY for value in values_of(fields, b"sec-websocket-protocol") for token in value.split(b",")
    )
