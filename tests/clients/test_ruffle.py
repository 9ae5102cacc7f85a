"""Ruffle in Chromium, as players use it: content of AVM1 and AVM2 opens sockets, which reach an application."""

import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from testkit.certificates import CertificateFiles, make_ca
from testkit.polling import DEADLINE, eventually
from testkit.processes import Flashpol
from testkit.ruffle import Missing, Site, fetch_ruffle
from testkit.ruffle_content import MEGABYTE, Content, chromium_flags, pages
from testkit.socket_movies import pattern

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("Chromium is not installed", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api")
pytest.importorskip("flashpol._tls", reason="flashpol was built without OpenSSL")

pytestmark = pytest.mark.slow

GAMES, PORT = "games.example.com", 7000  # what the content connects to
GRANTED, DENIED = "www.example.com", "www.example.net"
GRANT = f'<cross-domain-policy><allow-access-from domain="*.example.com" to-ports="{PORT}"{{}}/></cross-domain-policy>'
AVM1, AVM2 = "avm1", "avm2"
MOVIES = pytest.mark.parametrize("movie", [AVM1, AVM2])
WAYS = pytest.mark.parametrize(("page", "way"), [("http", "ws"), ("http", "wss"), ("https", "wss")])


class Application:
    """Sends back what it receives, while it is `awake`, and keeps it: one entry of `received` for each client."""

    def __init__(self) -> None:
        self.awake = threading.Event()
        self.awake.set()
        self.received: list[bytearray] = []
        self.clients: list[socket.socket] = []
        self.ends: list[str] = []
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self.listening.accept()
                self.clients.append(client)
                self.received.append(bytearray())
                threading.Thread(target=self._serve, args=(client, self.received[-1]), daemon=True).start()

    def _serve(self, client: socket.socket, received: bytearray) -> None:
        end = "fin"
        with client:
            try:
                while data := client.recv(1 << 16):
                    received += data
                    self.awake.wait(DEADLINE)
                    client.sendall(data)
            except OSError as error:
                end = type(error).__name__
        self.ends.append(end)

    def close(self) -> None:
        with suppress(OSError):
            self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()


@pytest.fixture
def application() -> Iterator[Application]:
    application = Application()
    yield application
    application.close()


class Web(NamedTuple):
    """The browser, and the sites that have the movies, by their scheme."""

    browser: Any
    sites: dict[str, Site]
    certificate: CertificateFiles


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    try:
        ruffle = fetch_ruffle()
    except Missing as missing:
        pytest.skip(str(missing))
    names = ("*.example.com", "*.example.net")
    certificate = make_ca(tmp_path_factory.mktemp("ruffle")).issue(*names)
    with (
        Site(pages(), ruffle) as plain,
        Site(pages(), ruffle, tls=(certificate.chain, certificate.key)) as secure,
        sync_api.sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            chromium_sandbox=False,
            args=chromium_flags(certificate.chain, "example.com", "example.net"),
        )
        yield Web(browser, {"http": plain, "https": secure}, certificate)
        browser.close()


Serve = Callable[..., Flashpol]


@pytest.fixture
def serve(web: Web, tmp_path: Path, application: Application) -> Iterator[Serve]:
    """Starts flashpol in front of the application, with a policy that may be changed, in the folder of the test."""
    running: list[Flashpol] = []

    def start(grant: str = GRANT.format(""), upstream: str = application.address, **path: str) -> Flashpol:
        (tmp_path / "games.xml").write_text(grant)
        settings = "".join(f"{name} = {value}\n" for name, value in ({"port": str(PORT)} | path).items())
        (tmp_path / "flashpol.toml").write_text(
            f"{web.certificate.toml()}"
            '[policies.games]\nfile = "games.xml"\n'
            '[[listeners]]\nname = "games"\naddress = "127.0.0.1:0"\npolicy = "games"\n'
            f'upstream = "{upstream}"\ntls = ["games"]\nfirst_byte_timeout = 10\n'
            f'[[listeners.websocket]]\npath = "*"\n{settings}'
        )
        running.append(Flashpol("-c", tmp_path / "flashpol.toml", listen=()).__enter__())
        return running[-1]

    yield start
    for server in running:
        server.__exit__()


Play = Callable[..., Content]


@pytest.fixture
def play(web: Web) -> Iterator[Play]:
    """Opens a page with a movie, which connects to a server."""
    opened = []

    def start(server: Flashpol, movie: str, page: str = "http", way: str = "ws", host: str = GRANTED) -> Content:
        context = web.browser.new_context()
        opened.append(context)
        url = f"{way}://{GAMES}:{server.place[1]}/"
        content = Content(context.new_page(), web.sites[page].url(host), movie, {(GAMES, PORT): url})
        content.call("open", GAMES, PORT)
        return content

    yield start
    for context in opened:
        context.close()


def count_upgrades(server: Flashpol, **expected: float) -> None:
    """Wait until so many requests for a WebSocket had these results, and no others."""
    server.counts_by("result", expected, "websocket_upgrades_total")


def reload(server: Flashpol) -> None:
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: " reloaded: " in server.log, "the reload")


