"""The good clients tell every reply that is not the exact one from those that are; the bad ones do as they are told."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from faults.clients import Bad, Good, quantile
from testkit.clients import REQUEST, reset
from testkit.polling import eventually

EXPECTED = b"<cross-domain-policy/>\0"


@contextmanager
def serving(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server of a thread, that does this with each connection; its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:

        def run() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    serve(client)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        assert not thread.is_alive()


def answer(reply: bytes) -> Callable[[socket.socket], None]:
    def serve(client: socket.socket) -> None:
        assert client.recv(100) == REQUEST
        client.sendall(reply)

    return serve


def abort(client: socket.socket) -> None:
    client.recv(100)
    reset(client)


@pytest.mark.parametrize(
    ("serve", "outcome"),
    [
        (answer(EXPECTED), "ok"),
        (answer(EXPECTED[:-1]), "short"),
        (answer(b""), "short"),
        (answer(EXPECTED[:-1] + b"x"), "differs"),
        (answer(EXPECTED + b"x"), "differs"),
        (abort, "reset"),
    ],
)
def test_what_became_of_each(serve: Callable[[socket.socket], None], outcome: str, tmp_path: Path) -> None:
    (tmp_path / "expected").write_bytes(EXPECTED)
    with serving(serve) as port:
        good = Good(port, tmp_path / "expected", 200.0, tmp_path / "said")
        with good:
            eventually(lambda: (tmp_path / "said").stat().st_size > 0 or time.sleep(0.05), "the first words")
        asked = good.asked()
    assert {each.outcome for each in asked} == {outcome}
    assert all(each.took >= 0 for each in asked)
    assert asked == sorted(asked, key=lambda each: each.began)


def test_nobody_there(tmp_path: Path) -> None:
    (tmp_path / "expected").write_bytes(EXPECTED)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    good = Good(port, tmp_path / "expected", 200.0, tmp_path / "said")
    with good:
        eventually(lambda: (tmp_path / "said").stat().st_size > 0 or time.sleep(0.05), "the first words")
    assert {each.outcome for each in good.asked()} == {"refused"}


@pytest.mark.parametrize(
    ("say", "then", "wanted"),
    [
        ("nothing", "close", b""),
        ("half", "close", REQUEST[:11]),
        ("whole", "close", REQUEST),
        ("nothing", "drip", REQUEST[:3]),
    ],
)
def test_the_bad_ones_do_as_they_are_told(say: str, then: str, wanted: bytes) -> None:
    heard: list[bytes] = []

    def serve(client: socket.socket) -> None:
        data = b""
        while len(data) < len(wanted) or then == "close":
            piece = client.recv(100)
            if not piece:
                break
            data += piece
        heard.append(data)

    with serving(serve) as port, Bad(port, connections=2, rate=50, say=say, then=then, every=0.01):
        eventually(lambda: len(heard) >= 3, "three of them")
    assert all(data[: len(wanted)] == wanted for data in heard[:3])  # the last ones were cut off


def test_quantiles() -> None:
    assert quantile([], 0.99) == 0.0
    assert quantile(range(1, 101), 0.5) == 51
    assert quantile([3.0, 1.0, 2.0], 0.99) == 3.0
