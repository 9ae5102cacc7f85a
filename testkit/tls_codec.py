"""A codec of the server over memory, and what it has made of the bytes it was given."""

from flashpol._tls import ServerContext, TlsCodec
from testkit.tls import TlsClient

CODEC_READ = 16384  # wire bytes that it takes at a time
READ_BYTES = 4096  # and before its handshake is complete


class Decoder:
    """A codec as the fast path drives it. `plain`: what was decoded; `result`: of the last call."""

    def __init__(self, context: ServerContext) -> None:
        self.codec: TlsCodec = context.codec()
        self.plain = bytearray()
        self.result = "ok"

    def feed(self, wire: bytes, size: int = CODEC_READ) -> bytes:
        """Give it these bytes, in parts of this size; return what it sends by itself. It stops at an error."""
        sent = b""
        at = 0
        while at < len(wire):
            part = wire[at : at + min(size, CODEC_READ if self.codec.established else READ_BYTES)]
            at += len(part)
            self.result, plain, reply = self.codec.decode(part)
            self.plain += plain
            sent += reply
            if self.result == "work":
                self.result, plain, reply = self.codec.work()
                self.plain += plain
                sent += reply
            if self.result == "error":
                break
        return sent


def shake_hands(decoder: Decoder, client: TlsClient, size: int = CODEC_READ) -> None:
    """The whole handshake, in parts of this size. Raises Refused."""
    while not client.step():
        wire = client.take()
        assert wire or client.outgoing.pending == 0
        client.give(decoder.feed(wire, size))
    rest = decoder.feed(client.take(), size)
    client.give(rest)
    assert decoder.codec.established
