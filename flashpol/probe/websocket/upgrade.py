"""One connection as it is judged: what was asked, the head of the reply, the frames, and the times of each."""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from flashpol.probe.exchange import End, Exchange, What
from flashpol.probe.websocket import frames, request
from flashpol.probe.websocket.frames import Frame, Frames, read_frames
from flashpol.probe.websocket.reply import Head, first_words, read_head

_SWITCHING = 101


class Upgrade(NamedTuple):
    """Times are in seconds. `seconds` is the time from the request to the end of the head, `replied` that from the SYN.

    `words` is the first line of a refusal's body. `left` is the time from 101 until the server ended the connection,
    None if the probe did, and `how` says how. `pong` is the time that the reply to a ping took; `pinged` says whether
    one was sent, and so much was read that its reply would be seen.
    """

    origin: str
    key: str
    head: Head | None = None
    seconds: float | None = None
    replied: float | None = None
    words: str = ""
    came: Frames = Frames(())
    left: float | None = None
    how: str = ""
    pinged: bool = False
    pong: float | None = None

    @property
    def opened(self) -> bool:
        """The server switched protocols, rightly or wrongly."""
        return self.head is not None and self.head.status == _SWITCHING

    @property
    def compressed(self) -> bool:
        """The server chose compression."""
        return self.head is not None and _chose_compression(self.head)


def _chose_compression(head: Head) -> bool:
    chosen = head.tokens("sec-websocket-extensions")
    return any(token.partition(";")[0].strip() == "permessage-deflate" for token in chosen)


@lru_cache(maxsize=256)
def upgrade_of(exchange: Exchange) -> Upgrade:
    """Return what a connection shows. It has a head only if the server sent a complete one."""
    sent = [event for event in exchange.events if event.what is What.SENT]
    if not sent:
        return Upgrade("", "")
    asked = request.asked(sent[0].data)
    data = exchange.data
    head = read_head(data)
    if head is None:
        return Upgrade(asked.origin, asked.key)
    replied = time_of(exchange, head.size)
    seconds = replied - sent[0].at
    if head.status != _SWITCHING:
        return Upgrade(asked.origin, asked.key, head, seconds, replied, first_words(head, data))
    came = read_frames(data[head.size :], compressed=_chose_compression(head))
    pinged = next((event.at for event in sent[1:] if event.data[0] & 0x0F == request.PING), None)
    closed = next((event.at for event in sent[1:] if event.data[0] & 0x0F == request.CLOSE), None)
    left, how = _left(exchange, head, came, closed)
    pong = next((time_of(exchange, head.size + one.end) - pinged for one in _pongs(came)), None) if pinged else None
    return Upgrade(
        asked.origin, asked.key, head, seconds, replied, "", came,
        None if left is None else left - replied, how, pinged is not None and exchange.end is not End.FLOOD, pong,
    )  # fmt: skip


def _pongs(came: Frames) -> Iterator[Frame]:
    yield from (frame for frame in came.of_kind(frames.PONG) if frame.payload == request.PING_DATA)


def _left(exchange: Exchange, head: Head, came: Frames, closed: float | None) -> tuple[float | None, str]:
    """Return when the server ended the connection and how, if it did so before the probe."""
    if came.close is not None:
        at = time_of(exchange, head.size + came.close.end)
        if closed is None or at < closed:
            return at, f"Close {came.close.close_words}"
    if closed is None and exchange.end in (End.CLOSED, End.RESET, End.ABORTED):
        return exchange.ended, f"{'FIN' if exchange.end is End.CLOSED else 'RST'} without a Close"
    return None, ""


def time_of(exchange: Exchange, size: int) -> float:
    """Return when so many bytes had come, in seconds since connect(2) was called."""
    total = 0
    for event in exchange.received:
        total += len(event.data)
        if total >= size:
            return event.at
    return exchange.ended
