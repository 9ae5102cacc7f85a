"""No descriptors left: accepting pauses, those inside are served, it resumes; one log line, and no busy loop."""

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
from support import REQUEST, ask, connect, eventually, until_end

CLIENTS = 30  # more than the child has descriptors for


class Child:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("exhausted.py")],
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
def clients(child: Child) -> Iterator[list[socket.socket]]:
    """Silent clients; the child has accepted some and has no descriptor for the rest."""
    address = ("127.0.0.1", child.status["port"])
    found = [connect(address) for _ in range(CLIENTS)]
    eventually(lambda: child.status["accept_errors"] > 0)
    yield found
    for client in found:
        client.close()


def test_backs_off_serves_those_inside_and_resumes(child: Child, clients: list[socket.socket]) -> None:
    exhausted = child.status
    assert 0 < exhausted["open"] < CLIENTS

    # Inside: answered, and each descriptor that becomes free is given to one that waits.
    clients[0].sendall(REQUEST)
    reply, end = until_end(clients[0])
    assert (reply[-1:], end) == (b"\0", "fin")
    eventually(lambda: child.status["accepted"] > exhausted["accepted"])

    # Still exhausted: it tries again now and then.
    before = child.status
    began = time.monotonic()
    while time.monotonic() < began + 0.5:
        time.sleep(0.1)
    after = child.status
    assert before["accept_errors"] < after["accept_errors"] < before["accept_errors"] + 50
    assert after["cpu"] - before["cpu"] < 0.2

    for client in clients:
        client.close()
    assert ask(("127.0.0.1", after["port"])) == reply
    eventually(lambda: child.status["open"] == 0)
    last = child.status
    assert last["accepted"] == CLIENTS + 1
    assert last["replies"] == 2
    assert last["failed"] == []
    code, log = child.end()
    assert code == 0
    assert log.count("accepting pauses") == 1
    assert len(log.splitlines()) == 1


def test_stops_while_exhausted(child: Child, clients: list[socket.socket]) -> None:
    """The back-off of a listener that is closed touches its descriptor no more."""
    assert child.tell("stop") == [True, True]
    assert child.status["failed"] == []
    assert child.status["open"] == 0
    assert child.end()[0] == 0


def test_finishing_while_exhausted_answers_those_that_wait(child: Child) -> None:
    """The queue is not empty only because there is no descriptor for it: those inside end, and free theirs."""
    address = ("127.0.0.1", child.status["port"])
    asking = []
    for _ in range(CLIENTS):
        asking.append(connect(address))
        asking[-1].sendall(REQUEST[:-2])
    eventually(lambda: child.status["accept_errors"] > 0)
    for client in asking:
        client.sendall(REQUEST[-2:])
    assert child.tell("finish") is True
    for client in asking:
        reply, end = until_end(client)
        assert (reply[-1:], end) == (b"\0", "fin")
        client.close()
    assert child.end()[0] == 0
