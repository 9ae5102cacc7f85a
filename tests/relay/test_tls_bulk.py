"""Much data through TLS on a shared port: every byte arrives, also with slow readers and half-closed."""

import dataclasses
import hashlib
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest
from conftest import Serve

pytest.importorskip("flashpol._tls", reason="built without OpenSSL")

from testkit.application import Application, application, receive
from testkit.bulk import digest_of, pieces, read_all, read_plain, threads
from testkit.polling import DEADLINE
from testkit.serving import TIMEOUTS
from testkit.tls import CONTEXTS, RECORD, WHOLE, only, tls_connect
from testkit.tls_serving import Tls, issue

MEGABYTE = 1 << 20
PATIENT = dataclasses.replace(TIMEOUTS, request_timeout=DEADLINE, first_byte_timeout=DEADLINE)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


@pytest.fixture
def app(no_leaked_files: None) -> Iterator[Application]:
    with application() as one:
        yield one


@pytest.fixture(params=CONTEXTS, ids=["TLS 1.2", "TLS 1.3"])
def context(request: pytest.FixtureRequest) -> ssl.SSLContext:
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("size", [64 * MEGABYTE])
def test_bulk_from_the_client_arrives_whole(serve: Serve, app: Application, context: ssl.SSLContext, size: int) -> None:
    server = serve(timeouts=PATIENT, tls=Tls(), upstream=[app.remote])
    with tls_connect(server.address, context) as client:
        client.send(b"~")
        with app.accept() as inner:
            assert receive(inner, 1) == b"~"
            found: list[tuple[int, str]] = []
            with threads(lambda: found.append(read_all(inner, pauses=50))):
                for piece in pieces(1, size):
                    client.send(piece)
                client.shutdown()
            assert found == [(size, digest_of(pieces(1, size)))]
        assert client.until_end() == (b"", WHOLE)
    assert server.settle() == {"relayed": 1}


@pytest.mark.parametrize("size", [64 * MEGABYTE])
def test_bulk_from_the_application_arrives_whole(
    serve: Serve, app: Application, context: ssl.SSLContext, size: int
) -> None:
    server = serve(timeouts=PATIENT, tls=Tls(), upstream=[app.remote])
    with tls_connect(server.address, context) as client:
        client.send(b"~")
        with app.accept() as inner:

            def send() -> None:
                for piece in pieces(2, size):
                    inner.sendall(piece)
                inner.shutdown(socket.SHUT_WR)

            with threads(send):
                found, total = read_plain(client)
            assert (total, found) == (size, digest_of(pieces(2, size)))
            client.close_notify()
    assert server.settle() == {"relayed": 1}


@pytest.mark.parametrize("half_close", ["client first", "application first"])
def test_bulk_both_ways_with_slow_readers_and_half_close_arrives_whole(
    serve: Serve, app: Application, context: ssl.SSLContext, half_close: str
) -> None:
    """One direction ends early; the other goes on to its end."""
    sizes = (8 * MEGABYTE, 64 * MEGABYTE) if half_close == "client first" else (64 * MEGABYTE, 8 * MEGABYTE)
    server = serve(timeouts=PATIENT, tls=Tls(), upstream=[app.remote])
    with tls_connect(server.address, context, receive_buffer=65536) as client:
        client.send(b"~")
        with app.accept() as inner:
            assert receive(inner, 1) == b"~"
            lock = threading.Lock()  # of the client's OpenSSL object
            found: dict[str, tuple[int, str]] = {}

            def from_client() -> None:
                for piece in pieces(3, sizes[0]):
                    with lock:
                        wire = client.encrypt(piece)
                    client.sock.sendall(wire)
                with lock:
                    wire = client.farewell()
                client.sock.sendall(wire)

            def from_application() -> None:
                for piece in pieces(4, sizes[1]):
                    inner.sendall(piece)
                inner.shutdown(socket.SHUT_WR)

            def to_client() -> None:
                digest, size, pauses = hashlib.sha256(), 0, 100
                waiting = threading.Event()
                while wire := client.sock.recv(RECORD):
                    with lock:
                        client.give(wire)
                        data = client.decrypt()
                    digest.update(data)
                    size += len(data)
                    if pauses:
                        pauses -= 1
                        waiting.wait(0.01)
                found["client"] = size, digest.hexdigest()

            def to_application() -> None:
                found["application"] = read_all(inner, pauses=100)

            with threads(from_client, from_application, to_client, to_application):
                pass
            assert found["application"] == (sizes[0], digest_of(pieces(3, sizes[0])))
            assert found["client"] == (sizes[1], digest_of(pieces(4, sizes[1])))
    assert server.settle() == {"relayed": 1}


def test_bulk_of_an_old_client_arrives_whole(serve: Serve, app: Application) -> None:
    """TLS 1.0 and CBC, as Flash Player has it."""
    size = 8 * MEGABYTE
    server = serve(timeouts=PATIENT, tls=Tls((issue("first.test", key="rsa"),), "flash"), upstream=[app.remote])
    with tls_connect(server.address, only(ssl.TLSVersion.TLSv1)) as client:
        client.send(b"~")
        with app.accept() as inner:

            def echo() -> None:
                while data := inner.recv(RECORD):
                    inner.sendall(data)
                inner.shutdown(socket.SHUT_WR)

            with threads(echo):
                found, received = hashlib.sha256(), 0
                for piece in pieces(5, size):
                    client.send(piece)
                    data = client.receive(len(piece) + 1 - (received > 0))
                    found.update(data if received else data[1:])
                    received += len(data)
                client.shutdown()
                assert client.until_end() == (b"", WHOLE)
            assert (received, found.hexdigest()) == (size + 1, digest_of(pieces(5, size)))
    assert server.settle() == {"relayed": 1}
