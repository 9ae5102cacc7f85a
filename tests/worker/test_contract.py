"""Every input that a policy port can get, on the real service: requests, silence and other protocols.

Replies under pressure are in test_contract_replies.py, exhausted descriptors in test_exhaustion.py. The `serve` fixture
asserts after each test that nothing stays open and that each connection was counted in exactly one way.

Segments are cut at three positions: test_fastpath_matcher.py proves with hypothesis that every split of every input
has the same verdict, and libFuzzer that the recognisers agree with a reference.
"""

import socket
import time
from contextlib import ExitStack, suppress

import pytest
from conftest import Serve

from flashpol.config import ConnectionTimeouts
from testkit.clients import BARE, REQUEST, deliver, reset, until_end
from testkit.polling import eventually
from testkit.serving import REPLY, TIMEOUTS

CLIENT_HELLO = bytes.fromhex("160301002f0100002b0303") + bytes(32) + bytes.fromhex("000002130101000000")


def test_timeouts_by_default_are_the_contracts() -> None:
    assert (ConnectionTimeouts().request_timeout, ConnectionTimeouts().terminator_grace) == (3.0, 0.15)


# ---------------------------------------------------------------------------------------------------------- requests


@pytest.mark.parametrize("terminator", [b"\0", b"\r", b"\n", b"\r\n"])
def test_request_in_one_segment_gets_the_reply(serve: Serve, terminator: bytes) -> None:
    server = serve()
    with server.connect() as client:
        client.sendall(BARE + terminator)
        assert until_end(client) == (REPLY, "fin")
    assert server.settle() == {"reply": 1}
    assert server.counters["reply_bytes"] == len(REPLY)


@pytest.mark.parametrize("size", [1, 11, 22])
def test_request_in_two_segments_gets_the_reply(serve: Serve, size: int) -> None:
    server = serve()
    with server.connect() as client:
        client.sendall(REQUEST[:size])
        eventually(lambda: server.counters["parked"] == 1)
        client.sendall(REQUEST[size:])
        assert until_end(client) == (REPLY, "fin")
    assert server.settle() == {"reply": 1}


def test_request_byte_by_byte_gets_the_reply(serve: Serve) -> None:
    server = serve()
    with server.connect() as client:
        for byte in REQUEST:
            deliver(client, bytes([byte]))
        assert until_end(client) == (REPLY, "fin")
    assert server.settle() == {"reply": 1}


def test_request_with_a_late_lf_gets_the_reply_and_fin(serve: Serve) -> None:
    """The LF arrives after the reply to CR: it is read, so the stream ends with FIN."""
    server = serve()
    with server.connect() as client:
        client.sendall(BARE + b"\r")
        eventually(lambda: server.counters.replies == 1)
        client.sendall(b"\n")
        assert until_end(client) == (REPLY, "fin")
    assert server.settle() == {"reply": 1}


def test_request_without_terminator_gets_the_reply_after_the_grace(serve: Serve) -> None:
    server = serve()
    with server.connect() as client:
        began = time.monotonic()
        client.sendall(BARE)
        assert until_end(client) == (REPLY, "fin")
        assert TIMEOUTS.terminator_grace * 0.9 < time.monotonic() - began < TIMEOUTS.terminator_grace + 3
    assert server.settle() == {"reply": 1}


@pytest.mark.parametrize("request_bytes", [BARE, REQUEST, BARE + b"\r\n"])
def test_half_close_after_the_request_gets_the_reply(serve: Serve, request_bytes: bytes) -> None:
    server = serve(timeouts=ConnectionTimeouts(terminator_grace=30))
    with server.connect() as client:
        client.sendall(request_bytes)
        client.shutdown(socket.SHUT_WR)
        assert until_end(client) == (REPLY, "fin")
    assert server.settle() == {"reply": 1}


def test_half_close_within_the_request_counts_as_reset(serve: Serve) -> None:
    server = serve()
    with server.connect() as client:
        client.sendall(REQUEST[:10])
        client.shutdown(socket.SHUT_WR)
        assert until_end(client) == (b"", "fin")
    assert server.settle() == {"reset": 1}


# ----------------------------------------------------------------------------------------------------------- silence


def test_clients_silent_dripping_or_partial_are_closed_at_the_deadline(serve: Serve) -> None:
    server = serve()
    with ExitStack() as stack:
        began = time.monotonic()
        silent, partial, dripping = (stack.enter_context(server.connect()) for _ in range(3))
        partial.sendall(REQUEST[:21])
        dripping.settimeout(TIMEOUTS.request_timeout / 20)
        sent = 0
        ended = False
        while not ended:
            with suppress(ConnectionError):
                dripping.send(BARE[sent : sent + 1])
            sent += 1
            try:
                ended = dripping.recv(1) == b""
            except TimeoutError:
                assert time.monotonic() < began + TIMEOUTS.request_timeout + 3
            except ConnectionError:
                ended = True
        assert sent > 5
        assert time.monotonic() - began > TIMEOUTS.request_timeout * 0.9
        assert until_end(silent) == (b"", "fin")
        assert until_end(partial) == (b"", "fin")
        assert time.monotonic() - began < TIMEOUTS.request_timeout + 3
    assert server.settle() == {"timeout": 3}


