"""The guide's examples with the programs that they name, in the configuration as printed, in a network of their own."""

import re
import shlex
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from testkit.clients import REQUEST, ask, connect, rest
from testkit.namespaces import CLIENTS, Network, inside, network
from testkit.polling import DEADLINE, eventually
from testkit.processes import ROOT, Flashpol
from testkit.programs import accepts, needs, nginx, running

pytestmark = pytest.mark.slow
# What the examples call their hosts: the proxies and backends in 10.0.0.0/8, clients in TEST-NET-1.
ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.5", "192.0.2.7", "192.0.2.200", "198.51.100.7")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=DEADLINE)


def block(page: str, heading: str, kind: str, number: int = 0) -> str:
    """The block of code below a heading."""
    text = (ROOT / "docs" / "guide" / page).read_text()
    section = re.split(r"^## ", text.split(f"\n## {heading}\n")[1], flags=re.M)[0]
    found: list[str] = re.findall(rf"^```{kind}\n(.*?)^```", section, re.M | re.S)
    return found[number]


def commands(page: str, heading: str, number: int = 0) -> list[str]:
    return [
        line.split("  #")[0].strip().replace("HOST", "127.0.0.1")
        for line in block(page, heading, "sh", number).splitlines()
    ]


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as net:

        def prepare() -> None:
            for address in ADDRESSES:
                ip("address", "add", f"{address}/32", "dev", "lo")

        inside(net.host, prepare)
        yield net


@contextmanager
def greeter(listening: socket.socket, greeting: bytes) -> Iterator[list[bytes]]:
    """An application that answers the first bytes of each client with `greeting`; yields what it received."""
    received: list[bytes] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                with client:
                    received.append(client.recv(4096))
                    client.sendall(greeting)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield received
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(DEADLINE)


def served(folder: Path, text: str, *arguments: str) -> Flashpol:
    (folder / "flashpol.toml").write_text(text)
    return Flashpol("-c", folder / "flashpol.toml", *arguments, listen=())


def try_reply(address: tuple[str, int], source: str) -> bytes:
    """The reply to a client with this address; empty if it is refused."""
    connection = connect(address, source=source)
    with suppress(ConnectionResetError, BrokenPipeError):
        connection.sendall(REQUEST)
        return rest(connection)
    return b""


CHAT = "A chat or game server"


def chat(start: Callable[[], Flashpol]) -> None:
    with greeter(socket.create_server(("127.0.0.1", 7001)), b"welcome") as received, start() as server:
        address = ("127.0.0.1", 7000)
        assert b'domain="*.example.com" to-ports="7000"' in ask(address)
        assert rest(connect(address, b"hello")) == b"welcome"
        assert received == [b"hello"]
        assert server.stop() == 0


def test_chat_server_of_the_shared_port_page(net: Network, tmp_path: Path) -> None:
    inside(net.host, lambda: chat(lambda: served(tmp_path, block("shared-port.md", CHAT, "toml"))))


def test_chat_server_by_flags_of_the_shared_port_page(net: Network) -> None:
    [serve, _] = commands("shared-port.md", CHAT)
    flashpol, name, *flags = shlex.split(serve)
    assert (flashpol, name) == ("flashpol", "serve")
    inside(net.host, lambda: chat(lambda: Flashpol(*flags, listen=())))


def test_several_games_of_the_shared_port_page(net: Network, tmp_path: Path) -> None:
    text = block("shared-port.md", "Several games on several ports", "toml")
    assert "unix:/run/chess/socket" in text
    text = text.replace("/run/chess/socket", str(tmp_path / "socket"))
    backends = ("10.0.0.1", "10.0.0.2")

    def other_host() -> list[socket.socket]:
        for host in backends:
            ip("address", "add", f"{host}/32", "dev", "lo")
        return [socket.create_server((host, 7100)) for host in backends]

    arenas = inside(net.clients, other_host)

    def run() -> None:
        with ExitStack() as stack:
            chess = socket.socket(socket.AF_UNIX)
            chess.bind(str(tmp_path / "socket"))
            chess.listen()
            stack.enter_context(greeter(chess, b"chess"))
            for host in backends:
                ip("address", "del", f"{host}/32", "dev", "lo")
                ip("route", "add", host, "via", CLIENTS[0])
            arena = [
                stack.enter_context(greeter(listening, host.encode()))
                for listening, host in zip(arenas, backends, strict=True)
            ]
            stack.enter_context(served(tmp_path, text))
            assert b'domain="chess.example.com" to-ports="7000"' in ask(("127.0.0.1", 7000))
            assert b'domain="*.arena.example.com" to-ports="7100"' in ask(("127.0.0.1", 7100))
            assert rest(connect(("127.0.0.1", 7000), b"hello")) == b"chess"
            answers = {rest(connect(("127.0.0.1", 7100), b"hello")) for _ in range(8)}
            assert answers == {b"10.0.0.1", b"10.0.0.2"}
            assert all(data.startswith(b"\r\n\r\n\0\r\nQUIT\n") for received in arena for data in received)

    inside(net.host, run)


