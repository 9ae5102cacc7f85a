"""Clients that wait for lines of stdin: one for each step, which they confirm with a line of JSON."""

import json
import subprocess
from typing import Any

from bench import BenchError
from bench.servers.running import child_setup

END_SECONDS = 10.0


def start(command: list[str], cpu: int | None) -> "subprocess.Popen[str]":
    """Start them. They are ended by `end`."""
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=child_setup(cpu),  # noqa: PLW1509 - this program has no threads
    )  # fmt: skip


def read_line(name: str, clients: "subprocess.Popen[str]") -> dict[str, Any]:
    """What they print when a step is done. name: of the server."""
    assert clients.stdout
    assert clients.stderr
    line = clients.stdout.readline()  # returns in time: the clients end when no byte comes for 10 s
    if not line:
        raise BenchError(f"{name}: a held session failed: {clients.stderr.read().strip()}")
    result: dict[str, Any] = json.loads(line)
    return result


def go_on(clients: "subprocess.Popen[str]") -> None:
    """The next step."""
    assert clients.stdin
    clients.stdin.write("\n")
    clients.stdin.flush()


def end(clients: "subprocess.Popen[str]") -> int:
    """Wait for their end; returns their exit status."""
    assert clients.stdin
    assert clients.stdout
    assert clients.stderr
    clients.stdin.close()
    try:
        code = clients.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        clients.kill()
        code = clients.wait(END_SECONDS)
    clients.stdout.close()
    clients.stderr.close()
    return code
