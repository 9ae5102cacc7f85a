"""Policy requests inside TLS, and everything else inside TLS on a policy port, as in test_contract.py for plain text.

The reply is whole, then come close_notify and FIN, and no RST.
"""

import dataclasses
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from conftest import Serve

pytest.importorskip("flashpol._tls", reason="built without OpenSSL")

from flashpol.config import ConnectionTimeouts
from testkit.application import Application, application
from testkit.clients import BARE, REQUEST, deliver, reset, until_end
from testkit.polling import DEADLINE, eventually
from testkit.serving import LARGE, REPLY, TIMEOUTS, Serving
from testkit.tls import (
    CONTEXTS,
    HANDSHAKE,
    WHOLE,
    hello,
    record,
    tls_ask,
    tls_connect,
)
from testkit.tls_serving import Tls, handshakes

# Long enough for a client in Python on a busy machine; what waits for a timeout has its own.
PATIENT = dataclasses.replace(TIMEOUTS, first_byte_timeout=DEADLINE, request_timeout=DEADLINE)
QUICK = dataclasses.replace(TIMEOUTS, first_byte_timeout=0.3, request_timeout=0.5)

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def app(no_leaked_files: None) -> Iterator[Application]:
    with application() as one:
        yield one


@pytest.fixture(params=["policy port", "shared port"])
def server(request: pytest.FixtureRequest, app: Application, serve: Serve) -> Serving:
    """One of each kind; on a shared port no policy request may reach the application."""
    upstream = [app.remote] if request.param == "shared port" else []
    return serve(timeouts=PATIENT, tls=Tls(), upstream=upstream)


@pytest.fixture(params=CONTEXTS, ids=["TLS 1.2", "TLS 1.3"])
def context(request: pytest.FixtureRequest) -> ssl.SSLContext:
    return request.param  # type: ignore[no-any-return]


# ----------------------------------------------------------------------------------------------------------- requests


@pytest.mark.parametrize("request_", [REQUEST, BARE + b"\n", BARE + b"\r\n", BARE + b"\r"], ids=repr)
def test_request_inside_tls_gets_the_reply(
    server: Serving, app: Application, context: ssl.SSLContext, request_: bytes
) -> None:
    assert tls_ask(server.address, request_, context) == (REPLY, WHOLE)
    assert server.settle() == {"reply": 1}
    assert server.counters["reply_bytes"] == len(REPLY)
    assert app.has_no_connection()


@pytest.mark.parametrize("ending", ["silence", "close_notify", "close_notify and FIN", "FIN"])
def test_request_without_terminator_gets_the_reply(
    server: Serving, app: Application, context: ssl.SSLContext, ending: str
) -> None:
    with tls_connect(server.address, context) as client:
        client.send(BARE)
        if ending.startswith("close_notify"):
            client.close_notify()
        if ending.endswith("FIN"):
            client.sock.shutdown(socket.SHUT_WR)
        assert client.until_end() == (REPLY, WHOLE)
    assert server.settle() == {"reply": 1}
    assert app.has_no_connection()


@pytest.mark.parametrize("size", [1, 11, 22])
def test_request_in_two_records_gets_the_reply(server: Serving, context: ssl.SSLContext, size: int) -> None:
    with tls_connect(server.address, context) as client:
        deliver(client.sock, client.encrypt(REQUEST[:size]))
        client.send(REQUEST[size:])
        assert client.until_end() == (REPLY, WHOLE)
    assert server.settle() == {"reply": 1}


def test_request_in_records_of_a_byte_in_one_segment_gets_the_reply(server: Serving, context: ssl.SSLContext) -> None:
    with tls_connect(server.address, context) as client:
        client.sock.sendall(b"".join(client.encrypt(REQUEST[n : n + 1]) for n in range(len(REQUEST))))
        assert client.until_end() == (REPLY, WHOLE)
    assert server.settle() == {"reply": 1}


@pytest.mark.parametrize("size", [1, 5, 20])
def test_request_in_one_record_split_over_segments_gets_the_reply(
    server: Serving, context: ssl.SSLContext, size: int
) -> None:
    with tls_connect(server.address, context) as client:
        wire = client.encrypt(REQUEST)
        for at in range(0, len(wire), size):
            deliver(client.sock, wire[at : at + size])
        assert client.until_end() == (REPLY, WHOLE)
    assert server.settle() == {"reply": 1}


@pytest.mark.parametrize("more", [b"x", REQUEST, b"x" * 3000], ids=["a byte", "a request", "3,000 bytes"])
@pytest.mark.parametrize("where", ["in the record", "in the segment", "in a segment of its own"])
def test_request_with_more_behind_it_gets_the_whole_reply_and_no_rst(
    server: Serving, app: Application, context: ssl.SSLContext, more: bytes, where: str
) -> None:
    with tls_connect(server.address, context) as client:
        if where == "in the record":
            client.send(REQUEST + more)
        elif where == "in the segment":
            client.sock.sendall(client.encrypt(REQUEST) + client.encrypt(more))
        else:
            deliver(client.sock, client.encrypt(REQUEST))
            eventually(lambda: server.counters.replies == 1)
            client.send(more)
        assert client.until_end() == (REPLY, WHOLE)
    assert server.settle() == {"reply": 1}
    assert app.has_no_connection()


