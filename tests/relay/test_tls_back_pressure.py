"""Slow readers of sessions with TLS: the sender is slowed down, memory is bounded, and others go on."""

import dataclasses
import hashlib
import socket
import ssl
from collections.abc import Iterator
from functools import partial

import pytest
from conftest import Serve

pytest.importorskip("flashpol._tls", reason="built without OpenSSL")

from testkit.application import Application, application, receive
from testkit.bulk import fill, fill_all, read_all, read_plain, threads
from testkit.clients import connect
from testkit.polling import DEADLINE, eventually
from testkit.serving import TIMEOUTS, Serving
from testkit.tls import CONTEXTS, TlsClient, tls_connect
from testkit.tls_odd import OddClient
from testkit.tls_serving import Tls

MEGABYTE = 1 << 20
SLOW_SESSIONS = 20
PATIENT = dataclasses.replace(TIMEOUTS, request_timeout=DEADLINE, first_byte_timeout=DEADLINE)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


@pytest.fixture
def app(no_leaked_files: None) -> Iterator[Application]:
    with application() as one:
        yield one


@pytest.fixture(params=CONTEXTS, ids=["TLS 1.2", "TLS 1.3"])
def context(request: pytest.FixtureRequest) -> ssl.SSLContext:
    return request.param  # type: ignore[no-any-return]


def buffers(server: Serving) -> int:
    return server.hub.call(lambda: server.service.connections._relays._pump.buffers_held)


def test_application_is_not_read_while_the_client_does_not_read(
    serve: Serve, app: Application, context: ssl.SSLContext
) -> None:
    """It can send what the kernel and one session hold, not more; when the client reads, all of it arrives in order."""
    server = serve(timeouts=PATIENT, tls=Tls(), upstream=[app.remote])
    with tls_connect(server.address, context, receive_buffer=4096) as client:
        client.send(b"~")
        with app.accept() as inner:
            inner.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            sent = fill(inner.send, inner)
            assert sent < 16 * MEGABYTE
            inner.shutdown(socket.SHUT_WR)
            digest, size = read_plain(client)
            assert (size, digest) == (sent, hashlib.sha256(b"x" * sent).hexdigest())
    assert server.settle() == {"relayed": 1}


def test_client_is_not_read_while_the_application_does_not_read(
    serve: Serve, app: Application, context: ssl.SSLContext
) -> None:
    server = serve(timeouts=PATIENT, tls=Tls(), upstream=[app.remote])
    app.listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with tls_connect(server.address, context) as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        client.send(b"~")
        with app.accept() as inner:
            assert receive(inner, 1) == b"~"
            wire, plain = b"", 0
            client.sock.settimeout(0.5)
            try:
                while plain < 64 * MEGABYTE:
                    plain += 16384
                    wire = client.encrypt(b"x" * 16384)
                    while wire:
                        wire = wire[client.sock.send(wire) :]
            except TimeoutError:
                pass
            assert plain < 16 * MEGABYTE, "everything was taken"
            client.sock.settimeout(DEADLINE)

            def finish() -> None:
                client.sock.sendall(wire + client.farewell())

            with threads(finish):
                size, digest = read_all(inner)
            assert (size, digest) == (plain, hashlib.sha256(b"x" * plain).hexdigest())
    assert server.settle() == {"relayed": 1}


