"""Replies under pressure: extra input, small windows, slow and vanished readers. Complete, or counted as lost."""

import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest
from conftest import Serve

from flashpol.config import ConnectionTimeouts
from testkit.clients import BARE, REQUEST, reset, until_end
from testkit.polling import eventually
from testkit.serving import LARGE, REPLY, TIMEOUTS

ROUNDS = 2000


@pytest.mark.parametrize("extra", [b"\n", b"\0", REQUEST, b"x" * 3000, b"x" * 5000], ids=len)
def test_extra_bytes_in_the_same_segment_do_not_lose_the_reply(serve: Serve, extra: bytes) -> None:
    """The extra input is read before the socket closes, so the stream always ends with FIN."""
    rounds = ROUNDS if extra == b"\n" else 100
    server = serve()
    ends: Counter[str] = Counter()
    for _ in range(rounds):
        with server.connect() as client:
            client.send(REQUEST + extra)
            received, end = until_end(client)
            ends[end] += 1
            assert received == REPLY
    assert ends == {"fin": rounds}
    assert server.settle() == {"reply": rounds}


@pytest.mark.parametrize("request_bytes", [REQUEST, BARE + b"\r"], ids=["nul", "cr"])
def test_extra_bytes_in_a_second_segment_do_not_lose_the_reply(
    serve: Serve, request_bytes: bytes, record_property: Callable[[str, object], None]
) -> None:
    """After the NUL no more input is expected, and RST may follow it: after the reply, not instead of it."""
    server = serve()
    ends: Counter[str] = Counter()
    for _ in range(ROUNDS):
        with server.connect() as client:
            client.send(request_bytes)
            try:
                client.send(b"\n")
            except (BrokenPipeError, ConnectionResetError):
                ends["refused"] += 1
            received, end = until_end(client)
            ends[end] += 1
            assert received == REPLY
    record_property("ends", dict(ends))
    assert ends["fin"] + ends["rst"] == ROUNDS
    if request_bytes != REQUEST:  # after a CR, the server waits for an LF
        assert ends["rst"] == ends["refused"] == 0
    assert server.settle() == {"reply": ROUNDS}


def test_extra_bytes_in_second_segments_of_many_clients_at_once_lose_no_reply(serve: Serve) -> None:
    """They come while the server ends a batch: between a reply, the look at all of them, and the close."""
    server = serve()
    for _ in range(ROUNDS // 100):
        clients = [server.connect() for _ in range(100)]
        for client in clients:
            client.send(REQUEST)
        for client in clients:
            with suppress(BrokenPipeError, ConnectionResetError):
                client.send(b"\n")
        for client in clients:
            with client:
                assert until_end(client)[0] == REPLY
    assert server.settle() == {"reply": ROUNDS}


@pytest.mark.parametrize("at_once", [True, False])
def test_input_above_linger_bytes_is_cut_after_the_reply(serve: Serve, at_once: bool) -> None:
    server = serve(timeouts=ConnectionTimeouts(linger_bytes=65536, linger_timeout=30))
    flood = b"x" * (64 << 20)  # more than the kernels hold between them
    with server.connect() as client:
        if at_once:
            client.send(REQUEST + flood[:1000])
        else:
            client.send(BARE + b"\n")
        eventually(lambda: server.counters.replies == 1)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            client.sendall(flood)
        assert until_end(client)[0] == REPLY
    assert server.settle() == {"reply": 1}


def test_client_that_never_closes_is_closed_at_the_linger_deadline(serve: Serve) -> None:
    server = serve()
    with server.connect() as client:
        client.send(REQUEST + b"x")
        assert until_end(client) == (REPLY, "fin")  # at once: only the socket stays open
        began = time.monotonic()
        assert server.counters["open"] == 1
        assert server.settle() == {"reply": 1}
        assert time.monotonic() - began < TIMEOUTS.linger_timeout + 3


def test_slow_reader_with_a_tiny_window_gets_all_of_a_large_reply(serve: Serve) -> None:
    server = serve(LARGE, ConnectionTimeouts(reply_timeout=30))
    with server.connect(receive_buffer=2048) as client:
        client.send(REQUEST)
        eventually(lambda: server.counters["slow_replies"] == 1)
        assert server.counters.replies == 0
        received = bytearray()
        while data := client.recv(1 << 14):
            received += data
        assert received == LARGE
    assert server.settle() == {"reply": 1}
    assert server.counters["reply_bytes"] == len(LARGE)


@pytest.mark.parametrize("request_bytes", [BARE, BARE + b"\r\n", REQUEST + b"x" * 100])
def test_large_reply_to_every_form_of_the_request_is_complete(serve: Serve, request_bytes: bytes) -> None:
    server = serve(LARGE, ConnectionTimeouts(reply_timeout=30))
    with server.connect() as client:
        client.send(request_bytes)
        assert until_end(client) == (LARGE, "fin")
    assert server.settle() == {"reply": 1}


def test_large_reply_after_a_half_close_is_complete(serve: Serve) -> None:
    server = serve(LARGE, ConnectionTimeouts(reply_timeout=30))
    with server.connect() as client:
        client.send(REQUEST)
        client.shutdown(socket.SHUT_WR)
        assert until_end(client) == (LARGE, "fin")
    assert server.settle() == {"reply": 1}


def test_client_that_never_reads_times_out_and_does_not_delay_others(serve: Serve) -> None:
    server = serve(LARGE)
    with server.connect(receive_buffer=2048) as stuck:
        began = time.monotonic()
        stuck.send(REQUEST)
        eventually(lambda: server.counters["slow_replies"] == 1)
        assert server.ask() == LARGE
        eventually(lambda: server.counters["timeouts"] == 1)
        assert TIMEOUTS.reply_timeout * 0.9 < time.monotonic() - began < TIMEOUTS.reply_timeout + 3
    assert server.settle() == {"timeout": 1, "reply": 1}


@pytest.mark.parametrize("read", [0, 100_000])
def test_reset_during_a_large_reply_is_counted(serve: Serve, read: int) -> None:
    server = serve(LARGE, ConnectionTimeouts(reply_timeout=30))
    client = server.connect(receive_buffer=2048)
    client.send(REQUEST)
    eventually(lambda: server.counters["slow_replies"] == 1)
    while read > 0:
        read -= len(client.recv(1 << 14))
    reset(client)
    assert server.settle() == {"reset": 1}


def test_close_without_reading_a_large_reply_counts_as_reset(serve: Serve) -> None:
    """The client's kernel has unread bytes, so it sends RST."""
    server = serve(LARGE, ConnectionTimeouts(reply_timeout=30))
    client = server.connect(receive_buffer=2048)
    client.send(REQUEST)
    eventually(lambda: server.counters["slow_replies"] == 1)
    client.close()
    assert server.settle() == {"reset": 1}


def test_large_replies_to_many_slow_readers_are_complete(serve: Serve) -> None:
    server = serve(LARGE[: 5 << 20], ConnectionTimeouts(reply_timeout=30))
    clients = [server.connect(receive_buffer=2048) for _ in range(20)]
    for client in clients:
        client.send(REQUEST)
    eventually(lambda: server.counters["slow_replies"] == len(clients))
    for client in clients:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)  # slow for long enough
        assert until_end(client) == (LARGE[: 5 << 20], "fin")
        client.close()
    assert server.settle() == {"reply": len(clients)}