def test_request_with_what_is_no_record_behind_it_gets_the_reply_or_an_alert(
    server: Serving, context: ssl.SSLContext
) -> None:
    """Somebody has changed the stream. What was decoded before is the client's, so the reply harms no one."""
    with tls_connect(server.address, context) as client:
        client.sock.sendall(client.encrypt(REQUEST) + b"no record of TLS at all")
        with suppress(ssl.SSLError):  # the alert
            assert client.until_end() == (REPLY, WHOLE)
    assert server.settle() in ({"reply": 1}, {"tls_handshake": 1})


def test_client_that_closes_after_the_reply_leaves_nothing(server: Serving, context: ssl.SSLContext) -> None:
    """A close_notify that arrives after the reply is input after the request: no RST, no new count."""
    for leave in ("close_notify", "fin", "rst"):
        with tls_connect(server.address, context) as client:
            client.send(REQUEST)
            assert client.receive(len(REPLY)) == REPLY
            if leave == "rst":
                reset(client.sock)
            elif leave == "close_notify":
                client.close_notify()
    assert server.settle() == {"reply": 3}


def test_large_reply_inside_tls_to_a_slow_reader_is_whole(
    app: Application, serve: Serve, context: ssl.SSLContext
) -> None:
    for upstream in ([], [app.remote]):
        server = serve(
            reply=LARGE, timeouts=dataclasses.replace(PATIENT, reply_timeout=DEADLINE), tls=Tls(), upstream=upstream
        )
        with tls_connect(server.address, context, receive_buffer=4096) as client:
            client.send(REQUEST)
            eventually(lambda server=server: server.counters["slow_replies"] == 1)  # type: ignore[misc]
            assert client.until_end() == (LARGE, WHOLE)
        assert server.settle() == {"reply": 1}


def test_client_that_does_not_read_a_large_reply_gets_no_close_notify(serve: Serve, context: ssl.SSLContext) -> None:
    """Bytes are owed, so it gets no close_notify, which would make the part look whole."""
    server = serve(reply=LARGE, timeouts=dataclasses.replace(PATIENT, reply_timeout=0.3), tls=Tls())
    with tls_connect(server.address, context, receive_buffer=4096) as client:
        client.send(REQUEST)
        eventually(lambda: server.counters["open"] == 0)
        received, how = client.until_end()
        assert LARGE.startswith(received)
        assert how in ("fin", "rst")  # as in plain text
    assert server.settle() == {"timeout": 1}


@pytest.mark.parametrize("terminated", [True, False], ids=["Flash", "Silverlight"])
def test_dialect_inside_tls_is_that_of_the_listener(
    app: Application, serve: Serve, context: ssl.SSLContext, terminated: bool
) -> None:
    """Silverlight's request is complete at its 22nd byte; a NUL that follows is extra input."""
    for upstream in ([], [app.remote]):
        slow = ConnectionTimeouts(terminator_grace=60, linger_timeout=0.5, first_byte_timeout=60)
        server = serve(timeouts=slow, tls=Tls(), terminated=terminated, upstream=upstream)
        request = REQUEST if terminated else BARE
        assert tls_ask(server.address, request, context) == (REPLY, WHOLE)
        if not terminated:
            assert tls_ask(server.address, REQUEST, context) == (REPLY, WHOLE)
            with tls_connect(server.address, context) as client:
                deliver(client.sock, client.encrypt(BARE))
                client.send(b"\0")
                assert client.until_end() == (REPLY, WHOLE)
        server.settle()


# ------------------------------------------------------------------------------------ everything else on a policy port


@pytest.mark.parametrize(
    ("data", "outcome"),
    [
        (b"\x03" + bytes(1536), "rtmp"),
        (b"\x06" + bytes(1536), "rtmpe"),
        (b"<msg t='sys'>\0", "other"),
        (REQUEST[:10] + b"~", "other"),
        (hello(), "tls"),
        (record(HANDSHAKE, b"")[:4], "tls"),
    ],
    ids=["RTMP", "RTMPE", "XML", "another byte in the request", "TLS", "the begin of TLS"],
)
@pytest.mark.parametrize("split", [False, True], ids=["in one record", "one byte first"])
def test_other_protocol_inside_tls_is_refused_by_its_name(
    serve: Serve, context: ssl.SSLContext, data: bytes, outcome: str, split: bool
) -> None:
    server = serve(tls=Tls())
    with tls_connect(server.address, context) as client:
        if split:
            deliver(client.sock, client.encrypt(data[:1]))
        if not (split and outcome in ("rtmp", "rtmpe")):  # one byte says it, and more would come after the close
            client.send(data[split:])
        assert client.until_end() == (b"", WHOLE)
    assert server.settle() == {outcome: 1}


