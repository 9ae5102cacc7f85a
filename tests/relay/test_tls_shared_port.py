"""TLS on a shared port: what is inside is relayed in plain text, and how each side ends reaches the other."""

import dataclasses
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from conftest import Serve

from flashpol._fastpath import PROTOCOLS
from flashpol._pump import ENDS, FAILURES
from testkit.application import Application, application, receive
from testkit.clients import BARE, REQUEST, deliver, reset, until_end
from testkit.polling import eventually
from testkit.serving import REPLY, TIMEOUTS, Serving
from testkit.tls import WHOLE, Ending, TlsClient, hello, only, tls_ask, tls_connect
from testkit.tls_serving import Tls

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
QUICK = dataclasses.replace(TIMEOUTS, first_byte_timeout=0.3, request_timeout=0.5, connect_timeout=1.0)

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def app(no_leaked_files: None) -> Iterator[Application]:
    with application() as one:
        yield one


@pytest.fixture
def server(app: Application, serve: Serve) -> Serving:
    return serve(timeouts=QUICK, tls=Tls(), upstream=[app.remote])


@pytest.fixture(params=[only(V12), only(V13)], ids=["TLS 1.2", "TLS 1.3"])
def context(request: pytest.FixtureRequest) -> ssl.SSLContext:
    return request.param  # type: ignore[no-any-return]


def relayed_as(server: Serving) -> dict[str, int]:
    """How many connections were relayed, by protocol."""
    counts = zip(PROTOCOLS, server.counters.all("relayed"), strict=True)
    return {protocol: count for protocol, count in counts if count}


def ends(server: Serving) -> dict[str, int]:
    block = server.relayed[0]
    counts = zip((*ENDS, *FAILURES), (*block.all("ends"), *block.all("failures")), strict=True)
    return {name: count for name, count in counts if count}


@contextmanager
def session(server: Serving, app: Application, context: ssl.SSLContext) -> Iterator[tuple[TlsClient, socket.socket]]:
    """A client and its connection at the application; a word was exchanged each way."""
    with tls_connect(server.address, context) as client:
        client.send(b"ping")
        with app.accept() as inner:
            assert receive(inner, 4) == b"ping"
            inner.sendall(b"pong")
            assert client.receive(4) == b"pong"
            yield client, inner


# --------------------------------------------------------------------------------------------------- what is relayed


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
        (b"x" * 40_000, "other"),
    ],
    ids=["HTTP", "RTMP", "RTMPE", "XML", "could be HTTP", "not quite TLS", "not quite a request", "three records"],
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
        client = TlsClient(sock, only(V12))
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


# ------------------------------------------------------------------------------------------------------ client's ends


def test_close_notify_is_passed_on_as_fin_and_the_other_direction_goes_on(
    server: Serving, app: Application, context: ssl.SSLContext
) -> None:
    with session(server, app, context) as (client, inner):
        client.send(b"last")
        client.close_notify()  # without FIN
        assert until_end(inner) == (b"last", "fin")
        for _ in range(3):
            inner.sendall(b"still here")
            assert client.receive(10) == b"still here"
        inner.close()
        assert client.until_end() == (b"", WHOLE)
    assert server.settle() == {"relayed": 1}
    assert server.counters["truncated"] == 0


def test_close_notify_and_fin_are_one_end(server: Serving, app: Application, context: ssl.SSLContext) -> None:
    with session(server, app, context) as (client, inner):
        client.shutdown()
        assert until_end(inner) == (b"", "fin")
        inner.sendall(b"bye")
        inner.close()
        assert client.until_end() == (b"bye", WHOLE)
    assert server.settle() == {"relayed": 1}
    assert ends(server) == {"client": 1}
    assert server.counters["truncated"] == 0


def test_fin_without_close_notify_is_passed_on_and_counted_as_truncated(
    server: Serving, app: Application, context: ssl.SSLContext
) -> None:
    """As many RTMPS clients end. What the application sends is still delivered."""
    with session(server, app, context) as (client, inner):
        client.send(b"last")
        client.sock.shutdown(socket.SHUT_WR)
        assert until_end(inner) == (b"last", "fin")
        inner.sendall(b"bye")
        inner.close()
        assert client.until_end() == (b"bye", WHOLE)
    assert server.settle() == {"relayed": 1}
    assert ends(server) == {"client": 1}
    assert server.counters["truncated"] == 1


