"""What the kernel holds for a peer that acknowledges nothing is dropped in time; open sessions are not affected."""

import dataclasses
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Serve, StartPump

from flashpol._pump import Destination
from testkit.application import Application, application, receive
from testkit.clients import REQUEST, until_end
from testkit.polling import eventually
from testkit.serving import REPLY, TIMEOUTS

FIN_WAIT_1 = "04"
MORE_THAN_A_WINDOW = REPLY[:-1] + b" " * 20_000 + b"\0"
USER_TIMEOUT = socket.TCP_USER_TIMEOUT


@pytest.fixture
def app(no_leaked_files: None) -> Iterator[Application]:
    with application() as one:
        yield one


def is_closing(local: tuple[str, int], remote: tuple[str, int] | None = None) -> bool:
    """Whether the kernel still has bytes to deliver for a connection of these ports that is closed on this side."""
    ends = [f":{address[1]:04X}" if address else "" for address in (local, remote)]
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return any(
        state == FIN_WAIT_1 and one.endswith(ends[0]) and other.endswith(ends[1]) for _, one, other, state, *_ in rows
    )


@pytest.mark.slow
def test_reply_that_is_not_read_is_dropped_after_tcp_user_timeout(serve: Serve) -> None:
    """The kernel has taken it whole and the server has closed: nothing else would end it for minutes."""
    server = serve(MORE_THAN_A_WINDOW, dataclasses.replace(TIMEOUTS, tcp_user_timeout=2))
    clients = [server.connect(receive_buffer=2048) for _ in range(5)]
    for client in clients:
        client.sendall(REQUEST)
    assert server.settle() == {"reply": 5}
    assert is_closing(server.address)
    eventually(lambda: not is_closing(server.address))
    for client in clients:
        client.close()


def test_reply_that_is_read_slowly_within_tcp_user_timeout_arrives_whole(serve: Serve) -> None:
    server = serve(MORE_THAN_A_WINDOW, dataclasses.replace(TIMEOUTS, tcp_user_timeout=5))
    with server.connect(receive_buffer=2048) as client:
        client.sendall(REQUEST)
        received = b""
        while data := client.recv(1500):
            received += data
            time.sleep(0.01)
    assert received == MORE_THAN_A_WINDOW


def test_session_whose_client_pauses_outlives_tcp_user_timeout(app: Application, serve: Serve) -> None:
    """A video that is paused: the window is closed for as long as the user likes."""
    server = serve(timeouts=dataclasses.replace(TIMEOUTS, tcp_user_timeout=0.3), upstream=[app.remote])
    with server.connect(receive_buffer=2048) as client:
        client.sendall(b"play")
        with app.accept() as inner:
            assert receive(inner, 4) == b"play"
            inner.setblocking(False)
            sent = 0
            try:
                while True:
                    sent += inner.send(bytes(1 << 16))
            except BlockingIOError:
                time.sleep(1.0)
            inner.setblocking(True)
            inner.shutdown(socket.SHUT_WR)
            assert len(until_end(client)[0]) == sent
    assert server.settle() == {"relayed": 1}


def test_connections_of_a_session_have_its_user_timeout_when_they_are_closed(start_pump: StartPump) -> None:
    loop = start_pump()
    to = Destination(loop.destination.address, loop.block, user_timeout=2.0)
    client, inner = loop.client()
    inner.setsockopt(socket.IPPROTO_TCP, USER_TIMEOUT, 2000)  # as the listening socket would
    loop.start(inner, to, b"hello")
    server, _ = loop.upstream.accept()
    assert inner.getsockopt(socket.IPPROTO_TCP, USER_TIMEOUT) == 0
    seen = inner.dup()
    assert loop.pump.cut_by_client(inner.fileno())
    loop.until(lambda: loop.ended)
    assert seen.getsockopt(socket.IPPROTO_TCP, USER_TIMEOUT) == 2000
    for sock in (seen, client, server):
        sock.close()


@pytest.mark.slow
def test_bytes_for_an_upstream_that_does_not_read_are_dropped_after_its_session(start_pump: StartPump) -> None:
    """The upstream's kernel acknowledges no more than its window."""
    loop = start_pump()
    to = Destination(loop.destination.address, loop.block, user_timeout=2)
    loop.upstream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client, server = loop.pair(to=to)
    ends = server.getpeername(), server.getsockname()
    client.sendall(bytes(20_000))
    loop.until(lambda: loop.counters.all("sent")[0] == 20_000)
    assert loop.pump.cut_by_client(loop.inner[-1].fileno())
    loop.until(lambda: loop.ended)
    assert is_closing(*ends)
    eventually(lambda: not is_closing(*ends))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for sock in (client, server):
        sock.close()
