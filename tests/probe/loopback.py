"""Servers in threads, closed ports and dropping ports on loopback, for the tests of the probe."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self

from flashpol.probe import Observation, Question, Timeouts, experiments
from flashpol.probe.rtmp import prober as rtmp_prober
from flashpol.probe.rtmp import url as rtmp_url
from flashpol.probe.throttle import Throttle
from flashpol.probe.websocket import prober, url

# For servers that are silent on purpose; the other tests use the default time-outs.
SHORT = Timeouts(connect=0.6, reply=1.0, closing=0.3)

Handler = Callable[[socket.socket], None]


class Server:
    """A listening socket and a thread for each connection, or one thread for all of them."""

    def __init__(self, handler: Handler, host: str = "127.0.0.1", port: int = 0, serial: bool = False) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listening = socket.create_server((host, port), family=family)
        self.port: int = self._listening.getsockname()[1]
        self.connections = 0
        self._handler = handler
        self._serial = serial
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._ending = False

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Close the port; open connections continue."""
        self._ending = True
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._thread.join(5)
        self._listening.close()

    def __exit__(self, *_: object) -> None:
        self.close()
        for connection in list(self._open):  # wakes handlers that read
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while not self._ending:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(connection)
            if self._serial:
                self._serve(connection)
            else:
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError), connection:
            self._handler(connection)
        self._open.discard(connection)


@contextlib.contextmanager
def closed_port(host: str = "127.0.0.1") -> Iterator[int]:
    """A port that refuses: a socket is bound to it and does not listen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as taken:
        taken.bind((host, 0))
        yield taken.getsockname()[1]


@contextlib.contextmanager
def dropping_port() -> Iterator[int]:
    """A port that drops SYNs: its accept queue is full."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


def look(port: int, /, silverlight_port: int | None = None, host: str = "127.0.0.1", **asked: Any) -> Observation:
    """Probe a server on loopback, without a limit on the rate.

    PB110 is ignored by default, since the machine that runs the tests may be busy.
    """
    asked.setdefault("ignored", frozenset(("PB110",)))
    with closed_port() as closed:
        asked.setdefault("http_port", closed)
        question = Question(policy_port=port, silverlight_port=silverlight_port or closed, **asked)
        return experiments.observe(host, question, Throttle(max_rate=1000))


def look_through(text: str, *origins: str, host: str | None = None, **asked: Any) -> Observation:
    """Probe a WebSocket on loopback. PB644 is ignored by default, as PB110 is above."""
    place = url.parse(text)
    asked.setdefault("ignored", frozenset(("PB644",)))
    question = prober.question(place, origins, **asked)
    return experiments.observe(host or place.host, question, Throttle(max_rate=1000))


def look_at_media(text: str, application: str = "", proxy: str | None = None, **asked: Any) -> Observation:
    """Probe a media server on loopback. PB736 is ignored by default, as PB110 is above."""
    place = rtmp_url.parse(text, application)
    if proxy is not None:
        place = place._replace(proxy=rtmp_url.parse_proxy(proxy))
    asked.setdefault("ignored", frozenset(("PB736",)))
    asked.setdefault("timeouts", SHORT)
    return experiments.observe(place.host, rtmp_prober.question(place, **asked), Throttle(max_rate=1000))
