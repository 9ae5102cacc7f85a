"""flashpol reload: it signals the arbiter of a server, and nothing else."""

import argparse
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flashpol.cli import reload
from testkit.polling import eventually
from testkit.processes import Flashpol, as_nobody, one_line, run

ALLOW = ("--allow", "*.example.com:1935")


@pytest.fixture
def pid_file(tmp_path: Path) -> Path:
    return tmp_path / "flashpol.pid"


@pytest.fixture
def server(pid_file: Path) -> Iterator[Flashpol]:
    with Flashpol(*ALLOW, "--pid-file", pid_file) as server:
        yield server


def refusal(*arguments: str | Path) -> str:
    return one_line(run("reload", *arguments), "flashpol reload")


def test_reload_by_pid_file_or_pid_reloads(server: Flashpol, pid_file: Path) -> None:
    pid = server.process.pid
    for count, arguments in enumerate((("--pid-file", pid_file), ("--pid", str(pid))), 1):
        done = run("reload", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"sent SIGHUP to process {pid}; flashpol status ")
        eventually(lambda count=count: server.log.count("INFO: reloaded: ") == count, "the reload")  # type: ignore[misc]


def test_reload_of_a_child_is_refused(server: Flashpol) -> None:
    for child in server.children:
        assert (
            refusal("--pid", str(child.pid))
            == f"--pid: process {child.pid} is a child of a flashpol server: name its parent"
        )
    assert server.complaints == []


def test_reload_of_another_program_is_refused_and_does_not_end_it() -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        assert refusal("--pid", str(other.pid)) == f"--pid: process {other.pid} is not a flashpol server"
        assert other.poll() is None
        other.kill()


def test_reload_of_a_program_that_started_a_server_is_refused_and_does_not_end_it() -> None:
    """Such as sudo, timeout or a shell, whose command lines name the server too."""
    with subprocess.Popen(["sh", "-c", "read line", "flashpol", "serve"], stdin=subprocess.PIPE) as other:
        assert refusal("--pid", str(other.pid)) == f"--pid: process {other.pid} is not a flashpol server"
        assert other.poll() is None
        other.kill()


def test_reload_of_a_stale_pid_file_says_so(pid_file: Path) -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    pid_file.write_text(f"{ended.pid}\n")
    assert refusal("--pid-file", pid_file) == f"{pid_file}: process {ended.pid} does not exist"


@pytest.mark.parametrize("text", ["", "\n", "-1", "0", "1 2", "x", "9" * 30, "é"])
def test_reload_of_a_pid_file_without_a_number_says_so(pid_file: Path, text: str) -> None:
    pid_file.write_text(text)
    assert refusal("--pid-file", pid_file).startswith(f"{pid_file}: does not hold a process id: ")


def test_reload_without_pid_file_says_how_to_get_one(pid_file: Path) -> None:
    message = refusal("--pid-file", pid_file)
    assert "start the server with --pid-file, or name its process with --pid; " in message
    assert message.endswith("systemctl reload flashpol")


@pytest.mark.parametrize("text", ["0", "-1", "one", "4294967296"])
def test_reload_of_a_bad_pid_is_refused(text: str) -> None:
    assert f"{text!r} is not a process id" in refusal(f"--pid={text}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_reload_of_a_server_of_another_user_is_refused(server: Flashpol) -> None:
    options = argparse.Namespace(pid=server.process.pid, pid_file=None)
    answer = as_nobody(lambda: reload.run(options))
    assert answer.startswith(f"ConfigError: process {server.process.pid}: no permission to signal it")
