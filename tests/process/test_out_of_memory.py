"""The end of a process without memory: one log line if that is possible, and its own exit status in any case."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from flashpol.log.handler import STDERR, log, set_up
from flashpol.process.out_of_memory import OUT_OF_MEMORY, LastWords
from flashpol.supervisor.child import describe_exit

_testcapi = pytest.importorskip("_testcapi")


def ended(tmp_path: Path, prepare: Callable[[], object]) -> tuple[int, str]:
    """The exit status of a child that calls `prepare` and ends for want of memory, and its log."""
    file = tmp_path / "log"
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(os.open(file, os.O_CREAT | os.O_WRONLY), STDERR)
            set_up("worker-7", "text")
            last_words = LastWords("worker-7")
            prepare()
            last_words()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file.read_text()


def test_last_words_log_a_line_and_exit(tmp_path: Path) -> None:
    code, text = ended(tmp_path, lambda: None)
    assert code == OUT_OF_MEMORY
    [line] = text.splitlines()
    assert line.endswith(" ERROR: out of memory; this process exits, and its successor starts")
    assert " worker-7[" in line


def test_last_words_count_the_lines_that_the_rate_limit_suppressed(tmp_path: Path) -> None:
    def flood() -> None:
        for _ in range(100):
            log.warning("a flood", extra={"event": "flood"})

    code, text = ended(tmp_path, flood)
    assert code == OUT_OF_MEMORY
    assert text.splitlines()[-1].endswith("like: a flood")


def test_last_words_need_no_logging(tmp_path: Path) -> None:
    def break_logging() -> None:
        log.addFilter(lambda _: 1 // 0)  # type: ignore[arg-type,return-value]

    code, text = ended(tmp_path, break_logging)
    assert (code, text.count("\n")) == (OUT_OF_MEMORY, 1)
    assert text.startswith("worker-7[")


@pytest.mark.parametrize("number", [*range(0, 40, 3), 60, 100, 200])
def test_process_ends_if_all_further_allocations_fail(tmp_path: Path, number: int) -> None:
    """By SIGALRM if the interpreter loops."""
    code, text = ended(tmp_path, lambda: _testcapi.set_nomemory(number, 0))
    assert code in (OUT_OF_MEMORY, -signal.SIGALRM)
    assert text.count("out of memory") <= 1


@pytest.mark.parametrize("number", range(0, 120, 3))
def test_process_ends_with_its_status_if_one_allocation_fails(tmp_path: Path, number: int) -> None:
    code, text = ended(tmp_path, lambda: _testcapi.set_nomemory(number, number + 1))
    assert code == OUT_OF_MEMORY
    assert text.count("out of memory") == 1


def test_process_ends_without_a_line_if_nothing_can_be_written(tmp_path: Path) -> None:
    code, text = ended(tmp_path, lambda: os.close(STDERR))
    assert (code, text) == (OUT_OF_MEMORY, "")


def test_describe_exit_names_the_cause() -> None:
    assert describe_exit(OUT_OF_MEMORY) == "exited with 71 (out of memory)"
    assert describe_exit(1) == "exited with 1"
