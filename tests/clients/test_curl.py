"""curl: HTTPS through a shared port to a web application, which sees plain HTTP."""

import hashlib
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from testkit.client_site import POLICY, ClientSite
from testkit.clients import ask
from testkit.polling import DEADLINE, eventually
from testkit.processes import Flashpol
from testkit.programs import needs

pytestmark = [pytest.mark.slow, needs("curl")]


class Handler(BaseHTTPRequestHandler):
    """Replies to GET with 300 KB, to POST with the body; each connection may carry several requests."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._reply(b"0123456789" * 30_000)

    def do_POST(self) -> None:
        self._reply(self.rfile.read(int(self.headers["Content-Length"])))

    def _reply(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def web_application() -> Iterator[str]:
    """Its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


@pytest.fixture
def web() -> Iterator[str]:
    with web_application() as address:
        yield address


def curl(
    site: ClientSite, server: Flashpol, *arguments: str | Path, path: str = "/"
) -> subprocess.CompletedProcess[bytes]:
    url = f"https://localhost:{server.place[1]}{path}"
    command = ["curl", "--silent", "--show-error", "--ipv4", "--cacert", site.ca.root, *arguments, url]
    return subprocess.run(list(map(str, command)), capture_output=True, timeout=DEADLINE, check=False)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl_gets_and_posts_through_tls(site: ClientSite, web: str, version: str) -> None:
    upload = site.folder / "upload"
    upload.write_bytes(bytes(range(256)) * 8192)  # 2 MB
    with site.serve(upstream=web) as server:
        versions = (f"--tlsv{version}", "--tls-max", version)
        got = curl(site, server, *versions)
        assert (got.returncode, len(got.stdout)) == (0, 300_000), got.stderr
        posted = curl(site, server, *versions, "--data-binary", f"@{upload}")
        assert hashlib.sha256(posted.stdout).digest() == hashlib.sha256(upload.read_bytes()).digest(), posted.stderr
        assert ask(server.place) == POLICY + b"\0"
        eventually(lambda: server.metrics().total("relayed_total", protocol="http") == 2, "the end of both")
        server.counts(2, "tls_handshakes_total", version=f"TLSv{version}")
        assert server.stop() == 0
        assert not server.complaints


def test_curl_offers_http_2_and_is_given_http_1_1(site: ClientSite, web: str) -> None:
    with site.serve(upstream=web) as server:
        done = curl(site, server, "--http2", "--verbose", "--output", site.folder / "body")
        assert b"ALPN: offers h2,http/1.1" in done.stderr
        assert b"ALPN: server accepted http/1.1" in done.stderr
        assert b"SSL certificate verify ok" in done.stderr


def test_curl_keeps_a_connection_for_several_requests(site: ClientSite, web: str) -> None:
    with site.serve(upstream=web) as server:
        done = curl(site, server, "--parallel-max", "1", path="/[1-5]")
        assert len(done.stdout) == 5 * 300_000, done.stderr
        server.counts(1, "tls_handshakes_total")


def test_many_curls_at_once_each_get_their_bytes(site: ClientSite, web: str) -> None:
    with site.serve("--workers", "2", upstream=web) as server:
        done = curl(site, server, "--parallel", "--parallel-max", "20", "--no-keepalive", path="/[1-60]")
        assert len(done.stdout) == 60 * 300_000, done.stderr
        assert set(done.stdout) == set(b"0123456789")


def test_proxy_header_comes_before_tls(site: ClientSite, web: str) -> None:
    """curl sends `PROXY TCP4 127.0.0.1 …` in plain text and then its ClientHello."""
    settings = {"proxy_protocol": True, "proxy_networks": ["127.0.0.0/8"]}
    with site.serve("--access-log", "1", upstream=web, **settings) as server:
        done = curl(site, server, "--haproxy-protocol")
        assert (done.returncode, len(done.stdout)) == (0, 300_000), done.stderr
        assert curl(site, server).returncode != 0, "without a header"
        eventually(lambda: server.metrics().total("refused_total", reason="proxy_malformed") == 1, "the count")


def test_curl_of_a_port_without_an_application_is_told_in_http(site: ClientSite) -> None:
    with site.serve() as server:
        done = curl(site, server, "--write-out", "%{http_code}")
        assert done.stdout.endswith(b"400"), (done.stdout, done.stderr)
        eventually(lambda: server.metrics().total("refused_total", reason="http") == 1, "the count")


def test_curl_does_not_trust_a_certificate_of_another_host(site: ClientSite, web: str) -> None:
    with site.serve(upstream=web, tls=["games-example-com"]) as server:
        done = curl(site, server)
        assert b"certificate subject name" in done.stderr
        there = f"games.example.com:{server.place[1]}:127.0.0.1"
        url = f"https://games.example.com:{server.place[1]}/"
        again = subprocess.run(
            ["curl", "--silent", "--cacert", site.ca.root, "--resolve", there, url],
            capture_output=True, timeout=DEADLINE, check=False,
        )  # fmt: skip
        assert len(again.stdout) == 300_000
