"""Messages of TLS after the handshake: renegotiation, floods of messages without data, records that were changed."""

import dataclasses
import ssl
from collections.abc import Iterator
from contextlib import suppress

import pytest
from conftest import Serve

pytest.importorskip("flashpol._tls", reason="built without OpenSSL")

from testkit.application import Application, application
from testkit.clients import REQUEST
from testkit.polling import DEADLINE
from testkit.serving import REPLY, TIMEOUTS, Serving
from testkit.tls import (
    ALERT,
    APPLICATION_DATA,
    CONTEXTS,
    WHOLE,
    tls_ask,
    tls_connect,
)
from testkit.tls_odd import OddClient
from testkit.tls_serving import Tls, handshakes

# Long enough for a client in Python on a busy machine; what waits for a timeout has its own.
PATIENT = dataclasses.replace(TIMEOUTS, first_byte_timeout=DEADLINE, request_timeout=DEADLINE)
FEW = 3  # messages without application data; 32 records in a row are taken, and 8 messages of a handshake in all
MANY = 100  # more than are taken

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


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


def test_renegotiation_is_refused_with_a_warning_and_the_connection_goes_on(server: Serving) -> None:
    with OddClient(server.connect(), (3, 3)) as client:
        client.renegotiate()
        assert client.receive_record() == (ALERT, b"\x01\x64")  # warning, no_renegotiation
        client.send(REQUEST)
        assert client.until_end() == (REPLY, [(1, "close_notify")], "fin")
    assert server.settle() == {"reply": 1}


def flood(client: OddClient, kind: str) -> None:
    """One message without application data."""
    if kind == "KeyUpdate":
        client.update_key()
    elif kind == "KeyUpdate with a reply":
        client.update_key(requested=True)
    elif kind == "renegotiation":
        client.renegotiate()
    elif kind == "warning":
        client.send_record(ALERT, b"\x01\x5a")  # user_canceled
    else:
        client.send_record(APPLICATION_DATA, b"")


FLOODS = [
    ((3, 4), "KeyUpdate"),
    ((3, 4), "KeyUpdate with a reply"),
    ((3, 4), "empty records"),
    ((3, 3), "empty records"),
    ((3, 3), "renegotiation"),
    ((3, 3), "warning"),
]


@pytest.mark.parametrize(("version", "kind"), FLOODS)
def test_flood_of_messages_without_data_is_closed(server: Serving, version: tuple[int, int], kind: str) -> None:
    with OddClient(server.connect(), version) as client, suppress(ConnectionError):
        for _ in range(MANY):
            flood(client, kind)
        client.until_end()
    assert server.settle() == {"tls_handshake": 1}
    assert handshakes(server.counters)["malformed" if kind == "warning" else "flood"] == 1
    assert tls_ask(server.address, REQUEST) == (REPLY, WHOLE)


@pytest.mark.parametrize(("version", "kind"), [pair for pair in FLOODS if pair[1] != "warning"])
def test_few_messages_without_data_are_taken(server: Serving, version: tuple[int, int], kind: str) -> None:
    with OddClient(server.connect(), version) as client:
        for at in range(0, len(REQUEST), 12):
            for _ in range(FEW):
                flood(client, kind)
            client.send(REQUEST[at : at + 12])
        received, alerts, how = client.until_end()
        assert received == REPLY
        assert how == "fin"
        assert (1, "close_notify") in alerts
    assert server.settle() == {"reply": 1}


def test_record_that_was_changed_on_its_way_is_refused(server: Serving, context: ssl.SSLContext) -> None:
    with tls_connect(server.address, context) as client:
        wire = bytearray(client.encrypt(REQUEST))
        wire[-1] ^= 1
        client.sock.sendall(wire)
        with pytest.raises(ssl.SSLError, match=r"(?i)bad.record.mac"):
            client.until_end()
    assert sum(server.settle().values()) == 1
    assert server.counters.replies == 0
