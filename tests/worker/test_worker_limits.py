"""The limits that a worker has once for all its listeners: sessions and slow replies."""

import dataclasses
import time
from collections.abc import Iterator
from functools import partial

import pytest
from conftest import Serve

from flashpol.config import Address, ConnectionLimits, ConnectionTimeouts, Listener
from flashpol.counters.shared import SharedCounters
from flashpol.log.handler import log
from flashpol.process.sockets import bind, bound_address
from flashpol.relay import relay
from flashpol.relay.group import SharedPort
from flashpol.worker import connections, limits
from flashpol.worker.limits import PlaceLimits
from flashpol.worker.service import CUT_TIMEOUT, Service
from testkit.accounts import outcomes
from testkit.application import Application, application, receive
from testkit.clients import REQUEST, connect, until_end
from testkit.polling import eventually
from testkit.serving import LARGE, TIMEOUTS, Hub


@pytest.mark.parametrize(("files", "sessions"), [(164, 61), (1100, 404), (100_100, 49_500), (-1, 10**6)])
def test_sessions_leave_descriptors_for_policy_requests(
    monkeypatch: pytest.MonkeyPatch, files: int, sessions: int
) -> None:
    """Of those that are left beside 100 open ones: a quarter, and at most 1,000."""
    monkeypatch.setattr(limits.resource, "getrlimit", lambda _: (files, files))
    monkeypatch.setattr(limits, "spare_memory", lambda: None)
    monkeypatch.setattr(limits, "count_files", lambda: 0 if files < 200 else 22 if files < 2000 else 100)
    assert PlaceLimits.of(ConnectionLimits(max_sessions=10**6)).sessions == sessions


@pytest.mark.parametrize(
    ("limit", "line_files", "files", "sessions"),
    [
        (1124, 0, 960, 384),
        (1124, 255, 705, 288),
        (100_100, 255, 99_681, 49_372),
        (500, 1023, 262, 112),
        (-1, 255, 0, 10**6),
    ],
)
def test_connections_leave_descriptors_for_lines_to_other_workers(
    monkeypatch: pytest.MonkeyPatch, limit: int, line_files: int, files: int, sessions: int
) -> None:
    """Of those that are left beside 100 open ones: 255 for 64 workers in four generations. Of few descriptors, lines
    take a quarter."""
    monkeypatch.setattr(limits.resource, "getrlimit", lambda _: (limit, limit))
    monkeypatch.setattr(limits, "spare_memory", lambda: None)
    monkeypatch.setattr(limits, "count_files", lambda: 100)
    found = PlaceLimits.of(ConnectionLimits(max_sessions=10**6), line_files=line_files)
    assert (found.files, found.sessions) == (files, sessions)


@pytest.mark.parametrize(("places", "sessions", "slow_replies"), [(1, 1, 1), (8, 5, 2), (300, 187, 75), (0, 500, 600)])
@pytest.mark.parametrize("workers", [1, 3])
def test_places_of_a_worker_limit_what_does_not_give_way(
    places: int, sessions: int, slow_replies: int, workers: int
) -> None:
    """Sessions take five eighths of max_worker_connections, and of the worker's part of max_connections; slow replies
    take a quarter."""
    for total in ({"max_worker_connections": places}, {"max_connections": places * workers}):
        found = PlaceLimits.of(ConnectionLimits(max_sessions=500, max_slow_replies=600, **total), workers)
        assert (found.sessions, found.slow_replies) == (sessions, slow_replies)


@pytest.mark.parametrize("tls", [False, True])
def test_memory_limits_sessions_slow_replies_handshakes_and_buffers(monkeypatch: pytest.MonkeyPatch, tls: bool) -> None:
    monkeypatch.setattr(limits, "spare_memory", lambda: 16 << 20)
    found = PlaceLimits.of(ConnectionLimits(), tls=tls)
    more = limits.TLS_BYTES * tls
    used = found.sessions * (limits.SESSION_BYTES + more) + found.slow_replies * (limits.SLOW_REPLY_BYTES + more)
    used += found.buffers * limits.BUFFER_BYTES + found.handshakes * limits.HANDSHAKE_BYTES * tls
    assert used < 16 << 20
    assert min(found.sessions, found.slow_replies) > (60 if tls else 200)
    assert found.buffers > 40


