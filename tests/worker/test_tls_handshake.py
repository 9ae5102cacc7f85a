"""What a client can send before its handshake is complete: drips, silence, garbage, nothing more.

The `serve` fixture asserts after each test that each connection was counted in exactly one way, and that the gauges of
TLS are back at 0.
"""

import dataclasses
import socket
import ssl
import time
from contextlib import ExitStack, suppress

import pytest
from conftest import Serve

pytest.importorskip("flashpol._tls", reason="built without OpenSSL")

from testkit.clients import REQUEST, deliver, reset, until_end
from testkit.polling import eventually
from testkit.serving import REPLY, TIMEOUTS
from testkit.tls import (
    ALERT,
    HANDSHAKE,
    WHOLE,
    TlsClient,
    hello,
    only,
    record,
    records,
    tls_ask,
)
from testkit.tls_odd import OddClient
from testkit.tls_serving import Tls, handshakes

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
HANDSHAKE_TIMEOUT = 0.5
HASTY = dataclasses.replace(TIMEOUTS, tls_handshake_timeout=HANDSHAKE_TIMEOUT)


# ---------------------------------------------------------------------------------------------------- drips and silence


def parts(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 5, 100])
@pytest.mark.parametrize("version", [V12, V13], ids=lambda version: version.name)
def test_handshake_in_small_segments_is_complete(serve: Serve, version, size: int) -> None:  # type: ignore[no-untyped-def]
    server = serve(tls=Tls())
    with server.connect() as sock:
        client = TlsClient(sock, only(version), name="first.test")
        while not client.step():
            for part in parts(client.take(), size):
                deliver(sock, part)
            client.give(sock.recv(1 << 16))
        for part in parts(client.take() + client.encrypt(REQUEST), size):
            sock.sendall(part)
        assert client.until_end() == (REPLY, WHOLE)
    assert server.settle() == {"reply": 1}


def test_hello_without_a_key_share_is_asked_for_again(serve: Serve) -> None:
    """HelloRetryRequest: the handshake has one more step."""
    server = serve(tls=Tls())
    with OddClient(server.connect(), key_shares=[]) as client:
        client.send(REQUEST)
        received, alerts, how = client.until_end()
    assert (received, alerts, how) == (REPLY, [(1, "close_notify")], "fin")
    assert server.settle() == {"reply": 1}


def test_hello_in_many_records_is_complete(serve: Serve) -> None:
    server = serve(tls=Tls())
    message = hello(name="first.test")[5:]
    with server.connect() as client:
        client.sendall(b"".join(record(HANDSHAKE, part) for part in parts(message, 7)))
        assert client.recv(3) == b"\x16\x03\x03"
    server.settle()


def last_flight(sock: socket.socket, client: TlsClient) -> bytes:
    """The last flight of the client's handshake, which is not sent."""
    sock.sendall(client.hello())
    while True:
        client.give(sock.recv(1 << 16))
        client.step()
        if flight := client.take():
            return flight


@pytest.mark.parametrize("more", ["", "close_notify", "FIN", "close_notify and FIN"])
def test_last_flight_and_request_in_one_segment_get_the_reply(serve: Serve, more: str) -> None:
    """In TLS 1.2 the server has the last word of a handshake, so a client can send nothing with its own."""
    server = serve(tls=Tls())
    with server.connect() as sock:
        client = TlsClient(sock, only(V13))
        data = last_flight(sock, client) + client.encrypt(REQUEST)
        sock.sendall(data + client.farewell() if "close_notify" in more else data)
        if "FIN" in more:
            sock.shutdown(socket.SHUT_WR)
        assert client.until_end() == (REPLY, WHOLE)
    assert server.settle() == {"reply": 1}


# Bytes of the hello that are sent. Two of them could still become something else than TLS.
@pytest.mark.parametrize("size", [1, 2, 3, 5, 100, 10_000])
def test_silence_within_the_hello_or_after_it_times_out(serve: Serve, size: int) -> None:
    server = serve(timeouts=HASTY, tls=Tls())
    with server.connect() as sock:
        sock.sendall(TlsClient(None).hello()[:size])
        assert until_end(sock)[1] == "fin"
    assert server.settle() == {"timeout": 1}
    if size > 2:
        assert handshakes(server.counters) == {"timeout": 1}


@pytest.mark.parametrize("missing", [1, 10, 10_000])
@pytest.mark.parametrize("version", [V12, V13], ids=lambda version: version.name)
def test_silence_within_the_last_flight_times_out(serve: Serve, version, missing: int) -> None:  # type: ignore[no-untyped-def]
    server = serve(timeouts=HASTY, tls=Tls())
    with server.connect() as sock:
        flight = last_flight(sock, TlsClient(sock, only(version)))
        sock.sendall(flight[: max(0, len(flight) - missing)])
        assert until_end(sock)[1] == "fin"
    assert server.settle() == {"timeout": 1}
    assert handshakes(server.counters) == {"timeout": 1}