def test_http_inside_tls_on_a_policy_port_gets_one_400(serve: Serve, context: ssl.SSLContext) -> None:
    server = serve(tls=Tls())
    received, how = tls_ask(server.address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", context)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1 ") == 1
    assert how == WHOLE
    assert server.settle() == {"http": 1}


def test_silence_inside_tls_on_a_policy_port_times_out(serve: Serve, context: ssl.SSLContext) -> None:
    server = serve(tls=Tls())
    with tls_connect(server.address, context) as client:
        assert client.until_end() == (b"", WHOLE)
    with tls_connect(server.address, context) as client:
        client.send(REQUEST[:5])
        assert client.until_end() == (b"", WHOLE)
    assert server.settle() == {"timeout": 2}
    assert sum(handshakes(server.counters).values()) == 2  # complete: a handshake that is overdue is another thing


def test_request_in_drips_inside_tls_times_out(serve: Serve, context: ssl.SSLContext) -> None:
    """Neither a byte of a record nor a record of a byte moves the deadline, which begins after the handshake."""
    server = serve(timeouts=QUICK, tls=Tls())
    with tls_connect(server.address, context) as records, tls_connect(server.address, context) as bytes_:
        wire = b"".join(bytes_.encrypt(BARE[n : n + 1]) for n in range(len(BARE)))
        for number in range(400):
            with suppress(ConnectionError):
                records.send(BARE[number % 22 : number % 22 + 1] if number < 20 else b"")
                bytes_.sock.send(wire[number : number + 1])
            if server.counters["timeouts"] == 2:
                break
            time.sleep(0.02)
    assert server.settle() == {"timeout": 2}


@pytest.mark.parametrize("sent", [b"", REQUEST[:10], BARE[:1]])
@pytest.mark.parametrize("how", ["close_notify", "fin", "rst"])
def test_client_that_leaves_inside_tls_counts_as_reset(
    serve: Serve, context: ssl.SSLContext, sent: bytes, how: str
) -> None:
    server = serve(tls=Tls())
    with tls_connect(server.address, context) as client:
        eventually(lambda: sum(server.counters.all("handshakes")) == 1)
        if sent:
            client.send(sent)
        if how == "rst":
            reset(client.sock)
        elif how == "close_notify":
            client.close_notify()
    assert server.settle() == {"reset": 1}
    assert server.counters["truncated"] == (1 if how == "fin" else 0)


def test_tls_inside_tls_is_closed(server: Serving, app: Application, context: ssl.SSLContext) -> None:
    """On a shared port too: it is no application's that speaks TLS, since the client has ended TLS here."""
    with tls_connect(server.address, context) as client:
        client.send(hello())
        assert client.until_end() == (b"", WHOLE)
    assert server.settle() == {"tls": 1}
    assert app.has_no_connection()


# --------------------------------------------------------------------------------------- plain text on the same port


def test_plain_text_and_tls_share_the_port(server: Serving, context: ssl.SSLContext) -> None:
    for _ in range(3):
        assert server.ask() == REPLY
        assert tls_ask(server.address, REQUEST, context) == (REPLY, WHOLE)
    assert server.settle() == {"reply": 6}
    assert sum(server.counters.all("handshakes")) == 3


def test_tls_on_a_listener_without_certificates_is_refused(serve: Serve) -> None:
    server = serve()
    with server.connect() as client:
        client.sendall(hello())
        assert until_end(client) == (b"", "fin")
    assert server.settle() == {"tls": 1}


@pytest.mark.parametrize("shared", [False, True], ids=["policy port", "shared port"])
@pytest.mark.parametrize(
    "data", [REQUEST, REQUEST[:5] + b"~", b"GET / HTTP/1.1\r\n\r\n", b"\x03" + bytes(1536), b"hello"]
)
def test_tls_only_refuses_plain_text(app: Application, serve: Serve, shared: bool, data: bytes) -> None:
    server = serve(timeouts=QUICK, tls=Tls(only=True), upstream=[app.remote] if shared else [])
    with server.connect() as client:
        client.sendall(data)
        assert until_end(client)[0] == b""
    assert tls_ask(server.address, REQUEST) == (REPLY, WHOLE)
    assert server.settle() == {"tls_only": 1, "reply": 1}
    assert app.has_no_connection()


@pytest.mark.parametrize("shared", [False, True], ids=["policy port", "shared port"])
def test_tls_only_silence_times_out(app: Application, serve: Serve, shared: bool) -> None:
    """Also on a shared port: it is not relayed after first_byte_timeout, since it could only be plain text."""
    hasty = dataclasses.replace(QUICK, tls_handshake_timeout=0.3)
    server = serve(timeouts=hasty, tls=Tls(only=True), upstream=[app.remote] if shared else [])
    with server.connect() as silent, server.connect() as partial, server.connect() as half:
        partial.sendall(b"\x16")
        half.sendall(REQUEST[:5])
        for client in (silent, partial, half):
            assert until_end(client) == (b"", "fin")
    assert server.settle() == {"timeout": 3}
    assert app.has_no_connection()
