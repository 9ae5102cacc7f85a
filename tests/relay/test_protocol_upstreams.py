"""Upstreams by protocol, with real processes: each protocol reaches the application of its own."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from testkit.application import Application, application, receive
from testkit.clients import REQUEST, ask, connect, rest
from testkit.polling import eventually
from testkit.processes import Flashpol
from testkit.tls import tls_connect
from testkit.tls_serving import AVAILABLE, issue
from testkit.upgrades import upgrade

FIRST_BYTES = {
    "rtmp": b"\x03" + bytes(20),
    "rtmpe": b"\x06" + bytes(20),
    "http": b"POST /open/1 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
    "tls": b"\x16\x03\x01\x00\x05hello",
    "other": b"<msg t='sys'>\0",
}
POLICY = '[policies.p]\ngrants = [{domain = "*.example.com", ports = "7000"}]\n'
LISTENER = '[[listeners]]\nname = "{}"\naddress = "127.0.0.1:0"\n'


@pytest.fixture
def apps() -> Iterator[dict[str, Application]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(application()) for name in FIRST_BYTES}


def table(apps: dict[str, Application], *protocols: str) -> str:
    return "[listeners.upstreams]\n" + "".join(f'{name} = "{apps[name].remote}"\n' for name in protocols)


def reaches(place: tuple[str, int], data: bytes, app: Application) -> None:
    with connect(place, data) as client, app.accept() as inner:
        assert receive(inner, len(data)) == data
        inner.sendall(b"pong")
        assert receive(client, 4) == b"pong"


def test_five_protocols_of_one_listener_reach_their_applications(tmp_path: Path, apps: dict[str, Application]) -> None:
    (tmp_path / "flashpol.toml").write_text(
        POLICY
        + LISTENER.format("all") + f'upstream = "{apps["other"].remote}"\n'
        + table(apps, "rtmp", "rtmpe", "http", "tls")
        + LISTENER.format("some") + "request_timeout = 1\n" + table(apps, "rtmp", "http")
    )  # fmt: skip
    with Flashpol("-c", tmp_path / "flashpol.toml", listen=()) as server:
        everything, some = server.places
        for protocol, data in FIRST_BYTES.items():
            reaches(everything, data, apps[protocol])
        for protocol in ("rtmp", "http"):
            reaches(some, FIRST_BYTES[protocol], apps[protocol])
        for protocol in ("rtmpe", "tls", "other"):
            assert rest(connect(some, FIRST_BYTES[protocol])) == b""
        assert rest(connect(some)) == b"", "silence is refused too"
        assert ask(everything) == ask(some) == ask(some, REQUEST)
        assert all(app.has_no_connection() for app in apps.values())

        def counted() -> bool:
            metrics = server.metrics()
            sessions = [metrics.total("relayed_total", listener="all", protocol=protocol) for protocol in FIRST_BYTES]
            started = [
                metrics.total("relay_sessions_started_total", listener="all", upstream=str(app.remote))
                for app in apps.values()
            ]
            refused = [
                metrics.total("refused_total", listener="some", reason=name) for name in ("rtmpe", "tls", "other")
            ]
            return [sessions, started, refused] == [[1] * 5, [1] * 5, [1] * 3]

        eventually(counted, "the counters")
        server.counts(1, "timeouts_total", listener="some")
        assert server.stop() == 0
        assert not server.complaints


@pytest.mark.skipif(not AVAILABLE, reason="built without OpenSSL")
def test_protocols_inside_tls_reach_their_applications_beside_websocket(
    tmp_path: Path, apps: dict[str, Application]
) -> None:
    pair = issue("games.test")
    (tmp_path / "c.pem").write_bytes(pair.chain + pair.key)
    (tmp_path / "c.pem").chmod(0o600)
    (tmp_path / "flashpol.toml").write_text(
        POLICY + '[certificates.c]\nchain = "c.pem"\n'
        + LISTENER.format("all") + f'tls = ["c"]\nupstream = "{apps["other"].remote}"\n' + table(apps, "rtmp", "http")
        + '[[listeners.websocket]]\npath = "/chess"\norigins = "any"\n'
        + LISTENER.format("refuse") + f'rtmpt = true\nother_http = "refuse"\nupstream = "{apps["other"].remote}"\n'
        + table(apps, "rtmp")
    )  # fmt: skip
    with Flashpol("-c", tmp_path / "flashpol.toml", listen=()) as server:
        everything, refuse = server.places
        for protocol, data in FIRST_BYTES.items():
            app = apps[protocol if protocol in ("rtmp", "http") else "other"]
            if protocol == "tls":
                continue
            with tls_connect(everything) as client:
                client.send(data)
                with app.accept() as inner:
                    assert receive(inner, len(data)) == data
                    inner.sendall(b"pong")
                    assert client.receive(4) == b"pong"
        with connect(everything, upgrade("/chess", "https://a.example")) as client, apps["other"].accept() as inner:
            assert client.recv(1000).startswith(b"HTTP/1.1 101 ")
            inner.sendall(b"pong")
            assert client.recv(100) == b"\x82\x04pong"
        assert rest(connect(refuse, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")).startswith(b"HTTP/1.1 404 ")
        reaches(refuse, FIRST_BYTES["rtmp"], apps["rtmp"])
        assert all(app.has_no_connection() for app in apps.values())
        assert server.stop() == 0
