"""Sessions with TLS: how each side ends reaches the other, as close_notify, FIN or RST."""

import dataclasses
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress

import pytest
from conftest import Serve

pytest.importorskip("flashpol._tls", reason="built without OpenSSL")

from testkit.application import Application, application, receive
from testkit.clients import BARE, REQUEST, reset, until_end
from testkit.polling import eventually
from testkit.serving import REPLY, TIMEOUTS, Serving
from testkit.tls import CONTEXTS, WHOLE, Ending, TlsClient, tls_ask, tls_connect
from testkit.tls_serving import Tls
from testkit.tls_sessions import ends, session

QUICK = dataclasses.replace(TIMEOUTS, first_byte_timeout=0.3, request_timeout=0.5, connect_timeout=1.0)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


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
