"""The codec of WebSocket without a socket: what it takes of a client's frames, what it refuses, and what it sends."""

import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.exceptions import ProtocolError
from websockets.frames import Opcode
from websockets.protocol import State
from websockets.uri import parse_uri
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong

from flashpol._websocket import CLOSE_CODES, WebSocketCodec
from testkit.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    Frame,
    PathCounters,
    close,
    closed,
    frame,
    frames_of,
    message,
)

CODEC_READ = 16384
PLAIN = 32768
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


class Decoder:
    """A codec as the pump drives it. `plain`: what was decoded; `wire`: what it sent by itself; `result`: the last."""

    def __init__(self, counters: PathCounters | None = None, *, rest: bytes = b"", **path: object) -> None:
        self.counters = counters or PathCounters()
        self.codec = WebSocketCodec(self.counters.path(**path), reply=SWITCH, rest=rest)  # type: ignore[arg-type]
        self.result, plain, wire = self.codec.work()
        assert wire.startswith(SWITCH)
        self.plain, self.wire = bytearray(plain), bytearray(wire[len(SWITCH) :])

    def feed(self, wire: bytes, size: int = CODEC_READ) -> "Decoder":
        """Give it these bytes, in parts of this size, until it ends."""
        for at in range(0, len(wire), size):
            if self.result in ("end", "error"):
                break
            self.result, plain, reply = self.codec.decode(wire[at : at + size])
            self.plain += plain
            self.wire += reply
        return self

    @property
    def frames(self) -> list[Frame]:
        return frames_of(bytes(self.wire))


def fed(wire: bytes, size: int = CODEC_READ, **path: object) -> Decoder:
    return Decoder(**path).feed(wire, size)


def assert_refused(wire: bytes, code: int, plain: bytes = b"", **path: object) -> None:
    """Whole and byte by byte: an error, after this much was passed on, and Close with the code, which is counted."""
    for size in (CODEC_READ, 1):
        decoder = fed(wire, size, **path)
        assert decoder.result == "error"
        assert decoder.frames == [closed(code)]
        assert decoder.codec.finished
        assert plain.startswith(decoder.plain) if size == 1 else decoder.plain == plain
        # It does nothing more.
        assert decoder.codec.decode(frame(BINARY, b"x")) == ("error", b"", b"")
        assert (decoder.codec.finish(), decoder.codec.ping(), decoder.codec.encode(b"x")) == (b"", b"", b"")
        del decoder.codec
        assert decoder.counters.closes == {(str(code), "server"): 1}
        assert decoder.counters["open"] == 0


# ----------------------------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize("size", [0, 1, 2, 7, 8, 9, 124, 125, 126, 127, 4096, 65535, 65536, 70000])
@pytest.mark.parametrize("part", [1, 5, 13, CODEC_READ], ids=lambda part: f"in parts of {part}")
def test_message_of_any_size_is_decoded(size: int, part: int) -> None:
    if part == 1 and size > 5000:
        pytest.skip("takes long and says no more")
    data = random.Random(size).randbytes(size)
    decoder = fed(frame(BINARY, data, mask=b"\x00\xff\x5a\xa5") + frame(BINARY, b"next"), part)
    assert decoder.plain == data + b"next"
    assert (decoder.result, decoder.wire) == ("ok", b"")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 100_000])
def test_encode_makes_one_whole_message_of_minimal_length(size: int) -> None:
    wire = Decoder().codec.encode(bytes(size))
    assert wire is not None
    assert frames_of(wire) == ([Frame(BINARY, bytes(size))] if size else [])


@pytest.mark.parametrize("parts", [(1,), (0, 0), (3, 0, 5), (0, 100, 1, 0)])
def test_fragments_are_passed_on_as_they_come(parts: tuple[int, ...]) -> None:
    data = bytes(range(200))
    for size in (1, CODEC_READ):
        decoder = fed(message(data, *parts) + message(b"next", 2), size)
        assert decoder.plain == data + b"next"


def test_first_bytes_of_a_frame_do_not_wait_for_the_others() -> None:
    wire = frame(BINARY, bytes(60000))
    assert fed(wire[:100]).plain == bytes(92)


def test_control_frames_may_come_between_fragments() -> None:
    wire = frame(BINARY, b"ab", flags=0) + frame(PING, b"?") + frame(CONTINUATION, b"cd") + frame(PONG, b"late")
    for size in (1, CODEC_READ):
        decoder = fed(wire, size)
        assert decoder.plain == b"abcd"
        assert decoder.frames == [Frame(PONG, b"?")]


