"""Behind nginx, HAProxy and Apache, configured as docs/guide/websocket.md shows, and behind proxies that drop upgrades.

Browsers are at 127.0.0.7, the proxies at 127.0.0.1.
"""

import asyncio
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import websockets

from testkit import http_proxies
from testkit.client_site import ClientSite
from testkit.clients import ask
from testkit.polling import DEADLINE, eventually
from testkit.processes import Flashpol
from testkit.programs import find, needs
from testkit.websocket_clients import SENT, SIZE

pytestmark = pytest.mark.slow
BROWSER, FORGED = "127.0.0.7", "203.0.113.9"
ORIGIN = "https://games.example.com"
[BEHIND] = re.findall(
    r"^```toml\n((?:(?!^```).)*?forwarded_networks.*?)^```", http_proxies.PAGE.read_text(), re.M | re.S
)
PROGRAMS = {"nginx": "nginx", "haproxy": "haproxy", "apache": "apache2"}
Start = Callable[..., AbstractContextManager[int]]


class Application:
    """Takes a PROXY header of version 1, and sends back what follows."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listening.getsockname()[1]}"
        self.clients: list[str] = []  # their addresses
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            self.clients.append(stream.readline().split()[2].decode())
            try:
                while data := stream.read1(1 << 16):
                    connection.sendall(data)
            except OSError:
                pass


@pytest.fixture
def behind() -> Iterator[Application]:
    application = Application()
    yield application
    application.listening.shutdown(socket.SHUT_RDWR)
    application.listening.close()


def serve(folder: Path, application: Application, server: str = "", networks: str = '["127.0.0.1"]') -> Flashpol:
    """The page's configuration of flashpol behind a proxy."""
    text = http_proxies.replaced(BEHIND, '"127.0.0.1:7000"', '"127.0.0.1:0"')
    text = http_proxies.replaced(text, '["127.0.0.1"]', networks)
    text = http_proxies.replaced(text, '"127.0.0.1:17001"', f'"{application.address}"')
    text = http_proxies.replaced(text, "[[listeners]]\n", '[[listeners]]\nupstream_proxy = "v1"\n')
    (folder / "flashpol.toml").write_text(f"[server]\naccess_log = 1\nfirst_byte_timeout = 10\n{server}\n{text}")
    return Flashpol("-c", folder / "flashpol.toml", listen=())


class Proxy:
    """One of the three, in front of flashpol."""

    def __init__(self, name: str, site: ClientSite) -> None:
        if not find(PROGRAMS[name]):
            pytest.skip(f"not installed: {PROGRAMS[name]}")
        self.name, self.site = name, site
        self.scheme = "wss" if name == "haproxy" else "ws"

    def start(self, server: Flashpol, idle: int = 0) -> AbstractContextManager[int]:
        """idle: its limit, in seconds; 0 is the one of the page."""
        address, folder = server.addresses[0], self.site.folder
        if self.name == "nginx":
            return http_proxies.nginx(folder, address, f"proxy_read_timeout {idle}s;" if idle else "")
        if self.name == "apache":
            return http_proxies.apache(folder, address, f"Timeout {idle}" if idle else "")
        pair = self.site.certificates["localhost"]
        (folder / "both.pem").write_text(pair.chain.read_text() + pair.key.read_text())
        return http_proxies.haproxy(folder, address, folder / "both.pem", f"{idle or 60}s")

    def connect(self, port: int, **headers: str) -> websockets.connect:
        trusting = ssl.create_default_context(cafile=self.site.ca.root) if self.scheme == "wss" else None
        return websockets.connect(
            f"{self.scheme}://localhost:{port}/chess", origin=websockets.Origin(ORIGIN), ssl=trusting,
            ping_interval=None, local_addr=(BROWSER, 0), family=socket.AF_INET, additional_headers=headers,
            max_size=None,
        )  # fmt: skip


@pytest.fixture(params=PROGRAMS)
def proxy(request: pytest.FixtureRequest, site: ClientSite) -> Proxy:
    return Proxy(request.param, site)


async def echo(client: websockets.ClientConnection, data: bytes) -> bytes:
    sending = asyncio.create_task(client.send(data))
    received = b""
    while len(received) < len(data):
        received += bytes(await client.recv(decode=False))
    await sending
    return received


def test_session_through_a_proxy_is_that_of_its_browser(tmp_path: Path, proxy: Proxy, behind: Application) -> None:
    async def play(port: int) -> None:
        async with proxy.connect(port) as client:
            assert await echo(client, SENT) == SENT
            await (await client.ping(b"still there"))
            await client.close(4001, "enough")
            assert client.close_code == 4001

    with serve(tmp_path, behind) as server, proxy.start(server) as port:
        asyncio.run(asyncio.wait_for(play(port), DEADLINE))
        assert behind.clients == [BROWSER]
        lines = eventually(lambda: re.findall(r"^.*\brelayed\b.*$", server.log, re.M), "the line of the access log")
        assert len(lines) == 1
        assert BROWSER in lines[0]
        server.counts(1, "websocket_upgrades_total", result="accepted")
        assert SIZE <= server.metrics().total("relay_bytes_total", sender="client") < SIZE + 100


