"""Media by RTMPT for the soak: films that ffmpeg plays and publishes, and sessions that echo, compared byte for byte.

Sessions of a client like Flash in a browser have a connection for each request, or two in turn, so that their requests
reach both workers. Each listener here has counters that are exact: `expected`.
"""

import hashlib
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from faults.server import Listener, Server
from faults.shared import application
from testkit.media import (
    MediaServer,
    assert_identical,
    assert_published,
    make_film,
    media_server,
    needs_media,
    play,
    publish,
)
from testkit.rtmpt_client import RtmptClient

FILM_SECONDS = 4.0
TALKERS = 3
LARGEST = 20_000  # bytes that a talker sends at once
SEED = 1935
END_SECONDS = 60.0  # for what is under way when the time is over


def is_available() -> bool:
    """Whether nginx with its RTMP module, and ffmpeg, are installed."""
    return not needs_media.args[0]


class Media:
    """Threads that play, publish and talk until they are stopped.

    errors: in words. expected: counts by listener and outcome. films, published, talked: how many.
    """

    def __init__(self, nginx: MediaServer | None, film: Path | None, folder: Path) -> None:
        self._nginx, self._film, self._folder = nginx, film, folder
        self._over = threading.Event()
        self._changed = threading.Lock()
        self.errors: list[str] = []
        self.expected = Counter[str]()  # of the listener `tunnel`
        self.done = Counter[str]()

    def run(self, server: Server, seconds: float) -> None:
        """Start the threads, which stop by themselves."""
        self._until = time.monotonic() + seconds
        works: list[Callable[[], None]] = [
            partial(self._talk, server.ports["tunnel"], random.Random(SEED + number)) for number in range(TALKERS)
        ]
        if self._nginx:
            works += [lambda: self._play(server.ports["media"]), lambda: self._publish(server.ports["media"])]
        self._threads = [threading.Thread(target=self._repeat, args=(work,), daemon=True) for work in works]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(max(0.0, self._until - time.monotonic()) + END_SECONDS)
            if thread.is_alive():
                self.errors.append("media: a client hangs")

    def _repeat(self, work: Callable[[], None]) -> None:
        while time.monotonic() < self._until:
            try:
                work()
            except Exception as error:
                self.errors.append(f"media: {type(error).__name__}: {str(error)[:300]}")

    def _count(self, what: str, **outcomes: int) -> None:
        with self._changed:
            self.done[what] += 1
            self.expected.update(outcomes)

    def _play(self, port: int) -> None:
        assert self._film
        played = play(f"rtmpt://127.0.0.1:{port}/films/film", self._folder / "played.flv", seconds=END_SECONDS)
        assert_identical(played, self._film)
        self._count("films played")

    def _publish(self, port: int) -> None:
        assert self._nginx
        assert self._film
        name = f"soak{self.done['films published']}"
        publish(f"rtmpt://127.0.0.1:{port}/live/{name}", self._film, live=True, seconds=END_SECONDS)
        recording = self._nginx.recorded(name)
        assert_published(recording, self._film)
        recording.unlink()
        self._count("films published")

    def _talk(self, port: int, generator: random.Random) -> None:
        """A session whose application echoes: what comes back is what was sent."""
        sent, received = hashlib.sha256(), hashlib.sha256()
        client = RtmptClient(("127.0.0.1", port), per_request=generator.random() < 0.5, reopen=True)
        try:
            assert client.open().status == 200
            for number in range(generator.randint(1, 20)):
                lane = 0 if client.per_request else number % 2
                data = generator.randbytes(generator.randint(1, LARGEST))
                sent.update(data)
                reply = client.send(data, via=lane)
                assert reply.status == 200, reply.status
                received.update(client.receive_exactly(len(data), reply.body, via=lane))
                time.sleep(generator.uniform(0, 0.1))
            assert client.close().status == 200
        finally:
            client.disconnect()
            self._count("sessions that echoed", relayed=1, served=client.connected)
        assert sent.digest() == received.digest(), "other bytes came back than were sent"


@contextmanager
def media(options: dict[str, object]) -> Iterator[tuple[Media, list[Listener]]]:
    """What plays, and the listeners that it needs. options: of these."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flashpol-media-")))
        echo = stack.enter_context(application())
        listeners = [Listener("tunnel", options={**options, "upstream": f'"{echo}"', "rtmpt": "true"})]
        nginx = film = None
        if is_available():
            folder.chmod(0o755)
            film = make_film(folder / "film.flv", FILM_SECONDS)
            nginx = stack.enter_context(media_server(folder, folder))
            listeners.append(Listener("media", options={**options, "upstream": f'"{nginx.address}"', "rtmpt": "true"}))
        yield Media(nginx, film, folder), listeners
