"""Targets of the TLS codec: raw first bytes, and a connection with OpenSSL's own client whose bytes are changed.

The randomness of the client is its own, so an input does not always lead to the same bytes on the wire; what must hold
does not depend on them.
"""

import ssl
from collections.abc import Iterator
from functools import cache

from flashpol._tls import PROFILES, ServerContext
from testkit.tls import Refused, TlsClient, only
from testkit.tls_codec import CODEC_READ, Decoder
from testkit.tls_serving import issue

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
CUTS = 8
MAX_STEPS = 200
RECORD_HEAD = 5
KINDS = (0x14, 0x15, 0x16, 0x17)


@cache
def context(settings: int) -> ServerContext:
    """The settings of a listener, from two bits: strict names, tickets."""
    pairs = [issue("first.test"), issue("*.wild.test"), issue("first.test", key="rsa")]
    return ServerContext(
        pairs, profile=PROFILES[settings % 3], strict_sni=bool(settings & 4), tickets=settings >> 3 & 1
    )


@cache
def client_context(number: int) -> ssl.SSLContext:
    return only(VERSIONS[number])


def check_records(wire: bytes) -> None:
    """Whole records of TLS."""
    at = 0
    while at < len(wire):
        assert len(wire) - at >= RECORD_HEAD, "a part of a record's head"
        assert wire[at] in KINDS, "no record of TLS"
        at += RECORD_HEAD + int.from_bytes(wire[at + 3 : at + 5])
    assert at == len(wire), "a part of a record"


def check_failed(decoder: Decoder) -> None:
    """A codec that has failed does nothing more."""
    assert decoder.codec.failure is not None
    assert decoder.codec.decode(b"\x16\x03\x01") == ("error", b"", b"")
    assert decoder.codec.work() == ("error", b"", b"")
    assert decoder.codec.encode(b"x") is None
    assert decoder.codec.finish() == b""


def tls_hello(data: bytes) -> None:
    """First bytes of a client, in pieces and whole: no handshake is completed, and both have the same verdict.

    data: the settings, sizes of pieces, the bytes.
    """
    if len(data) < 1 + CUTS:
        return
    settings, cuts, wire = data[0] & 15, data[1 : 1 + CUTS], data[1 + CUTS :]
    whole, pieces = Decoder(context(settings)), Decoder(context(settings))
    reply = whole.feed(wire)
    check_records(reply)
    at = number = 0
    while at < len(wire) and pieces.result != "error":
        size = 1 + cuts[number % CUTS]
        check_records(pieces.feed(wire[at : at + size]))
        at, number = at + size, number + 1
    for decoder in (whole, pieces):
        assert not decoder.codec.established, "complete without the client's keys"
        assert decoder.plain == b""
        assert decoder.codec.encode(b"x") is None
        if decoder.result == "error":
            check_failed(decoder)
    assert (whole.result == "error") == (pieces.result == "error"), "pieces have another verdict"
    # The reason may differ: what follows a hello is judged with it if it has arrived.


