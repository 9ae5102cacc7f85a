"""Media by RTMP, RTMPT, RTMPS and RTMPTS: a film, ffmpeg and rtmpdump that publish and play it, nginx that serves it.

>>> film = make_film(films / "film.flv")
>>> with media_server(folder, films) as server:
...     publish(f"rtmp://{server.address}/live/test", film)
...     assert_identical(server.recorded("test"), film)
...     assert_identical(play(f"rtmp://{server.address}/films/film", folder / "played.flv"), film)

Frames are compared as they are encoded. What is published is compared by nginx's recording of it, and
what is played by a film from nginx's disk; so both are complete. Who plays a live stream sees a part of it.
"""

import hashlib
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from testkit.polling import DEADLINE, eventually
from testkit.processes import descriptors, free_port
from testkit.programs import needs, nginx, running, wait_for

MODULE = "ngx_rtmp_module.so"
needs_media = needs("nginx", "ffmpeg", modules=(MODULE,))
QUIET = ("ffmpeg", "-nostdin", "-loglevel", "error", "-y")
SECONDS = 4.0  # of a film
MISSING = 10  # frames of a stream that ffmpeg drops at the end of a tunnel session; of our film one and six
SEEN = 10_000  # bytes of a live stream after which it runs


class Failed(AssertionError):
    """A client of media: its command, its status and what it printed."""


def make_film(path: Path, seconds: float = SECONDS) -> Path:
    """H.264 and AAC, as a camera sends them; of the same length always the same frames."""
    source = ("-f", "lavfi", "-i", "testsrc=size=320x240:rate=15", "-f", "lavfi", "-i", "sine")
    codecs = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "15", "-pix_fmt", "yuv420p", "-c:a", "aac")
    exact = ("-threads", "1", "-flags", "+bitexact", "-fflags", "+bitexact")
    _run(*QUIET, *source, "-t", str(seconds), *codecs, *exact, path, seconds=4 * DEADLINE)
    return path


class Frame(NamedTuple):
    """An encoded frame."""

    milliseconds: int
    size: int
    digest: str


def frames(path: Path) -> dict[str, list[Frame]]:
    """Of "video" and "audio", in their order.

    What an FLV file has beside frames is left out: metadata, the codecs' headers, which nginx may write twice, and the
    end of a sequence, which ffmpeg writes. A file that is cut within a tag is an error.
    """
    data, position = path.read_bytes(), 13
    assert data[:4] == b"FLV\1", f"{path} is no FLV file: {data[:20]!r}"
    found: dict[str, list[Frame]] = {"video": [], "audio": []}
    while position < len(data):
        kind, size = data[position], int.from_bytes(data[position + 1 : position + 4])
        time_ = int.from_bytes(data[position + 7 : position + 8] + data[position + 4 : position + 7])
        content = data[position + 11 : position + 11 + size]
        position += 11 + size + 4
        assert position <= len(data), f"{path} is cut within a tag"
        name = {8: "audio", 9: "video"}.get(kind)
        if name and len(content) > 1 and content[1] == 1:  # 0: a codec's header; 2: the end of a sequence
            found[name].append(Frame(time_, len(content), hashlib.sha256(content).hexdigest()))
    return found


def _contents(run: list[Frame]) -> list[tuple[int, str]]:
    return [(frame.size, frame.digest) for frame in run]


def assert_identical(got: Path, film: Path, missing: int = 0) -> None:
    """The same frames at the same times. missing: how many may be missing at the end of each stream."""
    sent, received = frames(film), frames(got)
    for stream, run in sent.items():
        count = len(received[stream])
        assert run, f"the film has no {stream}"
        assert len(run) - missing <= count <= len(run), f"{stream}: {count} frames of {len(run)}"
        for number, (one, other) in enumerate(zip(received[stream], run, strict=False)):
            assert one == other, f"{stream}: frame {number}"


def assert_published(recording: Path, film: Path) -> None:
    """By RTMPT: ffmpeg drops what it has queued when it closes the session, the last frames."""
    assert_identical(recording, film, missing=MISSING)


def assert_part_of(played: Path, film: Path, least: int = 20) -> None:
    """Each stream's frames are a run of those of the film, none lost or changed, and at least so many.

    A live stream has times of its own.
    """
    sent, got = frames(film), frames(played)
    for stream in sent:
        run, whole = _contents(got[stream]), _contents(sent[stream])
        assert len(run) >= least, f"{stream}: {len(run)} frames"
        begins = [n for n, frame in enumerate(whole) if frame == run[0]]
        assert any(whole[n : n + len(run)] == run for n in begins), f"{stream}: not a run of the film"


# ---------------------------------------------------------------------------------------------------------- the server


