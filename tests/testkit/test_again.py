"""testkit.again: what fails once is run again, what fails twice fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testkit.again import LIMIT
from testkit.processes import ROOT

CHANCE = """
import pathlib, pytest
@pytest.mark.parametrize("word", ["a b", "c::d", "é["])
def test_first_time_fails(word):
    mark = pathlib.Path(__file__).with_name(f"{len(word)}.seen")
    seen = mark.exists()
    mark.touch()
    assert seen
"""
PASSES = "def test_passes(): pass\n"
FAILS = "def test_fails(): assert False\n"
MANY = f"import pytest\n@pytest.mark.parametrize('i', range({LIMIT + 1}))\ndef test_fails(i): assert False\n"
BROKEN = "import nothing_of_this_name\n"


def again(directory: Path, text: str) -> subprocess.CompletedProcess[str]:
    (directory / "test_it.py").write_text(PASSES + text)
    (directory / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "testkit.again", "-q", "test_it.py"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, check=False, cwd=directory, env=environment, capture_output=True, text=True, timeout=60
    )


def test_failure_that_does_not_repeat_passes_and_is_named(tmp_path: Path) -> None:
    done = again(tmp_path, CHANCE)
    assert done.returncode == 0, done.stdout
    assert "3 failed; once more, by itself:\n  " in done.stdout
    assert "test_first_time_fails[a b]" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1].startswith("3 passed"), done.stdout


def test_failure_that_repeats_fails(tmp_path: Path) -> None:
    done = again(tmp_path, FAILS)
    assert done.returncode == 1
    assert done.stdout.rstrip().splitlines()[-1].startswith("1 failed in"), done.stdout


@pytest.mark.parametrize(("text", "status"), [("", 0), (MANY, 1), (BROKEN, 2)])
def test_nothing_many_or_an_error_is_run_once(tmp_path: Path, text: str, status: int) -> None:
    done = again(tmp_path, text)
    assert (done.returncode, "once more" in done.stdout) == (status, False), done.stdout
