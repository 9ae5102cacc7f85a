"""What a short session does without: options that a long one gets later, and a greenlet's stack."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from conftest import StartPump

from flashpol._pump import Destination
from testkit.pump_loop import PumpLoop

USER_TIMEOUT = 30.0


@contextmanager
def upstream_side(server: socket.socket) -> Iterator[socket.socket]:
    """A copy of the relay's end of the connection that the application has accepted."""
    ends = server.getpeername(), server.getsockname()
    for name in list(Path("/proc/self/fd").iterdir()):
        with suppress(OSError):  # the folder itself is closed by now; others are not connected
            if name.readlink().match("socket:*"):
                one = socket.socket(fileno=os.dup(int(name.name)))
                try:
                    found = (one.getsockname(), one.getpeername()) == ends
                except OSError:
                    found = False
                if not found:
                    one.close()
                    continue
                break
    else:
        raise AssertionError("the relay has no connection to the application")
    with one:
        yield one


def option(server: socket.socket, level: int, name: int) -> int:
    with upstream_side(server) as relay:
        return relay.getsockopt(level, name)


def user_timeout(sock: socket.socket) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


@pytest.mark.slow
def test_session_gets_the_options_of_a_long_one_when_it_is_no_longer_young(start_pump: StartPump) -> None:
    loop = start_pump()
    to = Destination(loop.destination.address, loop.block, keepalive=77, user_timeout=USER_TIMEOUT)
    client, inner = loop.client()
    inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)  # as the listening socket would
    loop.start(inner, to, b"hello")
    server, _ = loop.upstream.accept()
    loop.drain()
    assert option(server, socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
    assert user_timeout(inner) == 30_000
    loop.until(lambda: option(server, socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0)
    assert option(server, socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77
    assert user_timeout(inner) == 0
    with inner.dup() as seen:
        assert loop.pump.cut_by_client(inner.fileno())
        loop.until(lambda: loop.ended)
        assert user_timeout(seen) == 30_000
    client.close()
    server.close()


def test_young_session_that_ends_leaves_its_user_timeout_to_both_sides(start_pump: StartPump) -> None:
    """The application has not acknowledged our FIN with its own: the kernel still has something to deliver."""
    loop = start_pump()
    to = Destination(loop.destination.address, loop.block, user_timeout=USER_TIMEOUT)
    client, inner = loop.client()
    inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
    loop.start(inner, to, b"hello")
    server, _ = loop.upstream.accept()
    with inner.dup() as seen, upstream_side(server) as relay:
        assert loop.pump.cut_by_client(inner.fileno())
        loop.until(lambda: loop.ended)
        assert user_timeout(seen) == user_timeout(relay) == 30_000
    client.close()
    server.close()


def test_second_send_to_the_upstream_is_without_delay(start_pump: StartPump) -> None:
    loop = start_pump()
    client, server = loop.pair(b"first")
    assert loop.read(server, 5) == b"first"
    assert option(server, socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
    client.sendall(b"second")
    assert loop.read(server, 6) == b"second"
    assert option(server, socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    client.close()
    server.close()


@pytest.mark.parametrize("size", [1, 32_767, 32_768, 4 * 32_768, 4 * 32_768 + 1, 600_000])
@pytest.mark.parametrize("side", ["client", "application"])
def test_bytes_and_fin_that_come_together_are_passed_on(side: str, size: int, start_pump: StartPump) -> None:
    loop = start_pump()
    client, server = loop.pair(b"hello")
    assert loop.read(server, 5) == b"hello"
    near, far = (client, server) if side == "client" else (server, client)
    sent = os.urandom(size)
    far.setblocking(False)
    received, left = b"", sent
    near.setblocking(False)
    while left:  # as much as there is room for before the loop turns
        with suppress(BlockingIOError):
            left = left[near.send(left) :]
        if not left:
            break
        with suppress(BlockingIOError):
            received += far.recv(1 << 20)
        loop.turn()
    near.shutdown(socket.SHUT_WR)
    data, how = loop.end_of(far)
    assert received + data == sent
    assert how == "fin"
    far.setblocking(True)
    far.sendall(b"the other direction is open")
    assert loop.read(near, 27) == b"the other direction is open"
    client.close()
    server.close()


def test_half_open_session_does_not_keep_the_pump_awake(start_pump: StartPump) -> None:
    loop = start_pump()
    client, server = loop.pair(b"hello")
    client.shutdown(socket.SHUT_WR)
    assert loop.end_of(server) == (b"hello", "fin")
    loop.drain()
    assert not loop.turn(0.05)
    client.close()
    server.close()


def begun(loop: PumpLoop, to: Destination | None = None) -> tuple[socket.socket, socket.socket, list[tuple[str, int]]]:
    """A session whose greenlet has not run: the client, the relay's end, and what its greenlet gets."""
    client, inner = loop.client()
    ended: list[tuple[str, int]] = []

    def end(outcome: str, sent: int) -> None:
        ended.append((outcome, sent))
        inner.close()

    assert loop.pump.begin_session(inner.fileno(), to or loop.destination, b"hello", end)
    return client, inner, ended


def test_begun_session_ends_in_a_greenlet_of_its_own(start_pump: StartPump) -> None:
    loop = start_pump()
    client, _, ended = begun(loop)
    server, _ = loop.upstream.accept()
    assert loop.destination.open == 1
    assert loop.read(server, 5) == b"hello"
    server.sendall(b"reply")
    assert loop.read(client, 5) == b"reply"
    assert not ended
    client.close()
    server.close()
    loop.until(lambda: ended)
    assert ended == [("client", 5)]
    assert loop.destination.open == loop.pump.open == 0


def test_begun_session_that_is_refused_ends_with_the_failure(start_pump: StartPump) -> None:
    loop = start_pump()
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = gone.getsockname()
    client, inner, ended = begun(loop, Destination(address, loop.block))
    loop.until(lambda: ended)
    assert ended == [("refused", 0)]
    client.close()
    inner.close()


def test_end_of_a_begun_session_that_raises_is_reported(start_pump: StartPump) -> None:
    loop = start_pump()
    client, inner = loop.client()
    problem = RuntimeError("a problem of the test")

    def end(outcome: str, sent: int) -> None:
        raise problem

    assert loop.pump.begin_session(inner.fileno(), loop.destination, b"hello", end)
    client.close()
    loop.upstream.accept()[0].close()
    loop.until(lambda: loop.errors)
    assert loop.errors.pop() is problem
    inner.close()


def test_session_without_room_is_not_begun(start_pump: StartPump) -> None:
    loop = start_pump(capacity=0)
    client, inner = loop.client()
    assert not loop.pump.begin_session(inner.fileno(), loop.destination, b"", lambda outcome, sent: None)
    assert loop.outcomes == {"resources": 1}
    client.close()
    inner.close()


def test_bytes_behind_urgent_data_are_sent_on(start_pump: StartPump) -> None:
    """A read ends before urgent data, as if there were no more."""
    loop = start_pump()
    client, server = loop.pair()
    client.sendall(b"abc")
    client.send(b"!", socket.MSG_OOB)
    client.sendall(b"def")
    assert loop.read(server, 6) == b"abcdef"
