"""The examples of docs/guide/tls.md with the programs that they name, in a network of their own."""

import re
import shlex
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from testkit.clients import ask, connect, rest
from testkit.namespaces import Network, inside, network
from testkit.own_ca import OwnCa
from testkit.polling import DEADLINE, eventually
from testkit.processes import ROOT, Flashpol, command
from testkit.programs import find, needs, nginx, running, wait_for

pytest.importorskip("flashpol._tls")
pytestmark = pytest.mark.slow
PAGE = (ROOT / "docs" / "guide" / "tls.md").read_text()
HOST = "games.example.com"
REQUEST = b"<policy-file-request/>\0"


def blocks(heading: str, kind: str) -> list[str]:
    """The blocks of code of a section, those of its subsections too."""
    section = re.split(r"^## ", PAGE.split(f"\n## {heading}\n")[1], flags=re.M)[0]
    return re.findall(rf"^```{kind}\n(.*?)^```", section, re.M | re.S)


@pytest.fixture(scope="session")
def ca(tmp_path_factory: pytest.TempPathFactory) -> OwnCa:
    made = OwnCa(tmp_path_factory.mktemp("ca"))
    made.issue(HOST)
    return made


@pytest.fixture
def folder(ca: OwnCa, tmp_path: Path) -> Path:
    """With the certificates by the names that the page has."""
    ecdsa, rsa = (ca.folder / f"{HOST}.games", ca.folder / f"{HOST}.games-rsa")
    for name, files in (("games", ecdsa), ("games-rsa", rsa)):
        for suffix in (".pem", ".key"):
            (tmp_path / (name + suffix)).write_bytes(files.with_name(files.name + suffix).read_bytes())
    (tmp_path / "all.pem").write_bytes((tmp_path / "games.pem").read_bytes() + (tmp_path / "games.key").read_bytes())
    for alias, name in (("fullchain.pem", "games.pem"), ("privkey.pem", "games.key")):
        (tmp_path / alias).symlink_to(name)
    return tmp_path


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as net:
        yield net


def localised(text: str, folder: Path) -> str:
    """The paths of the page, as those of the test."""
    return re.sub(r"/etc/(letsencrypt/live/games\.example\.com|ssl/games|nginx/games)(?=/)", str(folder), text)


def served(folder: Path, text: str, *arguments: str) -> Flashpol:
    (folder / "flashpol.toml").write_text(localised(text, folder))
    return Flashpol("-c", folder / "flashpol.toml", *arguments, listen=())


def secure(ca: OwnCa, port: int, data: bytes) -> bytes:
    """What a client of the host gets inside TLS, up to the end."""
    context = ssl.create_default_context(cafile=str(ca.root))
    with context.wrap_socket(connect(("127.0.0.1", port)), server_hostname=HOST) as client:
        client.sendall(data)
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


def shell(script: str, folder: Path) -> str:
    script = script.replace("HOST", "127.0.0.1")
    done = subprocess.run(["sh", "-c", script], cwd=folder, capture_output=True, timeout=DEADLINE, check=False)
    return (done.stdout + done.stderr).decode("latin-1")


class Application:
    """On 127.0.0.1:7001, where the page has it: answers the first bytes of each client with them and its address."""

    def __init__(self, stack: ExitStack) -> None:
        self.listening = socket.create_server(("127.0.0.1", 7001))
        stack.callback(self.listening.close)

    def answer(self) -> None:
        self.listening.settimeout(DEADLINE)
        client, _ = self.listening.accept()
        with client:
            client.settimeout(DEADLINE)
            client.sendall(b"answer to " + client.recv(4096))


