"""The chat of `make demo`: its application alone, and all of it in a browser."""

import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from examples.chat.application import LONGEST_MESSAGE, LONGEST_TEXT
from testkit.chat_demo import DENIED, GRANTED, ChatDemo, say
from testkit.clients import connect, rest
from testkit.polling import eventually
from testkit.processes import ROOT, free_port
from testkit.programs import running, wait_for
from testkit.ruffle import Missing, fetch_ruffle

EXAMPLE = ROOT / "examples" / "chat"
PROXY = b"PROXY TCP4 192.0.2.7 127.0.0.1 50000 7000\r\n"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Player:
    """A client of the chat, as XMLSocket is one."""

    def __init__(
        self, address: tuple[str, int], name: str = "", header: bytes = PROXY, receive_buffer: int = 0
    ) -> None:
        self.socket = connect(address, header, receive_buffer=receive_buffer)
        self._reader = self.socket.makefile("rb")
        if name:
            self.send("join", name=name)
            self.name = self.next("welcome")["name"]

    def send(self, kind: str, **attributes: str) -> None:
        self.socket.sendall(ElementTree.tostring(ElementTree.Element(kind, attributes)) + b"\0")

    def close(self) -> None:
        self._reader.close()
        self.socket.close()

    def receive(self) -> ElementTree.Element:
        """The next message."""
        text = b""
        while not text.endswith(b"\0"):
            byte = self._reader.read(1)
            assert byte, f"closed after {text!r}"
            text += byte
        return ElementTree.fromstring(text[:-1])

    def next(self, kind: str) -> dict[str, str]:
        """The attributes of the next message, which must be of this kind."""
        message = self.receive()
        assert message.tag == kind
        return message.attrib


Join = Callable[..., Player]


@pytest.fixture
def join(tmp_path: Path) -> Iterator[Join]:
    """Makes players of a chat."""
    address = ("127.0.0.1", free_port())
    players = []

    def make(name: str = "", header: bytes = PROXY, receive_buffer: int = 0) -> Player:
        players.append(Player(address, name, header, receive_buffer))
        return players[-1]

    log = tmp_path / "application.log"
    with running(sys.executable, EXAMPLE / "application.py", f"{address[0]}:{address[1]}", log=log):
        wait_for(address, "the chat")
        yield make
    for player in players:
        player.close()
    assert "Traceback" not in log.read_text()


def test_chat_tells_all_what_one_says(join: Join) -> None:
    ada, ben = join("Ada"), join("Ben")
    assert ada.next("joined") == {"name": "Ben"}
    text = "<b> & \"quotes\" 'äöü €'"
    ben.send("say", text=text)
    assert ada.next("said") == ben.next("said") == {"name": "Ben", "text": text}
    ben.close()
    assert ada.next("left") == {"name": "Ben"}


def test_name_that_is_taken_gets_a_number(join: Join) -> None:
    assert [join("Ada").name for _ in range(3)] == ["Ada", "Ada 2", "Ada 3"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"", b'<join name="Ada"/>\0\n'),
        (b"GET / HTTP/1.1\r\n", b'<join name="Ada"/>\0'),
        (PROXY, b'<say text="hello"/>\0'),
        (PROXY, b'<!DOCTYPE join [<!ENTITY a "b">]><join name="&a;"/>\0'),
        (PROXY, b'<join name="Ada"\0'),
        (PROXY, b"\xff\xff\0"),
        (PROXY, b"<join name='" + b"x" * 2 * LONGEST_MESSAGE),
    ],
    ids=["no header", "HTTP", "not joined", "document type", "no XML", "no UTF-8", "too long"],
)
def test_client_that_is_no_player_is_closed_and_the_others_play_on(join: Join, header: bytes, message: bytes) -> None:
    ada = join("Ada")
    other = join(header=header)
    try:
        other.socket.sendall(message)
        assert rest(other.socket) == b""
    except ConnectionResetError:
        pass  # it was closed with unread bytes
    ada.send("say", text="still here")
    assert ada.next("said")["text"] == "still here"


@pytest.mark.slow
def test_player_that_does_not_read_is_cut(join: Join) -> None:
    ada = join("Ada")
    join("Idle", receive_buffer=4096)
    assert ada.next("joined") == {"name": "Idle"}
    many = 200  # messages at a time
    kinds = {"said"}
    while kinds == {"said"}:
        ada.socket.sendall(b'<say text="%s"/>\0' % (b"x" * LONGEST_TEXT) * many)
        kinds = {ada.receive().tag for _ in range(many)}
    assert kinds == {"said", "left"}


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[ChatDemo]:
    """The demo on free ports."""
    try:
        fetch_ruffle()
    except Missing as missing:
        pytest.skip(str(missing))
    ports = {port: str(free_port()) for port in ("7000", "7001", "9843")}
    for name in ("flashpol.toml", "policy.xml"):
        text = (EXAMPLE / name).read_text()
        for port, other in ports.items():
            text = text.replace(port, other)
        (tmp_path / name).write_text(text)
    with ChatDemo("-c", tmp_path / "flashpol.toml", "--port", str(free_port())) as demo:
        demo.chat = ("127.0.0.1", int(ports["7000"]))
        yield demo


@pytest.fixture
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=False)
        yield browser
        browser.close()


@pytest.mark.slow
@pytest.mark.servers
def test_demo_carries_a_chat_between_two_windows_and_shows_the_origin_that_is_refused(
    demo: ChatDemo, browser: Any
) -> None:
    ada, ben = browser.new_page(), browser.new_page()
    ada.goto(f"{demo.url}?nick=Ada")
    demo.until("Ada joined from 127.0.0.1:")
    # A third player, as Flash Player is one: on the same port, without a WebSocket.
    watcher = Player(demo.chat, "Watcher", header=b"")
    ben.goto(demo.url)
    eventually(lambda: ben.frame_locator(GRANTED).locator("#player").is_visible(), "Ruffle")
    before = ada.locator(GRANTED).screenshot()

    def joined() -> bool:
        say(ben, "Ben")  # the movie may not have started yet
        return "Ben joined" in demo.out

    eventually(joined, "Ben", 60, wait=lambda _: ben.wait_for_timeout(1000))
    assert watcher.next("joined") == {"name": "Ben"}
    say(ada, "Hello & <welcome>")
    while (said := watcher.next("said")) == {"name": "Ben", "text": "Ben"}:
        pass
    assert said == {"name": "Ada", "text": "Hello & <welcome>"}
    eventually(lambda: ada.locator(GRANTED).screenshot() != before, "what is said")
    ada.wait_for_function("document.getElementById('log').textContent.includes('127.0.0.1')")
    assert "Eve" not in demo.out
    assert ada.locator(DENIED).is_visible()
    assert demo.stop() == 0
    eventually(lambda: refuses(demo.chat), "flashpol ended")


def refuses(address: tuple[str, int]) -> bool:
    with socket.socket() as client:
        return client.connect_ex(address) != 0
