"""Commands whose input or output is closed, full or without a reader: no traceback, and a documented exit status."""

import signal
import subprocess
import sys

import pytest

from testkit.processes import ROOT

CHECK = "check examples/policy.xml tests/policy/corpus"
DECIDE = "decide examples/policy.xml --from http://u:p@www.example.com/ --port 1935"


def shell(line: str) -> subprocess.CompletedProcess[bytes]:
    line = line.replace("flashpol", f"{sys.executable} -m flashpol")
    return subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, check=False, timeout=20)


WRITING = [
    CHECK,
    f"{CHECK} --json",
    DECIDE,
    "merge examples/policy.xml",
    "config --defaults",
    "config --policy examples/policy.xml --json",
    "probe 127.0.0.1 --policy-port 1",
]


@pytest.mark.parametrize("command", WRITING)
def test_command_whose_output_is_not_read_ends_as_by_sigpipe(command: str) -> None:
    done = shell(f"flashpol {command} | true; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.parametrize("command", WRITING)
def test_command_with_full_output_says_so_in_one_line(command: str) -> None:
    done = shell(f"flashpol {command} >/dev/full")
    name = command.partition(" ")[0]
    assert done.returncode == 2
    assert done.stderr.decode() == f"flashpol {name}: standard output: cannot be written: No space left on device\n"


@pytest.mark.parametrize("command", [CHECK, DECIDE, "check -", "decide - --from a.example --port 80", "merge -"])
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_command_with_closed_streams_ends_without_traceback(command: str, closed: str) -> None:
    done = shell(f"flashpol {command} {'' if '<' in closed else '</dev/null'} {closed}")
    assert b"Traceback" not in done.stderr
    assert done.returncode in (0, 1, 2)


def test_merge_of_an_empty_name_is_one_line() -> None:
    done = shell("flashpol merge ''")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.count(b"\n") == 1


def test_decide_with_a_user_in_the_url_decides() -> None:
    assert shell(f"flashpol {DECIDE}").returncode in (0, 1)