def game(ca: OwnCa, port: int, plain: int | None, start: Callable[[], Flashpol]) -> None:
    """Clients of a port for TLS, and of one for plain text, get the policy and reach the application."""
    with ExitStack() as stack:
        application = Application(stack)
        server = stack.enter_context(start())
        wait_for(("127.0.0.1", port), "the port for TLS")
        policy = secure(ca, port, REQUEST)
        assert b'domain="*.example.com"' in policy
        with_answer(application, lambda: secure(ca, port, b"hello"), b"answer to hello")
        if plain:
            assert ask(("127.0.0.1", plain)) == policy
            with_answer(application, lambda: rest(connect(("127.0.0.1", plain), b"hello")), b"answer to hello")
        assert server.stop() == 0


def with_answer(application: Application, client: Callable[[], bytes], expected: bytes) -> None:
    import threading

    thread = threading.Thread(target=application.answer, daemon=True)
    thread.start()
    assert client() == expected
    thread.join(DEADLINE)


def test_game_server_with_tls_as_printed(net: Network, ca: OwnCa, folder: Path) -> None:
    [text] = blocks("A game server with TLS", "toml")
    inside(net.host, lambda: game(ca, 7000, 7000, lambda: served(folder, text)))


def test_game_server_by_flags_as_printed(net: Network, ca: OwnCa, folder: Path) -> None:
    [serve] = blocks("A game server with TLS", "sh")
    flashpol, name, *flags = shlex.split(serve.replace("\\\n", " "))
    assert (flashpol, name) == ("flashpol", "serve")
    flags = [re.sub(r"\w+\.pem", lambda found: str(folder / found[0]), flag) for flag in flags]
    inside(net.host, lambda: game(ca, 7000, 7000, lambda: Flashpol(*flags, listen=())))


@needs("openssl")
def test_secure_socket_as_printed(net: Network, ca: OwnCa, folder: Path) -> None:
    heading = "SecureSocket: Flash Player and AIR"
    [text], [as_air] = blocks(heading, "toml"), blocks(heading, "sh")

    def run() -> None:
        game(ca, 7000, 7000, lambda: served(folder, text))
        with served(folder, text) as server:
            assert 'to-ports="7000"' in shell(as_air, folder)
            server.counts(1, "tls_handshakes_total", version="TLSv1")

    inside(net.host, run)


@needs("nginx", "ffmpeg", modules=("ngx_rtmp_module.so",))
def test_rtmps_as_printed(net: Network, ca: OwnCa, folder: Path) -> None:
    heading = "RTMPS with nginx"
    [rtmp], [text], [script] = (blocks(heading, kind) for kind in ("nginx", "toml", "sh"))
    publish, *plays = [line.split("  #")[0].replace("HOST", "127.0.0.1") for line in script.splitlines()]
    quiet = ["ffmpeg", "-nostdin", "-loglevel", "error", "-y"]
    source = ["-f", "lavfi", "-i", "testsrc=size=160x120:rate=10", "-t", "30", "-c:v", "libx264", "-g", "10"]
    subprocess.run([*quiet, *source, "-pix_fmt", "yuv420p", "film.mp4"], cwd=folder, check=True, timeout=DEADLINE)

    def run() -> None:
        with ExitStack() as stack:
            stack.enter_context(nginx(folder, "ngx_rtmp_module.so", rtmp))
            wait_for(("127.0.0.1", 1936), "nginx")
            server = stack.enter_context(served(folder, text))
            publisher = stack.enter_context(running(*shlex.split(publish), log=folder / "publish.log", cwd=folder))
            eventually(
                lambda: publisher.poll() is not None or server.metrics().total("relay_bytes_total") > 10_000,
                "the film",
            )
            assert publisher.poll() is None, (folder / "publish.log").read_text()
            for number, line in enumerate(plays):
                player, url = shlex.split(line)
                assert player == "ffplay"  # which needs a display; ffmpeg reads the same stream
                played = folder / f"{number}.flv"
                done = subprocess.run(
                    [*quiet, "-rw_timeout", "10000000", "-i", url, "-t", "2", "-c", "copy", "-f", "flv", played],
                    capture_output=True, timeout=DEADLINE, check=False,
                )  # fmt: skip
                assert done.returncode == 0, done.stderr
                assert played.stat().st_size > 2_000
            server.counts(2, "tls_handshakes_total")
            assert b'to-ports="1935"' in secure(ca, 1935, REQUEST)

    inside(net.host, run)


