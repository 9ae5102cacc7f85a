"""What a connection with TLS shares with a plain one: PROXY header in front of it, networks, limits, access log."""

import socket
import struct
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("flashpol._tls", reason="built without OpenSSL")

from testkit.clients import REQUEST, connect, rest
from testkit.polling import eventually
from testkit.processes import Flashpol
from testkit.tls import WHOLE, Refused, TlsClient, tls_ask, tls_connect
from testkit.tls_site import REPLY, TlsSite, settled

pytestmark = pytest.mark.slow

BEHIND = 'proxy_protocol = true\nproxy_networks = ["127.0.0.0/8"]'


def header(source: str, version: int) -> bytes:
    """The PROXY header of a client with this address."""
    if version == 1:
        return f"PROXY TCP4 {source} 198.51.100.1 50000 843\r\n".encode()
    addresses = socket.inet_aton(source) + socket.inet_aton("198.51.100.1") + struct.pack("!HH", 50000, 843)
    return b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H", len(addresses)) + addresses


@pytest.fixture
def site(tmp_path: Path) -> TlsSite:
    return TlsSite(tmp_path)


def test_proxy_header_in_front_of_tls_is_read(site: TlsSite) -> None:
    site.configure("access_log = 1", BEHIND)
    with site.serve() as server:
        for version in (1, 2):
            first = header(f"192.0.2.{version}", version)
            assert tls_ask(server.place, REQUEST, first=first) == (REPLY, WHOLE)
            with connect(server.place) as sock:  # in one segment, and byte by byte
                client = TlsClient(sock)
                for byte in first + client.hello():
                    sock.sendall(bytes([byte]))
                client.handshake()
                client.send(REQUEST)
                assert client.until_end() == (REPLY, WHOLE)
            eventually(lambda version=version: server.log.count(f"192.0.2.{version}") >= 2)  # type: ignore[misc]
        with connect(server.place) as sock:
            client = TlsClient(sock)
            sock.sendall(header("192.0.2.3", 2) + client.hello())
            client.handshake()
            client.send(REQUEST)
            assert client.until_end() == (REPLY, WHOLE)
        assert settled(server).total("replies_total") == 5
        assert "127.0.0.1" not in "".join(line for line in server.log.splitlines() if " reply" in line)


def test_tls_without_or_before_a_proxy_header_is_refused(site: TlsSite) -> None:
    """A header inside TLS is the client's own word."""
    site.configure("", BEHIND)
    with site.serve() as server:
        with connect(server.place) as sock, pytest.raises((Refused, ConnectionResetError)):
            TlsClient(sock).handshake()
        first = header("192.0.2.1", 1)
        received, how = tls_ask(server.place, first + REQUEST, first=first)
        assert (received, how) == (b"", WHOLE)
        metrics = settled(server)
        assert metrics.total("refused_total", reason="proxy_malformed") == 1
        assert metrics.total("refused_total", reason="other") == 1


def test_limits_by_address_count_tls_by_the_headers_address(site: TlsSite) -> None:
    site.configure("max_address_connections = 3\nrequest_timeout = 30\ntls_handshake_timeout = 30", BEHIND)
    with site.serve() as server, ExitStack() as stack:
        first = header("192.0.2.1", 1)
        for number in range(3):  # one in its handshake, two inside TLS
            if number:
                stack.enter_context(tls_connect(server.place, first=first))
            else:
                stack.enter_context(connect(server.place, first + TlsClient(None).hello()[:50]))
        eventually(lambda: server.metrics().total("connections_open") == 3)
        assert tls_ask(server.place, REQUEST, first=first) == (REPLY, WHOLE)  # the oldest of its address gives way
        server.counts(1, "refused_total", reason="max_address_connections")
        for number in range(4):  # others are not touched
            assert tls_ask(server.place, REQUEST, first=header(f"192.0.2.{number + 2}", 2)) == (REPLY, WHOLE)
        server.counts(1, "refused_total", reason="max_address_connections")
        server.counts(2, "connections_open")
        stack.close()
        settled(server)


