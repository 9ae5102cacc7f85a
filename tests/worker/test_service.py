"""The service as a worker runs it: how it stops, its limit of slow replies, its access log."""

import dataclasses
import logging
import socket
import time
from collections.abc import Iterator

import pytest
from conftest import Serve

from flashpol.config import Address, ConnectionLimits, ConnectionTimeouts
from flashpol.log.format import fields
from flashpol.log.handler import log
from testkit.accounts import assert_settled
from testkit.clients import REQUEST, until_end
from testkit.polling import DEADLINE, eventually
from testkit.serving import LARGE, REPLY, TIMEOUTS

ALMOST_ALL = 1 - 2**-31  # a share below 1


def test_stop_accepting_serves_the_accept_queue(serve: Serve) -> None:
    server = serve()
    clients = []

    def connect_and_stop() -> None:
        """In the hub's thread, which therefore accepts none of these before `stop_accepting`."""
        for _ in range(200):
            clients.append(socket.create_connection(server.address, DEADLINE))
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


def test_finish_waits_for_open_connections(serve: Serve) -> None:
    server = serve()
    with server.connect() as client, server.connect():
        client.sendall(REQUEST[:10])
        eventually(lambda: server.counters["parked"] == 2)
        server.stop_accepting()
        client.sendall(REQUEST[10:])
        began = time.monotonic()
        assert server.finish(30) is True
        assert time.monotonic() - began < TIMEOUTS.request_timeout + 3
        assert until_end(client) == (REPLY, "fin")
    assert server.settle() == {"reply": 1, "timeout": 1}


def test_finish_at_its_deadline_closes_what_is_left(serve: Serve) -> None:
    server = serve(timeouts=ConnectionTimeouts(request_timeout=60))
    with server.connect() as client:
        eventually(lambda: server.counters["parked"] == 1)
        server.stop_accepting()
        began = time.monotonic()
        assert server.finish(0.1) is False
        assert 0.09 < time.monotonic() - began < 3
        assert until_end(client) == (b"", "fin")
    assert server.settle() == {"shutdown": 1}


def test_finish_at_its_deadline_ends_slow_replies(serve: Serve) -> None:
    server = serve(LARGE, ConnectionTimeouts(reply_timeout=60))
    with server.connect(receive_buffer=2048) as client:
        client.sendall(REQUEST)
        eventually(lambda: server.counters["slow_replies"] == 1)
        server.stop_accepting()
        assert server.finish(0.05) is False
        # At once: no later turn of the hub is needed.
        assert_settled(server.counters)
    assert server.settle() == {"shutdown": 1}


def test_finish_at_its_deadline_ends_slow_replies_that_have_not_begun(serve: Serve) -> None:
    """Accepted and handed to greenlets by `stop_accepting` itself, with no turn of the hub before `finish`."""
    server = serve(LARGE, ConnectionTimeouts(reply_timeout=60))
    clients = []

    def connect_and_stop() -> bool:
        for _ in range(3):
            clients.append(server.connect(receive_buffer=2048))
            clients[-1].sendall(REQUEST)
        server.service.stop_accepting(5)
        assert server.counters["slow_replies"] == 3
        return server.service.finish(0)

    assert server.hub.call(connect_and_stop) is False
    server.socket.close()
    for client in clients:
        client.close()
    assert server.settle() == {"shutdown": 3}


@pytest.mark.parametrize("allowed", [1, 3])
def test_max_slow_replies_is_exact(serve: Serve, allowed: int) -> None:
    timeouts = dataclasses.replace(TIMEOUTS, reply_timeout=60)
    server = serve(LARGE, timeouts, limits=ConnectionLimits(max_slow_replies=allowed))
    clients = [server.connect(receive_buffer=2048) for _ in range(allowed)]
    for client in clients:
        client.sendall(REQUEST)
    eventually(lambda: server.counters["slow_replies"] == allowed)
    with server.connect(receive_buffer=2048) as refused:
        refused.sendall(REQUEST)
        eventually(lambda: server.outcomes == {"max_slow_replies": 1})
    for client in clients:
        assert until_end(client) == (LARGE, "fin")
        client.close()
    assert server.settle() == {"max_slow_replies": 1, "reply": allowed}