def test_silent_clients_do_not_delay_requests(serve: Serve) -> None:
    server = serve(timeouts=ConnectionTimeouts(request_timeout=30))
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(server.connect())
        assert all(server.ask() == REPLY for _ in range(100))
        eventually(lambda: server.counters["parked"] == 100)
    assert server.settle() == {"reply": 100, "reset": 100}


# --------------------------------------------------------------------------------------------------- other protocols


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("position", [0, 11, 22])
def test_request_with_a_different_byte_is_refused(serve: Serve, position: int, split: bool) -> None:
    server = serve()
    with server.connect() as client:
        if split and position:
            client.sendall(REQUEST[:position])
            eventually(lambda: server.counters["parked"] == 1)
        client.sendall((b"" if split else REQUEST[:position]) + b"!")
        assert until_end(client) == (b"", "fin")
    assert server.settle() == {"other": 1}


HTTP = b"GET /crossdomain.xml HTTP/1.1\r\nHost: example.com\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "sizes"),
    [(method, ()) for method in b"GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH".split()]
    + [(b"GET", (1,)), (b"POST", (2, 3)), (b"OPTIONS", (1, 2, 3, 4, 20))],
)
def test_http_request_gets_one_400(serve: Serve, method: bytes, sizes: tuple[int, ...]) -> None:
    server = serve()
    request = method + HTTP[3:]
    with server.connect() as client:
        for start, end in zip((0, *sizes), (*sizes, len(request)), strict=True):
            deliver(client, request[start:end])
            if end == 1:
                eventually(lambda: server.counters["parked"] == 1)
        received, end_of_stream = until_end(client)
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert received.count(b"HTTP/1.1 ") == 1
    assert f"Content-Length: {len(body)}\r\n".encode() in head + b"\r\n"
    assert b"policy" in body
    assert end_of_stream == "fin"
    assert server.settle() == {"http": 1}


def test_http_2_preface_gets_a_400(serve: Serve) -> None:
    server = serve()
    assert server.ask(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert server.settle() == {"http": 1}


def test_http_request_that_is_long_still_gets_a_400(serve: Serve) -> None:
    server = serve()
    with server.connect() as client:
        client.sendall(HTTP[:-2] + b"Cookie: " + b"x" * 30_000 + b"\r\n\r\n")
        assert until_end(client)[0].startswith(b"HTTP/1.1 400 ")
    assert server.settle() == {"http": 1}


@pytest.mark.parametrize("first", [1, 2, len(CLIENT_HELLO)])
def test_tls_client_hello_is_refused(serve: Serve, first: int) -> None:
    server = serve()
    with server.connect() as client:
        deliver(client, CLIENT_HELLO[:first])
        if first == 1:
            eventually(lambda: server.counters["parked"] == 1)
            client.sendall(CLIENT_HELLO[1:])
        assert until_end(client)[0] == b""
    assert server.settle() == {"tls": 1}


def test_first_byte_of_an_unknown_protocol_times_out(serve: Serve) -> None:
    server = serve()
    with server.connect() as client:
        client.sendall(b"G")
        assert until_end(client) == (b"", "fin")
    assert server.settle() == {"timeout": 1}


# ------------------------------------------------------------------------------------------------- gone before a reply


def test_connect_and_close_counts_as_reset(serve: Serve) -> None:
    server = serve()
    for _ in range(50):
        server.connect().close()
    eventually(lambda: server.counters["accepted"] == 50)
    assert server.settle() == {"reset": 50}
    assert server.ask() == REPLY


@pytest.mark.parametrize("sent", [b"", b"<", BARE, b"G", b"\x16"])
@pytest.mark.parametrize("parked", [False, True])
def test_reset_before_the_reply_is_counted(serve: Serve, sent: bytes, parked: bool) -> None:
    server = serve(timeouts=ConnectionTimeouts(terminator_grace=30, request_timeout=30))
    client = server.connect()
    client.sendall(sent)
    if parked:
        eventually(lambda: server.counters["parked"] == 1)
    reset(client)
    eventually(lambda: server.counters["accepted"] == 1)
    assert server.settle() == {"reset": 1}


def test_reset_after_the_request_counts_as_reply_or_reset(serve: Serve) -> None:
    """Whether the reply was sent first is a race; either way each connection is counted once."""
    server = serve()
    for _ in range(300):
        client = server.connect()
        client.send(REQUEST)
        reset(client)
    eventually(lambda: server.counters["accepted"] == 300)
    ends = server.settle()
    assert set(ends) <= {"reply", "reset"}
    assert sum(ends.values()) == 300
    assert server.ask() == REPLY
