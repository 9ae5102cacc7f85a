"""The service as a worker runs it: how it stops, what it refuses, how it outlives its hooks."""

import dataclasses
import socket
import time

import pytest
from conftest import Serve
from support import LARGE, LIMITS, PATIENCE, REPLY, REQUEST, assert_settled, eventually, until_end

from flashpol.config import Limits


def test_stop_accepting_takes_in_what_the_kernel_has_accepted(serve: Serve) -> None:
    server = serve()
    clients = []

    def connect_and_stop() -> None:
        """In the hub's thread, which therefore accepts none of these before it stops."""
        for _ in range(200):
            clients.append(socket.create_connection(server.address, PATIENCE))
            clients[-1].sendall(REQUEST)
        assert server.counters["accepted"] == 0
        server.service.stop_accepting(5)

    server.hub.call(connect_and_stop)
    server.socket.close()
    for client in clients:
        assert until_end(client) == (REPLY, "fin")
        client.close()
    with pytest.raises(ConnectionRefusedError):
        server.connect()
    assert server.finish(1) is True
    assert server.settle() == {"reply": 200}


def test_finish_lets_those_inside_end(serve: Serve) -> None:
    server = serve()
    with server.connect() as client, server.connect():
        client.sendall(REQUEST[:10])
        eventually(lambda: server.counters["parked"] == 2)
        server.stop_accepting()
        client.sendall(REQUEST[10:])
        began = time.monotonic()
        assert server.finish(30) is True
        assert time.monotonic() - began < LIMITS.request_timeout + 3
        assert until_end(client) == (REPLY, "fin")
    assert server.settle() == {"reply": 1, "timeout": 1}


def test_finish_cuts_off_what_is_left_at_its_deadline(serve: Serve) -> None:
    server = serve(limits=Limits(request_timeout=60))
    with server.connect() as client:
        eventually(lambda: server.counters["parked"] == 1)
        server.stop_accepting()
        began = time.monotonic()
        assert server.finish(0.1) is False
        assert 0.09 < time.monotonic() - began < 3
        assert until_end(client) == (b"", "fin")
    assert server.settle() == {"shutdown": 1}


def test_finish_cuts_off_conversations(serve: Serve) -> None:
    server = serve(LARGE, Limits(reply_timeout=60))
    with server.connect(receive_buffer=2048) as client:
        client.sendall(REQUEST)
        eventually(lambda: server.counters["conversations"] == 1)
        server.stop_accepting()
        assert server.finish(0.05) is False
        # Straight after: nothing is left to a later turn of the hub.
        assert_settled(server.counters)
    assert server.settle() == {"shutdown": 1}


def test_finish_cuts_off_conversations_that_have_not_begun(serve: Serve) -> None:
    """Accepted and handed to greenlets by `stop_accepting` itself, with no turn of the hub before `finish`."""
    server = serve(LARGE, Limits(reply_timeout=60))
    clients = []

    def connect_and_stop() -> bool:
        for _ in range(3):
            clients.append(server.connect(receive_buffer=2048))
            clients[-1].sendall(REQUEST)
        server.service.stop_accepting(5)
        assert server.counters["conversations"] == 3
        return server.service.finish(0)

    assert server.hub.call(connect_and_stop) is False
    server.socket.close()
    for client in clients:
        client.close()
    assert server.settle() == {"shutdown": 3}


@pytest.mark.parametrize("allowed", [1, 3])
def test_conversations_are_capped(serve: Serve, allowed: int) -> None:
    limits = dataclasses.replace(LIMITS, max_conversations=allowed, reply_timeout=60)
    server = serve(LARGE, limits)
    clients = [server.connect(receive_buffer=2048) for _ in range(allowed)]
    for client in clients:
        client.sendall(REQUEST)
    eventually(lambda: server.counters["conversations"] == allowed)
    with server.connect(receive_buffer=2048) as refused:
        refused.sendall(REQUEST)
        eventually(lambda: server.outcomes == {"capacity": 1})
    for client in clients:
        assert until_end(client) == (LARGE, "fin")
        client.close()
    assert server.settle() == {"capacity": 1, "reply": allowed}


def test_without_conversations_what_does_not_fit_is_refused(serve: Serve) -> None:
    server = serve(LARGE, dataclasses.replace(LIMITS, max_conversations=0))
    with server.connect(receive_buffer=2048) as client:
        client.sendall(REQUEST)
        assert server.hub.call(lambda: server.counters["conversations"]) == 0
        eventually(lambda: server.outcomes == {"capacity": 1})
    assert server.settle() == {"capacity": 1}
