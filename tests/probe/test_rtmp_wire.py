"""AMF0, the chunks of RTMP, and replies over HTTP: read right in any pieces, and bounded whatever comes."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rtmp_servers import BEFORE, handshake, http, message, result

from flashpol.probe.rtmp import amf, chunks
from flashpol.probe.rtmp.http import read_reply
from flashpol.probe.rtmp.script import Awaited
from flashpol.probe.rtmp.tunnel import session_id

SCALARS = st.none() | st.booleans() | st.text(max_size=20) | st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.text(min_size=1, max_size=9)


@settings(max_examples=40)
@given(st.lists(SCALARS | st.dictionaries(NAMES, st.booleans(), max_size=3), max_size=5))
def test_values_come_back_as_they_were_written(values: list[object]) -> None:
    assert amf.decode(amf.encode(*values)) == values  # type: ignore[arg-type]


@given(st.binary(max_size=300))
def test_bytes_that_are_no_amf_raise_value_error_only(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        amf.decode(data)


def test_kinds_that_servers_send_are_read() -> None:
    data = b"\x08\0\0\0\1\0\1a\x06\0\0\x09" + b"\x0a\0\0\0\2\x05\x01\1" + b"\x0b" + bytes(10)
    data += b"\x0c\0\0\0\1x" + b"\x0f\0\0\0\1y" + b"\x10\0\1C\0\0\x09" + b"\0\x7f\xf0" + bytes(6)
    assert amf.decode(data) == [{"a": None}, [None, True], None, "x", "y", {}, 0.0]


@given(st.lists(st.integers(1, 400), max_size=30))
def test_reply_is_found_in_any_pieces(sizes: list[int]) -> None:
    data = BEFORE + message(20, amf.encode("onBWDone", 0.0, None)) + result()
    stream, at, found = chunks.Stream(), 0, []
    for size in [*sizes, len(data)]:
        found += stream.feed(data[at : at + size])
        at += size
    assert [one.kind for one in found] == [5, 6, 4, 20, 20]
    assert [chunks.reply_in(one) for one in found][:4] == [None] * 4
    reply = chunks.reply_in(found[4])
    assert reply is not None
    assert (reply.succeeded, reply.code) == (True, "NetConnection.Connect.Success")


@given(st.binary(max_size=4000))
def test_stream_of_any_bytes_is_read_or_malformed(data: bytes) -> None:
    stream = chunks.Stream()
    with contextlib.suppress(chunks.Malformed):
        assert all(len(one.body) <= len(data) for one in stream.feed(data))
    assert isinstance(Awaited(0)(data), bool)


@pytest.mark.parametrize(("number", "header"), [(2, b"\x02"), (64, b"\x00\x00"), (320, b"\x01\x00\x01")])
def test_chunk_streams_of_each_size_are_read(number: int, header: bytes) -> None:
    long = header + b"\xff\xff\xff" + bytes((0, 0, 200, 9)) + bytes(4) + b"time" + b"a" * 128
    more = bytes((0xC0 | header[0],)) + header[1:] + b"time" + b"b" * 72
    last = bytes((0x40 | header[0],)) + header[1:] + bytes((0, 0, 1, 0, 0, 3, 8)) + b"xyz"
    found = list(chunks.Stream().feed(long + more + last))
    assert [(one.kind, one.body) for one in found] == [(9, b"a" * 128 + b"b" * 72), (8, b"xyz")]


def test_connect_is_one_message_in_chunks() -> None:
    [command] = chunks.Stream().feed(chunks.connect("live", "rtmp://a.example/live"))
    name, number, fields = amf.decode(command.body)
    assert (name, number) == ("connect", 1.0)
    assert isinstance(fields, dict)
    assert (fields["app"], fields["tcUrl"]) == ("live", "rtmp://a.example/live")


def test_handshake_is_echoed_but_for_the_time() -> None:
    hello = chunks.greeting()
    assert len(hello) == chunks.GREETING
    answer = handshake(hello)
    assert chunks.echoes(hello, answer)
    assert chunks.echoes(hello, answer[:1541] + b"time" + answer[1545:])
    assert not chunks.echoes(hello, answer[:-1] + b"?" * (answer[-1:] != b"?") + b"!" * (answer[-1:] == b"?"))
    assert chunks.acknowledgement(answer) == answer[1:1537]


@given(st.binary(max_size=200), st.booleans())
def test_reply_of_any_bytes_is_complete_or_none(data: bytes, ended: bool) -> None:
    for begin in (b"", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"):
        reply = read_reply(begin + data, ended=ended)
        assert reply is None or (0 < reply.size <= len(begin + data) and len(reply.body) <= len(data))


def test_reply_ends_where_the_next_one_begins() -> None:
    first, second = http("200 OK", b"\x01abc"), http("200 OK", b"4\r\nwxyz\r\n0\r\n\r\n", "Transfer-Encoding: chunked")
    data = b"HTTP/1.1 100 Continue\r\n\r\n" + first + second
    reply = read_reply(data)
    assert reply is not None
    assert (reply.body, reply.closes, reply.chunked) == (b"\x01abc", False, False)
    other = read_reply(data[reply.size :])
    assert other is not None
    assert (other.body, other.size, other.chunked) == (b"wxyz", len(second), True)
    assert all(read_reply(first[:at]) is None for at in range(len(first)))
    assert all(read_reply(second[:at]) is None for at in range(len(second)))


@pytest.mark.parametrize(
    ("body", "identifier"),
    [
        (b"A0bcdefghijklmno\n", "A0bcdefghijklmno"), (b"123", "123"), (b"a-b_c.d~e\r\n", "a-b_c.d~e"),
        (b"x" * 31, "x" * 31), (b"x" * 32, ""), (b"", ""), (b"\n", ""), (b"a b", ""), (b"a/b", ""), (b"<html>", ""),
        (b"a?b", ""), (b"\xff", ""), (b"a\nb", ""),
    ],
)  # fmt: skip
def test_session_id_is_short_and_fits_into_a_path(body: bytes, identifier: str) -> None:
    assert session_id(body) == identifier
