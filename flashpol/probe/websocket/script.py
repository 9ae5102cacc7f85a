"""The turns of one connection: the request, what a browser does after 101, and a Close. Nothing is judged here."""

from collections.abc import Callable

from flashpol.probe.exchange import Script, Timeouts, Turn
from flashpol.probe.websocket import frames, request
from flashpol.probe.websocket.frames import read_frames
from flashpol.probe.websocket.reply import body_is_complete, read_head
from flashpol.probe.websocket.url import Url

# Seconds after 101 within which a server closes whose application is down: a bridge may connect to it only then.
LISTEN = 1.0
# Seconds for the body of a refusal, if its end cannot be seen.
BODY = 0.5
_SWITCHING = 101


def upgrade(url: Url, origin: str, timeouts: Timeouts, *, stay: bool = True) -> Script:
    """Ask for a WebSocket. With `stay` listen for a moment and send a ping, otherwise close it at once."""
    data = yield Turn(request.request(url, origin, request.new_key()), _head_is_complete, timeouts.reply)
    head = read_head(data)
    if head is None:
        return
    if head.status != _SWITCHING:
        if not body_is_complete(head, data):
            yield Turn(b"", lambda data: body_is_complete(head, data), BODY)
        return
    closing, ponged = _came(head.size, frames.CLOSE), _came(head.size, frames.PONG)
    if stay:
        data = yield Turn(b"", closing, LISTEN)
        if not closing(data):
            ping = request.frame(request.PING, request.PING_DATA)
            yield Turn(ping, lambda data: ponged(data) or closing(data), timeouts.reply)
    yield Turn(request.frame(request.CLOSE, (1000).to_bytes(2, "big")), lambda _: False, timeouts.closing)


def plain(url: Url, origin: str, timeouts: Timeouts) -> Script:
    """Send the same GET without asking for a WebSocket."""
    yield Turn(request.request(url, origin, ""), _head_is_complete, timeouts.reply)


def _head_is_complete(data: bytes) -> bool:
    """Also whether what came can be no head at all."""
    return read_head(data) is not None or data[:5] != b"HTTP/"[: len(data)]


def _came(begin: int, opcode: int) -> Callable[[bytes], bool]:
    """Whether a frame of this kind came, or something that ends the connection of a browser."""

    def came(data: bytes) -> bool:
        found = read_frames(data[begin:], compressed=True)
        return bool(found.of_kind(opcode) or found.error)

    return came