def test_fin_within_a_record_is_passed_on_and_counted_as_truncated(
    server: Serving, app: Application, context: ssl.SSLContext
) -> None:
    with session(server, app, context) as (client, inner):
        client.sock.sendall(client.encrypt(b"whole") + client.encrypt(b"cut")[:-1])
        client.sock.shutdown(socket.SHUT_WR)
        assert until_end(inner) == (b"whole", "fin")
    assert server.settle() == {"relayed": 1}
    assert server.counters["truncated"] == 1


def test_half_close_with_the_first_bytes_inside_tls_is_passed_on(
    server: Serving, app: Application, context: ssl.SSLContext
) -> None:
    for data in (b"hello", BARE[:5], b"GE"):
        for shutdown in (True, False):
            with tls_connect(server.address, context) as client:
                # TLS 1.3: the last flight, the data and the end may be read at once.
                client.sock.sendall(client.encrypt(data) + client.farewell())
                if shutdown:
                    client.sock.shutdown(socket.SHUT_WR)
                with app.accept() as inner:
                    assert until_end(inner) == (data, "fin")
                    inner.sendall(b"bye")
                assert client.until_end() == (b"bye", WHOLE)
    assert server.settle() == {"relayed": 6}


def test_end_inside_tls_before_any_byte_is_not_relayed(
    server: Serving, app: Application, context: ssl.SSLContext
) -> None:
    for leave in (TlsClient.close_notify, TlsClient.shutdown, lambda client: client.sock.close()):
        with tls_connect(server.address, context) as client:
            before = server.counters["accepted"]
            eventually(lambda before=before: sum(server.counters.all("handshakes")) == before)  # type: ignore[misc]
            leave(client)
    eventually(lambda: server.counters["accepted"] == 3)
    assert server.settle() == {"reset": 3}
    assert app.has_no_connection()
    assert server.counters["truncated"] == 1


def test_reset_of_the_client_is_passed_on(server: Serving, app: Application, context: ssl.SSLContext) -> None:
    with session(server, app, context) as (client, inner):
        reset(client.sock)
        assert until_end(inner) == (b"", "rst")
    assert server.settle() == {"relayed": 1}
    assert ends(server) == {"client_reset": 1}
    assert server.counters["truncated"] == 0


def test_bytes_after_close_notify_are_ignored(server: Serving, app: Application, context: ssl.SSLContext) -> None:
    with session(server, app, context) as (client, inner):
        ahead = client.encrypt(b"last")
        client.sock.sendall(ahead + client.farewell() + b"junk" * 100)
        assert until_end(inner) == (b"last", "fin")
        inner.sendall(b"bye")
        inner.close()
        assert client.until_end().data == b"bye"
    assert server.settle() == {"relayed": 1}


@pytest.mark.parametrize("junk", [b"junk" * 100, b"\x17\x03\x03\x00\x20" + bytes(32), b"\x17\x03\x03\xff\xff"])
def test_broken_record_in_a_session_resets_the_application(
    server: Serving, app: Application, context: ssl.SSLContext, junk: bytes
) -> None:
    """What came before is delivered. FIN would tell the application that the client has sent all."""
    with session(server, app, context) as (client, inner):
        client.sock.sendall(client.encrypt(b"before") + junk)
        assert until_end(inner) == (b"before", "rst")
        with pytest.raises(ssl.SSLError):
            client.until_end()
    assert server.settle() == {"relayed": 1}


# ----------------------------------------------------------------------------------------------- the application's ends


def test_fin_of_the_application_is_close_notify_then_fin(
    server: Serving, app: Application, context: ssl.SSLContext
) -> None:
    """The client may go on sending."""
    with session(server, app, context) as (client, inner):
        inner.sendall(b"last")
        inner.shutdown(socket.SHUT_WR)
        assert client.receive(4) == b"last"
        for _ in range(3):
            client.send(b"still here")
            assert receive(inner, 10) == b"still here"
        client.shutdown()
        assert until_end(inner) == (b"", "fin")
        assert client.until_end() == (b"", WHOLE)
    assert server.settle() == {"relayed": 1}
    assert ends(server) == {"upstream": 1}
    assert server.counters["truncated"] == 0


