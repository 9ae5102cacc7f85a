"""The load generator against the C server and against broken ones: it must count exactly and see every fault."""

import contextlib
import json
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from bench import BenchError, build, load, servers
from testkit.clients import REQUEST

REPLY = b"<cross-domain-policy/>\0"
SECONDS = "5"  # limit of every run here; all are much shorter


def generate(mode: str, port: int, expected: Path, *options: str) -> dict[str, Any]:
    command = [str(build.load_generator()), mode, "--port", str(port), "--expect", str(expected), *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
    result: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (1 if result["failed"] else 0)
    return result


def closed(port: int, expected: Path, requests: int, *options: str) -> dict[str, Any]:
    bounds = ["--count", str(requests), "--connections", "16", "--seconds", SECONDS]
    return generate("closed", port, expected, *bounds, *options)


@contextmanager
def broken_server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server in a thread that calls `serve` with each connection, one after the other. Yields its port."""
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
def test_closed_loop_counts_every_reply(one_segment: bool, connections: int) -> None:
    with servers.epoll(one_segment=one_segment) as server:
        result = load.closed(server, connections=connections, count=500, cpu=None)
    assert result.replies == 500
    assert 0 < result.p50 <= result.p99


def test_closed_loop_with_a_count_sends_exactly_that_many_requests(expected: Path) -> None:
    served = []

    def serve(connection: socket.socket) -> None:
        served.append(connection.recv(len(REQUEST), socket.MSG_WAITALL))
        connection.sendall(REPLY)

    with broken_server(serve) as port:
        result = closed(port, expected, 300)
    assert (result["started"], result["ok"], result["failed"]) == (300, 300, 0)
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
def test_closed_loop_counts_every_fault_by_its_kind(
    serve: Callable[[socket.socket], None], kind: str, expected: Path
) -> None:
    with broken_server(serve) as port:
        result = closed(port, expected, 50)
    assert result[kind] == 50
    assert result["ok"] == 0


def test_closed_loop_without_a_listener_counts_refusals(expected: Path) -> None:
    assert closed(servers.free_port(), expected, 20)["refused"] == 20


def test_closed_loop_without_replies_counts_timeouts(expected: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        result = closed(listening.getsockname()[1], expected, 16, "--timeout", "0.2")
    assert result["timeout"] == 16


def test_closed_loop_with_a_reply_above_the_receive_buffer_reads_it_whole(tmp_path: Path) -> None:
    large = bytes(range(256)) * 2000
    (tmp_path / "large").write_bytes(large)
    with broken_server(with_request(large)) as port:
        result = closed(port, tmp_path / "large", 20)
    assert result["ok"] == 20


def test_load_closed_with_a_wrong_reply_raises() -> None:
    with servers.epoll() as server:
        server.expected.write_bytes(REPLY)
        with pytest.raises(BenchError, match="mismatch"):
            load.closed(server, connections=4, count=20, cpu=None)


def test_silent_clients_released_are_reported_open() -> None:
    with servers.epoll() as server, load.SilentClients(server, 300, seconds=5, cpu=None) as clients:
        ends = clients.release()
    assert (ends["established"], ends["open"], ends["closed"]) == (300, 300, 0)
    assert ends["held_seconds"] is None


def test_silent_clients_ended_by_the_server_are_counted_by_kind() -> None:
    numbers = count()

    def close_or_reset_or_send(connection: socket.socket) -> None:
        match next(numbers) % 3:
            case 0:
                reset(connection)
            case 1:
                connection.sendall(b"bye")

    with broken_server(close_or_reset_or_send) as port:
        command = [str(build.load_generator()), "silent", "--port", str(port), "--connections", "30"]
        with subprocess.Popen(
            [*command, "--seconds", SECONDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            lines = [json.loads(line) for line in process.stdout]  # until it ends by itself, when all are closed
    assert [line["event"] for line in lines] == ["established", "end"]
    end = lines[1]
    assert (end["established"], end["open"], end["failed"]) == (30, 0, 0)
    assert (end["closed"], end["reset"], end["sent_to"]) == (10, 10, 10)
    held = end["held_seconds"]
    assert 0 < held["min"] <= held["median"] <= held["max"]


def test_silent_clients_refused_raise() -> None:
    absent = servers.Server("absent", servers.free_port(), os.getpid(), Path(), 0.0)
    with (
        pytest.raises(BenchError, match="absent: 20 silent clients"),
        load.SilentClients(absent, 20, seconds=5, cpu=None),
    ):
        pass


def test_closed_loop_with_three_processes_adds_up_to_the_count(expected: Path) -> None:
    with broken_server(with_request(REPLY)) as port:
        result = closed(port, expected, 100, "--processes", "3", "--connections", "7")
    assert (result["processes"], result["started"], result["ok"]) == (3, 100, 100)
    assert result["reply_bytes"] == 100 * len(REPLY)


def test_closed_loop_with_two_ports_uses_them_in_turn(expected: Path) -> None:
    served: list[int] = []

    def serve(number: int) -> Callable[[socket.socket], None]:
        def with_number(connection: socket.socket) -> None:
            served.append(number)
            with_request(REPLY)(connection)

        return with_number

    with broken_server(serve(1)) as first, broken_server(serve(2)) as second:
        closed(first, expected, 40, "--port", str(second))
    assert (served.count(1), served.count(2)) == (20, 20)


def test_open_loop_starts_as_many_clients_as_its_rate(expected: Path) -> None:
    with servers.epoll() as server:
        options = ("--rate", "500", "--seconds", "0.5", "--connections", "50", "--processes", "2")
        result = generate("open", server.port, server.expected, *options)
    assert (result["started"], result["ok"], result["failed"]) == (250, 250, 0)


def test_open_loop_during_a_pause_of_the_server_counts_it_in_all_latencies(expected: Path) -> None:
    """Coordinated omission: a loop that waits for the first client would measure short times for the others."""
    first = threading.Event()

    def pause_once(connection: socket.socket) -> None:
        if not first.is_set():
            first.set()
            time.sleep(0.5)
        with_request(REPLY)(connection)

    with broken_server(pause_once) as port:
        options = ("--rate", "100", "--seconds", "0.4", "--connections", "1")
        result = generate("open", port, expected, *options)
    assert (result["started"], result["ok"]) == (40, 40)
    # Each client was to start within 0.4 s, and could not before 0.5 s.
    assert result["latency_us"]["p50"] > 100_000
    assert result["lag_us"]["p50"] > 100_000


def test_open_loop_warm_up_is_counted_but_not_in_the_percentiles(expected: Path) -> None:
    first = threading.Event()

    def slow_at_first(connection: socket.socket) -> None:
        if not first.is_set():
            first.set()
            time.sleep(0.3)
        with_request(REPLY)(connection)

    with broken_server(slow_at_first) as port:
        options = ("--rate", "100", "--seconds", "1", "--connections", "1", "--warm-up", "0.5")
        result = generate("open", port, expected, *options)
    assert (result["started"], result["ok"]) == (100, 100)
    assert result["latency_us"]["max"] < 300_000


def test_open_loop_clients_that_could_not_start_count_as_timeouts(expected: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        options = ("--rate", "100", "--seconds", "0.2", "--connections", "2", "--timeout", "0.2")
        result = generate("open", listening.getsockname()[1], expected, *options)
    assert (result["started"], result["timeout"]) == (20, 20)


def test_split_request_arrives_in_pieces(expected: Path) -> None:
    pieces: list[int] = []

    def serve(connection: socket.socket) -> None:
        while sum(pieces) < len(REQUEST):
            pieces.append(len(connection.recv(100)))
        connection.sendall(REPLY)

    with broken_server(serve) as port:
        result = closed(port, expected, 1, "--split", "12", "--pace", "0.5")
    assert result["ok"] == 1
    assert pieces == [12, 11]


def test_exchanges_on_one_connection_are_all_compared(tmp_path: Path) -> None:
    message = bytes(range(256)) * 300
    (tmp_path / "message").write_bytes(message)

    def echo(connection: socket.socket) -> None:
        while piece := connection.recv(65536):
            connection.sendall(piece)

    with broken_server(echo) as port:
        options = ("--send", str(tmp_path / "message"), "--exchanges", "5")
        result = closed(port, tmp_path / "message", 20, *options)
    assert (result["ok"], result["failed"]) == (20, 0)
    assert result["reply_bytes"] == 20 * 5 * len(message)


def test_exchange_cut_short_is_no_reply(expected: Path) -> None:
    with broken_server(with_request(REPLY)) as port:
        result = closed(port, expected, 10, "--exchanges", "2")
    # The second request may find the connection closed, or close it with RST.
    assert (result["ok"], result["short"] + result["reset"]) == (0, 10)


def test_open_loop_with_a_trace_writes_a_line_for_each_connection(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with servers.epoll() as server:
        options = ("--rate", "500", "--seconds", "0.2", "--connections", "20", "--fresh", "1", "--trace", str(trace))
        before = time.monotonic_ns()
        generate("open", server.port, server.expected, *options)
    lines = [line.split() for line in trace.read_text().splitlines()]
    assert [outcome for _, _, outcome in lines] == ["ok"] * 100
    assert all(before < int(started) and int(took) > 0 for started, took, _ in lines)


def test_fresh_clients_use_source_addresses_in_turn_and_close_in_order(expected: Path) -> None:
    addresses: list[str] = []
    ends: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        addresses.append(connection.getpeername()[0])
        with_request(REPLY)(connection)
        connection.shutdown(socket.SHUT_WR)
        ends.append(connection.recv(1))  # FIN: an RST would raise

    with broken_server(serve) as port:
        options = ("--fresh", "1", "--source", "127.2.0.1", "--addresses", "3", "--connections", "1")
        result = closed(port, expected, 4, *options)
    assert result["ok"] == 4
    assert addresses == ["127.2.0.1", "127.2.0.2", "127.2.0.3", "127.2.0.1"]
    assert ends == [b""] * 4


def test_silent_clients_with_ask_send_the_request() -> None:
    requests: list[bytes] = []
    enough = threading.Event()

    def serve(connection: socket.socket) -> None:
        requests.append(connection.recv(len(REQUEST), socket.MSG_WAITALL))
        if len(requests) == 5:
            enough.set()

    with broken_server(serve) as port:
        server = servers.Server("listener", port, os.getpid(), Path(), 0.0)
        clients = load.SilentClients(server, 5, seconds=5, cpu=None, options=["--ask", "1"], rate=0)
        with contextlib.suppress(BenchError), clients:  # it closes them: some before all are established
            assert enough.wait(5)
        assert enough.wait(5)
    assert requests == [REQUEST] * 5
