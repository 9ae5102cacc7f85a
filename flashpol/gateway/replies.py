"""The HTTP replies that are not an application's: short, with a line of text, and the last of their connection."""

from collections.abc import Mapping
from http import HTTPStatus

# Said where no cause is known.
_TEXTS = {
    400: "This is not a request that this server understands.",
    404: "There is nothing at this path.",
    405: "This path is for WebSocket connections.",
    408: "The request did not arrive in time.",
    411: "This server accepts no chunked request.",
    413: "The body of the request is longer than rtmpt_body.",
    414: "The target of the request is longer than 2,048 bytes.",
    417: "This server meets no expectation but 100-continue.",
    426: "This path is for WebSocket connections, and the request asks for none: a proxy may have removed its fields.",
    431: "The head of the request is longer than 8,192 bytes, or has more than 100 fields.",
    501: "This server accepts no transfer coding.",
    502: "The application cannot be reached.",
    503: "This server has no room for another connection at present.",
    504: "The application did not accept the connection in time.",
    505: "This server speaks HTTP/1.1.",
}


def reply(status: int, text: str | None = None, fields: Mapping[str, str] | None = None) -> bytes:
    """A reply with a line of text; `text` is ASCII. The connection is closed after it."""
    body = f"{_TEXTS[status] if text is None else text}\n"
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "Connection: close",
        "Cache-Control: no-store",
        "Content-Type: text/plain",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in (fields or {}).items()),
    ]
    return "\r\n".join([*lines, "", body]).encode("ascii")


def without_body(data: bytes) -> bytes:
    """The same reply to a HEAD request (RFC 9110 section 9.3.2)."""
    return data[: data.index(b"\r\n\r\n") + 4]


UPGRADE_REQUIRED = reply(426, None, {"Upgrade": "websocket"})
VERSION_REQUIRED = reply(
    426, "This server speaks version 13 of WebSocket.", {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
)
METHOD_NOT_ALLOWED = reply(405, None, {"Allow": "GET"})
# What the fast path replies with by itself, by status.
BY_STATUS = {status: reply(status) for status in (400, 408, 411, 413, 414, 417, 431, 501, 503, 505)}
BY_STATUS[405] = reply(405, "This path takes POST alone.", {"Allow": "POST"})
