"""A shared port with real processes: sessions during a reload, a stop and the death of a worker."""

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from testkit.application import Application, application, receive
from testkit.clients import ask, connect, rest
from testkit.polling import DEADLINE, eventually
from testkit.processes import Flashpol

POLICY = b'<cross-domain-policy><allow-access-from domain="*.example.com" to-ports="7000"/></cross-domain-policy>'


class Site:
    def __init__(self, folder: Path, app: Application) -> None:
        self.config = folder / "flashpol.toml"
        self.app = app
        (folder / "policy.xml").write_bytes(POLICY)
        self.configure()

    def configure(self, server: str = "", listener: str = "") -> None:
        self.config.write_text(
            f"[server]\nreload_endpoint = true\nshutdown_timeout = 0.5\n{server}\n"
            '[policies.main]\nfile = "policy.xml"\n'
            f'[[listeners]]\nname = "shared"\naddress = "127.0.0.1:0"\nupstream = "{self.app.remote}"\n{listener}'
        )

    def serve(self, **options: object) -> Flashpol:
        return Flashpol("-c", self.config, listen=(), **options)  # type: ignore[arg-type]


@pytest.fixture
def app() -> Iterator[Application]:
    with application() as one:
        one.listening.settimeout(DEADLINE)
        yield one


@pytest.fixture
def site(tmp_path: Path, app: Application) -> Site:
    return Site(tmp_path, app)


def talk(client: socket.socket, inner: socket.socket) -> None:
    """A word each way."""
    client.sendall(b"ping")
    assert receive(inner, 4) == b"ping"
    inner.sendall(b"pong")
    assert receive(client, 4) == b"pong"


def reload(server: Flashpol) -> None:
    assert server.get("/-/reload", "POST").status == 200


def test_session_survives_reloads(site: Site, app: Application) -> None:
    with site.serve() as server, connect(server.place) as client:
        client.sendall(b"ping")
        with app.accept() as inner:
            inner.settimeout(DEADLINE)
            assert receive(inner, 4) == b"ping"
            for _ in range(2):
                reload(server)
                time.sleep(0.6)  # longer than shutdown_timeout: a worker without a session has ended by then
                talk(client, inner)
            assert ask(server.place) == POLICY + b"\0"
            server.counts(1, "relay_sessions_open", listener="shared")
            server.counts(1, "draining_workers")
        assert rest(client) == b""
        eventually(lambda: server.metrics().total("draining_workers") == 0, "the end of the old worker")
        server.counts(1, "relay_ends_total", by="upstream")
        server.counts(1, "relayed_total", protocol="other")
        assert server.stop() == 0
        assert not server.complaints


def test_drain_timeout_after_a_reload_ends_the_session(site: Site, app: Application) -> None:
    site.configure("drain_timeout = 1")
    with site.serve() as server, connect(server.place, b"ping") as client, app.accept() as inner:
        assert receive(inner, 4) == b"ping"
        reload(server)
        talk(client, inner)
        assert rest(client) == b""
        eventually(lambda: server.metrics().total("draining_workers") == 0, "the end of the old worker")
        server.counts(1, "relay_ends_total", by="shutdown")
        assert server.stop() == 0


def test_stop_does_not_wait_for_drain_timeout(site: Site, app: Application) -> None:
    with site.serve() as server, ExitStack() as stack:
        clients = []
        for _ in range(2):  # one of the old generation, one of the new
            clients.append(stack.enter_context(connect(server.place, b"ping")))
            assert receive(stack.enter_context(app.accept()), 4) == b"ping"
            if len(clients) == 1:
                reload(server)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 10
        assert [rest(client) for client in clients] == [b"", b""]


def test_reload_with_three_draining_generations_ends_the_oldest(site: Site, app: Application) -> None:
    """Each generation keeps a session; three generations may drain at a time."""
    with site.serve() as server, ExitStack() as stack:
        clients = []
        for _ in range(4):
            clients.append(stack.enter_context(connect(server.place, b"ping")))
            assert receive(stack.enter_context(app.accept()), 4) == b"ping"
            if len(clients) < 4:
                reload(server)
        server.counts(3, "draining_workers")
        reload(server)
        assert rest(clients[0]) == b""
        eventually(lambda: server.metrics().total("draining_workers") == 3, "the end of the oldest")
        for client in clients[1:]:
            client.sendall(b"still there")
        assert server.stop() == 0