FRONT = "In place of stunnel, HAProxy or nginx"
PROXIES = ("stunnel", "haproxy", "nginx")
# What the page says to add where the proxy stays, as the settings of each proxy.
SENDS_PROXY = {
    "stunnel": ("key = ", "protocol = proxy\nkey = "),
    "haproxy": ("127.0.0.1:7000", "127.0.0.1:7000 send-proxy-v2"),
    "nginx": ("proxy_pass ", "proxy_protocol on;\n        proxy_pass "),
}


def in_front(stack: ExitStack, folder: Path, proxy: str, text: str) -> None:
    text = localised(text, folder)
    if proxy == "stunnel":
        (folder / "stunnel.conf").write_text(f"foreground = yes\npid =\n{text}")
        stack.enter_context(running(find("stunnel"), folder / "stunnel.conf", log=folder / "stunnel.log"))
    elif proxy == "haproxy":
        defaults = "defaults\n timeout connect 5s\n timeout client 9s\n timeout server 9s\n"
        (folder / "haproxy.cfg").write_text(f"global\n log stderr local0\n{defaults}{text}")
        stack.enter_context(running(find("haproxy"), "-db", "-f", folder / "haproxy.cfg", log=folder / "haproxy.log"))
    else:
        stack.enter_context(nginx(folder, "ngx_stream_module.so", text))


@needs(*PROXIES, modules=("ngx_stream_module.so",))
@pytest.mark.parametrize("sends_proxy", [False, True], ids=["before", "with PROXY headers"])
@pytest.mark.parametrize("proxy", PROXIES)
def test_proxy_in_front_as_printed(net: Network, ca: OwnCa, folder: Path, proxy: str, sends_proxy: bool) -> None:
    kinds = {"stunnel": "ini", "haproxy": "haproxy", "nginx": "nginx"}
    [text], before = blocks(FRONT, kinds[proxy]), blocks(FRONT, "toml")[0]
    if sends_proxy:
        old, new = SENDS_PROXY[proxy]
        text = text.replace(old, new)
        before += 'proxy_protocol = true\nproxy_networks = ["127.0.0.0/8"]\n'

    def run() -> None:
        with ExitStack() as stack:
            in_front(stack, folder, proxy, text)
            game(ca, 7443, None if sends_proxy else 7000, lambda: served(folder, before))

    inside(net.host, run)


def test_after_the_proxy_as_printed(net: Network, ca: OwnCa, folder: Path) -> None:
    after = blocks(FRONT, "toml")[1]

    def run() -> None:
        game(ca, 7443, 7000, lambda: served(folder, after))
        with served(folder, after):
            assert ask(("127.0.0.1", 7443)) == b"", "tls_only"

    inside(net.host, run)


@needs("openssl")
def test_ways_to_see_whether_it_works_as_printed(net: Network, ca: OwnCa, folder: Path) -> None:
    heading = "Does it work?"
    [text] = blocks("A game server with TLS", "toml")
    probe, by_hand = blocks(heading, "sh")

    def run() -> None:
        with served(folder, text):
            output = shell(by_hand, folder)
            assert 'domain="*.example.com" to-ports="7000"' in output
            assert "subject=CN = games.example.com" in output
            assert "DNS:*.games.example.com" in output
            assert "notAfter=" in output
            words = shlex.split(probe)
            assert words[:3] == ["flashpol", "probe", HOST]
            arguments = ["probe", "127.0.0.1", *words[3:], "--server-name", HOST, "--ca", str(ca.root)]
            done = subprocess.run(
                command(*arguments), capture_output=True, text=True, timeout=2 * DEADLINE, check=False
            )
            assert "usage" not in done.stderr
            assert "games.example.com" in done.stdout, done.stdout + done.stderr
            with suppress(AssertionError):
                assert done.returncode == 0

    inside(net.host, run)
