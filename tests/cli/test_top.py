"""flashpol top: the live view of a running server."""

import os
import pty
import re
import select
import signal
import socket
import subprocess
import time

import pytest

from flashpol.cli.top import CLOSE, END_OF_SCREEN, OPEN
from flashpol.version import VERSION
from testkit.clients import ask
from testkit.polling import DEADLINE, eventually
from testkit.processes import POLICY, ROOT, Flashpol, command, free_port, one_line, run


def admin(server: Flashpol) -> tuple[str, str]:
    return "--admin", "{}:{}".format(*server.admin_place)


def test_top_once_shows_rates_listeners_and_workers() -> None:
    with Flashpol("--policy", POLICY, workers=2) as server:
        ask(server.place)

        def view() -> str | None:
            ask(server.place)
            done = run("top", "--once", *admin(server))
            assert (done.returncode, done.stderr) == (0, "")
            assert "\033" not in done.stdout
            seen = re.search(r"per second: [\d.]+ accepted, (?!0\.0)[\d.]+ replies", done.stdout)
            return done.stdout if seen else None

        text = eventually(view, "a rate")
        assert f"flashpol {VERSION} at {admin(server)[1]}, " in text
        assert ": ready, 2 of 2 workers up" in text
        rows = [line.split() for line in text.splitlines()]
        [listener] = [row for row in rows if row[:1] == [server.addresses[0]]]
        assert float(listener[2]) > 0
        assert {row[1] for row in rows[-2:]} == {str(worker.pid) for worker in server.workers}


@pytest.mark.slow
def test_top_shows_refusals_by_reason_upstreams_and_problems() -> None:
    upstream = f"127.0.0.1:{free_port()}"
    with Flashpol("--policy", POLICY, "--upstream", upstream) as server:
        with socket.create_connection(server.place) as client:
            client.sendall(b"hello")
            assert client.recv(1) == b""
        problem = "  error: 1 connection in the last minute was refused: no upstream could be reached."

        def view() -> str | None:
            out = run("top", "--once", *admin(server)).stdout
            return out if problem in out else None

        text = eventually(view, "the problem")
        assert re.search(r"^upstream +(-|[\d.]+) +1$", text, re.M)
        assert re.search(rf"^\S+ +{upstream} +", text, re.M)


@pytest.mark.slow
def test_top_in_a_terminal_redraws_and_restores_the_screen() -> None:
    with Flashpol("--policy", POLICY) as server:
        here, there = pty.openpty()
        process = subprocess.Popen(
            command("top", "--interval", "0.1", *admin(server)), cwd=ROOT, stdin=there, stdout=there, stderr=there
        )
        os.close(there)
        data = b""
        deadline = time.monotonic() + DEADLINE
        while data.count(END_OF_SCREEN.encode()) < 3 and time.monotonic() < deadline:
            assert select.select([here], [], [], DEADLINE)[0]
            data += os.read(here, 65536)
        server.stop()
        while b"trying again" not in data and time.monotonic() < deadline:
            assert select.select([here], [], [], DEADLINE)[0]
            data += os.read(here, 65536)
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0
        while select.select([here], [], [], 0)[0]:
            try:
                data += os.read(here, 65536)
            except OSError:  # EIO: the other end is closed
                break
        os.close(here)
        assert data.startswith(OPEN.encode())
        assert data.endswith(CLOSE.encode())


def test_top_without_a_terminal_prints_views_until_sigterm() -> None:
    with Flashpol("--policy", POLICY) as server:
        process = subprocess.Popen(
            command("top", "--interval", "0.1", *admin(server)), cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        seen = 0
        while seen < 3:
            line = process.stdout.readline()
            assert "\033" not in line
            seen += line.startswith("flashpol ")
        process.terminate()
        process.communicate(timeout=DEADLINE)
        assert process.returncode == 0


def test_top_without_a_server_is_one_line() -> None:
    message = one_line(run("top", "--admin", f"127.0.0.1:{free_port()}"), "flashpol top")
    assert message.endswith(": Connection refused: is a server running, and is this its admin address?")


@pytest.mark.parametrize("text", ["0", "x", "nan", "4000", ""])
def test_top_with_a_bad_interval_says_what_to_write(text: str) -> None:
    assert "is not a number of seconds from 0.1 to 3600" in one_line(run("top", "--interval", text), "flashpol top")