def test_reset_of_the_application_is_passed_on_without_close_notify(
    server: Serving, app: Application, context: ssl.SSLContext
) -> None:
    with session(server, app, context) as (client, inner):
        inner.sendall(b"before")
        assert client.receive(6) == b"before"
        reset(inner)
        assert client.until_end() == (b"", "rst")
    assert server.settle() == {"relayed": 1}
    assert ends(server) == {"upstream_reset": 1}


def test_upstream_that_refuses_closes_the_client(app: Application, serve: Serve, context: ssl.SSLContext) -> None:
    server = serve(timeouts=QUICK, tls=Tls(), upstream=[app.remote])
    app.listening.close()
    with tls_connect(server.address, context) as client:
        client.send(b"hello")
        assert client.until_end().data == b""
    assert server.settle() == {"upstream": 1}
    assert tls_ask(server.address, REQUEST, context) == (REPLY, WHOLE)  # policies need no upstream


def test_idle_timeout_ends_a_session_with_close_notify(app: Application, serve: Serve, context: ssl.SSLContext) -> None:
    server = serve(timeouts=dataclasses.replace(QUICK, idle_timeout=0.3), tls=Tls(), upstream=[app.remote])
    with session(server, app, context) as (client, inner):
        assert client.until_end() == (b"", WHOLE)
        assert until_end(inner) == (b"", "fin")
    assert server.settle() == {"relayed": 1}
    assert ends(server) == {"idle": 1}


def test_handshake_alone_does_not_keep_a_session_from_being_idle(
    app: Application, serve: Serve, context: ssl.SSLContext
) -> None:
    """Neither side has spoken, so silent_timeout ends it: bytes of the handshake are no word of the client's."""
    server = serve(timeouts=dataclasses.replace(QUICK, silent_timeout=0.3), tls=Tls(), upstream=[app.remote])
    with tls_connect(server.address, context) as client:
        assert client.until_end() == (b"", WHOLE)
        with app.accept():
            eventually(lambda: ends(server) == {"silent": 1})
    assert server.settle() == {"relayed": 1}


def test_stop_cuts_a_session_with_close_notify(server: Serving, app: Application, context: ssl.SSLContext) -> None:
    with session(server, app, context) as (client, inner):
        server.stop_accepting()
        server.finish(0.2)
        assert client.until_end() == Ending(b"", WHOLE)
        assert until_end(inner) == (b"", "fin")
    assert server.settle() == {"relayed": 1}
    assert ends(server) == {"shutdown": 1}


def test_session_that_is_cut_while_bytes_are_owed_resets_the_client(
    app: Application, serve: Serve, context: ssl.SSLContext
) -> None:
    """After close_notify it would take the part for the whole."""
    server = serve(timeouts=QUICK, tls=Tls(), upstream=[app.remote])
    with tls_connect(server.address, context, receive_buffer=4096) as client:
        client.send(b"ping")
        with app.accept() as inner:
            assert receive(inner, 4) == b"ping"
            inner.settimeout(0.3)
            sent = 0
            with suppress(TimeoutError):
                while True:
                    sent += inner.send(b"x" * 65536)
            server.stop_accepting()
            server.finish(0)
            received, how = client.until_end()
            assert len(received) < sent
            assert how == "rst"
    assert server.settle() == {"relayed": 1}


# ------------------------------------------------------------------------------------------------------------ counters


def test_open_gauge_of_tls_counts_sessions(server: Serving, app: Application, context: ssl.SSLContext) -> None:
    with session(server, app, context), session(server, app, context), server.connect() as plain:
        plain.sendall(b"plain")
        with app.accept():
            eventually(lambda: server.counters["sessions"] == 3)
            assert server.counters["tls"] == 2
            assert server.counters["handshaking"] == 0
    assert server.settle() == {"relayed": 3}