@WAYS
def test_xml_socket_echoes_a_megabyte(serve: Serve, play: Play, application: Application, page: str, way: str) -> None:
    content = play(serve(), AVM1, page, way)
    assert content.wait("connect") is True
    content.echo("<hello/>")
    text = "0123456789abcdé" * (1 << 16)
    assert len(text.encode()) == 1 << 20
    content.echo(text)
    assert application.received == [f"<hello/>\0{text}\0".encode()]
    content.call("close")
    eventually(lambda: application.ends == ["fin"], "the end of the session")


@WAYS
def test_socket_echoes_a_megabyte(serve: Serve, play: Play, application: Application, page: str, way: str) -> None:
    content = play(serve(), AVM2, page, way)
    assert content.wait("connect") is True
    content.echo("hello")
    content.call("pattern", MEGABYTE)
    assert content.wait("pattern") == 0, "words that came back changed"
    assert application.received == [b"hello" + pattern(MEGABYTE)]
    content.call("close")
    eventually(lambda: application.ends == ["fin"], "the end of the session")


@MOVIES
def test_origin_that_no_rule_grants_is_refused_and_the_content_sees_connect_then_close(
    serve: Serve, play: Play, application: Application, movie: str
) -> None:
    server = serve()
    content = play(server, movie, host=DENIED)
    content.wait("close")
    assert content.events == ["loaded", "connect", "close"]
    count_upgrades(server, origin=1)
    assert not application.received
    line = eventually(
        lambda: next((line for line in server.log.splitlines() if DENIED in line), ""), "a line of the log"
    )
    assert str(PORT) in line


def test_grant_for_secure_content_refuses_a_page_on_http_and_serves_one_on_https(serve: Serve, play: Play) -> None:
    server = serve(GRANT.format(' secure="true"'))
    play(server, AVM2, "http", "wss").wait("close")
    play(server, AVM2, "https", "wss").echo("hello")
    count_upgrades(server, origin=1, accepted=1)


def test_listed_origin_is_served_without_a_grant(serve: Serve, play: Play, web: Web) -> None:
    server = serve("<cross-domain-policy/>", origins=f'["{web.sites["http"].url(DENIED)}"]')
    play(server, AVM1, host=GRANTED).wait("close")
    play(server, AVM1, host=DENIED).echo("hello")
    count_upgrades(server, origin=1, accepted=1)


@pytest.mark.parametrize(("movie", "page", "way"), [(AVM1, "http", "ws"), (AVM2, "https", "wss")])
def test_reload_within_a_transfer_keeps_the_session_and_decides_new_ones_by_the_new_policy(
    serve: Serve, play: Play, application: Application, tmp_path: Path, movie: str, page: str, way: str
) -> None:
    server = serve()
    content = play(server, movie, page, way)
    content.echo("before")
    application.awake.clear()
    text = "0123456789abcdef" * (1 << 16)
    content.send(text)
    eventually(lambda: len(application.received[0]) > len("before\0"), "the begin of the transfer")
    (tmp_path / "games.xml").write_text("<cross-domain-policy/>")
    reload(server)
    application.awake.set()
    content.wait_for_echo(text)
    content.echo("after")
    play(server, movie, page, way).wait("close")
    count_upgrades(server, accepted=1, origin=1)
    assert "close" not in content.events


@MOVIES
def test_application_that_closes_ends_the_websocket_cleanly(
    serve: Serve, play: Play, application: Application, movie: str
) -> None:
    server = serve()
    content = play(server, movie)
    content.echo("hello")
    application.clients[0].shutdown(socket.SHUT_WR)
    content.wait("close")
    server.counts_by("code", {"1000": 1}, "websocket_closes_total")


@MOVIES
def test_application_that_is_down_is_seen_as_connect_then_close(
    serve: Serve, play: Play, application: Application, movie: str
) -> None:
    application.close()
    server = serve()
    content = play(server, movie)
    content.wait("close")
    assert content.events == ["loaded", "connect", "close"]
    count_upgrades(server, upstream=1)


@MOVIES
def test_page_on_https_opens_no_plain_websocket(serve: Serve, play: Play, movie: str) -> None:
    server = serve()
    content = play(server, movie, "https", "ws")
    assert content.wait({AVM1: "connect", AVM2: "error"}[movie]) in (False, "Error #2031: Socket Error.")
    count_upgrades(server)


def test_page_that_is_closed_ends_its_session(serve: Serve, play: Play, application: Application) -> None:
    content = play(serve(), AVM1)
    content.echo("hello")
    content.page.close()
    eventually(lambda: application.ends == ["fin"], "the end of the session")