def test_max_slow_replies_of_zero_refuses_what_does_not_fit(serve: Serve) -> None:
    server = serve(LARGE, TIMEOUTS, limits=ConnectionLimits(max_slow_replies=0))
    with server.connect(receive_buffer=2048) as client:
        client.sendall(REQUEST)
        assert server.hub.call(lambda: server.counters["slow_replies"]) == 0
        eventually(lambda: server.outcomes == {"max_slow_replies": 1})
    assert server.settle() == {"max_slow_replies": 1}


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """What is logged during the test, by any thread."""
    found: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = found.append  # type: ignore[method-assign]
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    yield found
    log.removeHandler(handler)
    log.setLevel(level)


def test_access_log_line_has_client_outcome_and_bytes(serve: Serve, records: list[logging.LogRecord]) -> None:
    server = serve(access_log=1.0)
    with server.connect() as client:
        ip, port = client.getsockname()
        client.sendall(REQUEST)
        assert until_end(client) == (REPLY, "fin")
    record = eventually(lambda: records and records[0])
    seconds = record.seconds
    name = str(Address(*server.address))
    assert record.getMessage() == f"listener {name}: {ip}:{port}: reply after {seconds:.6f} s, {len(REPLY)} bytes"
    assert fields(record) == {
        "event": "access", "listener": name, "ip": ip, "port": port, "outcome": "reply", "seconds": seconds,
        "bytes": len(REPLY), "left_out": 0, "protocol": None, "tls": False,
    }  # fmt: skip


def test_access_log_of_all_in_a_flood_has_every_connection(serve: Serve, records: list[logging.LogRecord]) -> None:
    server = serve(access_log=1.0)
    for _ in range(300):
        assert server.ask() == REPLY
    eventually(lambda: len(records) == 300)
    assert sum(record.left_out for record in records) == 0


def test_access_log_of_a_share_that_ends_says_how_many_it_left_out(
    serve: Serve, records: list[logging.LogRecord]
) -> None:
    server = serve(access_log=ALMOST_ALL)
    asked = 0
    while server.hub.call(lambda: len(records)) == asked:  # up to the first that is left out
        assert server.ask() == REPLY
        asked += 1
    server.stop_accepting()
    server.finish(1)
    assert len(records) == asked >= 101
    assert fields(records[-1]) == {"event": "access-left-out", "left_out": 1}
    assert records[-1].getMessage() == "the access log ends; sampled connections that were left out: 1"


def test_access_log_of_a_share_in_a_flood_counts_the_lines_left_out(
    serve: Serve, records: list[logging.LogRecord]
) -> None:
    server = serve(access_log=ALMOST_ALL)
    with server.connect() as sampled:
        eventually(lambda: server.counters["accepted"] == 1)
        for _ in range(300):
            assert server.ask() == REPLY
        eventually(lambda: len(records) == 99)
        sampled.sendall(REQUEST)
        eventually(lambda: len(records) == 100)
    assert sum(record.left_out for record in records) == 201
    assert records[-1].getMessage().endswith(f"; {records[-1].left_out} more are not logged")


def test_access_log_after_the_listeners_are_closed_names_the_listener(
    serve: Serve, records: list[logging.LogRecord]
) -> None:
    server = serve(timeouts=ConnectionTimeouts(request_timeout=60), access_log=1.0)
    with server.connect():
        eventually(lambda: server.counters["parked"] == 1)
        server.stop_accepting()
        server.finish(0)
    assert [(record.listener, record.outcome) for record in records] == [(str(Address(*server.address)), "shutdown")]


def test_access_log_by_default_is_off(serve: Serve, records: list[logging.LogRecord]) -> None:
    assert serve().ask() == REPLY
    assert records == []
