"""RTMPS: ffmpeg publishes to nginx's RTMP module through TLS, ffmpeg and rtmpdump play; frames are compared."""

from pathlib import Path

import pytest

from testkit import media
from testkit.client_site import POLICY, ClientSite
from testkit.clients import ask
from testkit.media import assert_part_of, media_server, needs_media, publishing
from testkit.polling import eventually
from testkit.programs import needs

pytestmark = [pytest.mark.slow, needs_media]
SECONDS = 60  # of the film, which ends with the test


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.make_film(tmp_path_factory.mktemp("film") / "film.flv", SECONDS)


def play(site: ClientSite, url: str, name: str = "played.flv") -> Path:
    return media.play(url, site.folder / name, limit=3, ca=site.ca.root)


@pytest.mark.parametrize(
    ("listen", "settings"), [("", {}), (" proxy_protocol", {"upstream_proxy": "v1"})], ids=["plain", "proxy v1"]
)
def test_ffmpeg_publishes_and_plays_by_rtmps(
    site: ClientSite, film: Path, listen: str, settings: dict[str, object]
) -> None:
    with (
        media_server(site.folder, listen=listen) as nginx,
        site.serve(upstream=nginx.address, **settings) as server,
    ):
        url = f"rtmps://localhost:{server.place[1]}/live/film"
        with publishing(nginx, url, film, ca=site.ca.root):
            assert_part_of(play(site, url), film)
            plain = url.replace("rtmps", "rtmp").replace("localhost", "127.0.0.1")
            assert_part_of(play(site, plain, "plain.flv"), film)
            assert ask(server.place) == POLICY + b"\0"
        eventually(lambda: server.metrics().total("relayed_total", protocol="rtmp") == 3, "the end of all")
        server.counts(2, "tls_handshakes_total")
        assert server.stop() == 0
        assert not server.complaints


def test_ffmpeg_publishes_by_rtmp_and_others_play_by_rtmps(site: ClientSite, film: Path) -> None:
    with media_server(site.folder) as nginx, site.serve(upstream=nginx.address) as server:
        url = f"127.0.0.1:{server.place[1]}/live/film"
        with publishing(nginx, f"rtmp://{url}", film):
            assert_part_of(play(site, f"rtmps://{url.replace('127.0.0.1', 'localhost')}"), film)


@needs("rtmpdump")
def test_rtmpdump_plays_by_rtmps(site: ClientSite, film: Path) -> None:
    """librtmp breaks on session tickets of TLS 1.3, of which there are none by default."""
    with media_server(site.folder) as nginx, site.serve(upstream=nginx.address) as server:
        url = f"rtmps://localhost:{server.place[1]}/live/film"
        with publishing(nginx, url, film, ca=site.ca.root):
            assert_part_of(media.dump(url, site.folder / "dumped.flv", limit=5), film)
