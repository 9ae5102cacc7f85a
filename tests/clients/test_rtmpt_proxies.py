"""RTMPT through the proxies that administrators run: what each makes of it, and that streams and films arrive.

`serve` decides which server they are in front of.
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from testkit import media
from testkit.client_fixtures import Echo
from testkit.client_site import ClientSite
from testkit.flash_client import FlashClient
from testkit.media import assert_identical, media_server, needs_media
from testkit.programs import needs
from testkit.proxies import EACH, PROXIES, Proxy, Running, chain
from testkit.rtmpt_client import Address, Ended, RtmptClient
from testkit.tap import Seen, Tap, tap

pytestmark = pytest.mark.slow
CLIENT, FORGED, HOST, ODD = "127.0.0.7", "203.0.113.9", "media.example.com", "X-OdD-nAme"
FIELDS = [("X-Forwarded-For", FORGED), (ODD, "1")]
ENOUGH = 1001  # requests, more than any of them takes on one connection if it has a limit
SENT = random.Random(1).randbytes(1 << 20)
# In front of the server's address, the upstream's: a context manager that has the server run.
Serve = Callable[[str], AbstractContextManager[Address]]


@pytest.fixture
def serve(site: ClientSite) -> Serve:
    @contextmanager
    def start(upstream: str) -> Iterator[Address]:
        with site.serve(upstream=upstream, rtmpt=True) as server:
            yield server.place

    return start


@pytest.fixture
def behind(serve: Serve, echo: Echo) -> Iterator[Tap]:
    """A server with an application that sends back what it gets; the tap is in front of it."""
    with serve(echo.address) as server, tap(server) as seen:
        yield seen


# ----------------------------------------------------------------------------------------------------------- the table


def text_of(request: Seen, server: Address) -> dict[str, object]:
    """What the first request shows."""
    forwarded, host = request.field("x-forwarded-for"), request.field("host")
    assert forwarded in (FORGED, f"{FORGED}, {CLIENT}")
    places = {HOST: "client", f"{server[0]}:{server[1]}": "server"}
    odd = [name for name, _ in request.headers if name.lower() == ODD.lower()]
    return {
        "minor": request.minor,
        "host": places.get(host or "", host),
        "forwarded_for": forwarded != FORGED,
        "via": request.field("via") is not None,
        "names": {ODD: "kept", ODD.lower(): "lower"}[odd[0]],
    }


def connections_of(proxy: Running, behind: Tap) -> dict[str, object]:
    """What the connections of two clients that take turns show."""
    clients = [RtmptClient(proxy.place, reopen=True, source=CLIENT, absolute=proxy.absolute) for _ in range(2)]
    with clients[0], clients[1]:
        for client in clients:
            names = [name for name, _ in client.open().headers if name.lower() == "content-type"]
        for _ in range(3):
            for client in clients:
                try:
                    client.send(b"x")
                except Ended:  # the proxy closed after the last reply, and its FIN came just now
                    client.idle(number=client.number - 1)
        ids = [{request.target.split("/")[2] for request in each.requests} - {"1"} for each in behind.connections]
        return {
            "reply_names": {"Content-Type": "kept", "content-type": "lower"}[names[0]],
            "keeps_clients": [client.connected for client in clients] == [1, 1],
            "keeps_servers": any(len(each.requests) > 1 for each in behind.connections),
            "shares_servers": any(len(found) > 1 for found in ids),
        }


def pipelines(proxy: Running) -> bool:
    with RtmptClient(proxy.place, source=CLIENT, absolute=proxy.absolute) as client:
        client.open()
        client.drop()
        for n in range(5):
            client.write("send", b"%d" % n)
        client.read()
        try:
            return all(client.read().status == 200 for _ in range(4))
        except (Ended, KeyError):  # after `Connection: close` the client has dropped it
            return False


def client_requests(proxy: Running, most: int) -> int:
    """The number of the request whose reply says that the connection is closed; 0 if none of so many does."""
    with RtmptClient(proxy.place, source=CLIENT, absolute=proxy.absolute) as client:
        client.open()
        return next((number for number in range(2, most) if client.send(b"").closes), 0)


@pytest.mark.parametrize("proxy", EACH)
def test_proxy_makes_of_requests_what_is_known_of_it(proxy: Proxy, behind: Tap) -> None:
    with proxy.start(behind.place) as running:
        with RtmptClient(running.place, host=HOST, source=CLIENT, headers=FIELDS, absolute=running.absolute) as client:
            assert client.open().status == 200
        found = text_of(behind.requests[0], behind.place) | connections_of(running, behind)
        found |= {"pipelines": pipelines(running), "client_requests": 0}
        if found["keeps_clients"]:
            found["client_requests"] = client_requests(running, ENOUGH if proxy.client_requests else 110)
    known = asdict(proxy)
    if proxy.shares_servers is None:
        known["shares_servers"] = found["shares_servers"]
    assert found == {name: known[name] for name in found}
    assert known.keys() - found.keys() == {"name", "program", "configure", "forward"}


# --------------------------------------------------------------------------------------------------------- the streams


def assert_echo(running: Running) -> FlashClient:
    with FlashClient(running.place, source=CLIENT, absolute=running.absolute) as client:
        client.send(SENT)
        received = client.receive_exactly(len(SENT))
        assert hashlib.sha256(received).digest() == hashlib.sha256(SENT).digest()
        client.send(b"and more")
        assert client.receive_exactly(8) == b"and more"
        assert client.received_nothing_more()
    return client


@pytest.mark.parametrize("proxy", EACH)
def test_flash_in_a_browser_has_its_stream_through_a_proxy(proxy: Proxy, behind: Tap) -> None:
    with proxy.start(behind.place) as running:
        client = assert_echo(running)
        assert client.swapped
        assert (client.connected == 2) == proxy.keeps_clients


ROWS = [
    ("squid", "nginx-keepalive"),
    ("tinyproxy", "squid"),
    ("privoxy", "haproxy"),
    ("nginx-forwarded", "apache-keepalive"),
    ("haproxy-adjusted", "varnish"),
]


@pytest.mark.parametrize(
    "names",
    [pytest.param(row, id=" ".join(row), marks=needs(*{PROXIES[name].program for name in row})) for row in ROWS],
)
def test_flash_in_a_browser_has_its_stream_through_two_proxies(names: tuple[str, str], behind: Tap) -> None:
    first, second = (PROXIES[name] for name in names)
    with chain(behind.place, first, second) as running:
        assert_echo(running)
    addresses = [address.strip() for address in (behind.requests[0].field("x-forwarded-for") or "").split(",")]
    expected = [CLIENT] * first.forwarded_for + ["127.0.0.1"] * second.forwarded_for
    assert addresses == (expected or [""])


# ----------------------------------------------------------------------------------------------------------- the films


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.make_film(tmp_path_factory.mktemp("film") / "film.flv")


@needs_media
@pytest.mark.parametrize("proxy", EACH)
def test_film_is_published_and_played_through_a_proxy_that_keeps_connections(
    tmp_path: Path, film: Path, proxy: Proxy, serve: Serve
) -> None:
    """ffmpeg gives up when a connection ends."""
    played = tmp_path / "played.flv"
    with (
        media_server(tmp_path, film.parent) as nginx,
        serve(nginx.address) as server,
        proxy.start(server) as running,
    ):
        live, stored = f"rtmpt://{running.url}/live/film", f"rtmpt://{running.url}/films/film"
        if not proxy.keeps_clients:
            with pytest.raises(media.Failed):
                media.publish(live, film, proxy=running.http_proxy)
            return
        media.publish(live, film, proxy=running.http_proxy)
        media.assert_published(nginx.recorded("film"), film)
        assert_identical(media.play(stored, played, proxy=running.http_proxy), film)


@needs("rtmpdump")
@needs_media
@pytest.mark.parametrize("proxy", [each for each in EACH if not each.values[0].forward])
def test_rtmpdump_plays_through_a_proxy_that_keeps_names(
    tmp_path: Path, film: Path, proxy: Proxy, serve: Serve
) -> None:
    """librtmp compares `Content-Length` with its case, and knows no forward proxies."""
    played = tmp_path / "dumped.flv"
    with (
        media_server(tmp_path, film.parent) as nginx,
        serve(nginx.address) as server,
        proxy.start(server) as running,
    ):
        url = f"rtmpt://{running.url}/films/film"
        if proxy.reply_names == "lower":
            with pytest.raises(media.Failed):
                media.dump(url, played, seconds=5)
        else:
            assert_identical(media.dump(url, played), film)
