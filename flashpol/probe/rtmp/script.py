"""The turns of one connection that carries RTMP itself: handshake, then `connect`. Nothing is judged here."""

from flashpol.probe.exchange import Script, Timeouts, Turn
from flashpol.probe.rtmp import chunks

_HEAD_END = b"\r\n\r\n"


def direct(application: str, url: str, timeouts: Timeouts) -> Script:
    """Shake hands, and ask for the application if there is one."""
    data = yield Turn(chunks.greeting(), _handshake_is_over, timeouts.reply)
    if not shakes_hands(data):
        return
    last = chunks.acknowledgement(data)
    if application:
        yield Turn(last + chunks.connect(application, url), Awaited(chunks.HANDSHAKE), timeouts.reply)
    else:
        yield Turn(last, lambda _: True, 0.0)


def shakes_hands(data: bytes) -> bool:
    """Whether these are S0, S1 and S2."""
    return len(data) >= chunks.HANDSHAKE and data[0] == chunks.VERSION


def _handshake_is_over(data: bytes) -> bool:
    """Also whether what came is no handshake, and enough to say what it is instead."""
    if data[0] == chunks.VERSION:
        return len(data) >= chunks.HANDSHAKE
    return _HEAD_END in data or data[:5] != b"HTTP/"[: len(data)]


class Awaited:
    """Whether the reply to `connect` came, or something that breaks the protocol. `skip` bytes are not chunks."""

    def __init__(self, skip: int) -> None:
        self._read = skip
        self._stream = chunks.Stream()
        self._came = False

    def __call__(self, data: bytes) -> bool:
        new, self._read = data[self._read :], max(self._read, len(data))
        try:
            self._came = self._came or any(chunks.reply_in(message) is not None for message in self._stream.feed(new))
        except chunks.Malformed:
            self._came = True
        return self._came