class MediaServer:
    """Application `live` for streams, which are recorded, and `films` for files."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        self.address = address

    def recording(self, name: str) -> Path:
        """Where a live stream is recorded, from when it begins."""
        return self.folder / "recorded" / f"{name}.flv"

    def recorded(self, name: str) -> Path:
        """The recording, once it is complete: nginx has closed it."""
        path = self.recording(name)
        pid = int((self.folder / "nginx.pid").read_text())
        eventually(lambda: path.exists() and str(path) not in descriptors(pid), f"the recording of {name}")
        return path

    def size(self, name: str) -> int:
        path = self.recording(name)
        return path.stat().st_size if path.exists() else 0


@contextmanager
def media_server(
    folder: Path, films: Path | None = None, listen: str = "", more: str = "", port: int = 0
) -> Iterator[MediaServer]:
    """nginx's RTMP module. listen: more words of that directive. more: directives of its server. port: 0: any."""
    port = port or free_port()
    (folder / "recorded").mkdir(exist_ok=True)
    live = f"live on; wait_key on; record all; record_path {folder}/recorded; record_suffix .flv;"
    server = f"listen 127.0.0.1:{port}{listen}; {more} application live {{ {live} }}"
    with nginx(folder, MODULE, f"rtmp {{ server {{ {server} application films {{ play {films or folder}; }} }} }}\n"):
        wait_for(("127.0.0.1", port), "nginx")
        yield MediaServer(folder, f"127.0.0.1:{port}")


# --------------------------------------------------------------------------------------------------------- the clients


def _run(*command: object, seconds: float = DEADLINE, proxy: str = "", statuses: tuple[int, ...] = (0,)) -> str:
    """What it prints; Failed if its status is another, or if it takes longer."""
    environment = os.environ | ({"http_proxy": proxy} if proxy else {})
    try:
        done = subprocess.run(
            [*map(str, command)], capture_output=True, text=True, timeout=seconds, check=False, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{' '.join(map(str, command))}: not within {seconds:g} s: {error.stderr!r}") from None
    if done.returncode not in statuses:
        raise Failed(f"{' '.join(map(str, command))}: status {done.returncode}: {done.stderr}")
    return done.stdout


def _trust(url: str, ca: Path | None) -> tuple[object, ...]:
    """ffmpeg takes these options for rtmps only; by rtmpts it trusts every certificate."""
    return ("-tls_verify", "1", "-ca_file", ca) if ca and url.startswith("rtmps:") else ()


def _publisher(url: str, film: Path, live: bool, ca: Path | None) -> tuple[object, ...]:
    return (*QUIET, *(("-re",) if live else ()), "-i", film, "-c", "copy", "-f", "flv", *_trust(url, ca), url)


def publish(
    url: str, film: Path, *, live: bool = False, ca: Path | None = None, proxy: str = "", seconds: float = DEADLINE
) -> float:
    """ffmpeg publishes all of it. live: at the film's own speed. proxy: URL of a forward proxy. Returns the time."""
    begin = time.monotonic()
    _run(*_publisher(url, film, live, ca), seconds=seconds, proxy=proxy)
    return time.monotonic() - begin


@contextmanager
def publishing(
    server: MediaServer, url: str, film: Path, *, ca: Path | None = None, environment: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """ffmpeg publishes at the film's own speed, from when the server has some of it until the block ends."""
    log, name = server.folder / "publish.log", url.rpartition("/")[2]
    env = ("env", *[f"{key}={value}" for key, value in (environment or {}).items()])
    with running(*env, *_publisher(url, film, True, ca), log=log) as process:
        eventually(lambda: process.poll() is not None or server.size(name) > SEEN, "the stream")
        if process.poll() is not None:
            raise Failed(f"ffmpeg: status {process.returncode}: {log.read_text()}")
        yield process


def play(
    url: str,
    path: Path,
    *,
    limit: float = 0,
    ca: Path | None = None,
    proxy: str = "",
    seconds: float = DEADLINE,
) -> Path:
    """ffmpeg writes what it plays to `path`. limit: seconds of the film; 0 is all of it."""
    until = ("-t", str(limit)) if limit else ()
    command = ("-rw_timeout", "10000000", *_trust(url, ca), "-i", url, "-map", "0", *until, "-c", "copy")
    _run(*QUIET, *command, "-f", "flv", path, seconds=seconds, proxy=proxy)
    return path


def dump(url: str, path: Path, *, limit: float = 0, proxy: str = "", seconds: float = DEADLINE) -> Path:
    """rtmpdump writes what it plays to `path`. limit: seconds after which it is interrupted, for a live stream."""
    command: tuple[object, ...] = ("rtmpdump", "-q", "-r", url, "-o", path)
    if not limit:
        # 2: what it has seems to be incomplete, since the last frame begins before the film ends.
        _run(*command, seconds=seconds, proxy=proxy, statuses=(0, 2))
        return path
    # Its status is one of an interrupted program then; the film says whether it did its work.
    subprocess.run(
        ["timeout", "-k", "2", "-s", "INT", str(limit), *map(str, (*command, "-v"))],
        capture_output=True, timeout=limit + DEADLINE, check=False,
    )  # fmt: skip
    assert path.exists(), f"rtmpdump wrote nothing of {url}"
    return path
