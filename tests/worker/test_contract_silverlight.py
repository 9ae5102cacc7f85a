"""The contract on a listener of the Silverlight dialect: the request has 22 bytes, the reply no NUL.

`serve` asserts after each test that nothing stays open and that each connection was counted in exactly one way.
"""

import socket
import time
from collections import Counter

import pytest
from conftest import Serve

from flashpol.config import ConnectionTimeouts
from testkit.clients import BARE, REQUEST, deliver, reset, until_end
from testkit.polling import eventually
from testkit.serving import LARGE, TIMEOUTS, Serving

REPLY = b"<access-policy><cross-domain-access></cross-domain-access></access-policy>"
SLOW = ConnectionTimeouts(
    terminator_grace=30, request_timeout=30
)  # longer than a test waits: the reply waited for neither
ROUNDS = 500


@pytest.fixture
def server(serve: Serve) -> Serving:
    return serve(REPLY, SLOW, terminated=False)


def test_request_of_22_bytes_gets_the_reply_at_once(server: Serving) -> None:
    with server.connect() as client:
        client.sendall(BARE)
        assert until_end(client) == (REPLY, "fin")
    assert server.settle() == {"reply": 1}
    assert server.counters["reply_bytes"] == len(REPLY)


@pytest.mark.parametrize("size", [1, 11, 21])
def test_request_in_two_segments_gets_the_reply(server: Serving, size: int) -> None:
    with server.connect() as client:
        client.sendall(BARE[:size])
        eventually(lambda: server.counters["parked"] == 1)
        client.sendall(BARE[size:])
        assert until_end(client) == (REPLY, "fin")
    assert server.settle() == {"reply": 1}


@pytest.mark.parametrize("request_bytes", [BARE, REQUEST, BARE + b"\r\n"])
def test_request_byte_by_byte_gets_the_reply(server: Serving, request_bytes: bytes) -> None:
    with server.connect() as client:
        for byte in request_bytes:
            deliver(client, bytes([byte]))
        assert until_end(client) == (REPLY, "fin")
    assert server.settle() == {"reply": 1}


@pytest.mark.parametrize("extra", [b"\0", b"\n", b"\r\n", b" ", BARE, b"x" * 3000, b"x" * 5000], ids=len)
def test_bytes_after_the_request_do_not_lose_the_reply(server: Serving, extra: bytes) -> None:
    for _ in range(100):
        with server.connect() as client:
            client.sendall(BARE + extra)
            assert until_end(client) == (REPLY, "fin")
    assert server.settle() == {"reply": 100}


def test_nul_in_a_second_segment_does_not_lose_the_reply(server: Serving) -> None:
    """The server waits for the NUL, as for input that may still come: never RST."""
    ends: Counter[tuple[bytes, str]] = Counter()
    for _ in range(ROUNDS):
        with server.connect() as client:
            client.send(BARE)
            client.send(b"\0")
            ends[until_end(client)] += 1
    assert ends == {(REPLY, "fin"): ROUNDS}
    assert server.settle() == {"reply": ROUNDS}


def test_half_close_after_the_request_gets_the_reply(server: Serving) -> None:
    with server.connect() as client:
        client.sendall(BARE)
        client.shutdown(socket.SHUT_WR)
        assert until_end(client) == (REPLY, "fin")
    assert server.settle() == {"reply": 1}


def test_half_close_within_the_request_counts_as_reset(server: Serving) -> None:
    with server.connect() as client:
        client.sendall(BARE[:21])
        client.shutdown(socket.SHUT_WR)
        assert until_end(client) == (b"", "fin")
    assert server.settle() == {"reset": 1}


@pytest.mark.parametrize("sent", [b"", BARE[:21]])
def test_clients_silent_or_partial_are_closed_at_the_deadline(serve: Serve, sent: bytes) -> None:
    server = serve(REPLY, terminated=False)
    with server.connect() as client:
        began = time.monotonic()
        client.sendall(sent)
        assert until_end(client) == (b"", "fin")
        assert TIMEOUTS.request_timeout * 0.9 < time.monotonic() - began < TIMEOUTS.request_timeout + 3
    assert server.settle() == {"timeout": 1}


def test_client_that_never_closes_is_closed_at_the_linger_deadline(server: Serving) -> None:
    with server.connect() as client:
        client.sendall(BARE)
        assert until_end(client) == (REPLY, "fin")
        assert server.settle() == {"reply": 1}


@pytest.mark.parametrize("position", [0, 11, 21])
def test_request_with_a_different_byte_is_refused(server: Serving, position: int) -> None:
    with server.connect() as client:
        client.sendall(BARE[:position] + b"!")
        assert until_end(client) == (b"", "fin")
    assert server.settle() == {"other": 1}


def test_http_request_gets_a_400_that_names_no_dialect(server: Serving) -> None:
    response = server.ask(b"GET /clientaccesspolicy.xml HTTP/1.1\r\nHost: example.com\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 400 ")
    assert b"Flash" not in response
    assert server.settle() == {"http": 1}


def test_tls_client_hello_is_refused(server: Serving) -> None:
    assert server.ask(bytes.fromhex("160301002f0100002b0303")) == b""
    assert server.settle() == {"tls": 1}


@pytest.mark.parametrize("sent", [b"", b"<", BARE[:21]])
def test_reset_before_the_reply_is_counted(server: Serving, sent: bytes) -> None:
    client = server.connect()
    client.sendall(sent)
    reset(client)
    eventually(lambda: server.counters["accepted"] == 1)
    assert server.settle() == {"reset": 1}


@pytest.mark.parametrize("request_bytes", [BARE, REQUEST])
def test_large_reply_to_a_slow_reader_is_complete(serve: Serve, request_bytes: bytes) -> None:
    server = serve(LARGE, ConnectionTimeouts(reply_timeout=30), terminated=False)
    with server.connect(receive_buffer=2048) as client:
        client.sendall(request_bytes)
        eventually(lambda: server.counters["slow_replies"] == 1)
        assert until_end(client) == (LARGE, "fin")
    assert server.settle() == {"reply": 1}
