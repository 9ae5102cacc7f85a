"""Good clients see every reply that is not the exact one; bad clients send what the attack says."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from faults.clients import BadClients, GoodClients, quantile
from testkit.clients import REQUEST, reset
from testkit.polling import eventually

EXPECTED = b"<cross-domain-policy/>\0"
RUN_SECONDS = 0.1  # 20 clients, if the machine is idle


@contextmanager
def serving(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server in a thread that calls `serve` with each connection. Yields its port."""
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


def replying(reply: bytes) -> Callable[[socket.socket], None]:
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
        (replying(EXPECTED), "ok"),
        (replying(EXPECTED[:-1]), "short"),
        (replying(b""), "short"),
        (replying(EXPECTED[:-1] + b"x"), "mismatch"),
        (replying(EXPECTED + b"x"), "mismatch"),
        (abort, "reset"),
    ],
)
def test_good_clients_by_reply_record_the_outcome(
    serve: Callable[[socket.socket], None], outcome: str, tmp_path: Path
) -> None:
    (tmp_path / "expected").write_bytes(EXPECTED)
    with serving(serve) as port:
        good = GoodClients(port, tmp_path / "expected", 200.0, tmp_path / "trace")
        with good:
            time.sleep(RUN_SECONDS)
        results = good.results()
    assert len(results) >= 5
    assert {each.outcome for each in results} == {outcome}
    assert all(each.seconds >= 0 for each in results)
    assert results == sorted(results, key=lambda each: each.started)


def test_good_clients_without_a_listener_are_refused(tmp_path: Path) -> None:
    (tmp_path / "expected").write_bytes(EXPECTED)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    good = GoodClients(port, tmp_path / "expected", 200.0, tmp_path / "trace")
    with good:
        time.sleep(RUN_SECONDS)
    assert {each.outcome for each in good.results()} == {"refused"}


@pytest.mark.parametrize(
    ("say", "then", "wanted"),
    [
        ("nothing", "close", b""),
        ("half", "close", REQUEST[:11]),
        ("whole", "close", REQUEST),
        ("nothing", "drip", REQUEST[:3]),
    ],
)
def test_bad_clients_by_mode_send_what_it_says(say: str, then: str, wanted: bytes) -> None:
    received: list[bytes] = []

    def serve(client: socket.socket) -> None:
        data = b""
        while len(data) < len(wanted) or then == "close":
            piece = client.recv(100)
            if not piece:
                break
            data += piece
        received.append(data)

    with serving(serve) as port, BadClients(port, connections=2, rate=50, say=say, then=then, every=0.01):
        eventually(lambda: len(received) >= 3, "three connections")
    assert all(data[: len(wanted)] == wanted for data in received[:3])  # the last ones were cut off


def test_quantile_is_the_smallest_value_with_its_share() -> None:
    assert quantile([], 0.99) == 0.0
    assert quantile(range(1, 101), 0.5) == 51
    assert quantile([3.0, 1.0, 2.0], 0.99) == 3.0
