"""WebSocket clients that people use, over ws and wss: an echo of 1 MB, a ping, the closing handshake."""

import asyncio
import shutil
import socket
import struct
import subprocess

import pytest
import websockets

from flashpol.config import UpstreamAddress
from testkit.application import Application, application
from testkit.client_fixtures import Echo
from testkit.client_site import ClientSite
from testkit.npm import Missing
from testkit.polling import DEADLINE, eventually
from testkit.programs import needs
from testkit.websocket_clients import CLIENTS, CODE, COMPRESSING, NODE_WS, ORIGIN, SIZE, Seen

pytestmark = pytest.mark.slow
PAGES = {"path": "*", "origins": [ORIGIN]}


@pytest.fixture(scope="session")
def node_ws() -> None:
    if not shutil.which("node"):
        pytest.skip("not installed: node")
    try:
        NODE_WS.fetch()
    except Missing as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize(
    ("name", "compression"),
    [*((name, False) for name in CLIENTS), *((name, True) for name in COMPRESSING)],
)
def test_client_gets_its_bytes_back(
    request: pytest.FixtureRequest, site: ClientSite, echo: Echo, name: str, compression: bool, scheme: str
) -> None:
    if name == "node":
        request.getfixturevalue("node_ws")
    ca = site.ca.root if scheme == "wss" else None
    with site.serve(upstream=echo.address, websocket=[PAGES | {"compression": True}]) as server:
        seen = CLIENTS[name](f"{scheme}://localhost:{server.place[1]}/", ca, compression)
        assert seen == Seen(protocol="binary", compressed=compression, echoed=True, pong=True, code=CODE)
        eventually(lambda: not server.metrics().total("websocket_open"), "the end")
        metrics = server.metrics()
        server.counts(1, "websocket_upgrades_total", result="accepted")
        server.counts(1, "websocket_closes_total", by="client", code="other")
        received, sent = (
            metrics.total("websocket_compressed_bytes_total", direction=direction) for direction in ("received", "sent")
        )
        # Half of the bytes are random; flashpol sends what would get no shorter as it is.
        assert (SIZE // 2 < received < SIZE and 0 < sent < SIZE // 2) if compression else (received, sent) == (0, 0)
        assert server.stop() == 0


@pytest.mark.parametrize("compression", [False, True])
def test_compression_is_off_unless_it_is_configured(site: ClientSite, echo: Echo, compression: bool) -> None:
    with site.serve(upstream=echo.address, websocket=[PAGES]) as server:
        seen = CLIENTS["websockets"](f"ws://localhost:{server.place[1]}/", None, compression)
        assert seen == Seen(protocol="binary", compressed=False, echoed=True, pong=True, code=CODE)


async def code_after(place: tuple[str, int], end: Application, reset: bool) -> int | None:
    """The code that the client sees when the application ends the session."""
    async with websockets.connect(f"ws://127.0.0.1:{place[1]}/", origin=websockets.Origin(ORIGIN)) as client:
        connection = await asyncio.to_thread(end.accept)
        await client.send(b"hello")
        assert await asyncio.to_thread(connection.recv, 5) == b"hello"
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        await asyncio.wait_for(client.wait_closed(), DEADLINE)
        return client.close_code


@pytest.mark.parametrize(("reset", "code"), [(False, 1000), (True, 1011)])
def test_end_of_the_application_has_a_code(site: ClientSite, reset: bool, code: int) -> None:
    with application() as behind, site.serve(upstream=str(behind.remote), websocket=[PAGES]) as server:
        assert asyncio.run(code_after(server.place, behind, reset)) == code
        eventually(lambda: not server.metrics().total("websocket_open"), "the end")
        server.counts(1, "websocket_closes_total", by="server", code=str(code))


def status_of(port: int, origin: str) -> tuple[int, str]:
    async def run() -> tuple[int, str]:
        try:
            async with websockets.connect(f"ws://127.0.0.1:{port}/", origin=websockets.Origin(origin)):
                return 101, ""
        except websockets.InvalidStatus as error:
            return error.response.status_code, (error.response.body or b"").decode()

    return asyncio.run(asyncio.wait_for(run(), DEADLINE))


def test_client_of_another_page_is_told_why(site: ClientSite, echo: Echo) -> None:
    with site.serve(upstream=echo.address, websocket=[PAGES]) as server:
        status, reason = status_of(server.place[1], "https://evil.example")
        assert (status, reason.count("\n")) == (403, 1)
        server.logs("https://evil.example")
        server.counts(1, "websocket_upgrades_total", result="origin")


def test_client_without_an_application_gets_502(site: ClientSite) -> None:
    with application() as behind:
        gone: UpstreamAddress = behind.remote
    with site.serve(upstream=str(gone), websocket=[PAGES]) as server:
        assert status_of(server.place[1], ORIGIN)[0] == 502
        server.counts(1, "websocket_upgrades_total", result="upstream")


@needs("curl")
@pytest.mark.parametrize(
    ("headers", "status"),
    [((), 426), (("Upgrade: websocket", "Connection: keep-alive"), 426),
     (("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 8"), 426),
     (("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"), 400)],
)  # fmt: skip
def test_curl_without_a_websocket_is_told_what_is_missing(
    site: ClientSite, echo: Echo, headers: tuple[str, ...], status: int
) -> None:
    with site.serve(upstream=echo.address, websocket=[PAGES]) as server:
        url = f"https://localhost:{server.place[1]}/"
        more = [word for header in (*headers, f"Origin: {ORIGIN}") for word in ("--header", header)]
        done = subprocess.run(
            ["curl", "--silent", "--http1.1", "--ipv4", "--include", "--cacert", site.ca.root, *more, url],
            capture_output=True, text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip
        assert done.stdout.startswith(f"HTTP/1.1 {status} "), done
        assert ("Upgrade: websocket" in done.stdout) == (status == 426)
