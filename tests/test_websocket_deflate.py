"""Compressed messages (RFC 7692): the codec without a socket, against Python's zlib."""

import os
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashpol._websocket import COMPRESSES
from testkit.deflate_codec import MAX_MESSAGE, Connection, Paths, bomb_of, compressed, with_last_block
from testkit.examples import examples
from testkit.websocket_frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TAIL,
    TEXT,
    Frames,
    deflate,
    frame,
    inflate,
)

pytestmark = pytest.mark.skipif(not COMPRESSES, reason="built without zlib")
CHUNK = 32768  # bytes that decode makes at most
SIZES = [*range(70), 255, 256, 4095, 4096, 4097, 16384, CHUNK - 1, CHUNK, CHUNK + 1, 65535, 65536, 65537, 300_000]
TEXT_OF = (b"the quick brown fox jumps over the lazy dog, " * 7000)[:300_000]
RANDOM = os.urandom(300_000)
KINDS = {"zeros": bytes(300_000), "text": TEXT_OF, "random": RANDOM}


@pytest.mark.parametrize("kind", KINDS)
def test_message_of_every_size_arrives(kind: str) -> None:
    paths, sizes = Paths(), 0
    connection = Connection(paths)
    for size in SIZES:
        message = KINDS[kind][:size]
        connection.feed(compressed(deflate(message)))
        assert connection.result == "ok"
        assert connection.plain == message
        assert not connection.wire
        connection.plain.clear()
        sizes += size
    assert max(connection.pieces) <= CHUNK
    assert paths.count("inflated") == (sizes, 0)


