"""The load generator against the C server and against broken ones: it must count exactly and see every fault."""

import contextlib
import json
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from bench import BenchError, build, load, servers
from bench.measure import REQUEST

REPLY = b"<cross-domain-policy/>\0"
SECONDS = "5"  # bound of every run here; none comes near


def closed(port: int, expected: Path, requests: int, *options: str) -> dict[str, Any]:
    command = [str(build.load_generator()), "closed", "--port", str(port), "--expect", str(expected)]
    command += ["--count", str(requests), "--connections", "16", "--seconds", SECONDS, *options]
    said = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
    result: dict[str, Any] = json.loads(said.stdout)
    assert said.returncode == (1 if result["failed"] else 0)
    return result


@contextmanager
def broken_server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server in a thread that does `serve` with each connection, one after the other. Yields its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:

        def loop() -> None:
            with contextlib.suppress(OSError):  # the listening socket was shut down: the end
                while True:
                    connection, _ = listening.accept()
                    with connection, contextlib.suppress(ConnectionError):
                        serve(connection)

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def with_request(reply: bytes) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        connection.recv(len(REQUEST), socket.MSG_WAITALL)
        connection.sendall(reply)

    return serve


def after_request_reset(connection: socket.socket) -> None:
    connection.recv(len(REQUEST), socket.MSG_WAITALL)
    reset(connection)


def reply_then_reset(connection: socket.socket) -> None:
    with_request(REPLY)(connection)
    reset(connection)


@pytest.fixture
def expected(tmp_path: Path) -> Path:
    path = tmp_path / "expected"
    path.write_bytes(REPLY)
    return path


@pytest.mark.parametrize("one_segment", [False, True])
@pytest.mark.parametrize("connections", [1, 64])
def test_every_answer_is_counted(one_segment: bool, connections: int) -> None:
    with servers.epoll(one_segment=one_segment) as server:
        result = load.closed(server, connections=connections, count=500, cpu=None)
    assert result.answered == 500
    assert 0 < result.p50 <= result.p99


def test_the_count_is_exact_to_the_server(expected: Path) -> None:
    served = []

    def serve(connection: socket.socket) -> None:
        served.append(connection.recv(len(REQUEST), socket.MSG_WAITALL))
        connection.sendall(REPLY)

    with broken_server(serve) as port:
        result = closed(port, expected, 300)
    assert (result["started"], result["answered"], result["failed"]) == (300, 300, 0)
    assert served == [REQUEST] * 300


@pytest.mark.parametrize(
    ("serve", "kind"),
    [
        (with_request(REPLY.replace(b"cross", b"crass")), "mismatch"),
        (with_request(REPLY + b"x"), "mismatch"),
        (with_request(REPLY * 1000), "mismatch"),
        (with_request(REPLY[:-1]), "short"),
        (with_request(b""), "short"),
        (after_request_reset, "reset"),
        (reply_then_reset, "reset"),
    ],
    ids=["wrong", "longer", "far-longer", "no-nul", "nothing", "reset", "reset-after-reply"],
)
def test_a_fault_is_seen_every_time_and_by_its_name(
    serve: Callable[[socket.socket], None], kind: str, expected: Path
) -> None:
    with broken_server(serve) as port:
        result = closed(port, expected, 50)
    assert result[kind] == 50
    assert result["answered"] == 0


def test_nobody_listens(expected: Path) -> None:
    assert closed(servers.free_port(), expected, 20)["connect"] == 20


def test_a_server_that_never_answers_is_given_up(expected: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        result = closed(listening.getsockname()[1], expected, 16, "--timeout", "0.2")
    assert result["timeout"] == 16


def test_a_reply_larger_than_the_receive_buffer_is_read_as_it_comes(tmp_path: Path) -> None:
    large = bytes(range(256)) * 2000
    (tmp_path / "large").write_bytes(large)
    with broken_server(with_request(large)) as port:
        result = closed(port, tmp_path / "large", 20)
    assert result["answered"] == 20


def test_a_fault_stops_the_suite() -> None:
    with servers.epoll() as server:
        server.expected.write_bytes(REPLY)
        with pytest.raises(BenchError, match="mismatch"):
            load.closed(server, connections=4, count=20, cpu=None)


def test_silent_clients_are_held_and_let_go() -> None:
    with servers.epoll() as server, load.SilentClients(server, 300, seconds=5, cpu=None) as clients:
        said = clients.release()
    assert (said["established"], said["open"], said["closed"]) == (300, 300, 0)
    assert said["held_seconds"] is None


def test_silent_clients_report_who_was_closed_and_how() -> None:
    numbers = count()

    def close_or_reset_or_speak(connection: socket.socket) -> None:
        match next(numbers) % 3:
            case 0:
                reset(connection)
            case 1:
                connection.sendall(b"bye")

    with broken_server(close_or_reset_or_speak) as port:
        command = [str(build.load_generator()), "silent", "--port", str(port), "--connections", "30"]
        with subprocess.Popen(
            [*command, "--seconds", SECONDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            lines = [json.loads(line) for line in process.stdout]  # until it ends by itself: all are closed
    assert [line["event"] for line in lines] == ["established", "end"]
    end = lines[1]
    assert (end["established"], end["open"], end["failed"]) == (30, 0, 0)
    assert (end["closed"], end["reset"], end["spoke"]) == (10, 10, 10)
    held = end["held_seconds"]
    assert 0 < held["min"] <= held["median"] <= held["max"]


def test_silent_clients_that_are_refused_are_not_called_held() -> None:
    nobody = servers.Server("nobody", servers.free_port(), os.getpid(), Path(), 0.0)
    with (
        pytest.raises(BenchError, match="nobody: 20 silent clients"),
        load.SilentClients(nobody, 20, seconds=5, cpu=None),
    ):
        pass
