"""Requests for a WebSocket, as a browser sends them, and the frames that tests need."""

import base64

UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
}
# A frame of a client, whose mask is 0: Close with the code 1000.
CLOSE = bytes([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8])


def upgrade(path: str, origin: str | None, **fields: str | None) -> bytes:
    """A request; fields: that differ from the usual ones (`_` is a hyphen), None: without it."""
    head = {"Host": "games.example.com", "Origin": origin, **UPGRADE}
    head |= {name.replace("_", "-"): value for name, value in fields.items()}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items() if value is not None)]
    return "\r\n".join([*lines, "", ""]).encode()