@pytest.mark.parametrize("level", range(10))
@pytest.mark.parametrize(
    "message",
    [b"", b"a", TEXT_OF[:5000], bytes(100_000), RANDOM[:10_000] + bytes(10_000)],
    ids=["empty", "byte", "text", "zeros", "random"],
)
def test_message_arrives_byte_by_byte_and_in_fragments(message: bytes, level: int) -> None:
    payload = deflate(message, level=level)
    one = Connection(Paths()).feed(compressed(payload), 1)
    fragments = Connection(Paths()).feed(compressed(payload, *range(1, len(payload), max(1, len(payload) // 50))))
    assert one.plain == fragments.plain == message
    assert (one.result, fragments.result) == ("ok", "ok")


@pytest.mark.parametrize("message", [b"", b"Hello", TEXT_OF, RANDOM], ids=["empty", "hello", "text", "random"])
def test_message_with_a_last_block_arrives(message: bytes) -> None:
    connection = Connection(Paths()).feed(compressed(with_last_block(message)))
    assert (connection.plain, connection.result) == (message, "ok")
    # Several of them: each begins with nothing before it.
    blocks = with_last_block(message).removesuffix(b"\0") * 3
    connection = Connection(Paths()).feed(compressed(blocks + b"\0"))
    assert (connection.plain, connection.result) == (message * 3, "ok")


@pytest.mark.parametrize(
    "payload",
    [
        b"\xf2\x48\xcd\xc9\xc9\x07\x00",  # one block
        b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",  # two blocks
        b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00",  # without compression
        b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00",  # a last block
    ],
    ids=["one", "two", "stored", "last"],
)
def test_hello_of_rfc_7692_arrives(payload: bytes) -> None:
    """Section 7.2.3."""
    for connection in (Connection(Paths()).feed(compressed(payload)), Connection(Paths()).feed(compressed(payload), 1)):
        assert (connection.plain, connection.result) == (b"Hello", "ok")


def test_message_without_compression_arrives_between_compressed_ones() -> None:
    connection = Connection(Paths())
    connection.feed(compressed(deflate(b"one,")) + frame(BINARY, b"two,") + compressed(deflate(b"three")), 3)
    assert connection.plain == b"one,two,three"


def test_control_frames_arrive_between_fragments() -> None:
    payload = deflate(TEXT_OF[:1000])
    first, rest = compressed(payload[:5]), frame(CONTINUATION, payload[5:])
    first = frame(BINARY, payload[:5], fin=False, rsv1=True)
    connection = Connection(Paths()).feed(first + frame(PING, b"a") + rest + frame(PING, b"b"))
    assert connection.plain == TEXT_OF[:1000]
    assert [(each.opcode, each.payload) for each in Frames().feed(bytes(connection.wire))] == [
        (PONG, b"a"),
        (PONG, b"b"),
    ]


@pytest.mark.parametrize(
    ("wire", "compresses"),
    [
        (frame(BINARY, b"a", fin=False) + frame(CONTINUATION, b"b", rsv1=True), True),
        (frame(BINARY, deflate(b"a"), fin=False, rsv1=True) + frame(CONTINUATION, b"b", rsv1=True), True),
        (frame(PING, b"a", rsv1=True), True),
        (frame(CLOSE, b"\x03\xe8", rsv1=True), True),
        (frame(BINARY, deflate(b"a"), rsv1=True), False),
    ],
    ids=["continuation", "continuation-of-compressed", "ping", "close", "not-agreed"],
)
def test_bit_of_compression_elsewhere_breaks_the_protocol(wire: bytes, compresses: bool) -> None:
    connection = Connection(Paths(), compresses=compresses).feed(wire)
    assert (connection.result, connection.close_code) == ("error", 1002)


@pytest.mark.parametrize(
    "payload",
    [
        b"\x06",  # a block of a kind that does not exist
        b"\x00\x05\x00\xfa\xfe\x48",  # the size and its complement differ
        b"\xed\xfd" + b"\xff" * 20,  # codes that are no tree
        zlib.compress(b"with a head of zlib"),
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" + b"\xff" * 20,  # gzip
    ],
    ids=["kind", "size", "codes", "zlib", "gzip"],
)
@pytest.mark.parametrize("size", [1, 16384])
def test_bytes_that_are_no_deflate_get_1007(payload: bytes, size: int) -> None:
    with pytest.raises(zlib.error):
        inflate(payload)
    paths = Paths()
    connection = Connection(paths).feed(compressed(payload), size)
    assert (connection.result, connection.close_code) == ("error", 1007)
    assert connection.codec.decode(frame(PING)) == ("error", b"", b"")


def test_distance_to_before_the_message_gets_1007() -> None:
    """A client that keeps its window over messages did not agree to that."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -9)
    payloads = []
    for _ in range(2):
        made = compressor.compress(RANDOM[:200]) + compressor.flush(zlib.Z_SYNC_FLUSH)
        payloads.append(made.removesuffix(TAIL))
    assert len(payloads[1]) < 100
    connection = Connection(Paths()).feed(compressed(payloads[0]))
    assert connection.plain == RANDOM[:200]
    connection.feed(compressed(payloads[1]))
    assert (connection.result, connection.close_code, connection.plain) == ("error", 1007, RANDOM[:200])


@pytest.mark.parametrize("size", [1, 100, 16384])
def test_window_that_is_larger_than_agreed_gives_no_wrong_byte(size: int) -> None:
    message = RANDOM[:20_000] * 2
    payload = deflate(message, window=15)
    assert len(payload) < 25_000
    connection = Connection(Paths()).feed(compressed(payload), size)
    assert message.startswith(bytes(connection.plain))
    assert connection.plain == message or connection.close_code == 1007


@pytest.mark.parametrize("size", [1, 997, 16384])
def test_message_above_the_limit_gets_1009(size: int) -> None:
    limit = 100_000
    exact = Connection(Paths(limit)).feed(compressed(deflate(bytes(limit))), size)
    assert (exact.result, len(exact.plain)) == ("ok", limit)
    larger = Connection(Paths(limit)).feed(compressed(deflate(bytes(limit + 1))), size)
    assert (larger.result, larger.close_code) == ("error", 1009)
    assert len(larger.plain) <= limit
    several = Connection(Paths(limit)).feed(compressed(deflate(bytes(limit))) * 3, size)
    assert (several.result, len(several.plain)) == ("ok", 3 * limit)


def test_bomb_is_inflated_in_pieces_up_to_the_limit() -> None:
    bomb = bomb_of(100 << 20)
    assert len(bomb) < 200_000
    connection = Connection(Paths()).feed(compressed(bomb))
    assert (connection.result, connection.close_code) == ("error", 1009)
    assert MAX_MESSAGE - CHUNK <= len(connection.plain) <= MAX_MESSAGE
    assert max(connection.pieces) <= CHUNK


def test_text_is_judged_after_decompression() -> None:
    good, bad = "Grüße, 世界 🌍".encode() * 3000, b"valid " * 3000 + b"\xed\xa0\x80"
    for size in (1, 16384):
        connection = Connection(Paths(text=True)).feed(compressed(deflate(good), opcode=TEXT), size)
        assert (connection.result, connection.plain) == ("ok", good)
        connection = Connection(Paths(text=True)).feed(compressed(deflate(bad), opcode=TEXT), size)
        assert (connection.result, connection.close_code) == ("error", 1007)
        connection = Connection(Paths(text=True)).feed(compressed(deflate(good[:-1]), opcode=TEXT), size)
        assert (connection.result, connection.close_code) == ("error", 1007)


# ----------------------------------------------------------------------------------------------------- what is sent


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 63, 64, 65, 125, 126, 127, 4096, 8192, CHUNK])
def test_encoded_message_is_what_a_client_with_the_agreed_window_inflates(kind: str, size: int) -> None:
    paths, message = Paths(), KINDS[kind][:size]
    connection = Connection(paths)
    for _ in range(2):  # the second has no window before it either
        [sent] = Frames().feed(connection.codec.encode(message) or b"")
        assert (sent.opcode, sent.fin) == (BINARY, True)
        assert sent.rsv1 == (kind != "random" and size >= 64)
        plain = zlib.decompressobj(-12).decompress(sent.payload + TAIL) if sent.rsv1 else sent.payload
        assert plain == message
        assert len(sent.payload) < size or not sent.rsv1
    deflated, inflated = paths.count("deflated")[1], paths.count("inflated")[1]
    assert (deflated, inflated) == ((2 * len(sent.payload), 2 * size) if sent.rsv1 else (0, 0))


def test_encoded_message_has_no_distance_longer_than_the_window() -> None:
    """zlib lets a distance reach as far back as one call has made bytes, so the bytes come one at a time."""
    message = RANDOM[:5000] * 2 + bytes(5000)
    [sent] = Frames().feed(Connection(Paths()).codec.encode(message) or b"")
    assert sent.rsv1
    decompressor, plain = zlib.decompressobj(-12), b""
    for byte in sent.payload + TAIL:
        plain += decompressor.decompress(bytes([byte]))
    assert plain == message


def test_client_that_did_not_agree_gets_messages_as_they_are() -> None:
    connection = Connection(Paths(), compresses=False)
    [sent] = Frames().feed(connection.codec.encode(bytes(1000)) or b"")
    assert (sent.rsv1, sent.payload) == (False, bytes(1000))


# ------------------------------------------------------------------------------------------- one path, many connections

messages = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 9), st.lists(st.integers(1, 400), max_size=4), st.booleans()),
    max_size=12,
)


@given(
    messages=messages,
    data=st.lists(
        st.sampled_from([b"", b"abc" * 40, bytes(70_000), RANDOM[:700], TEXT_OF[:3000]]), min_size=1, max_size=4
    ),
    order=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5000)), max_size=60),
    ends=st.lists(st.integers(0, 59), max_size=3),
)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_connections_that_share_a_decompressor_get_their_own_bytes(
    messages: list[tuple[int, int, list[int], bool]], data: list[bytes], order: list[tuple[int, int]], ends: list[int]
) -> None:
    """Four connections of one path: pieces of their wire arrive in any order, and some are closed within a message."""
    paths = Paths()
    connections: list[Connection | None] = [Connection(paths) for _ in range(4)]
    wires, expected = [bytearray() for _ in range(4)], [bytearray() for _ in range(4)]
    for number, (who, level, cuts, squeezed) in enumerate(messages):
        message = data[number % len(data)]
        wires[who] += compressed(deflate(message, level=level), *cuts) if squeezed else frame(BINARY, message)
        expected[who] += message
    for step, (who, size) in enumerate(order):
        connection = connections[who]
        if connection is None:
            continue
        if step in ends:
            connections[who] = connection = None  # freed
            continue
        connection.feed(bytes(wires[who][:size]))
        del wires[who][:size]
        assert connection.result == "ok"
        assert expected[who].startswith(connection.plain)
    for who, connection in enumerate(connections):
        if connection is not None:
            connection.feed(bytes(wires[who]))
            assert (connection.result, connection.plain) == ("ok", expected[who])


@given(
    payload=st.binary(max_size=300), cuts=st.lists(st.integers(1, 300), max_size=4), size=st.sampled_from([1, 7, 16384])
)
@examples(500)
def test_any_bytes_are_inflated_as_zlib_does(payload: bytes, cuts: list[int], size: int) -> None:
    connection = Connection(Paths()).feed(compressed(payload, *cuts), size)
    expected, good = bytearray(), True
    rest = payload + TAIL
    while rest and good:
        decompressor = zlib.decompressobj(-15)
        try:
            for at in range(len(rest)):  # one at a time: what comes before a mistake is inflated
                expected += decompressor.decompress(rest[at : at + 1])
                if decompressor.eof:
                    break
        except zlib.error:
            good = False
        rest = rest[at + 1 :] if decompressor.eof else b""
    if good and connection.result == "ok":
        assert connection.plain == expected
    else:
        assert (connection.result, connection.close_code) == ("error", 1007)
        assert expected.startswith(connection.plain)