def test_slow_replies_are_limited_by_the_memory_that_is_left(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    room = 3
    monkeypatch.setattr(
        limits, "spare_memory", lambda: room * limits.SLOW_REPLY_BYTES / limits.SLOW_REPLIES_MEMORY_SHARE
    )
    server = serve(LARGE, dataclasses.replace(TIMEOUTS, reply_timeout=60))
    clients = [server.connect(receive_buffer=2048) for _ in range(room + 2)]
    for client in clients:
        client.sendall(REQUEST)
    eventually(lambda: server.counters["slow_replies"] == room)
    eventually(lambda: outcomes(server.counters) == {"max_slow_replies": 2})
    for client in clients:
        client.close()


def test_sessions_whose_greenlets_cannot_be_made_free_their_places(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No memory for five in a row, with a limit of two: each is refused, and then two sessions fit."""
    monkeypatch.setattr(log, "disabled", True)  # records with tracebacks would keep the service alive
    failures = [MemoryError() for _ in range(5)]

    def make(*arguments: object) -> object:
        if failures:
            raise failures.pop()
        return partial(*arguments)

    monkeypatch.setattr(relay, "partial", make)  # of what a session's greenlet runs
    with application() as app:
        server = serve(limits=ConnectionLimits(max_sessions=2), upstream=[app.remote])
        for _ in range(5):
            with server.connect() as client:
                client.sendall(b"hello")
                assert until_end(client)[0] == b""
        assert server.outcomes == {"capacity": 5}
        with server.connect() as one, server.connect() as other:
            for client in (one, other):
                client.sendall(b"hello")
            for _ in range(2):
                app.accept().close()
            assert [until_end(client)[0] for client in (one, other)] == [b"", b""]
        assert server.settle() == {"capacity": 5, "relayed": 2}


def test_slow_replies_whose_greenlets_cannot_be_made_free_their_places(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "disabled", True)
    failures = [MemoryError() for _ in range(5)]

    class Greenlet(connections.gevent.Greenlet):  # type: ignore[misc, name-defined]
        def start(self) -> None:
            if failures:
                raise failures.pop()
            super().start()

    monkeypatch.setattr(connections.gevent, "Greenlet", Greenlet)
    server = serve(LARGE, TIMEOUTS, limits=ConnectionLimits(max_slow_replies=1))
    for number in range(5):
        with server.connect(receive_buffer=2048) as client:
            client.sendall(REQUEST)
            # A client that reads at once may be sent everything before the kernel's buffer is full.
            eventually(lambda number=number: server.outcomes.get("capacity") == number + 1)
            assert until_end(client)[0] != LARGE
    assert server.outcomes == {"capacity": 5}
    assert server.ask() == LARGE
    assert server.settle() == {"capacity": 5, "reply": 1}


@pytest.mark.parametrize("order", [(b"hello", REQUEST), (REQUEST, b"hello")], ids=["sessions first", "replies first"])
def test_sessions_and_slow_replies_have_a_limit_each(serve: Serve, order: tuple[bytes, bytes]) -> None:
    """Sessions never take the places of slow replies, nor the reverse, whichever come first."""
    maxima = ConnectionLimits(max_sessions=2, max_slow_replies=3)
    with application() as app:
        server = serve(LARGE, dataclasses.replace(TIMEOUTS, reply_timeout=60), limits=maxima, upstream=[app.remote])
        clients, inner = [], []
        for data in order:
            for number in range(5):
                clients.append(server.connect(receive_buffer=2048))
                clients[-1].sendall(data)
                if data == b"hello" and number < 2:
                    inner.append(app.accept())
                    inner[-1].sendall(b"you")  # else the session would give way
                    assert receive(clients[-1], 3) == b"you"
        eventually(lambda: server.outcomes == {"max_sessions": 3, "max_slow_replies": 2})
        assert (server.counters["sessions"], server.counters["slow_replies"]) == (2, 3)
        for end in (*clients, *inner):
            end.close()
        assert server.settle()["relayed"] == 2


class TwoGroups:
    """A service with two shared ports, whose timeouts differ, and their counters."""

    def __init__(self, app: Application, maxima: ConnectionLimits) -> None:
        self.hub = Hub()
        self.sockets = [bind(Address("127.0.0.1", 0), 1, 100)[0] for _ in range(2)]
        self.addresses = [tuple(bound_address(sock)) for sock in self.sockets]
        self.shared = SharedCounters(1, 2, upstreams=2)
        self.counters = [self.shared.block(0, number) for number in range(2)]
        self.service = self.hub.call(self._start, app, maxima)

    def _start(self, app: Application, maxima: ConnectionLimits) -> Service:
        service = Service(limits=maxima)
        for number, sock in enumerate(self.sockets):
            listener = Listener("shared", Address(*self.addresses[number]), "p", upstream=(app.remote,))
            service.add(
                sock,
                LARGE,
                self.shared.memory(0, number),
                timeouts=ConnectionTimeouts(request_timeout=10.0 + number),
                shared_port=SharedPort(listener, [self.shared.relay_memory(0, number)]),
            )
        service.start()
        return service

    def finish(self) -> float:
        """Cut off what is open; the seconds that this took."""
        assert self.hub.call(self.service.stop_accepting, 5)
        began = time.monotonic()
        self.hub.call(self.service.finish, 0)
        return time.monotonic() - began

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
        del self.service
        self.hub.close()


@pytest.fixture
def app(no_leaked_files: None) -> Iterator[Application]:
    with application() as one:
        yield one


def test_limits_are_shared_by_listeners_with_different_timeouts(app: Application) -> None:
    server = TwoGroups(app, ConnectionLimits(max_sessions=1, max_slow_replies=1))
    clients = []
    for data, gauge in ((b"hello", "sessions"), (REQUEST, "slow_replies")):
        clients += [connect(server.addresses[0], data, receive_buffer=2048)]
        eventually(lambda gauge=gauge: server.counters[0][gauge] == 1)
        if gauge == "sessions":
            clients += [app.accept()]
            clients[-1].sendall(b"you")  # else the session would give way
            assert receive(clients[-2], 3) == b"you"
        clients += [connect(server.addresses[1], data, receive_buffer=2048)]
    eventually(lambda: outcomes(server.counters[1]) == {"max_sessions": 1, "max_slow_replies": 1})
    assert outcomes(server.counters[0]) == {}
    for client in clients:
        client.close()
    server.finish()
    server.close()


def test_finish_cuts_the_sessions_of_all_groups_before_it_waits(app: Application) -> None:
    server = TwoGroups(app, ConnectionLimits())
    clients = [connect(address, b"hello") for address in server.addresses]
    inner = [app.accept() for _ in clients]
    eventually(lambda: [block["sessions"] for block in server.counters] == [1, 1])
    assert server.finish() < CUT_TIMEOUT
    assert server.service.connections.table.sessions == 0
    for each in (*clients, *inner):
        each.close()
    server.close()


def test_session_replaces_one_of_its_listener_although_many_of_another_come_first(app: Application) -> None:
    """Those of the other listener, within its reserve, have waited longer; their end would free no place for it."""
    server = TwoGroups(app, ConnectionLimits(max_sessions=320))
    relayed = [server.shared.relay_block(0, number) for number in range(2)]
    clients = []
    for number, count in ((1, 80), (0, 240)):
        for done in range(0, count, 20):
            clients += [connect(server.addresses[number], b"hello") for _ in range(20)]
            eventually(lambda number=number, done=done: relayed[number]["opened"] == done + 20)
    clients += [connect(server.addresses[0], b"hello") for _ in range(10)]
    eventually(lambda: relayed[0]["opened"] + sum(outcomes(server.counters[0]).values()) >= 250)
    eventually(lambda: outcomes(server.counters[0]) == {"relayed": 10})
    assert relayed[1]["open"] == 80
    for client in clients:
        client.close()
    server.finish()
    server.close()
