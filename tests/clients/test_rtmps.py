"""RTMPS: ffmpeg publishes to nginx's RTMP module through TLS, ffmpeg and rtmpdump play; frames are compared."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testkit.client_site import POLICY, ClientSite
from testkit.clients import ask
from testkit.polling import DEADLINE, eventually
from testkit.processes import Flashpol, free_port
from testkit.programs import needs, nginx, running, wait_for

pytestmark = [pytest.mark.slow, needs("nginx", "ffmpeg", modules=("ngx_rtmp_module.so",))]
QUIET = ("ffmpeg", "-nostdin", "-loglevel", "error", "-y")
SECONDS = 60  # of the film, which ends with the test


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """H.264 and AAC, as a camera sends them."""
    path = tmp_path_factory.mktemp("film") / "film.flv"
    source = ("-f", "lavfi", "-i", "testsrc=size=320x240:rate=15", "-f", "lavfi", "-i", "sine")
    codecs = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "15", "-pix_fmt", "yuv420p", "-c:a", "aac")
    subprocess.run([*QUIET, *source, "-t", str(SECONDS), *codecs, path], check=True, timeout=4 * DEADLINE)
    return path


def packets(path: Path) -> dict[str, list[str]]:
    """Of each stream, the size and hash of every packet, in their order."""
    command = [*QUIET, "-i", path, "-c", "copy", "-f", "framemd5", "-"]
    lines = subprocess.check_output(command, text=True, timeout=DEADLINE).splitlines()
    found: dict[str, list[str]] = {}
    for line in lines:
        if not line.startswith("#"):
            stream, *_, size, digest = line.replace(" ", "").split(",")
            found.setdefault(stream, []).append(f"{size} {digest}")
    return found


def assert_part_of(played: Path, film: Path) -> None:
    """Each stream's packets are a run of those that were published, none lost or changed."""
    sent, got = packets(film), packets(played)
    assert got.keys() == sent.keys()
    for stream, run in got.items():
        assert len(run) > 20, (stream, len(run))
        begins = [n for n, packet in enumerate(sent[stream]) if packet == run[0]]
        assert any(sent[stream][n : n + len(run)] == run for n in begins), f"stream {stream}: not a run of the film"


@contextmanager
def rtmp_server(folder: Path, listen: str = "") -> Iterator[str]:
    """Its address. listen: more words of the directive."""
    port = free_port()
    rtmp = f"rtmp {{ server {{ listen 127.0.0.1:{port}{listen}; application live {{ live on; wait_key on; }} }} }}\n"
    with nginx(folder, "ngx_rtmp_module.so", rtmp):
        wait_for(("127.0.0.1", port), "nginx")
        yield f"127.0.0.1:{port}"


@contextmanager
def publisher(site: ClientSite, server: Flashpol, film: Path, url: str) -> Iterator[None]:
    """ffmpeg, from when the server has relayed some of the film until the block ends."""
    log = site.folder / "publish.log"
    trust = ("-tls_verify", "1", "-ca_file", site.ca.root) if url.startswith("rtmps") else ()
    with running(*QUIET, "-re", "-i", film, "-c", "copy", "-f", "flv", *trust, url, log=log) as process:
        eventually(
            lambda: process.poll() is not None or server.metrics().total("relay_bytes_total") > 10_000, "the film"
        )
        assert process.poll() is None, log.read_text()
        yield


def play(site: ClientSite, url: str, name: str = "played.flv") -> Path:
    played = site.folder / name
    trust = ("-tls_verify", "1", "-ca_file", site.ca.root) if url.startswith("rtmps") else ()
    command = [*QUIET, "-rw_timeout", "10000000", *trust, "-i", url, "-t", "3", "-c", "copy", "-f", "flv", played]
    done = subprocess.run(command, capture_output=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr
    return played


@pytest.mark.parametrize(
    ("listen", "settings"), [("", {}), (" proxy_protocol", {"upstream_proxy": "v1"})], ids=["plain", "proxy v1"]
)
def test_ffmpeg_publishes_and_plays_by_rtmps(
    site: ClientSite, film: Path, listen: str, settings: dict[str, object]
) -> None:
    with rtmp_server(site.folder, listen) as upstream, site.serve(upstream=upstream, **settings) as server:
        url = f"rtmps://localhost:{server.place[1]}/live/film"
        with publisher(site, server, film, url):
            assert_part_of(play(site, url), film)
            plain = url.replace("rtmps", "rtmp").replace("localhost", "127.0.0.1")
            assert_part_of(play(site, plain, "plain.flv"), film)
            assert ask(server.place) == POLICY + b"\0"
        eventually(lambda: server.metrics().total("relayed_total", protocol="rtmp") == 3, "the end of all")
        server.counts(2, "tls_handshakes_total")
        assert server.stop() == 0
        assert not server.complaints


def test_ffmpeg_publishes_by_rtmp_and_others_play_by_rtmps(site: ClientSite, film: Path) -> None:
    with rtmp_server(site.folder) as upstream, site.serve(upstream=upstream) as server:
        url = f"127.0.0.1:{server.place[1]}/live/film"
        with publisher(site, server, film, f"rtmp://{url}"):
            assert_part_of(play(site, f"rtmps://{url.replace('127.0.0.1', 'localhost')}"), film)


@needs("rtmpdump")
def test_rtmpdump_plays_by_rtmps(site: ClientSite, film: Path) -> None:
    """librtmp breaks on session tickets of TLS 1.3, of which there are none by default."""
    with rtmp_server(site.folder) as upstream, site.serve(upstream=upstream) as server:
        url = f"rtmps://localhost:{server.place[1]}/live/film"
        with publisher(site, server, film, url):
            played = site.folder / "dumped.flv"
            command = ["timeout", "-s", "INT", "5", "rtmpdump", "-q", "-v", "-r", url, "-o", played]
            subprocess.run(command, capture_output=True, timeout=DEADLINE, check=False)
            assert_part_of(played, film)
