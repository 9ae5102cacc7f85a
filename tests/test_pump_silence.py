"""Sessions in which neither side speaks, and sessions that are evicted."""

import os
import resource
import socket
import time

from conftest import StartPump

from flashpol._pump import Destination
from testkit.clients import until_end


def test_silent_timeout_ends_sessions_in_which_neither_side_has_spoken(start_pump: StartPump) -> None:
    loop = start_pump(silent_timeout=0.3)
    silent = loop.pair()
    by_first, by_client, by_upstream = spoken = loop.pair(first=b"hello"), loop.pair(), loop.pair()
    by_client[0].sendall(b"x")
    by_upstream[1].sendall(b"x")
    loop.until(lambda: loop.ended)
    deadline = time.monotonic() + 0.4
    while time.monotonic() < deadline:
        loop.turn(0.02)
    assert loop.ended == [("silent", 0)]
    assert loop.pump.open == 3
    assert loop.end_of(silent[0]) == loop.end_of(silent[1]) == (b"", "fin")
    assert loop.read(by_first[1], 5) == b"hello"
    for client, server in (silent, *spoken):
        client.close()
        server.close()


def test_silent_timeout_counts_a_header_of_ours_and_a_fin_as_silence(start_pump: StartPump) -> None:
    loop = start_pump(silent_timeout=0.2)
    header = b"PROXY UNKNOWN\r\n"
    pairs = []
    for first in (header, header + b"x", b""):
        client, inner = loop.client()
        loop.start(inner, first=first, header_size=min(len(first), len(header)))
        pairs.append((client, loop.upstream.accept()[0]))
    pairs[2][0].shutdown(socket.SHUT_WR)
    loop.until(lambda: len(loop.ended) == 2)
    assert loop.outcomes == {"silent": 2}
    assert loop.pump.open == 1
    for client, server in pairs:
        client.close()
        server.close()


def test_silent_timeout_of_0_never_ends_a_session(start_pump: StartPump) -> None:
    loop = start_pump(silent_timeout=0, max_duration=0.3)
    client, server = loop.pair()
    loop.until(lambda: loop.ended)
    assert loop.ended == [("duration", 0)]
    client.close()
    server.close()


def test_cut_by_client_ends_its_session_only(start_pump: StartPump) -> None:
    loop = start_pump()
    pairs = [loop.pair() for _ in range(3)]
    fd = loop.inner[1].fileno()
    assert loop.pump.cut_by_client(fd)
    assert not loop.pump.cut_by_client(fd)
    assert loop.pump.check() == 3
    assert loop.ended == []  # the greenlet wakes in the next turn, which is due
    assert loop.turn(1)
    assert loop.ended == [("evicted", 0)]
    assert until_end(pairs[1][0]) == until_end(pairs[1][1]) == (b"", "fin")
    pairs[0][0].sendall(b"goes on")
    assert loop.read(pairs[0][1], 7) == b"goes on"
    for client, server in pairs:
        client.close()
        server.close()


def test_cut_by_client_of_a_descriptor_without_an_open_session_does_nothing(start_pump: StartPump) -> None:
    loop = start_pump(connect_timeout=0.2)
    assert not any(map(loop.pump.cut_by_client, (-1, 0, 5, 1 << 30)))
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.create_connection(full.getsockname()):
        client, inner = loop.client()
        loop.start(inner, Destination(full.getsockname(), loop.block))
        assert loop.pump.open == 1
        assert not loop.pump.cut_by_client(inner.fileno())  # it still connects
        loop.until(lambda: loop.ended)
    assert loop.ended == [("timeout", 0)]
    client.close()


def test_cut_by_client_finds_a_high_descriptor(start_pump: StartPump) -> None:
    loop = start_pump()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    high = 5000
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, high + 1), hard))
    try:
        low = loop.pair()
        client, inner = loop.client()
        os.dup2(inner.fileno(), high)
        inner.close()
        loop.start(socket.socket(fileno=high))
        server, _ = loop.upstream.accept()
        loop.drain()
        assert loop.pump.check() == 2
        assert loop.pump.cut_by_client(high)
        loop.until(lambda: loop.ended)
        for sock in (*low, client, server):
            sock.close()
        loop.until(lambda: loop.pump.open == 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
