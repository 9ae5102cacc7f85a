"""No descriptors left: a waiting connection gives way. If there is none, accept pauses, open connections go on.

Clients that read their reply slowly are being served, and are never evicted.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testkit.application import application
from testkit.clients import BARE, REQUEST, ask, connect, deliver, rest, until_end
from testkit.polling import eventually
from testkit.processes import Flashpol

CLIENTS = 30  # more than the child has descriptors for


class Child:
    def __init__(self, more_bytes: int = 0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("exhausted.py"), str(more_bytes)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def tell(self, command: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, self.end()
        return json.loads(line)

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.tell("status")
        return found

    def end(self) -> tuple[int, str]:
        """Exit status and what it wrote to standard error."""
        _, log = self._process.communicate(timeout=5)
        return self._process.returncode, log

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def child() -> Iterator[Child]:
    found = Child()
    yield found
    found.kill()


@pytest.fixture
def slow_child() -> Iterator[Child]:
    """Its reply is larger than what the kernel takes at once for a client with a small window."""
    found = Child(90_000)
    yield found
    found.kill()


@pytest.fixture
def clients(slow_child: Child) -> Iterator[list[socket.socket]]:
    """Clients that do not give way; the child has accepted some and has no descriptor for the rest."""
    address = ("127.0.0.1", slow_child.status["port"])
    found = []
    for _ in range(CLIENTS):
        found.append(connect(address, receive_buffer=2048))
        deliver(found[-1], REQUEST)
    eventually(lambda: slow_child.status["accept_errors"] > 0)
    yield found
    for client in found:
        client.close()


def test_accept_without_descriptors_pauses_serves_open_connections_and_resumes(
    slow_child: Child, clients: list[socket.socket]
) -> None:
    exhausted = slow_child.status
    assert 0 < exhausted["open"] < CLIENTS

    # Open connections get the reply, and each descriptor that they free goes to a client in the queue.
    reply, end = until_end(clients[0])
    assert (reply[-1:], end) == (b"\0", "fin")
    eventually(lambda: slow_child.status["accepted"] > exhausted["accepted"])

    # Still exhausted: it tries again, at most 20 times a second.
    before = slow_child.status
    began = time.monotonic()
    while time.monotonic() < began + 0.5:
        time.sleep(0.1)
    after = slow_child.status
    assert before["accept_errors"] < after["accept_errors"] < before["accept_errors"] + 50
    assert after["cpu"] - before["cpu"] < 0.2

    for client in clients[1:]:
        assert until_end(client) == (reply, "fin")
    assert ask(("127.0.0.1", after["port"])) == reply
    eventually(lambda: slow_child.status["open"] == 0)
    last = slow_child.status
    assert last["accepted"] == CLIENTS + 1
    assert last["replies"] == CLIENTS + 1
    assert last["failed"] == []
    code, log = slow_child.end()
    assert code == 0
    assert log.count("pausing accept") == 1
    assert "Traceback" not in log


def test_request_without_descriptors_evicts_the_longest_silent(child: Child) -> None:
    """The oldest first; each is counted as refused for want of capacity."""
    address = ("127.0.0.1", child.status["port"])
    silent = []
    for number in range(CLIENTS):
        silent.append(connect(address))
        eventually(lambda n=number: child.status["accepted"] > n)
    assert ask(address)[-1:] == b"\0"
    last = child.status
    assert last["accepted"] == CLIENTS + 1
    assert last["replies"] == 1
    # The evicted ones are the first ones.
    held = last["open"]
    assert 0 < held < CLIENTS
    assert last["capacity"] == CLIENTS - held
    for number, client in enumerate(silent):
        client.settimeout(0.0 if number >= CLIENTS - held else 5.0)
        try:
            assert client.recv(1) == b""
            assert number < CLIENTS - held
        except BlockingIOError:
            assert number >= CLIENTS - held
        client.close()
    assert child.end() == (0, "")


def test_stop_without_descriptors_leaves_closed_descriptors_alone(
    slow_child: Child, clients: list[socket.socket]
) -> None:
    """The back-off timer of a closed listener does not touch its descriptor, which may belong to another by then."""
    assert slow_child.tell("stop") == [True, True]
    assert slow_child.status["failed"] == []
    assert slow_child.status["open"] == 0
    assert slow_child.end()[0] == 0


def test_stop_without_descriptors_replies_to_the_accept_queue(child: Child) -> None:
    """The accept queue waits for descriptors, which connections free when they end."""
    address = ("127.0.0.1", child.status["port"])
    asking = []
    for _ in range(CLIENTS):
        asking.append(connect(address))
        deliver(asking[-1], BARE)
    eventually(lambda: child.status["accept_errors"] > 0)
    for client in asking:
        client.sendall(b"\0")
    assert child.tell("finish") is True
    for client in asking:
        reply, end = until_end(client)
        assert (reply[-1:], end) == (b"\0", "fin")
        client.close()
    assert child.end()[0] == 0


FILES = 128  # of each process
SILENT = 300  # silent clients: more than that


def serving(folder: Path, listeners: str) -> Flashpol:
    path = folder / "flashpol.toml"
    path.write_text(f'[policies.p]\ngrants = [{{domain = "*", ports = "*"}}]\n{listeners}')
    return Flashpol("-c", path, listen=(), under=("prlimit", f"--nofile={FILES}:{FILES}"))


def listener(name: str, settings: str) -> str:
    return f'[[listeners]]\nname = "{name}"\naddress = "127.0.0.1:0"\n{settings}\n'


def test_request_without_descriptors_evicts_the_silent_of_another_listener(tmp_path: Path) -> None:
    both = listener("one", "request_timeout = 30") + listener("other", "request_timeout = 60")
    with serving(tmp_path, both) as server:
        silent = [connect(server.places[0]) for _ in range(SILENT)]
        eventually(lambda: server.metrics().total("refused_total", reason="capacity"), "descriptors run out")
        for _ in range(10):
            assert rest(connect(server.places[1], REQUEST)).endswith(b"\0")
        assert "pausing accept" not in server.log
        for client in silent:
            client.close()


def test_silent_sessions_leave_descriptors_for_policy_requests(tmp_path: Path) -> None:
    with (
        application() as app,
        serving(tmp_path, listener("shared", f'upstream = "{app.remote}"\nfirst_byte_timeout = 0.05')) as server,
    ):
        silent = [connect(server.place) for _ in range(SILENT)]
        eventually(lambda: server.metrics().total("sessions"), "silent clients become sessions")
        eventually(lambda: not server.metrics().total("parked_connections"), "the others gave way")
        assert 0 < server.metrics().total("sessions") < FILES // 2
        for _ in range(10):
            assert rest(connect(server.place, REQUEST)).endswith(b"\0")
        for client in silent:
            client.close()
