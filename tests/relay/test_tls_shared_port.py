"""TLS on a shared port: what is inside is relayed in plain text."""

import dataclasses
import ssl
import time
from collections.abc import Iterator

import pytest
from conftest import Serve

pytest.importorskip("flashpol._tls", reason="built without OpenSSL")

from testkit.application import Application, application, receive
from testkit.clients import BARE, REQUEST, deliver
from testkit.polling import eventually
from testkit.serving import REPLY, TIMEOUTS, Serving
from testkit.tls import CONTEXTS, WHOLE, TlsClient, hello, tls_ask, tls_connect
from testkit.tls_serving import Tls
from testkit.tls_sessions import relayed_as, session

QUICK = dataclasses.replace(TIMEOUTS, first_byte_timeout=0.3, request_timeout=0.5, connect_timeout=1.0)

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def app(no_leaked_files: None) -> Iterator[Application]:
    with application() as one:
        yield one


@pytest.fixture
def server(app: Application, serve: Serve) -> Serving:
    return serve(timeouts=QUICK, tls=Tls(), upstream=[app.remote])


@pytest.fixture(params=CONTEXTS, ids=["TLS 1.2", "TLS 1.3"])
def context(request: pytest.FixtureRequest) -> ssl.SSLContext:
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("data", "protocol"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "http"),
        (b"\x03" + bytes(1536), "rtmp"),
        (b"\x06" + bytes(1536), "rtmpe"),
        (b"<msg t='sys'>\0", "other"),
        (b"P", "other"),
        (b"\x16\x99", "other"),
        (REQUEST[:11] + b"~ and all that follows", "other"),
        (b"x" * 300_000, "other"),
    ],
    ids=["HTTP", "RTMP", "RTMPE", "XML", "could be HTTP", "not quite TLS", "not quite a request", "much"],
)
@pytest.mark.parametrize("how", ["in one write", "one byte first", "with the handshake"])
def test_protocol_inside_tls_is_relayed_in_plain_text(
    server: Serving, app: Application, context: ssl.SSLContext, data: bytes, protocol: str, how: str
) -> None:
    with server.connect() as sock:
        client = TlsClient(sock, context)
        if how == "with the handshake":
            while not client.step():
                sock.sendall(client.take())
                client.give(sock.recv(1 << 16))
            sock.sendall(client.take() + client.encrypt(data))
        else:
            client.handshake()
            if how == "one byte first":
                deliver(sock, client.encrypt(data[:1]))
            client.send(data if how == "in one write" else data[1:])
        with app.accept() as inner:
            assert receive(inner, len(data)) == data
            inner.sendall(b"result")
            assert client.receive(6) == b"result"
        assert client.until_end() == (b"", WHOLE)
    assert server.settle() == {"relayed": 1}
    assert relayed_as(server) == {protocol: 1}
    to_application, to_client = server.relayed[0].all("sent")
    assert to_application == len(data)
    assert to_client >= 6  # with what TLS adds


def test_plain_tls_and_policies_share_the_port(server: Serving, app: Application, context: ssl.SSLContext) -> None:
    for _ in range(3):
        assert server.ask() == REPLY
        assert tls_ask(server.address, REQUEST, context) == (REPLY, WHOLE)
        with session(server, app, context):
            pass
        with server.connect() as client:
            client.sendall(b"login\0")
            with app.accept() as inner:
                assert receive(inner, 6) == b"login\0"
    assert server.settle() == {"reply": 6, "relayed": 6}


def test_tls_on_a_shared_port_without_certificates_is_relayed_as_it_comes(app: Application, serve: Serve) -> None:
    server = serve(timeouts=QUICK, upstream=[app.remote])
    with server.connect() as client:
        client.sendall(hello())
        with app.accept() as inner:
            assert receive(inner, len(hello())) == hello()
    assert server.settle() == {"relayed": 1}
    assert relayed_as(server) == {"tls": 1}


def test_silence_inside_tls_is_relayed_after_first_byte_timeout(
    server: Serving, app: Application, context: ssl.SSLContext
) -> None:
    with tls_connect(server.address, context) as client:
        with app.accept() as inner:
            inner.sendall(b"220 welcome\r\n")
            assert client.receive(13) == b"220 welcome\r\n"
            client.send(BARE)  # relayed now, not a policy request
            assert receive(inner, 22) == BARE
        assert client.until_end() == (b"", WHOLE)
    assert server.settle() == {"relayed": 1}
    assert relayed_as(server) == {"silent": 1}


def test_first_byte_timeout_begins_after_the_handshake(app: Application, serve: Serve) -> None:
    """A handshake takes longer than first_byte_timeout; a policy request right after it still gets the reply."""
    server = serve(timeouts=QUICK, tls=Tls(), upstream=[app.remote])
    with server.connect() as sock:
        client = TlsClient(sock, CONTEXTS[0])
        first = client.hello()
        deliver(sock, first[:10])
        time.sleep(QUICK.first_byte_timeout * 2)
        sock.sendall(first[10:])
        client.handshake()
        client.send(REQUEST)
        assert client.until_end() == (REPLY, WHOLE)
    assert server.settle() == {"reply": 1}
    assert app.has_no_connection()


def test_request_that_stops_half_way_inside_tls_is_relayed(
    server: Serving, app: Application, context: ssl.SSLContext
) -> None:
    with tls_connect(server.address, context) as client:
        client.send(BARE[:10])
        with app.accept() as inner:
            assert receive(inner, 10) == BARE[:10]
    assert server.settle() == {"relayed": 1}


def test_part_of_a_record_is_not_relayed(server: Serving, app: Application, context: ssl.SSLContext) -> None:
    """Its bytes are relayed when it is complete, in order."""
    with session(server, app, context) as (client, inner):
        wire = client.encrypt(b"x" * 1000) + client.encrypt(b"y")
        for at in range(0, len(wire), 100):
            deliver(client.sock, wire[at : at + 100])
        assert receive(inner, 1001) == b"x" * 1000 + b"y"
    server.settle()


def test_open_gauge_of_tls_counts_sessions(server: Serving, app: Application, context: ssl.SSLContext) -> None:
    with session(server, app, context), session(server, app, context), server.connect() as plain:
        plain.sendall(b"plain")
        with app.accept():
            eventually(lambda: server.counters["sessions"] == 3)
            assert server.counters["tls"] == 2
            assert server.counters["handshaking"] == 0
    assert server.settle() == {"relayed": 3}
