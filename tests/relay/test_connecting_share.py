"""Sessions that wait to be connected: those of one listener leave room for those of another."""

import dataclasses
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from conftest import Serve

from flashpol.config import ConnectionLimits, UpstreamAddress
from testkit.application import Application, application, receive
from testkit.clients import connect, until_end
from testkit.polling import eventually
from testkit.serving import TIMEOUTS
from testkit.shared_ports import SharedPorts

QUICK = dataclasses.replace(TIMEOUTS, connect_timeout=1.0, first_byte_timeout=0.1)


@pytest.fixture
def app(no_leaked_files: None) -> Iterator[Application]:
    with application() as one:
        yield one


@contextmanager
def dead_application() -> Iterator[socket.socket]:
    """One whose accept queue is full: the kernel drops each SYN."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listening.getsockname())
        yield listening


def test_sessions_of_a_dead_application_leave_room_for_those_of_another(app: Application) -> None:
    """64 sessions at a time, 16 of which may wait to be connected, each of two listeners having 4 for itself."""
    with dead_application() as dead, ExitStack() as stack:
        remote = UpstreamAddress(*dead.getsockname())
        timeouts = dataclasses.replace(QUICK, connect_timeout=60)
        ports = SharedPorts([remote, app.remote], timeouts, ConnectionLimits(max_sessions=64))
        waiting = [stack.enter_context(connect(ports.addresses[0], b"hello")) for _ in range(40)]
        eventually(lambda: ports.sessions(0) == {"connecting": 28})
        assert ports.refused(0) == {"upstream": 28}
        assert (ports.counters[0]["sessions"], ports.relayed[0]["connecting"]) == (12, 12)
        for _ in range(40):
            client = stack.enter_context(connect(ports.addresses[1], b"hello"))
            inner = stack.enter_context(app.accept())
            assert receive(inner, 5) == b"hello"
            inner.sendall(b"you")
            assert receive(client, 3) == b"you"
        assert ports.refused(1) == ports.sessions(1) == {}
        dead.close()  # the kernel sends the SYNs again, and now they are refused
        for client in waiting:
            assert until_end(client)[0] == b""
        assert ports.sessions(0) == {"connecting": 28, "refused": 12}
        # The places are free again.
        for number in range(20):
            with connect(ports.addresses[0], b"hello") as client:
                assert until_end(client)[0] == b""
            assert ports.sessions(0) == {"connecting": 28, "refused": 13 + number}
    ports.settle()
    ports.close()


def test_sessions_that_begin_at_once_wait_for_a_place(app: Application, serve: Serve) -> None:
    """Of 120 that begin in one round of the event loop 50 may wait to be connected; the application accepts all."""
    server = serve(timeouts=QUICK, upstream=[app.remote], limits=ConnectionLimits(max_sessions=200))
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect(source=f"127.0.0.{n % 5 + 1}")) for n in range(120)]
        eventually(lambda: server.counters["parked"] + server.counters["sessions"] == 120)

        def send_all() -> None:  # in the hub's thread, which handles none of them meanwhile
            for client in clients:
                client.sendall(b"hello")

        server.hub.call(send_all)
        for _ in clients:
            assert receive(stack.enter_context(app.accept()), 5) in (b"hello", b"")
        eventually(lambda: server.relayed[0]["opened"] == 120)
        assert server.outcomes == {}


def test_sessions_that_wait_for_their_turn_at_connect_rate_have_a_limited_number_of_places(
    app: Application, serve: Serve
) -> None:
    server = serve(
        timeouts=dataclasses.replace(QUICK, connect_timeout=3000),
        upstream=[app.remote],
        connect_rate=0.1,
        limits=ConnectionLimits(max_sessions=100),
    )
    with ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(server.connect()).sendall(b"hello")
        eventually(lambda: server.outcomes == {"upstream": 34})  # one had the first turn, 25 wait
        assert server.counters["sessions"] == 26
        server.hub.call(lambda: server.service.finish(0))


def test_session_that_opens_or_fails_gives_its_place_back(app: Application, serve: Serve) -> None:
    """16 may wait; many more pass through, open or refused."""
    server = serve(timeouts=QUICK, upstream=[app.remote], limits=ConnectionLimits(max_sessions=64))
    with ExitStack() as stack:
        for number in range(40):
            stack.enter_context(server.connect()).sendall(b"%2d" % number)
            assert receive(stack.enter_context(app.accept()), 2) == b"%2d" % number
    assert server.settle() == {"relayed": 40}
    app.listening.close()
    for _ in range(40):
        with server.connect() as client:
            client.sendall(b"hello")
            assert until_end(client)[0] == b""
    assert server.settle() == {"relayed": 40, "upstream": 40}
    failures = dict(zip(("refused",), server.relayed[0].all("failures"), strict=False))
    assert failures == {"refused": 40}
