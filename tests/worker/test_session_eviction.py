"""Sessions that give way at a limit: those in which a side has never sent a byte."""

import dataclasses
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from conftest import Serve

from flashpol._pump import ENDS
from flashpol.config import ConnectionLimits
from testkit.application import Application, application, receive
from testkit.clients import BARE, until_end
from testkit.polling import eventually
from testkit.serving import TIMEOUTS, Serving

QUICK = dataclasses.replace(TIMEOUTS, first_byte_timeout=0.05)
PATIENT = dataclasses.replace(
    TIMEOUTS, first_byte_timeout=60.0, request_timeout=60.0, terminator_grace=60.0, linger_timeout=60.0
)


@pytest.fixture
def app(no_leaked_files: None) -> Iterator[Application]:
    with application() as one:
        yield one


def ends(server: Serving) -> dict[str, int]:
    return {name: count for name, count in zip(ENDS, server.relayed[0].all("ends"), strict=True) if count}


def test_silent_sessions_take_half_of_the_sessions_at_most(serve: Serve, app: Application) -> None:
    server = serve(timeouts=QUICK, upstream=[app.remote], limits=ConnectionLimits(max_sessions=40))
    with ExitStack() as stack:
        silent = []
        for number in range(30):
            silent.append(stack.enter_context(server.connect()))
            stack.enter_context(app.accept())
            eventually(lambda number=number: server.relayed[0]["opened"] == number + 1)
        eventually(lambda: server.counters["sessions"] == 20)
        assert ends(server) == {"evicted": 10}
        for client in silent[:10]:  # the first ones had been silent for longest
            assert until_end(client)[0] == b""
    assert server.settle() == {"relayed": 30}


def test_silent_sessions_give_way_to_clients_that_speak(serve: Serve, app: Application) -> None:
    server = serve(timeouts=QUICK, upstream=[app.remote], limits=ConnectionLimits(max_sessions=40))
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(server.connect())
            stack.enter_context(app.accept())
        eventually(lambda: server.relayed[0]["open"] == 20)
        for number in range(40):
            talk(stack, server, app, f"127.0.0.{number % 10 + 2}")
        assert ends(server) == {"evicted": 20}
        assert server.hub.call(server.service.check) == 40
        with server.connect() as refused:
            refused.sendall(b"hello")
            assert until_end(refused)[0] == b""
    assert server.settle() == {"relayed": 60, "max_sessions": 1}


def talk(
    stack: ExitStack, server: Serving, app: Application, source: str = "127.0.0.1"
) -> tuple[socket.socket, socket.socket]:
    """A session in which both sides have sent something."""
    client = stack.enter_context(server.connect(source=source))
    client.sendall(b"hello")
    inner = stack.enter_context(app.accept())
    assert receive(inner, 5) == b"hello"
    inner.sendall(b"you")
    assert receive(client, 3) == b"you"
    return client, inner


def test_session_in_which_both_sides_have_spoken_does_not_give_way(serve: Serve, app: Application) -> None:
    """It began in silence, and the application spoke first; then the client did."""
    server = serve(timeouts=QUICK, upstream=[app.remote], limits=ConnectionLimits(max_sessions=4))
    with ExitStack() as stack:
        pairs = [(stack.enter_context(server.connect()), stack.enter_context(app.accept())) for _ in range(2)]
        for client, inner in pairs:
            inner.sendall(b"login: ")
            assert receive(client, 7) == b"login: "
            client.sendall(b"me")
            assert receive(inner, 2) == b"me"
        pairs += [talk(stack, server, app) for _ in range(2)]
        for number in range(3):
            with server.connect() as refused:
                refused.sendall(b"hello")
                assert until_end(refused)[0] == b"", number
        for client, inner in pairs:
            inner.sendall(b"hi")
            assert receive(client, 2) == b"hi"
        assert ends(server) == {}
    assert server.settle() == {"relayed": 4, "max_sessions": 3}


def test_session_that_the_application_has_not_answered_gives_way(serve: Serve, app: Application) -> None:
    """One byte keeps no place: clients that send it and wait give way to clients that the application answers."""
    server = serve(timeouts=QUICK, upstream=[app.remote], limits=ConnectionLimits(max_sessions=16))
    with ExitStack() as stack:
        for _ in range(16):
            client = stack.enter_context(server.connect())
            client.sendall(b"x")
            assert receive(stack.enter_context(app.accept()), 1) == b"x"
        for number in range(16):
            talk(stack, server, app, f"127.0.0.{number % 4 + 2}")
        assert ends(server) == {"evicted": 16}
    assert server.settle() == {"relayed": 32}


def finish_half(stack: ExitStack, server: Serving) -> socket.socket:
    """A client that closes its side after a part of a request."""
    client = stack.enter_context(server.connect())
    client.sendall(b"<policy-file-")
    client.shutdown(socket.SHUT_WR)
    return client