class Program:
    """A client and a codec; the bytes of the input say what happens next. `pending` is on its way to the codec."""

    def __init__(self, data: bytes) -> None:
        self._bytes = iter(data)
        self._ended = False
        settings = self.byte()
        self.decoder = Decoder(context(settings >> 4 & 15))
        self.client = TlsClient(
            None, client_context(settings & 1), name="a.wild.test" if settings & 2 else "first.test"
        )
        self.pending = bytearray()
        self.said = bytearray()  # what the client has encrypted
        self.replied = bytearray()  # what the codec has encoded
        self.heard = bytearray()  # what the client has decrypted
        self.changed = self.finished = self.closed = self.failed = False

    def byte(self) -> int:
        """The next of the input; 0 behind its end."""
        found = next(self._bytes, None)
        self._ended |= found is None
        return found or 0

    def run(self) -> None:
        self.advance()
        for _ in range(MAX_STEPS):
            if self._ended or self.decoder.result == "error":
                break
            self.step(self.byte())
        while self.pending and self.decoder.result != "error":
            self.deliver(len(self.pending))
        self.check()

    def advance(self) -> None:
        """Let the client go on with its handshake."""
        if self.failed or self.client.established:
            return
        try:
            self.client.step()
        except Refused:
            self.failed = True
        self.pending += self.client.take()

    def deliver(self, size: int) -> None:
        part = bytes(self.pending[:size])
        del self.pending[:size]
        reply = self.decoder.feed(part, CODEC_READ)
        if not self.changed:
            check_records(reply)
        self.hear(reply)

    def hear(self, wire: bytes) -> None:
        """The client receives."""
        if self.failed or not wire:
            return
        self.client.give(wire)
        self.advance()
        if self.client.established and not self.failed:
            try:
                self.heard += self.client.decrypt()
            except ssl.SSLError:
                self.failed = True

    def step(self, what: int) -> None:
        act = (self.say, self.reply, self.pass_on, self.pass_on, self.change, self.insert, self.drop, self.end)[
            what & 7
        ]
        act(what >> 3)

    def say(self, size: int) -> None:
        if self.client.established and not self.closed and not self.failed:
            data = bytes([self.byte()]) * (1 + size * size * 40)
            self.pending += self.client.encrypt(data)
            self.said += data

    def reply(self, size: int) -> None:
        if self.finished:
            return
        data = bytes([self.byte()]) * (size * size * 60)
        wire = self.decoder.codec.encode(data)
        if wire is None:
            assert not self.decoder.codec.established
            return
        assert len(wire) <= len(data) + 1024, "more than the room that callers give"
        check_records(wire)
        self.replied += data
        self.hear(wire)

    def pass_on(self, size: int) -> None:
        self.deliver(len(self.pending) if size == 31 else 1 + size * size)

    def change(self, where: int) -> None:
        if self.pending:
            at = (where * 256 + self.byte()) % len(self.pending)
            bits = self.byte()
            self.pending[at] ^= bits
            self.changed |= bits != 0

    def insert(self, size: int) -> None:
        at = self.byte() % (len(self.pending) + 1)
        self.pending[at:at] = bytes(self.byte() for _ in range(size))
        self.changed |= size != 0

    def drop(self, size: int) -> None:
        if self.pending and size:
            at = self.byte() % len(self.pending)
            del self.pending[at : at + size]
            self.changed = True

    def end(self, how: int) -> None:
        if how & 1:
            wire = self.decoder.codec.finish()
            check_records(wire)
            self.finished |= self.decoder.codec.established
            self.hear(wire)
        elif self.client.established and not self.closed and not self.failed:
            self.pending += self.client.farewell()
            self.closed = True

    def check(self) -> None:
        decoder, codec = self.decoder, self.decoder.codec
        assert self.said.startswith(decoder.plain), "decoded what the client has not said"
        assert self.replied.startswith(self.heard), "the client heard what was not said"
        if decoder.result == "error":
            check_failed(decoder)
        if not self.changed:
            assert decoder.result != "error", f"refused for {codec.failure}"
            assert codec.established == self.client.established
            if codec.established:
                assert decoder.plain == self.said, "not all of it was decoded"
                assert self.heard == self.replied, "not all of it was heard"
                assert codec.ended == self.closed


def tls_connection(data: bytes) -> None:
    """A connection in which bytes are cut, changed, inserted and dropped on their way to the codec.

    What it decodes is what the client has encrypted, from the beginning; if nothing was changed, it is all of it.
    """
    Program(data).run()


def seeds() -> Iterator[tuple[str, str, bytes]]:
    """(target, name, input). ``python -m fuzz.tls`` writes them."""
    from testkit.tls import hello, record

    cuts = bytes(range(0, 8 * CUTS, 8))
    for name, wire in {
        "modern": hello(name="first.test"),
        "wild": hello(name="a.wild.test", alpn=[b"h2", b"http/1.1"]),
        "old": hello(version=0x0301, suites=[0x002F]),
        "ssl3": hello(version=0x0300, record_version=0x0300),
        "no-alpn": hello(alpn=[b"h2"]),
        "tls13": TlsClient(None, client_context(1), name="first.test").hello(),
        "tls12": TlsClient(None, client_context(0), name="unknown.test").hello(),
        "alert": record(0x15, b"\x01\x00"),
        "empty": record(0x16, b""),
        "two-records": hello() + record(0x16, b"\x01\0\0\0"),
    }.items():
        for settings in (0, 2, 4):
            yield "tls_hello", f"{name}-{settings}", bytes([settings]) + cuts + wire
    everything, a_little = 0xFA, 0x52
    for version in (0, 1):
        go = bytes([version, *[everything] * 3])
        yield "tls_connection", f"handshake-{version}", go
        yield "tls_connection", f"in-parts-{version}", bytes([version, *[a_little] * 40])
        yield "tls_connection", f"data-{version}", go + bytes([0xF8, 1, 0xF9, 2, everything, 0x07, everything, 0x0F])
        yield "tls_connection", f"changed-{version}", go + bytes([0x18, 1, 0x0C, 9, 1, everything])
        yield "tls_connection", f"inserted-{version}", go + bytes([0x18, 1, 0x2D, 0, 23, 3, 3, 0, 0, everything])
        yield "tls_connection", f"dropped-{version}", bytes([version, 0x16, 3, *[everything] * 3])


def main() -> None:
    from pathlib import Path

    for target, name, data in seeds():
        folder = Path(__file__).parent / "seeds" / target
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
