"""The page on RTMPT: its commands work, and its configurations of flashpol, nginx, HAProxy and Apache."""

import http.client
import re
import shlex
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testkit import media
from testkit.certificates import make_ca
from testkit.client_fixtures import Echo
from testkit.polling import DEADLINE, eventually
from testkit.processes import ROOT, Flashpol, call, free_port, run
from testkit.programs import find, needs, nginx, running, wait_for

PAGE = (ROOT / "docs" / "guide" / "rtmpt.md").read_text()
LIVE = "/etc/letsencrypt/live/media.example.com"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


@pytest.mark.parametrize("text", blocks("toml"))
def test_configuration_of_the_page_is_accepted(tmp_path: Path, text: str) -> None:
    make_ca(tmp_path / "ca").issue("media.example.com", intermediate=True, into=tmp_path)
    (tmp_path / "flashpol.toml").write_text(text.replace(LIVE, str(tmp_path)))
    done = call("config", "-q", "-c", tmp_path / "flashpol.toml")
    assert (done.returncode, done.stderr) == (0, "")


def assert_accepts(*command: object) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr


# -------------------------------------------------------------------------------------------------------- five minutes


@contextmanager
def served(folder: Path) -> Iterator[Flashpol]:
    """The first configurations of the page, on free ports; the first address is the one of HTTP."""
    port = free_port()
    rtmp = next(text for text in blocks("nginx") if "rtmp {" in text)
    text = re.sub(r"\[::\]:\d+", "127.0.0.1:0", blocks("toml")[0])
    (folder / "flashpol.toml").write_text(text.replace("127.0.0.1:1936", f"127.0.0.1:{port}"))
    with nginx(folder, media.MODULE, rtmp.replace("127.0.0.1:1936", f"127.0.0.1:{port}")):
        wait_for(("127.0.0.1", port), "nginx")
        with Flashpol("-c", folder / "flashpol.toml", listen=()) as server:
            yield server


def page_commands(program: str) -> list[str]:
    """The lines of shell with this program, without comments."""
    return [line for text in blocks("sh") for line in text.splitlines() if line.startswith(f"{program} ")]


@pytest.mark.slow
@media.needs_media
@needs("curl")
def test_commands_of_the_page_work(tmp_path: Path) -> None:
    film = media.make_film(tmp_path / "film.mp4", 15)
    with served(tmp_path) as server:
        tunnel, direct = (f"{host}:{port}" for host, port in server.places)

        def words(line: str) -> list[str]:
            line = line.replace("film.mp4", str(film)).replace("rtmp://HOST", f"rtmp://{direct}")
            return shlex.split(line.replace("HOST", tunnel), comments=True)

        [publish], [play], [curl] = (page_commands(program) for program in ("ffmpeg", "ffplay", "curl"))
        program, *arguments = words(publish)
        with running(program, "-nostdin", *arguments, log=tmp_path / "publish.log") as publisher:
            url = words(play)[1]  # ffplay needs a screen
            eventually(lambda: server.metrics().total("rtmpt_sessions_open") == 1, "the publication")
            played = media.play(url, tmp_path / "played.flv", limit=2)
            assert len(media.frames(played)["video"]) > 10
            assert publisher.poll() is None
        done = subprocess.run(words(curl), capture_output=True, text=True, timeout=DEADLINE, check=True)
        assert re.search(r"^HTTP/1.1 200 OK\n(.+\n)+\nA[0-9A-Za-z]{15}\n$", done.stdout)
        [probe] = [line for line in page_commands("flashpol") if "--rtmp" in line]
        program, *arguments = words(probe)
        for place in (tunnel, direct, f"rtmpt://{tunnel}"):
            done = run(*[place if word == tunnel else word for word in arguments])
            assert done.returncode == 0, done.stdout
            assert re.search(r"^ +flash +connects, after ", done.stdout, re.M)
        assert run("config", "-q", "-c", tmp_path / "flashpol.toml").stdout == ""


# ------------------------------------------------------------------------------------------------------------- proxies

