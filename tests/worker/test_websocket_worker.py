"""WebSocket of real processes, with a client of a real library, through TLS: a session, and the ends of the server."""

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("flashpol._tls", reason="built without OpenSSL")

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from testkit.application import Application, application, receive
from testkit.polling import DEADLINE, eventually
from testkit.processes import Flashpol
from testkit.tls import client_context
from testkit.tls_site import TlsSite, settled

pytestmark = pytest.mark.slow
ORIGIN = "https://www.example.com"
LISTENER = """
[[listeners.websocket]]
path = "/ws"
port = 7000
"""


@pytest.fixture
def app() -> Iterator[Application]:
    with application() as one:
        one.listening.settimeout(DEADLINE)
        yield one


@pytest.fixture
def site(tmp_path: Path, app: Application) -> TlsSite:
    made = TlsSite(tmp_path, app.remote)
    made.configure(server="drain_timeout = 0.5", listener=LISTENER)
    return made


@contextmanager
def session(server: Flashpol, app: Application) -> Iterator[tuple[ClientConnection, socket.socket]]:
    """A client and its connection at the application; a message was exchanged each way."""
    url = f"wss://127.0.0.1:{server.place[1]}/ws"
    options = {"open_timeout": DEADLINE, "ping_interval": None}
    with connect(url, ssl=client_context(), origin=ORIGIN, **options) as client, app.accept() as inner:
        client.send(b"ping")
        assert receive(inner, 4) == b"ping"
        inner.sendall(b"pong")
        assert client.recv(DEADLINE) == b"pong"
        yield client, inner


def code_of(client: ClientConnection) -> int:
    """The code that the server closes with."""
    with pytest.raises(ConnectionClosed):
        client.recv(DEADLINE)
    assert client.close_code is not None
    return client.close_code


def closes(server: Flashpol, code: int, by: str) -> float:
    return server.metrics().total("websocket_closes_total", path="/ws", code=str(code), by=by)


def test_session_inside_tls_is_opened_pinged_and_closed(site: TlsSite, app: Application) -> None:
    with site.serve() as server:
        with session(server, app) as (client, inner):
            assert client.ping(b"?").wait(DEADLINE)
            data = bytes(range(256)) * 4000
            client.send(data)
            assert receive(inner, len(data)) == data
            server.counts(1, "websocket_open", path="/ws")
            client.close(1000)
            assert inner.recv(1) == b""
        settled(server)
        server.counts(0, "websocket_open", path="/ws")
        assert closes(server, 1000, "client") == 1
        server.counts(1, "relayed_total", protocol="websocket")


def test_server_that_stops_closes_with_1001(site: TlsSite, app: Application) -> None:
    with site.serve() as server, session(server, app) as (client, _inner):
        assert server.stop() == 0
        assert code_of(client) == 1001


def test_reload_closes_with_1012_after_drain_timeout(site: TlsSite, app: Application) -> None:
    with site.serve() as server:
        with session(server, app) as (client, inner):
            assert server.get("/-/reload", "POST").status == 200
            inner.sendall(b"still")
            assert client.recv(DEADLINE) == b"still"
            assert code_of(client) == 1012
            assert inner.recv(1) == b""
        with session(server, app) as (client, _):
            client.close()
        settled(server)
        eventually(lambda: closes(server, 1012, "server") == 1, "the counter of an old worker")
        server.counts(0, "websocket_open", path="/ws")


def test_killed_worker_leaves_no_open_websocket(site: TlsSite, app: Application) -> None:
    with site.serve() as server:
        with session(server, app) as (client, _inner):
            [worker] = server.workers
            worker.kill(signal.SIGKILL)
            with pytest.raises(ConnectionClosed):
                client.recv(DEADLINE)
            eventually(lambda: server.metrics().total("websocket_open", path="/ws") == 0, "the gauge of a dead worker")
        settled(server)
        server.counts(1, "websocket_upgrades_total", path="/ws", result="accepted")
        with session(server, app) as (client, _):
            client.close()
        settled(server)