RTMP = "An RTMP server"


@needs("nginx", "ffmpeg", "nc", modules=("ngx_rtmp_module.so",))
@pytest.mark.parametrize("proxied", [False, True], ids=["as printed", "with the viewer's address"])
def test_rtmp_server_of_the_shared_port_page(net: Network, tmp_path: Path, proxied: bool) -> None:
    server, text = block("shared-port.md", RTMP, "nginx"), block("shared-port.md", RTMP, "toml")
    if proxied:  # as the list below the example says
        server = server.replace("listen 127.0.0.1:1936;", "listen 127.0.0.1:1936 proxy_protocol;")
        text += 'upstream_proxy = "v1"\n'
    publish, play, policy = commands("shared-port.md", RTMP)
    source = ["-f", "lavfi", "-i", "testsrc=size=160x120:rate=10", "-t", "30", "-c:v", "libx264", "-g", "10"]
    quiet = ["ffmpeg", "-nostdin", "-loglevel", "error", "-y"]
    subprocess.run([*quiet, *source, "-pix_fmt", "yuv420p", "film.mp4"], cwd=tmp_path, check=True, timeout=DEADLINE)

    def run() -> None:
        with ExitStack() as stack:
            stack.enter_context(nginx(tmp_path, "ngx_rtmp_module.so", server))
            eventually(lambda: accepts(("127.0.0.1", 1936)), "nginx")
            flashpol = stack.enter_context(served(tmp_path, text))
            publisher = stack.enter_context(running(*shlex.split(publish), log=tmp_path / "publish.log", cwd=tmp_path))
            eventually(
                lambda: publisher.poll() is not None or flashpol.metrics().total("relay_bytes_total") > 10_000,
                "the film",
            )
            assert publisher.poll() is None, (tmp_path / "publish.log").read_text()
            player, url = shlex.split(play)
            assert player == "ffplay"  # which needs a display; ffmpeg reads the same stream
            done = subprocess.run(
                [*quiet, "-rw_timeout", "10000000", "-i", url, "-t", "2", "-c", "copy", "-f", "flv", "played.flv"],
                cwd=tmp_path, capture_output=True, timeout=DEADLINE, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            assert (tmp_path / "played.flv").stat().st_size > 2_000
            done = subprocess.run(["sh", "-c", policy], capture_output=True, timeout=DEADLINE, check=False)
            assert b'domain="*.example.com" to-ports="1935"' in done.stdout

    inside(net.host, run)


def test_networks_of_the_limits_page(net: Network, tmp_path: Path) -> None:
    def run() -> None:
        with served(tmp_path, block("limits.md", "From where", "toml")):
            assert b'to-ports="7000"' in try_reply(("10.0.0.5", 843), "192.0.2.7")
            assert try_reply(("10.0.0.5", 843), "192.0.2.200") == b"", "the smaller network denies it"
            assert try_reply(("10.0.0.5", 843), "198.51.100.7") == b"", "it is in no network"

    inside(net.host, run)


def behind(folder: Path, port: int) -> None:
    with served(folder, block("limits.md", "Behind proxies", "toml"), "--access-log", "1") as server:
        eventually(lambda: b'to-ports="7000"' in try_reply(("198.51.100.7", port), "192.0.2.7"), "a reply")
        eventually(lambda: re.search(r" 192\.0\.2\.7:\d+: reply", server.log), "the client's address in the log")
        assert try_reply(("198.51.100.7", 843), "192.0.2.7") == b"", "a client that does not come through the proxy"


@needs("haproxy")
def test_haproxy_of_the_limits_page(net: Network, tmp_path: Path) -> None:
    [line] = re.findall(r"^- HAProxy: `(server .*?)`", (ROOT / "docs" / "guide" / "limits.md").read_text(), re.M)
    (tmp_path / "haproxy.cfg").write_text(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 9s\n timeout server 9s\n"
        f"listen policies\n bind 198.51.100.7:8001\n {line}\n"
    )

    def run() -> None:
        with running("haproxy", "-db", "-f", tmp_path / "haproxy.cfg", log=tmp_path / "haproxy.log"):
            eventually(lambda: accepts(("198.51.100.7", 8001)), "HAProxy")
            behind(tmp_path, 8001)

    inside(net.host, run)


@needs("nginx", modules=("ngx_stream_module.so",))
def test_nginx_of_the_limits_page(net: Network, tmp_path: Path) -> None:
    [line] = re.findall(r"^- nginx, in `stream`: `(.*?)`", (ROOT / "docs" / "guide" / "limits.md").read_text(), re.M)
    stream = f"stream {{ server {{ listen 198.51.100.7:8003; {line} proxy_pass 10.0.0.5:843; }} }}\n"

    def run() -> None:
        with nginx(tmp_path, "ngx_stream_module.so", stream):
            eventually(lambda: accepts(("198.51.100.7", 8003)), "nginx")
            behind(tmp_path, 8003)

    inside(net.host, run)
