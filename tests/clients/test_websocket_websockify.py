"""From websockify to flashpol, as docs/guide/websocket.md shows: the same client, once with each of them."""

import asyncio
import re
import shlex
import shutil
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import websockets

from testkit.client_fixtures import Echo
from testkit.client_site import ClientSite
from testkit.clients import ask
from testkit.http_proxies import PAGE, replaced
from testkit.polling import DEADLINE
from testkit.processes import Flashpol, free_port
from testkit.programs import find, needs, running, wait_for
from testkit.websocket_clients import CLIENTS, ORIGIN, Seen

pytestmark = [pytest.mark.slow, needs("websockify")]
[SECTION] = re.findall(r"^## From websockify\n(.*?)^## ", PAGE.read_text(), re.M | re.S)
OLD, FLAGS = re.findall(r"^```sh\n(.*?)^```", SECTION, re.M | re.S)
[TOML] = re.findall(r"^```toml\n(.*?)^```", SECTION, re.M | re.S)


class Bridge:
    """Where a bridge of the page listens. server: flashpol."""

    def __init__(self, port: int, server: Flashpol | None = None) -> None:
        self.port, self.server = port, server


@pytest.fixture
def folder(site: ClientSite) -> Path:
    """It has the page's files of a certificate."""
    pair = site.certificates["localhost"]
    shutil.copy(pair.chain, site.folder / "fullchain.pem")
    shutil.copy(pair.key, site.folder / "privkey.pem")
    return site.folder


def command(text: str, folder: Path, port: int, application: str) -> list[str]:
    """The words of a command of the page, for these places and the certificate in the folder."""
    text = replaced(replaced(text, "127.0.0.1:7001", application), "7000", str(port)).replace("\\\n", " ")
    for name in ("fullchain.pem", "privkey.pem"):
        text = replaced(text, name, str(folder / name))
    return shlex.split(text)


@contextmanager
def websockify(folder: Path, application: str) -> Iterator[Bridge]:
    port = free_port()
    program, *arguments = command(OLD, folder, port, application)
    with running(find(program), *arguments, log=folder / "websockify.log", cwd=folder):
        wait_for(("127.0.0.1", port), "websockify listens")
        yield Bridge(port)


@contextmanager
def flags(folder: Path, application: str) -> Iterator[Bridge]:
    program, name, *arguments = command(FLAGS, folder, port := free_port(), application)
    assert (program, name) == ("flashpol", "serve")
    with Flashpol(*arguments, listen=()) as server:
        yield Bridge(port, server)


@contextmanager
def file(folder: Path, application: str) -> Iterator[Bridge]:
    port = free_port()
    text = replaced(replaced(TOML, "127.0.0.1:7001", application), "7000", str(port))
    path = folder / "flashpol.toml"
    path.write_text(replaced(text, "/etc/letsencrypt/live/games.example.com", str(folder)))
    with Flashpol("-c", path, listen=()) as server:
        yield Bridge(port, server)


BRIDGES = {"websockify": websockify, "flags": flags, "file": file}


@pytest.fixture(params=BRIDGES)
def bridge(request: pytest.FixtureRequest, folder: Path, echo: Echo) -> Iterator[Bridge]:
    with BRIDGES[request.param](folder, echo.address) as running_bridge:
        yield running_bridge


@pytest.mark.parametrize("client", ["websockets", "wsproto", "websocket-client"])
def test_client_sees_the_same(bridge: Bridge, site: ClientSite, client: str) -> None:
    """The path is one that websockify's pages use."""
    seen = CLIENTS[client](f"wss://localhost:{bridge.port}/websockify", site.ca.root, False)
    assert seen._replace(code=None) == Seen(protocol="binary", compressed=False, echoed=True, pong=True, code=None)
    if bridge.server:
        assert b"*.example.com" in ask(("127.0.0.1", bridge.port))


def test_text_is_refused_with_the_same_code(bridge: Bridge, site: ClientSite) -> None:
    async def run() -> int | None:
        trusting = ssl.create_default_context(cafile=site.ca.root)
        url = f"wss://localhost:{bridge.port}/"
        async with websockets.connect(url, origin=websockets.Origin(ORIGIN), ssl=trusting) as client:
            await client.send("text")
            await client.wait_closed()
            return client.close_code

    assert asyncio.run(asyncio.wait_for(run(), DEADLINE)) == 1003