def test_sessions_that_begin_with_fin_leave_those_of_their_address_alone(serve: Serve, app: Application) -> None:
    """A flood of half requests ends: each becomes a session by its FIN."""
    server = serve(timeouts=PATIENT, upstream=[app.remote], limits=ConnectionLimits(max_sessions=16))
    with ExitStack() as stack:
        half = [stack.enter_context(server.connect()) for _ in range(40)]
        for client in half:
            client.sendall(b"<policy-file-")
        player = stack.enter_context(server.connect())
        player.sendall(b"hello")
        inner = [stack.enter_context(app.accept())]
        assert receive(inner[0], 5) == b"hello"
        server.hub.call(lambda: [client.shutdown(socket.SHUT_WR) for client in half])
        inner += [stack.enter_context(app.accept()) for _ in range(8)]
        eventually(lambda: server.counters["open"] == 1 + 8)
        newcomer = stack.enter_context(server.connect())
        newcomer.sendall(b"hello")
        inner.append(stack.enter_context(app.accept()))
        for connection in inner:
            connection.sendall(b"you")
        assert receive(player, 3) == receive(newcomer, 3) == b"you"
        assert sum(receive(client, 3) == b"you" for client in half) == 8
        assert ends(server) == {}
        assert server.hub.call(server.service.check) == 10
    assert server.settle() == {"relayed": 10, "max_sessions": 32}


def test_session_that_begins_with_fin_counts_as_silent_until_the_application_answers(
    serve: Serve, app: Application
) -> None:
    server = serve(timeouts=PATIENT, upstream=[app.remote], limits=ConnectionLimits(max_sessions=16))
    with ExitStack() as stack:
        first = [finish_half(stack, server) for _ in range(8)]
        inner = [stack.enter_context(app.accept()) for _ in range(8)]
        eventually(lambda: server.relayed[0]["open"] == 8)
        first.append(finish_half(stack, server))
        inner.append(stack.enter_context(app.accept()))
        eventually(lambda: ends(server) == {"evicted": 1}, "the oldest gave way")
        assert until_end(first[0])[0] == b""
        for client, connection in zip(first[1:], inner[1:], strict=True):
            connection.sendall(b"you")
            assert receive(client, 3) == b"you"
        finish_half(stack, server)
        stack.enter_context(app.accept())
        assert ends(server) == {"evicted": 1}
        assert server.hub.call(server.service.check) == 9
    assert server.settle() == {"relayed": 10}


def test_session_that_begins_with_fin_replaces_none_whose_client_has_sent_a_byte(
    serve: Serve, app: Application
) -> None:
    server = serve(timeouts=PATIENT, upstream=[app.remote], limits=ConnectionLimits(max_sessions=4))
    with ExitStack() as stack:
        players = [stack.enter_context(server.connect()) for _ in range(4)]
        for player in players:
            player.sendall(b"hello")
            stack.enter_context(app.accept())
        eventually(lambda: server.relayed[0]["open"] == 4)
        half = finish_half(stack, server)
        assert until_end(half)[0] == b""
        assert ends(server) == {}
    assert server.settle() == {"relayed": 4, "max_sessions": 1}


def test_session_does_not_give_way_before_requests_without_a_terminator_that_are_older(
    serve: Serve, app: Application
) -> None:
    """One that gives way gets its reply and lingers, until the next one does: a new connection takes one place."""
    server = serve(timeouts=PATIENT, upstream=[app.remote], limits=ConnectionLimits(max_worker_connections=16))
    with ExitStack() as stack:

        def connect(said: bytes = b"") -> socket.socket:
            client = stack.enter_context(server.connect())
            client.sendall(said)
            return client

        requests = [connect(BARE) for _ in range(10)]
        eventually(lambda: server.counters["open"] == 10)
        player = connect(b"hello")
        inner = stack.enter_context(app.accept())
        assert receive(inner, 5) == b"hello"
        eventually(lambda: server.relayed[0]["open"] == 1)
        requests += [connect(BARE) for _ in range(5)]
        eventually(lambda: server.counters["open"] == 16)
        for number in range(5):
            connect()
            assert receive(requests[number], len(server.reply)) == server.reply
        eventually(lambda: server.outcomes == {"reply": 6}, "the last one lingers")
        inner.sendall(b"you")
        assert receive(player, 3) == b"you"
        assert ends(server) == {}
        server.hub.call(server.service.check)


def test_silent_session_gives_its_place_to_a_policy_request(serve: Serve, app: Application) -> None:
    server = serve(timeouts=QUICK, upstream=[app.remote], limits=ConnectionLimits(max_worker_connections=8))
    with ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(server.connect())
        eventually(lambda: server.relayed[0]["opened"] >= 3)
        for _ in range(30):
            assert server.ask() == server.reply