def test_browser_cannot_forge_its_address(tmp_path: Path, proxy: Proxy, behind: Application) -> None:
    async def play(port: int) -> None:
        async with proxy.connect(port, **{"X-Forwarded-For": FORGED}) as client:
            assert await echo(client, b"hello") == b"hello"

    with serve(tmp_path, behind) as server, proxy.start(server) as port:
        asyncio.run(asyncio.wait_for(play(port), DEADLINE))
        assert behind.clients == [BROWSER]


def test_proxy_that_is_not_listed_is_the_client_itself(tmp_path: Path, proxy: Proxy, behind: Application) -> None:
    async def play(port: int) -> None:
        async with proxy.connect(port) as client:
            assert await echo(client, b"hello") == b"hello"

    with serve(tmp_path, behind, networks='["10.0.0.0/8"]') as server, proxy.start(server) as port:
        asyncio.run(asyncio.wait_for(play(port), DEADLINE))
        assert behind.clients == ["127.0.0.1"]
        line = eventually(lambda: re.search(r"^.*\brelayed\b.*$", server.log, re.M), "the line of the access log")
        assert BROWSER not in line[0]


async def silent(proxy: Proxy, port: int, seconds: float) -> bool:
    """Whether a session works after it was silent for so long. The client sends pongs only."""
    async with proxy.connect(port) as client:
        assert await echo(client, b"hello") == b"hello"
        await asyncio.sleep(seconds)
        try:
            return await echo(client, b"hello") == b"hello"
        except websockets.ConnectionClosed:
            return False


@pytest.mark.parametrize("ping", [1, 0])
def test_ping_keeps_a_silent_session_through_a_limit_of_two_seconds(
    tmp_path: Path, proxy: Proxy, behind: Application, ping: int
) -> None:
    with serve(tmp_path, behind, f"websocket_ping = {ping}") as server, proxy.start(server, idle=2) as port:
        assert asyncio.run(asyncio.wait_for(silent(proxy, port, 4.5), DEADLINE)) == bool(ping)
        server.counts(0, "websocket_ping_timeouts_total")


@needs("haproxy")
@pytest.mark.parametrize("send", ["send-proxy", "send-proxy-v2"])
def test_session_through_a_proxy_in_tcp_mode_is_that_of_its_browser(
    site: ClientSite, behind: Application, send: str
) -> None:
    """One listener has policy requests, ws and wss."""
    settings: dict[str, object] = {"upstream": behind.address, "upstream_proxy": "v1", "proxy_protocol": True}
    settings |= {"proxy_networks": ["127.0.0.1"], "websocket": [{"path": "*", "port": 7000}]}

    async def play(port: int, ca: Path | None) -> None:
        scheme, trusting = ("wss", ssl.create_default_context(cafile=ca)) if ca else ("ws", None)
        async with websockets.connect(
            f"{scheme}://localhost:{port}/", origin=websockets.Origin(ORIGIN), ssl=trusting, local_addr=(BROWSER, 0),
            family=socket.AF_INET, additional_headers={"X-Forwarded-For": FORGED}, max_size=None,
        ) as client:  # fmt: skip
            assert await echo(client, SENT) == SENT

    with (
        site.serve("--access-log", "1", **settings) as server,
        http_proxies.haproxy_tcp(site.folder, server.addresses[0], send) as port,
    ):
        for ca in (None, site.ca.root):
            asyncio.run(asyncio.wait_for(play(port, ca), DEADLINE))
        assert behind.clients == [BROWSER, BROWSER]
        assert ask(("127.0.0.1", port)).endswith(b"</cross-domain-policy>\0")
        lines = eventually(
            lambda: (found := re.findall(r"^.*\brelayed\b.*$", server.log, re.M))[1:] and found,
            "lines of the access log",
        )
        assert all(BROWSER in line for line in lines)


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(http_proxies.squid, marks=needs("squid"), id="squid"),
        pytest.param(http_proxies.tinyproxy, marks=needs("tinyproxy"), id="tinyproxy"),
    ],
)
def test_proxy_that_drops_the_upgrade_gets_426(tmp_path: Path, behind: Application, start: Start) -> None:
    async def play(port: int) -> int:
        try:
            async with websockets.connect(f"ws://127.0.0.1:{port}/chess", origin=websockets.Origin(ORIGIN)):
                return 101
        except websockets.InvalidStatus as error:
            return error.response.status_code

    with serve(tmp_path, behind) as server, start(tmp_path, server.addresses[0]) as port:
        assert asyncio.run(asyncio.wait_for(play(port), DEADLINE)) == 426
        server.counts(1, "websocket_upgrades_total", result="no_upgrade")
        assert behind.clients == []


@needs("nginx")
def test_nginx_as_it_comes_gets_426(tmp_path: Path, behind: Application) -> None:
    """The page says which lines it needs."""

    async def play(port: int) -> int:
        try:
            async with websockets.connect(f"ws://127.0.0.1:{port}/chess", origin=websockets.Origin(ORIGIN)):
                return 101
        except websockets.InvalidStatus as error:
            return error.response.status_code

    with serve(tmp_path, behind) as server:
        location = f"location = /chess {{ proxy_pass http://{server.addresses[0]}; }}"
        with http_proxies.nginx(tmp_path, server.addresses[0], location=location) as port:
            assert asyncio.run(asyncio.wait_for(play(port), DEADLINE)) == 426
        server.counts(1, "websocket_upgrades_total", result="no_upgrade")
