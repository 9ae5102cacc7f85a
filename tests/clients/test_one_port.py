"""The RTMPT page's example of everything on one port, as it is printed, with the servers and clients that it names."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

pytest.importorskip("flashpol._tls", reason="built without OpenSSL")

from testkit import media
from testkit.certificates import CA, make_ca
from testkit.client_fixtures import Echo
from testkit.clients import ask, connect
from testkit.media import MediaServer, assert_identical, assert_published, media_server, needs_media
from testkit.namespaces import Network, inside, network
from testkit.polling import eventually
from testkit.processes import ROOT, Flashpol, descriptors
from testkit.programs import needs
from testkit.proxies import PROXIES
from testkit.tls import WHOLE, client_context, tls_ask, tls_connect
from testkit.tunnel_site import reload
from testkit.websocket_clients import CLIENTS, CODE

pytestmark = [pytest.mark.slow, needs_media]
PAGE = ROOT / "docs" / "guide" / "rtmpt.md"
HOST, LIVE = "media.example.com", "/etc/letsencrypt/live/media.example.com"
PLACE = ("127.0.0.1", 443)
GAME, MEDIA = 7001, 1936
GRANT = b'<allow-access-from domain="*.example.com" to-ports="443"'
BY_URL = b"<cross-domain-policy><!-- by URL --></cross-domain-policy>"
SCHEMES = ["rtmp", "rtmps", "rtmpt", "rtmpts"]


class Site(NamedTuple):
    folder: Path
    ca: CA
    nginx: MediaServer
    game: Echo
    server: Flashpol

    def url(self, scheme: str, path: str) -> str:
        return f"{scheme}://localhost:443/{path}"


@contextmanager
def site_of_the_page(folder: Path, films: Path) -> Iterator[Site]:
    """With a policy file by URL, and a log that `reload` understands."""
    section = PAGE.read_text().split("\n## Everything on one port\n")[1].split("\n## ")[0]
    [text] = re.findall(r"^```toml\n(.*?)^```", section, re.M | re.S)
    assert text.count(LIVE) == 2
    assert f'upstream = "127.0.0.1:{GAME}"' in text
    assert f'rtmp = "127.0.0.1:{MEDIA}"' in text
    assert text.count("websocket = true\n") == 1
    text = text.replace("websocket = true\n", 'websocket = true\ncrossdomain_file = "crossdomain.xml"\n')
    (folder / "flashpol.toml").write_text('[server]\nlog_format = "json"\n' + text.replace(LIVE, str(folder)))
    (folder / "crossdomain.xml").write_bytes(BY_URL)
    ca = make_ca(folder / "ca")
    ca.issue(HOST, "localhost", intermediate=True, into=folder)
    game = Echo(GAME)
    try:
        with (
            media_server(folder, films, port=MEDIA) as nginx,
            Flashpol("-c", folder / "flashpol.toml", listen=(), workers=3) as server,
        ):
            yield Site(folder, ca, nginx, game, server)
            assert server.stop() == 0
    finally:
        game.close()


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as net:
        yield net


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """film.flv, and long.flv for what happens in the middle of a stream."""
    folder = tmp_path_factory.mktemp("films")
    media.make_film(folder / "film.flv")
    media.make_film(folder / "long.flv", 8)
    return folder


Run = Callable[[Callable[[Site], None]], None]


@pytest.fixture
def run(net: Network, tmp_path: Path, films: Path) -> Run:
    """Call a function with the site, in a network of its own, where ports 443, 1936 and 7001 are free."""

    def call(function: Callable[[Site], None]) -> None:
        def work() -> None:
            with site_of_the_page(tmp_path, films) as site:
                function(site)

        inside(net.host, work)

    return call


def assert_echo(exchange: Callable[[bytes], bytes]) -> None:
    for data in (b"<msg t='sys'>\0", b"and more"):
        assert exchange(data) == data


def games_and_policies(site: Site) -> None:
    trusting = client_context(authority=site.ca.file.read_bytes())
    assert GRANT in ask(PLACE)
    reply = tls_ask(PLACE, b"<policy-file-request/>\0", trusting, name=HOST)
    assert (GRANT in reply.data, reply.how) == (True, WHOLE)

    get = b"GET /crossdomain.xml HTTP/1.1\r\nHost: media.example.com\r\n\r\n"
    for reply_by_url in (ask(PLACE, get), tls_ask(PLACE, get, trusting, name=HOST).data):
        assert reply_by_url.startswith(b"HTTP/1.1 200 ")
        assert reply_by_url.endswith(b"\r\n\r\n" + BY_URL)

    with connect(PLACE) as plain, tls_connect(PLACE, trusting, name=HOST) as secure:

        def exchange(data: bytes) -> bytes:
            plain.sendall(data)
            return plain.recv(100)

        def exchange_in_tls(data: bytes) -> bytes:
            secure.send(data)
            return secure.receive(len(data))

        assert_echo(exchange)
        assert_echo(exchange_in_tls)

    for scheme, ca in (("ws", None), ("wss", site.ca.file)):
        seen = CLIENTS["websockets"](f"{scheme}://localhost:443/", ca, False)
        assert (seen.echoed, seen.pong, seen.code) == (True, True, CODE)

    def counted() -> bool:
        metrics = site.server.metrics()
        started = metrics.total("relay_sessions_started_total", upstream=f"127.0.0.1:{GAME}")
        policies = metrics.total("replies_total")
        return (started, metrics.total("websocket_upgrades_total", result="accepted"), policies) == (4, 2, 2)

    eventually(counted, "what each was counted as")


def test_games_and_policies_of_the_page(run: Run) -> None:
    run(games_and_policies)


@needs("rtmpdump")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_media_of_the_page_is_published_and_played(run: Run, films: Path, scheme: str) -> None:
    film = films / "film.flv"

    def publish_and_play(site: Site) -> None:
        ca = site.ca.file if scheme == "rtmps" else None
        media.publish(site.url(scheme, "live/film"), film, ca=ca)
        compare = assert_published if scheme.startswith("rtmpt") else assert_identical
        compare(site.nginx.recorded("film"), film)
        url = site.url(scheme, "films/film")
        assert_identical(media.play(url, site.folder / "played.flv", ca=ca), film)
        assert_identical(media.dump(url, site.folder / "dumped.flv"), film)
        protocol = "rtmpt" if scheme.startswith("rtmpt") else "rtmp"
        eventually(lambda: site.server.metrics().total("relayed_total", protocol=protocol) == 3, "the end of all")
        site.server.counts(3, "relay_sessions_started_total", upstream=f"127.0.0.1:{MEDIA}")
        handshakes = site.server.metrics().total("tls_handshakes_total")
        assert handshakes > 0 if scheme.endswith("s") else handshakes == 0

    run(publish_and_play)


def workers_with_media(site: Site) -> set[int]:
    """The pids of the workers that have a connection to the media server."""
    rows = [line.split() for line in Path(f"/proc/{site.server.process.pid}/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[2] == f"0100007F:{MEDIA:04X}"}
    return {worker.pid for worker in site.server.workers if sockets & descriptors(worker.pid)}


@needs("nginx")
def test_streams_go_on_while_a_worker_is_killed_and_the_server_reloads(run: Run, films: Path) -> None:
    """One of them through a proxy that makes a connection for each request, so that new workers get its requests."""
    film = films / "long.flv"

    def publish(site: Site) -> None:
        def start(url: str) -> None:
            name = url.rpartition("/")[2]
            publishers[name] = pool.submit(media.publish, url, film, live=True)
            eventually(lambda: publishers[name].done() or site.nginx.size(name) > media.SEEN, f"the stream {name}")
            assert not publishers[name].done()

        publishers: dict[str, Future[float]] = {}
        with ThreadPoolExecutor() as pool, PROXIES["nginx"].start(PLACE) as proxy:
            start(site.url("rtmps", "live/rtmps"))
            start(site.url("rtmpts", "live/rtmpts"))
            idle = [worker for worker in site.server.workers if worker.pid not in workers_with_media(site)]
            idle[0].kill()
            start(f"rtmpt://{proxy.url}/live/rtmpt")
            old = site.server.replaced(idle[0], 3)
            before = site.server.metrics().total("rtmpt_forwarded_total")
            reload(site.server)
            assert not {*site.server.workers} & {*old}
            eventually(lambda: site.server.metrics().total("rtmpt_forwarded_total") > before + 20, "forwarded requests")
            assert not any(publisher.done() for publisher in publishers.values()), "the streams are still there"
            for publisher in publishers.values():
                publisher.result()
        assert_identical(site.nginx.recorded("rtmps"), film)
        for name in ("rtmpt", "rtmpts"):
            assert_published(site.nginx.recorded(name), film)
        eventually(lambda: not any(worker.alive for worker in old), "the end of the old workers")

    run(publish)