def test_mask_of_zeros_and_each_phase() -> None:
    assert fed(frame(BINARY, b"plain", mask=bytes(4))).plain == b"plain"
    data = bytes(range(64))
    wire = frame(BINARY, data)
    for cut in range(6, len(wire)):
        decoder = Decoder().feed(wire[:cut]).feed(wire[cut:])
        assert decoder.plain == data


def test_rest_behind_the_request_is_decoded_with_the_101() -> None:
    rest = frame(BINARY, b"first") + frame(PING, b"?") + frame(BINARY, b"second")[:8]
    decoder = Decoder(rest=rest)
    assert decoder.plain == b"firstse"
    assert decoder.frames == [Frame(PONG, b"?")]
    assert decoder.feed(frame(BINARY, b"second")[8:]).plain == b"firstsecond"


def test_rest_of_32_kb_of_pings_gets_all_pongs() -> None:
    ping = frame(PING)
    decoder = Decoder(rest=ping * (PLAIN // len(ping)))
    assert decoder.frames == [Frame(PONG, b"")] * (PLAIN // len(ping))
    with pytest.raises(ValueError, match="at most"):
        Decoder(rest=bytes(PLAIN + 1))


def test_until_the_upstream_is_reached_bytes_are_encoded_as_they_are() -> None:
    counters = PathCounters()
    codec = WebSocketCodec(counters.path(), reply=SWITCH)
    assert codec.encode(b"HTTP/1.1 502 Bad Gateway\r\n\r\n") == b"HTTP/1.1 502 Bad Gateway\r\n\r\n"
    assert (codec.ping(), codec.finish(), codec.resume()) == (b"", b"", b"")
    del codec
    assert (counters.upgrades, counters.closes, counters["open"]) == ({}, {}, 0)


# ---------------------------------------------------------------------------------------------------------- violations


@pytest.mark.parametrize(
    "wire",
    [
        frame(BINARY, b"x", mask=None),
        frame(PING, mask=None),
        *(frame(BINARY, b"x", flags=FIN | bit) for bit in (RSV1, RSV2, RSV3)),
        *(frame(PING, flags=FIN | bit) for bit in (RSV1, RSV2, RSV3)),
        *(frame(opcode, b"x") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        *(frame(opcode, flags=0) for opcode in (CLOSE, PING, PONG)),
        *(frame(opcode, bytes(126)) for opcode in (CLOSE, PING, PONG)),
        frame(PING, bytes(125), form=3),
        frame(CONTINUATION, b"x"),
        frame(CONTINUATION, b"x", flags=0),
        frame(BINARY, b"x", form=3),
        frame(BINARY, bytes(125), form=3),
        frame(BINARY, bytes(126), form=9),
        frame(BINARY, bytes(65535), form=9),
        frame(BINARY, size=1 << 63, form=9),
        frame(BINARY, size=(1 << 64) - 1, form=9),
    ],
    ids=lambda wire: wire[:10].hex(),
)
def test_frame_that_breaks_the_protocol_is_closed_with_1002(wire: bytes) -> None:
    assert_refused(wire, 1002)
    assert_refused(frame(BINARY, b"before") + wire, 1002, b"before")


def test_second_message_within_one_is_closed_with_1002() -> None:
    for opcode in (BINARY, TEXT):
        assert_refused(frame(BINARY, b"a", flags=0) + frame(opcode, b"b"), 1002, b"a", text=True)


def test_violation_is_seen_in_the_first_two_bytes() -> None:
    assert fed(frame(7, b"x")[:2]).result == "error"
    assert fed(frame(BINARY, b"x", mask=None)[:2]).result == "error"


def test_pongs_before_a_violation_come_before_the_close() -> None:
    decoder = fed(frame(PING, b"1") + frame(PING, b"2") + frame(7))
    assert decoder.frames == [Frame(PONG, b"1"), Frame(PONG, b"2"), closed(1002)]


@pytest.mark.parametrize(
    "wire",
    [
        frame(BINARY, bytes(1001)),
        message(bytes(1001), 400, 400),
        message(bytes(1001), 1000),
        frame(BINARY, bytes(600), flags=0) + frame(PING) + frame(CONTINUATION, bytes(600), flags=0),
        frame(BINARY, size=(1 << 63) - 1, form=9),
    ],
    ids=["whole", "over fragments", "by a byte", "a ping between", "all that can be"],
)
def test_message_above_the_limit_is_closed_with_1009(wire: bytes) -> None:
    decoder = fed(wire, max_message=1000)
    assert decoder.result == "error"
    assert decoder.frames[-1] == closed(1009)
    assert len(decoder.plain) <= 1000
    del decoder.codec
    assert decoder.counters.closes == {("1009", "server"): 1}


def test_limit_is_for_each_message() -> None:
    wire = (message(bytes(1000), 999) + frame(BINARY, bytes(1000))) * 3
    assert fed(wire, max_message=1000).plain == bytes(6000)


# ---------------------------------------------------------------------------------------------------------------- text

# Of Autobahn's cases 6.*: what is UTF-8, and what is not.
VALID = [
    "", "κόσμε", "\0", "\x7f", "\x80", "\u07ff", "\u0800", "\uffff", "\U00010000", "\U0010ffff", "\ud7ff", "\ue000",
    "\ufffd", "\ufdd0", "\U0001fffe", "Hello-µ@ßöäüàá-UTF-8!!",
]  # fmt: skip
INVALID = [
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited", b"\xf8\x88\x80\x80\x80",
    b"\xfc\x84\x80\x80\x80\x80", b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf",
    b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\x80", b"\xbf", b"\x80\xbf" * 3, bytes(range(0x80, 0xC0)),
    b"\xc0 ", b"\xc1 ", b"\xe0 ", b"\xf0 ", b"\xf8 ", b"\xfc ", b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xdf",
    b"\xef\xbf",
    b"\xf7\xbf\xbf", b"\xfe", b"\xff", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xc1\xbf", b"\xe0\x9f\xbf",
    b"\xf0\x8f\xbf\xbf", b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xed\xa0\x80", b"\xed\xad\xbf",
    b"\xed\xae\x80", b"\xed\xaf\xbf", b"\xed\xb0\x80", b"\xed\xbf\xbf", b"\xed\xa0\x80\xed\xb0\x80",
]  # fmt: skip


def test_text_is_closed_with_1003() -> None:
    assert_refused(frame(TEXT, b"hello"), 1003)
    assert_refused(frame(TEXT, b"", flags=0), 1003)


@pytest.mark.parametrize("text", VALID)
def test_text_that_is_accepted_is_passed_on_as_bytes(text: str) -> None:
    data = text.encode()
    for size in (1, CODEC_READ):
        assert fed(frame(TEXT, data), size, text=True).plain == data
        for cut in range(len(data)):
            assert fed(message(data, cut, opcode=TEXT), size, text=True).plain == data


@pytest.mark.parametrize("data", INVALID, ids=bytes.hex)
def test_text_that_is_not_utf_8_is_closed_with_1007(data: bytes) -> None:
    for size in (1, CODEC_READ):
        for wire in (frame(TEXT, data), message(data, len(data) // 2, opcode=TEXT), frame(TEXT, b"good " + data)):
            decoder = fed(wire, size, text=True)
            assert decoder.result == "error"
            assert decoder.frames == [closed(1007)]


def test_text_that_breaks_is_refused_before_its_end() -> None:
    assert fed(frame(TEXT, b"\xf4\x90" + bytes(5000))[:10], text=True).result == "error"


def test_binary_need_not_be_utf_8_and_text_begins_anew_in_each_message() -> None:
    decoder = fed(frame(TEXT, "ä".encode()) + frame(BINARY, b"\xff\xc3") + frame(TEXT, b"b"), text=True)
    assert decoder.plain == "ä".encode() + b"\xff\xc3b"


@given(data=st.binary(max_size=12), cut=st.integers(0, 12))
def test_text_is_accepted_as_python_accepts_it(data: bytes, cut: int) -> None:
    try:
        data.decode()
        expected = "ok"
    except UnicodeDecodeError:
        expected = "error"
    assert fed(message(data, min(cut, len(data)), opcode=TEXT), 3, text=True).result == expected


# --------------------------------------------------------------------------------------------------------------- close


@pytest.mark.parametrize(
    "code", [None, 1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999]
)
def test_close_gets_its_code_back_and_ends(code: int | None) -> None:
    reason = b"" if code is None else "grüß".encode()
    for size in (1, CODEC_READ):
        decoder = fed(frame(BINARY, b"x") + close(code, reason) + frame(BINARY, b"after"), size)
        assert decoder.result == "end"
        assert decoder.plain == b"x"
        assert decoder.frames == [closed(code)]
        assert (decoder.codec.ended, decoder.codec.finished) == (True, True)
        assert decoder.codec.decode(frame(PING)) == ("end", b"", b"")
        assert (decoder.codec.encode(b"x"), decoder.codec.finish(), decoder.codec.ping()) == (b"", b"", b"")
        del decoder.codec
        name = "1005" if code is None else str(code) if str(code) in CLOSE_CODES else "other"
        assert decoder.counters.closes == {(name, "client"): 1}


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_close_with_a_code_that_none_may_send_is_closed_with_1002(code: int) -> None:
    assert_refused(close(code), 1002)
    assert_refused(close(code, b"reason"), 1002)


def test_close_of_one_byte_is_closed_with_1002() -> None:
    assert_refused(frame(CLOSE, b"\x03"), 1002)


@pytest.mark.parametrize("reason", INVALID, ids=bytes.hex)
def test_close_with_a_reason_that_is_not_utf_8_is_closed_with_1007(reason: bytes) -> None:
    assert_refused(close(1000, reason), 1007)


def test_close_within_a_message_ends_it() -> None:
    decoder = fed(frame(BINARY, b"part", flags=0) + close(1001))
    assert (decoder.result, decoder.plain, decoder.frames) == ("end", b"part", [closed(1001)])


@pytest.mark.parametrize(
    ("why", "code"),
    [
        ("done", 1000),
        ("failed", 1011),
        ("idle", 1001),
        ("stop", 1001),
        ("replaced", 1012),
        ("evicted", 1013),
        ("ping", 1001),
    ],
)
def test_finish_says_why_once_and_the_client_closes_too(why: str, code: int) -> None:
    decoder = Decoder()
    assert frames_of(decoder.codec.finish(why)) == [closed(code)]
    assert decoder.codec.finish(why) == b""
    assert (decoder.codec.encode(b"late"), decoder.codec.ping()) == (b"", b"")
    assert decoder.feed(frame(BINARY, b"still") + frame(PING, b"?")).plain == b"still"
    assert decoder.feed(close(code)).result == "end"
    assert decoder.wire == b""
    del decoder.codec
    assert decoder.counters.closes == {(str(code), "server"): 1}
    assert decoder.counters["ping_timeouts"] == (why == "ping")


def test_every_close_code_is_counted_by_its_name() -> None:
    counters = PathCounters()
    codes = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 4000]
    for code in codes:
        Decoder(counters).feed(close(code))
    Decoder(counters).feed(close())
    Decoder(counters)
    assert counters.closes == {(str(code), "client"): 1 for code in codes[:-1]} | {
        ("other", "client"): 1, ("1005", "client"): 1, ("1006", "server"): 1,
    }  # fmt: skip
    assert counters["open"] == 0
    assert counters.upgrades == {"accepted": len(codes) + 2}


# --------------------------------------------------------------------------------------------------------------- pings


@pytest.mark.parametrize("size", [0, 1, 124, 125])
def test_ping_gets_its_payload_back(size: int) -> None:
    payload = bytes(range(size))
    for part in (1, 7, CODEC_READ):
        assert fed(frame(PING, payload), part).frames == [Frame(PONG, payload)]


def test_many_pings_get_their_pongs_in_order() -> None:
    wire = b"".join(frame(PING, str(number).encode()) for number in range(1000))
    expected = [Frame(PONG, str(number).encode()) for number in range(1000)]
    assert fed(wire).frames == fed(wire, 100).frames == expected


def test_pongs_are_ignored() -> None:
    assert fed(frame(PONG) + frame(PONG, b"unasked") + frame(BINARY, b"x")).plain == b"x"


def test_blocked_client_gets_the_pong_of_its_latest_ping_alone() -> None:
    decoder = Decoder()
    decoder.codec.blocked = True
    decoder.feed(b"".join(frame(PING, bytes([number]) * 125) for number in range(100)))
    assert decoder.wire == b""
    assert frames_of(decoder.codec.resume()) == [Frame(PONG, b"\x63" * 125)]
    assert decoder.codec.resume() == b""


def test_pong_that_was_kept_comes_before_the_next_message() -> None:
    decoder = Decoder()
    decoder.codec.blocked = True
    decoder.feed(frame(PING, b"?") + frame(PING))
    wire = decoder.codec.encode(b"data")
    assert wire is not None
    assert frames_of(wire) == [Frame(PONG, b""), Frame(BINARY, b"data")]


def test_no_pong_follows_a_close() -> None:
    decoder = Decoder()
    decoder.codec.blocked = True
    decoder.feed(frame(PING, b"?"))
    decoder.codec.finish()
    assert decoder.codec.resume() == b""
    assert fed(close(1000) + frame(PING)).frames == [closed(1000)]


def test_ping_of_ours_is_empty() -> None:
    assert frames_of(Decoder().codec.ping()) == [Frame(PING, b"")]


# -------------------------------------------------------------------------------------------------- any bytes, in parts


@given(wire=st.binary(max_size=200), cuts=st.lists(st.integers(1, 40), min_size=1, max_size=8), text=st.booleans())
def test_any_bytes_in_parts_have_the_same_verdict(wire: bytes, cuts: list[int], text: bool) -> None:
    whole, parts = fed(wire, text=text), Decoder(text=text)
    at = number = 0
    while at < len(wire):
        size = cuts[number % len(cuts)]
        parts.feed(wire[at : at + size])
        at, number = at + size, number + 1
    assert (whole.result, whole.frames) == (parts.result, parts.frames)
    # In parts a frame of text is passed on up to the byte that breaks it.
    assert whole.plain == parts.plain or (whole.result == "error" and parts.plain.startswith(whole.plain))


# ------------------------------------------------------------------------------------------------------- other clients

PIECES = st.lists(
    st.tuples(st.sampled_from(["message", "ping", "pong", "reply"]), st.binary(max_size=300), st.integers(1, 4)),
    max_size=12,
)
SIZES = st.sampled_from([1, 3, 64, CODEC_READ])


def fragments(data: bytes, count: int) -> Iterable[bytes]:
    size = len(data) // count + 1
    return [data[at * size : (at + 1) * size] for at in range(count)]


@given(pieces=PIECES, size=SIZES, end=st.sampled_from(["client", "server"]))
def test_websockets_and_the_codec_understand_each_other(
    pieces: list[tuple[str, bytes, int]], size: int, end: str
) -> None:
    client = ClientProtocol(parse_uri("ws://games.example.com/"), state=State.OPEN, max_size=None)
    decoder = Decoder()
    said, heard, pongs = bytearray(), [], []
    for what, data, count in pieces:
        if what == "message":
            parts = fragments(data, count)
            for number, part in enumerate(parts):
                last = number == len(parts) - 1
                client.send_continuation(part, last) if number else client.send_binary(part, last)
            said += data
        elif what == "ping":
            client.send_ping(data[:125])
            pongs.append(data[:125])
        elif what == "pong":
            client.send_pong(data[:125])
        else:
            wire = decoder.codec.encode(data)
            assert wire is not None
            client.receive_data(wire)
            heard += [data] if data else []
        decoder.feed(b"".join(client.data_to_send()), size)
    client.receive_data(bytes(decoder.wire))
    decoder.wire.clear()
    if end == "client":
        client.send_close(3001, "enough")
    else:
        client.receive_data(decoder.codec.finish())
    decoder.feed(b"".join(client.data_to_send()), size)
    client.receive_data(bytes(decoder.wire))
    assert decoder.plain == said
    events = client.events_received()
    assert [event.data for event in events if event.opcode is Opcode.BINARY] == heard
    assert [event.data for event in events if event.opcode is Opcode.PONG] == pongs
    assert decoder.result == "end"
    client.receive_eof()
    assert client.close_code == (3001 if end == "client" else 1000)
    assert not isinstance(client.parser_exc, ProtocolError)


@given(pieces=PIECES, size=SIZES, end=st.sampled_from(["client", "server"]))
def test_wsproto_and_the_codec_understand_each_other(pieces: list[tuple[str, bytes, int]], size: int, end: str) -> None:
    client, decoder = Connection(ConnectionType.CLIENT), Decoder()
    said, heard, pongs = bytearray(), bytearray(), []
    for what, data, count in pieces:
        if what == "message":
            parts = list(fragments(data, count))
            for number, part in enumerate(parts):
                decoder.feed(client.send(BytesMessage(part, message_finished=number == len(parts) - 1)), size)
            said += data
        elif what == "ping":
            decoder.feed(client.send(Ping(data[:125])), size)
            pongs.append(data[:125])
        elif what == "pong":
            decoder.feed(client.send(Pong(data[:125])), size)
        else:
            client.receive_data(decoder.codec.encode(data))
            heard += data
    client.receive_data(bytes(decoder.wire))
    decoder.wire.clear()
    if end == "client":
        decoder.feed(client.send(CloseConnection(3001, "enough")), size)
        client.receive_data(bytes(decoder.wire))
    else:
        client.receive_data(decoder.codec.finish())
    events = list(client.events())
    assert decoder.plain == said
    assert b"".join(event.data for event in events if isinstance(event, BytesMessage)) == heard
    assert [event.payload for event in events if isinstance(event, Pong)] == pongs
    [closing] = [event for event in events if isinstance(event, CloseConnection)]
    assert closing.code == (3001 if end == "client" else 1000)
    if end == "server":
        decoder.feed(client.send(closing.response()), size)
    assert decoder.result == "end"