def test_killed_worker_closes_its_sessions_and_is_replaced(site: Site, app: Application) -> None:
    with site.serve() as server, connect(server.place, b"ping") as client, app.accept() as inner:
        assert receive(inner, 4) == b"ping"
        server.workers[0].kill(signal.SIGKILL)
        client.settimeout(DEADLINE)
        assert client.recv(1) == b""
        eventually(lambda: server.metrics().total("worker_restarts_total") == 1, "the next worker")
        eventually(lambda: server.up == 1, "the next worker")
        server.counts(0, "relay_sessions_open")
        server.counts(1, "refused_total", reason="crashed")
        with connect(server.place, b"ping") as again, app.accept() as other:
            assert receive(other, 4) == b"ping"
            talk(again, other)


def test_open_files_metric_counts_both_sides_of_a_session(site: Site, app: Application) -> None:
    with site.serve() as server, ExitStack() as stack:
        before = server.metrics().total("worker_open_files")
        for _ in range(5):
            stack.enter_context(connect(server.place, b"ping"))
            assert receive(stack.enter_context(app.accept()), 4) == b"ping"
        server.counts(before + 10, "worker_open_files")


V2 = b"\r\n\r\n\0\r\nQUIT\n"
FOUR = bytes([192, 0, 2, 7, 198, 51, 100, 1]) + (50000).to_bytes(2) + (7000).to_bytes(2)
SIX = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + socket.inet_pton(socket.AF_INET6, "2001:db8::1") + FOUR[8:]
CHAINED = [  # a proxy's header, and the one that the application gets; None: with the connection's own addresses
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 50000 7000\r\n", b"PROXY TCP6 2001:db8::7 2001:db8::1 50000 7000\r\n"),
    # HAProxy writes both ends as IPv6 if one of them is.
    (
        b"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 50000 7000\r\n",
        b"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 50000 7000\r\n",
    ),
    (V2 + b"\x21\x11\0\x0c" + FOUR, b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 7000\r\n"),
    (V2 + b"\x21\x21\0\x24" + SIX, b"PROXY TCP6 2001:db8::7 2001:db8::1 50000 7000\r\n"),
    (V2 + b"\x20\0\0\0", None),
    (b"PROXY UNKNOWN\r\n", None),
]


def test_upstream_proxy_behind_a_proxy_sends_the_original_client(site: Site, app: Application) -> None:
    behind = 'proxy_protocol = true\nproxy_networks = ["127.0.0.0/8"]\nupstream_proxy = "v1"\nrequest_timeout = 1\n'
    site.configure(listener=behind)
    header = b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 7000\r\n"
    with site.serve() as server:
        onward = header  # the address that the client connected to, not the proxy's hop
        for pieces in ((header + b"hello",), (header, b"hello"), (header[:20], header[20:] + b"hel", b"lo")):
            with connect(server.place) as client:
                for piece in pieces:
                    client.sendall(piece)
                with app.accept() as inner:
                    assert receive(inner, len(onward) + 5) == onward + b"hello"
                    inner.sendall(b"result")
                    assert receive(client, 6) == b"result"
        with connect(server.place, header) as client, app.accept() as inner:  # the application speaks first
            assert receive(inner, len(onward)) == onward
        for before, after in CHAINED:
            with connect(server.place, before + b"hello") as client, app.accept() as inner:
                onward = (
                    after
                    or "PROXY TCP4 {} {} {} {}\r\n".format(
                        *(each[0] for each in (client.getsockname(), server.place)),
                        *(each[1] for each in (client.getsockname(), server.place)),
                    ).encode()
                )
                assert receive(inner, len(onward) + 5) == onward + b"hello"
        assert rest(connect(server.place, header + b"<policy-file-request/>\0")) == POLICY + b"\0"
        assert rest(connect(server.place)) == b""  # without a header, the connection is not relayed
        assert app.has_no_connection()
        server.counts(1, "timeouts_total")
        assert server.stop() == 0


def test_max_address_sessions_limits_sessions_and_not_policies(site: Site, app: Application) -> None:
    site.configure("workers = 1\nmax_address_sessions = 2\nmax_address_connections = 2")
    with site.serve() as server, ExitStack() as stack:
        for _ in range(2):
            client = stack.enter_context(connect(server.place, b"ping"))
            inner = stack.enter_context(app.accept())
            assert receive(inner, 4) == b"ping"
            inner.sendall(b"pong")  # else the session would give way
            assert receive(client, 4) == b"pong"
        with connect(server.place) as third, suppress(ConnectionError):
            third.sendall(b"ping")
            assert third.recv(1) == b""
        server.counts(1, "refused_total", reason="max_address_sessions")
        assert ask(server.place) == POLICY + b"\0"