def test_hello_in_drips_times_out_as_a_whole(serve: Serve) -> None:
    """Bytes that arrive do not move the deadline."""
    server = serve(timeouts=HASTY, tls=Tls())
    first = TlsClient(None).hello()
    with server.connect() as sock:
        began, sent = time.monotonic(), 3
        sock.sendall(first[:3])
        sock.settimeout(HANDSHAKE_TIMEOUT / 50)
        ended = False
        while not ended:
            assert sent < len(first), "the whole hello was sent within the timeout"
            with suppress(ConnectionError):
                sock.send(first[sent : sent + 1])
            sent += 1
            try:
                ended = sock.recv(1) == b""
            except TimeoutError:
                assert time.monotonic() < began + 10
            except ConnectionError:
                ended = True
        assert sent > 8
        assert time.monotonic() - began > HANDSHAKE_TIMEOUT * 0.9
    assert server.settle() == {"timeout": 1}
    assert handshakes(server.counters) == {"timeout": 1}


def test_handshakes_that_wait_leave_others_alone(serve: Serve) -> None:
    server = serve(tls=Tls())
    with ExitStack() as stack:
        for size in range(3, 103):
            client = stack.enter_context(server.connect())
            client.sendall(TlsClient(None).hello()[:size])
        eventually(lambda: server.counters["tls"] == 100)
        for _ in range(10):
            assert server.ask() == REPLY
            assert tls_ask(server.address, REQUEST) == (REPLY, WHOLE)
    assert server.settle() == {"reply": 20, "reset": 100}


# -------------------------------------------------------------------------------------------------- garbage and leaving


GARBAGE = {
    "zeros": b"\x16\x03\x01" + bytes(200),
    "no handshake message": record(HANDSHAKE, b"\xff" * 100),
    "application data": hello()[:5] + b"\x17" * 200,
    "a record too long": b"\x16\x03\x01\xff\xff" + bytes(100),
    "an empty record": record(HANDSHAKE, b""),
    "a message too long": record(HANDSHAKE, b"\x01\xff\xff\xff" + bytes(100)),
    "a server hello": record(HANDSHAKE, b"\x02" + hello()[6:]),
    "text": b"\x16\x03\x01GET / HTTP/1.1\r\n\r\n" + b"x" * 0x4754,
    "another record type": hello()[:20] + b"\x99" + hello()[21:],
    "garbage after the hello": hello() + b"\x99" * 50,
    "alert": hello() + record(ALERT, b"\x02\x50"),
}


@pytest.mark.parametrize("kind", GARBAGE)
@pytest.mark.parametrize("split", [False, True], ids=["in one segment", "in two"])
def test_garbage_in_the_handshake_is_refused_and_counted(serve: Serve, kind: str, split: bool) -> None:
    server = serve(timeouts=HASTY, tls=Tls())
    data = GARBAGE[kind]
    with server.connect() as client:
        if split:
            deliver(client, data[:4])
        client.sendall(data[4:] if split else data)
        received, how = until_end(client)
    assert how in ("fin", "rst")
    outcomes = server.settle()
    assert sum(outcomes.values()) == 1
    assert set(outcomes) <= {"tls_handshake", "timeout"}, outcomes
    assert sum(handshakes(server.counters).values()) == 1
    if "tls_handshake" in outcomes and kind != "alert":
        assert any(found == ALERT for found, _ in records(received)), "no alert"
    assert tls_ask(server.address, REQUEST) == (REPLY, WHOLE)


@pytest.mark.parametrize("how", ["fin", "rst", "half close"])
@pytest.mark.parametrize("size", [3, 50, 10_000], ids=["3 bytes", "half a hello", "the whole hello"])
def test_client_that_leaves_in_the_handshake_counts_as_reset(serve: Serve, how: str, size: int) -> None:
    server = serve(tls=Tls())
    client = server.connect()
    client.sendall(TlsClient(None).hello()[:size])
    eventually(lambda: server.counters["tls"] == 1)
    if how == "rst":
        reset(client)
    elif how == "fin":
        client.close()
    else:
        client.shutdown(socket.SHUT_WR)
        until_end(client)
        client.close()
    assert server.settle() == {"reset": 1}
    assert handshakes(server.counters) == {"closed": 1}


def test_duration_of_a_handshake_is_counted_once(serve: Serve) -> None:
    server = serve(tls=Tls())
    for _ in range(5):
        assert tls_ask(server.address, REQUEST) == (REPLY, WHOLE)
    assert server.settle() == {"reply": 5}
    assert sum(server.counters.all("handshake_buckets")) == 5
    assert 0 < server.counters["handshake_ns"] < 5 * 20e9
