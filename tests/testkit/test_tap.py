"""The tap passes on what both sides send, and how they end, and keeps it."""

import socket
from collections.abc import Iterator

import pytest

from testkit.application import Application, application, receive
from testkit.clients import connect, reset, until_end
from testkit.polling import eventually
from testkit.rtmpt_client import head
from testkit.tap import Tap, tap


@pytest.fixture
def behind() -> Iterator[Application]:
    with application() as running:
        yield running


@pytest.fixture
def seen(behind: Application) -> Iterator[Tap]:
    with tap((behind.remote.host, behind.remote.port)) as running:
        yield running


def test_requests_are_shown_in_order_once_they_are_complete(behind: Application, seen: Tap) -> None:
    first = head("/open/1", 1, host="h", fields=[("X-a", "1"), ("x-A", "2")]) + b"\0"
    second = head("/send/A1/0", 3, host="h", minor=0) + b"abc"
    with connect(seen.place, first + second[:-1]), behind.accept() as server:
        assert receive(server, len(first) + len(second) - 1) == first + second[:-1]
        [request] = seen.requests
        assert (request.method, request.target, request.minor, request.body) == ("POST", "/open/1", 1, b"\0")
        assert request.headers == [("Host", "h"), ("X-a", "1"), ("x-A", "2"), ("Content-Length", "1")]
        assert (request.field("X-A"), request.field("via")) == ("1, 2", None)
    with connect(seen.place, second), behind.accept() as server:
        receive(server, len(second))
        assert [len(each.requests) for each in seen.connections] == [1, 1]
        assert (seen.requests[1].minor, seen.requests[1].body) == (0, b"abc")


def test_fin_of_a_side_leaves_the_other_direction_open(behind: Application, seen: Tap) -> None:
    with connect(seen.place, b"hello") as client, behind.accept() as server:
        client.shutdown(socket.SHUT_WR)
        assert until_end(server) == (b"hello", "fin")
        server.sendall(b"bye")
        server.shutdown(socket.SHUT_WR)
        assert until_end(client) == (b"bye", "fin")
    assert (seen.connections[0].to_server, seen.connections[0].to_client) == (b"hello", b"bye")


@pytest.mark.parametrize("side", ["client", "server"])
def test_rst_of_a_side_ends_the_other(behind: Application, seen: Tap, side: str) -> None:
    with connect(seen.place, b"x") as client, behind.accept() as server:
        receive(server, 1)
        ends, other = (client, server) if side == "client" else (server, client)
        reset(ends)
        assert until_end(other)[0] == b""


def test_server_that_is_not_there_ends_the_connection(behind: Application, seen: Tap) -> None:
    behind.listening.close()
    with connect(seen.place) as client:
        assert until_end(client)[0] == b""
    eventually(lambda: seen.connections, "the connection")
