"""A shared port that relays some protocols: the others fare as on a port that relays none."""

import time
from collections.abc import Callable

import pytest

from flashpol._fastpath import PROTOCOLS
from testkit.clients import REQUEST, until_end
from testkit.fastpath_loop import Loop
from testkit.serving import REPLY

Start = Callable[..., Loop]
FIRST_BYTES = {
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "tls": b"\x16\x03\x01\x00\x05hello",
    "rtmp": b"\x03" + bytes(20),
    "rtmpe": b"\x06" + bytes(20),
    "other": b"<msg/>\0",
}


@pytest.mark.parametrize("protocol", FIRST_BYTES)
def test_protocol_that_is_named_is_a_session_of_that_protocol(start: Start, protocol: str) -> None:
    loop = start(shared=True, protocols=[protocol])
    with loop.connect() as client:
        loop.send(client, FIRST_BYTES[protocol])
        [(fd, data)] = loop.sessions
        assert data == FIRST_BYTES[protocol]
        assert loop.connection_table.protocol(fd) == protocol
        loop.connection_table.close_relayed(fd, 0)
    assert loop.settle() == {"relayed": 1}


@pytest.mark.parametrize("protocol", FIRST_BYTES)
def test_protocol_that_is_not_named_is_refused_as_on_a_port_that_relays_none(start: Start, protocol: str) -> None:
    received = []
    for settings in ({}, {"shared": True, "protocols": [each for each in FIRST_BYTES if each != protocol]}):
        loop = start(**settings)
        with loop.connect() as client:
            loop.send(client, FIRST_BYTES[protocol])
            received.append(until_end(client)[0])
            assert not loop.sessions
        assert loop.settle() == {protocol: 1}
    assert received[0] == received[1]
    assert (b"HTTP/1.1 400" in received[1]) is (protocol == "http")


@pytest.mark.parametrize("data", [b"", REQUEST[:9]])
def test_silence_that_is_not_named_has_the_time_of_a_request(start: Start, data: bytes) -> None:
    loop = start(shared=True, protocols=["rtmp"], first_byte_timeout=0.01, request_timeout=0.3)
    began = time.monotonic()
    with loop.connect() as client:
        loop.send(client, data)
        assert loop.settle() == {"timeout": 1}
        assert until_end(client)[0] == b""
    assert time.monotonic() - began >= 0.3
    assert not loop.sessions


def test_request_after_first_byte_timeout_gets_its_reply_where_silence_is_not_named(start: Start) -> None:
    loop = start(shared=True, protocols=["rtmp", "other"], first_byte_timeout=0.01, request_timeout=30.0)
    with loop.connect() as client, loop.connect() as other:
        time.sleep(0.05)
        loop.drain()
        loop.send(client, REQUEST)
        assert until_end(client)[0] == REPLY
        loop.send(other, b"x")
        [(fd, _)] = loop.sessions
        loop.connection_table.close_relayed(fd, 0)
    assert loop.settle() == {"reply": 1, "relayed": 1}


@pytest.mark.parametrize("more", [b"OST / HTTP/1.1\r\n", b"x"])
def test_prefix_of_a_named_protocol_waits_for_more_where_others_are_refused(start: Start, more: bytes) -> None:
    """Not for the shorter time after which it would be relayed as another protocol."""
    loop = start(shared=True, protocols=["http"], terminator_grace=0.01, request_timeout=30.0)
    with loop.connect() as client:
        loop.send(client, b"P")
        time.sleep(0.05)
        loop.drain()
        loop.send(client, more)
        if more == b"x":
            assert loop.settle() == {"other": 1}
            return
        [(fd, data)] = loop.sessions
        assert data == b"P" + more
        loop.connection_table.close_relayed(fd, 0)
    assert loop.settle() == {"relayed": 1}


@pytest.mark.parametrize(("data", "outcome"), [(b"P", "other"), (REQUEST[:9], "reset"), (b"", "reset")])
def test_fin_after_a_part_is_refused_where_others_are_not_named(start: Start, data: bytes, outcome: str) -> None:
    loop = start(shared=True, protocols=["http", "rtmp"], request_timeout=30.0)
    with loop.connect() as client:
        loop.send(client, data)
    assert loop.settle() == {outcome: 1}
    assert not loop.sessions


def test_silence_alone_may_be_named(start: Start) -> None:
    loop = start(shared=True, protocols=["silent"], first_byte_timeout=0.05)
    with loop.connect() as client:
        loop.until(lambda: loop.sessions)
        [(fd, _)] = loop.sessions
        assert loop.connection_table.protocol(fd) == "silent"
        loop.connection_table.close_relayed(fd, 0)
        assert until_end(client)[0] == b""
    assert loop.settle() == {"relayed": 1}


def test_unknown_protocol_is_an_error(start: Start) -> None:
    with pytest.raises(ValueError, match="x"):
        start(shared=True, protocols=["x"])
    assert PROTOCOLS[:5] == ("http", "tls", "rtmp", "rtmpe", "other")


def test_protocol_of_what_is_no_session_is_an_error(start: Start) -> None:
    loop = start(shared=True)
    with loop.connect(), pytest.raises(ValueError, match="fd 5000 is not a"):
        loop.connection_table.protocol(5000)
