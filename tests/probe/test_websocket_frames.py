"""Frames and heads of servers, in any pieces and with any bytes."""

from hypothesis import given
from hypothesis import strategies as st

from flashpol.probe.exchange import Address, End, Event, Exchange, Reached, What
from flashpol.probe.websocket.frames import read_frames
from flashpol.probe.websocket.judgement import obstacles
from flashpol.probe.websocket.reply import read_head
from flashpol.probe.websocket.request import request
from flashpol.probe.websocket.upgrade import upgrade_of
from flashpol.probe.websocket.url import parse

HEAD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
SESSION = b"\x02\x03one\x89\x00\x00\x03two\x80\x05three\x8a\x01x\x82\x7e\x01\x00" + bytes(256) + b"\x88\x05\x03\xe8bye"


def test_frames_belong_to_the_message_that_they_continue() -> None:
    came = read_frames(SESSION)
    assert [(frame.name, frame.kind) for frame in came.frames] == [
        ("binary", 2), ("ping", 9), ("continuation", 2), ("continuation", 2), ("pong", 10), ("binary", 2), ("Close", 8),
    ]  # fmt: skip
    assert (came.close is not None, came.error, came.cut) == (True, "", False)
    assert came.frames[-1].close_words == '1000 (normal) "bye"'
    assert came.frames[-1].end == len(SESSION)


def test_frames_after_close_are_not_read() -> None:
    assert read_frames(SESSION + b"\xff\xff").error == ""


def test_frames_of_every_part_have_no_error() -> None:
    whole = read_frames(SESSION)
    for size in range(len(SESSION)):
        part = read_frames(SESSION[:size])
        assert part.error == ""
        complete = [frame for frame in part.frames if frame.end < size or not part.cut]
        assert complete == list(whole.frames[: len(complete)])


@given(st.binary(max_size=300), st.booleans())
def test_frames_of_any_bytes_are_read(data: bytes, compressed: bool) -> None:
    came = read_frames(data, compressed=compressed)
    assert all(frame.end <= len(data) for frame in came.frames)


def record(data: bytes, end: End = End.OPEN) -> Exchange:
    sent = request(parse("ws://a.example/"), "https://www.example.com", "AAAA")
    events = (Event(0.0, What.CONNECTED), Event(0.1, What.SENT, sent), Event(0.3, What.RECEIVED, data))
    return Exchange(Address(2, "192.0.2.1"), 80, Reached.CONNECTED, 0.5, end=end, events=events)


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"HTTP/1.1 ", b"HTTP/1.1 403 No\r\n", HEAD]), st.sampled_from(End)
)
def test_any_reply_is_judged(data: bytes, start: bytes, end: End) -> None:
    """No right Accept comes by chance, so each of them has an obstacle, whose words are one line."""
    found = obstacles(record(start + data, end))
    assert found
    assert all(obstacle.words.isprintable() for obstacle in found if obstacle.kind != "status")


def test_upgrade_has_the_times_of_the_record() -> None:
    upgrade = upgrade_of(record(HEAD + b"\x88\x02\x03\xe8"))
    assert upgrade.seconds is not None
    assert round(upgrade.seconds, 6) == 0.2
    assert (upgrade.replied, upgrade.left, upgrade.how) == (0.3, 0.0, "Close 1000 (normal)")


def test_head_is_read_with_any_line_ends() -> None:
    data = b"HTTP/1.1 404 Not Found\nServer: x\r\nVia:1.1 a\r\nvia: 1.1 b\r\n\nbody"
    head = read_head(data)
    assert head is not None
    assert (head.status, head.line, head.get("via"), data[head.size :]) == (
        404,
        "404 Not Found",
        "1.1 a, 1.1 b",
        b"body",
    )
    assert head.flaws == ("its lines end with LF instead of CRLF",)
    assert read_head(b"HTTP/1.1 404 Not Found\r\nServer: x\r\n") is None