def test_slow_readers_of_many_sessions_hold_a_bounded_amount(
    serve: Serve, app: Application, context: ssl.SSLContext
) -> None:
    """The buffers of the pump go back when all have been read."""
    server = serve(timeouts=PATIENT, tls=Tls(), upstream=[app.remote])
    clients, inners = [], []
    for _ in range(SLOW_SESSIONS):
        clients.append(tls_connect(server.address, context, receive_buffer=4096))
        clients[-1].send(b"~")
        inners.append(app.accept())
        inners[-1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    sent = fill_all(inners)
    for inner in inners:
        inner.shutdown(socket.SHUT_WR)
    eventually(lambda: buffers(server) > 0, "a session that holds bytes")
    assert buffers(server) <= SLOW_SESSIONS
    for client, count in zip(clients, sent, strict=True):
        digest, size = read_plain(client)
        assert (size, digest) == (count, hashlib.sha256(b"x" * count).hexdigest())
    for end in (*[client.sock for client in clients], *inners):
        end.close()
    assert server.settle() == {"relayed": SLOW_SESSIONS}
    assert buffers(server) == 0


@pytest.fixture
def two_buffers(serve: Serve, app: Application, monkeypatch: pytest.MonkeyPatch) -> Serving:
    """A server whose pump has two buffers, as another one has 512."""
    monkeypatch.setattr("flashpol.worker.limits.MAX_BUFFERS", 2)
    return serve(timeouts=PATIENT, tls=Tls(), upstream=[app.remote])


def slow_readers(
    server: Serving, app: Application, context: ssl.SSLContext, count: int
) -> list[tuple[TlsClient, socket.socket, int]]:
    """Clients, their applications, and how much each application has sent, of which nothing was read."""
    clients, inners = [], []
    for _ in range(count):
        clients.append(tls_connect(server.address, context, receive_buffer=4096))
        clients[-1].send(b"~")
        inners.append(app.accept())
        inners[-1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        assert receive(inners[-1], 1) == b"~"
    return [*zip(clients, inners, fill_all(inners), strict=True)]


def test_sessions_without_a_buffer_wait_until_one_is_returned(
    two_buffers: Serving, app: Application, context: ssl.SSLContext
) -> None:
    """Decoded bytes cannot be put back into the kernel, so without a buffer such a session is not read."""
    sessions = slow_readers(two_buffers, app, context, 6)
    assert buffers(two_buffers) <= 2
    for client, inner, _ in sessions:  # the other direction waits too, and is not lost
        client.send(b"y" * 100_000)
        inner.shutdown(socket.SHUT_WR)
    with threads(*[partial(check_plain, client, count) for client, _, count in sessions]):
        for _, inner, _ in sessions:
            assert receive(inner, 100_000) == b"y" * 100_000
    for client, inner, _ in sessions:
        client.sock.close()
        inner.close()
    assert two_buffers.settle() == {"relayed": len(sessions)}
    assert buffers(two_buffers) == 0


def test_session_goes_on_while_slow_readers_hold_all_buffers(
    two_buffers: Serving, app: Application, context: ssl.SSLContext
) -> None:
    """Some clients that do not read must not stop the sessions of all others."""
    sessions = slow_readers(two_buffers, app, context, 4)
    with tls_connect(two_buffers.address, context) as client:
        client.send(b"ping")
        with app.accept() as inner:
            assert receive(inner, 4) == b"ping"
            for _ in range(10):
                inner.sendall(b"pong")
                assert client.receive(4) == b"pong"
                client.send(b"ping")
                assert receive(inner, 4) == b"ping"
    for slow, inner, _ in sessions:
        slow.sock.close()
        inner.close()
    assert two_buffers.settle() == {"relayed": len(sessions) + 1}


def check_plain(client: TlsClient, size: int) -> None:
    """What this client receives until its end is `size` times the same byte."""
    assert read_plain(client) == (hashlib.sha256(b"x" * size).hexdigest(), size)


def test_reply_to_a_key_update_comes_behind_the_data_that_is_held(serve: Serve, app: Application) -> None:
    """The codec sends it by itself. In front of older records it would make them unreadable."""
    server = serve(timeouts=PATIENT, tls=Tls(), upstream=[app.remote])
    with OddClient(connect(server.address, receive_buffer=4096)) as client:
        client.send(b"~")
        with app.accept() as inner:
            assert receive(inner, 1) == b"~"
            inner.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            [sent] = fill_all([inner])
            eventually(lambda: buffers(server) > 0, "bytes that are held")
            for _ in range(3):
                client.update_key(requested=True)
                client.send(b"~")
                assert receive(inner, 1) == b"~"
            inner.shutdown(socket.SHUT_WR)
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            received, alerts, how = client.until_end()
            assert (received == b"x" * sent, len(received)) == (True, sent)
            assert (alerts, how) == ([(1, "close_notify")], "fin")
    assert server.settle() == {"relayed": 1}