CLIENT, FORGED = "127.0.0.7", "203.0.113.9"
SERVER = """
[server]
access_log = 1
workers = 2
[policies.media]
grants = [{domain = "*.example.com", ports = "8080"}]
[[listeners]]
name = "http"
address = "127.0.0.1:0"
policy = "media"
upstream = "UPSTREAM"
rtmpt = true
websocket = [{path = "*", port = 8080}]
other_http = "refuse"
forwarded_networks = ["127.0.0.1"]
"""


def nginx_command(folder: Path, text: str) -> tuple[object, ...]:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{ }}\n"
        f"http {{\naccess_log off;\n{temporary}{text}}}\n"
    )
    return find("nginx"), "-p", folder, "-e", folder / "start.log", "-c", folder / "nginx.conf"


def haproxy_command(folder: Path, text: str) -> tuple[object, ...]:
    (folder / "haproxy.cfg").write_text(text)
    return find("haproxy"), "-db", "-q", "-f", folder / "haproxy.cfg"


def apache_command(folder: Path, text: str) -> tuple[object, ...]:
    modules = ("mpm_event", "authz_core", "proxy", "proxy_http")
    load = "".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n" for name in modules)
    (folder / "apache.conf").write_text(
        f"{load}ServerRoot {folder}\nServerName localhost\nPidFile {folder}/pid\nErrorLog {folder}/error\n"
        f"DefaultRuntimeDir {folder}\nListen 80\n{text.rstrip()} upgrade=websocket\n"
    )
    return find("apache2"), "-X", "-f", folder / "apache.conf"


PROXIES = {
    "nginx": (nginx_command, r"listen 80;", "listen 127.0.0.1:{};"),
    "haproxy": (haproxy_command, r"bind :80", "bind 127.0.0.1:{}"),
    "apache": (apache_command, r"Listen 80", "Listen 127.0.0.1:{}"),
}
PROGRAMS = {"apache": "apache2"}


def through(place: tuple[str, int]) -> None:
    """Sessions and WebSockets by turns, so that the proxy may send them on the same connections to flashpol."""
    for _ in range(4):
        client = http.client.HTTPConnection(*place, timeout=DEADLINE, source_address=(CLIENT, 0))
        paths = ["/open/1"]
        while paths:
            client.request("POST", paths.pop(), b"\0", {"X-Forwarded-For": FORGED})
            response = client.getresponse()
            body = response.read()
            assert response.status == 200
            if len(body) == 17:
                paths = [f"/close/{body.decode().strip()}/1"]
        with socket.create_connection(place, DEADLINE) as page:
            page.sendall(
                b"GET / HTTP/1.1\r\nHost: media.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Origin: http://www.example.com\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            assert page.recv(4096).startswith(b"HTTP/1.1 101 ")
            page.sendall(b"\x82\x85\0\0\0\0hello")
            assert page.recv(4096).endswith(b"hello")
        client.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(PROGRAMS.get(name, name))) for name in PROXIES])
def test_proxy_of_the_page_passes_sessions_websockets_and_addresses(tmp_path: Path, echo: Echo, name: str) -> None:
    configure, old, new = PROXIES[name]
    [text] = [text for text in blocks(name) if "127.0.0.1:8080" in text]
    port = free_port()
    (tmp_path / "flashpol.toml").write_text(SERVER.replace("UPSTREAM", echo.address))
    with Flashpol("-c", tmp_path / "flashpol.toml", listen=(), workers=None) as server:
        host, number = server.place
        command = configure(tmp_path, text.replace("127.0.0.1:8080", f"{host}:{number}"))
        [path] = [path for path in tmp_path.glob("*.c*") if path.suffix in (".conf", ".cfg")]
        changed, count = re.subn(old, new.format(port), path.read_text())
        assert count == 1
        path.write_text(changed)
        with running(*command, log=tmp_path / "proxy.log"):
            wait_for(("127.0.0.1", port), name)
            through(("127.0.0.1", port))
            eventually(lambda: server.log.count(f": {CLIENT}:0: relayed ") == 4, "the sessions in the access log")
            assert FORGED not in server.log