@pytest.mark.parametrize("behind", [False, True])
def test_denied_networks_are_refused_before_the_handshake(site: TlsSite, behind: bool) -> None:
    denied = 'deny_networks = ["127.0.0.66", "192.0.2.66"]'
    site.configure("", f"{denied}\n{BEHIND}" if behind else denied)
    with site.serve() as server:
        options = [{"first": header("192.0.2.66", 1)} if behind else {"source": "127.0.0.66"}]
        for option in options:
            with pytest.raises((Refused, ConnectionResetError)):
                tls_connect(server.place, **option)  # type: ignore[arg-type]
        allowed = {"first": header("192.0.2.67", 1)} if behind else {"source": "127.0.0.67"}
        assert tls_ask(server.place, REQUEST, **allowed) == (REPLY, WHOLE)  # type: ignore[arg-type]
        metrics = settled(server)
        assert metrics.total("refused_total", reason="network") == 1
        assert metrics.total("tls_handshakes_total") == 1


def test_access_log_of_tls_connections_has_each_end_once(site: TlsSite) -> None:
    site.configure("access_log = 1\ntls_handshake_timeout = 0.4\nrequest_timeout = 0.4")
    with site.serve() as server:
        assert tls_ask(server.place, REQUEST, source="127.0.0.2") == (REPLY, WHOLE)
        with connect(server.place, b"\x16\x03\x01" + bytes(100), source="127.0.0.3") as client:
            rest(client)
        with connect(server.place, TlsClient(None).hello()[:50], source="127.0.0.4") as client:
            rest(client)
        with connect(server.place, TlsClient(None).hello(), source="127.0.0.5"):
            pass
        assert tls_ask(server.place, b"\x03" + bytes(10), source="127.0.0.6") == (b"", WHOLE)
        settled(server)
        expected = {2: "reply", 3: "tls_handshake", 4: "timeout", 5: "reset", 6: "rtmp"}
        for number, outcome in expected.items():
            line = eventually(lambda number=number: lines_of(server, number), f"the line of 127.0.0.{number}")  # type: ignore[misc]
            assert len(line) == 1
            assert outcome in line[0].replace("refused as ", "")


def lines_of(server: Flashpol, number: int) -> list[str]:
    return [line for line in server.log.splitlines() if f"127.0.0.{number}:" in line]


def test_max_handshakes_evicts_handshakes_that_wait_for_their_client(site: TlsSite) -> None:
    """A newcomer waits for its turn until the oldest has been silent for a second; plain text does not wait."""
    site.configure("max_handshakes = 5\ntls_handshake_timeout = 30\nrequest_timeout = 30")
    with site.serve() as server, ExitStack() as stack:
        waiting = []
        for _ in range(8):  # a whole hello each, and no more
            waiting.append(stack.enter_context(connect(server.place, TlsClient(None).hello())))
            assert waiting[-1].recv(1)
            assert connect_and_ask(server) == REPLY
        eventually(lambda: server.metrics().total("refused_total", reason="max_handshakes") == 3)
        server.counts(5, "tls_handshakes_open")
        assert tls_ask(server.place, REQUEST) == (REPLY, WHOLE)
        stack.close()
        metrics = settled(server)
        assert metrics.total("refused_total", reason="max_handshakes") == 4
        assert metrics.total("tls_handshake_failures_total", reason="capacity") == 4


def connect_and_ask(server: Flashpol) -> bytes:
    return rest(connect(server.place, REQUEST))


def test_half_a_hello_takes_no_place_of_max_handshakes(site: TlsSite) -> None:
    site.configure("max_handshakes = 2\ntls_handshake_timeout = 30")
    with site.serve() as server, ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(connect(server.place, TlsClient(None).hello()[:100]))
        eventually(lambda: server.metrics().total("connections_open") == 20)
        assert tls_ask(server.place, REQUEST) == (REPLY, WHOLE)
        server.counts(0, "refused_total", reason="max_handshakes")
        server.counts(0, "tls_handshakes_open")
        stack.close()
        settled(server)


def test_two_workers_count_tls_together(site: TlsSite) -> None:
    with site.serve(workers=2) as server:
        for _ in range(20):
            assert tls_ask(server.place, REQUEST) == (REPLY, WHOLE)
        metrics = settled(server)
        assert metrics.total("tls_handshakes_total", listener="games", version="TLSv1.3") == 20
        assert metrics.total("tls_handshake_duration_seconds_count", listener="games") == 20
        assert metrics.total("tls_handshake_failures_total") == 0
        assert metrics.total("tls_truncated_total") == 0
        assert server.stop() == 0
        assert not server.complaints
