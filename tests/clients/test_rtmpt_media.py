"""Films by RTMPT and RTMPTS, from and to ffmpeg and rtmpdump; nginx's RTMP module has them. `serve` is the server."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from testkit import media
from testkit.client_site import ClientSite
from testkit.media import assert_identical, assert_part_of, media_server, needs_media, publishing
from testkit.programs import needs
from testkit.rtmpt_client import Address

pytestmark = [pytest.mark.slow, needs_media]
SCHEMES = ["rtmpt", "rtmpts"]
# In front of an upstream, with TLS and without.
Serve = Callable[[str], AbstractContextManager[Address]]


@pytest.fixture
def serve(site: ClientSite) -> Serve:
    @contextmanager
    def start(upstream: str) -> Iterator[Address]:
        with site.serve(upstream=upstream, rtmpt=True) as server:
            yield server.place

    return start


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """film.flv of a few seconds, and long.flv for live streams, which end with the test."""
    folder = tmp_path_factory.mktemp("films")
    media.make_film(folder / "film.flv")
    media.make_film(folder / "long.flv", 30)
    return folder


@pytest.mark.parametrize("live", [True, False], ids=["live", "at once"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_ffmpeg_publishes(site: ClientSite, serve: Serve, films: Path, scheme: str, live: bool) -> None:
    with media_server(site.folder) as nginx, serve(nginx.address) as place:
        url = f"{scheme}://localhost:{place[1]}/live/film"
        media.publish(url, films / "film.flv", live=live)
        media.assert_published(nginx.recorded("film"), films / "film.flv")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_ffmpeg_plays_a_film(site: ClientSite, serve: Serve, films: Path, scheme: str) -> None:
    with media_server(site.folder, films) as nginx, serve(nginx.address) as place:
        url = f"{scheme}://localhost:{place[1]}/films/film"
        assert_identical(media.play(url, site.folder / "played.flv"), films / "film.flv")


@needs("rtmpdump")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_rtmpdump_plays_a_film(site: ClientSite, serve: Serve, films: Path, scheme: str) -> None:
    with media_server(site.folder, films) as nginx, serve(nginx.address) as place:
        url = f"{scheme}://localhost:{place[1]}/films/film"
        assert_identical(media.dump(url, site.folder / "played.flv"), films / "film.flv")


@needs("rtmpdump")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_live_stream_is_played_as_it_is_published(site: ClientSite, serve: Serve, films: Path, scheme: str) -> None:
    film = films / "long.flv"
    with media_server(site.folder) as nginx, serve(nginx.address) as place:
        url = f"{scheme}://localhost:{place[1]}/live/film"
        with publishing(nginx, url, film):
            assert_part_of(media.play(url, site.folder / "played.flv", limit=3), film)
            assert_part_of(media.dump(url, site.folder / "dumped.flv", limit=4), film)
