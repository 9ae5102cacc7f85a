"""Log lines never block a process, and never stop one."""

import fcntl
import json
import logging
import os
import re
import select
import shlex
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from flashpol.log import handler as log
from flashpol.log.format import JsonFormatter
from flashpol.log.handler import LINE_BYTES, NonBlockingHandler
from flashpol.log.rate_limit import USUAL
from testkit.polling import DEADLINE, eventually
from testkit.processes import ROOT, command

DROPPED = "{} log lines dropped: stderr was not being read"


class Pipe:
    def __init__(self, size: int = 4096) -> None:
        self.out, self.into = os.pipe()
        fcntl.fcntl(self.into, fcntl.F_SETPIPE_SZ, size)
        self.logger = logging.Logger("test")
        self.logger.addHandler(NonBlockingHandler(self.into))

    def fill(self) -> None:
        os.set_blocking(self.into, False)
        with suppress(BlockingIOError):
            while True:
                os.write(self.into, b"x" * 4096)
        os.set_blocking(self.into, True)

    def read(self) -> str:
        """What is in it now."""
        data = b""
        while select.select([self.out], [], [], 0)[0] and (piece := os.read(self.out, 65536)):
            data += piece
        return data.decode()

    def close(self) -> None:
        for fd in (self.out, self.into):
            with suppress(OSError):
                os.close(fd)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_handler_writes_a_line(pipe: Pipe) -> None:
    pipe.logger.warning("%s is %d", "port", 843)
    assert pipe.read() == "port is 843\n"


def test_handler_on_a_full_pipe_drops_lines_and_counts_them_later(pipe: Pipe) -> None:
    pipe.fill()
    assert os.get_blocking(pipe.into), "a write would block, so returning at all shows that there was none"
    for number in range(3):
        pipe.logger.info("lost %d", number)
    assert set(pipe.read()) == {"x"}
    pipe.logger.info("kept")
    assert pipe.read() == DROPPED.format(3) + "\nkept\n"
    pipe.logger.info("next")
    assert pipe.read() == "next\n", "the drops are reported once"


def test_handler_leaves_a_shared_pipe_blocking(pipe: Pipe) -> None:
    pipe.logger.info("a line")
    assert os.get_blocking(pipe.into)


def test_handler_cuts_a_line_to_line_bytes(pipe: Pipe) -> None:
    pipe.logger.info("y" * 100_000)
    assert pipe.read() == "y" * (LINE_BYTES - 1) + "\n"


def test_handler_on_a_pipe_without_reader_drops_lines(pipe: Pipe) -> None:
    os.close(pipe.out)
    for _ in range(3):
        pipe.logger.error("without a reader")
    pipe.out = os.open(f"/proc/self/fd/{pipe.into}", os.O_RDONLY | os.O_NONBLOCK)  # somebody does again
    pipe.logger.error("hello")
    assert pipe.read() == DROPPED.format(3) + "\nhello\n"


def test_handler_on_a_closed_descriptor_does_nothing(pipe: Pipe, capsys: pytest.CaptureFixture[str]) -> None:
    [handler] = pipe.logger.handlers
    handler.close()
    os.close(pipe.into)
    pipe.logger.error("nowhere to go")
    assert pipe.read() == ""
    assert capsys.readouterr() == ("", "")


def test_handler_leaves_the_shared_descriptor_as_it_is(pipe: Pipe) -> None:
    pipe.logger.info("written without blocking")
    assert os.get_blocking(pipe.into)


def test_handler_on_a_socket_writes_to_it() -> None:
    here, there = socket.socketpair()
    with here, there:
        logger = logging.Logger("test")
        logger.addHandler(NonBlockingHandler(there.fileno()))
        logger.info("as the journal gets it")
        assert here.recv(100) == b"as the journal gets it\n"


def test_handler_reports_a_mistake_in_a_log_call(pipe: Pipe) -> None:
    pipe.logger.info("%d of %d", 1)  # noqa: PLE1206
    assert "cannot be formatted: '%d of %d' with (1,)" in pipe.read()


def test_handler_replaces_surrogates(pipe: Pipe) -> None:
    pipe.logger.info("name %s", "\udcff")
    assert pipe.read() == "name ?\n"


def test_handler_on_a_file_without_o_append_writes_through_the_shared_offset(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    logger = logging.Logger("test")
    logger.addHandler(NonBlockingHandler(fd))
    logger.info("one")
    os.write(fd, b"two\n")
    os.close(fd)
    assert (tmp_path / "log").read_text() == "one\ntwo\n"


@pytest.mark.parametrize(
    ("variable", "expected"), [("{0.st_dev}:{0.st_ino}", True), ("{0.st_dev}:1", False), ("", False), ("x", False)]
)
def test_is_journal_only_for_the_stream_that_the_variable_names(
    variable: str, expected: bool, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", variable.format(os.fstat(pipe.into)))
    assert log.is_journal(pipe.into) is expected


def test_is_journal_without_the_variable_or_the_descriptor_is_false(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    assert not log.is_journal(pipe.into)
    assert not log.is_journal(-1)


@pytest.mark.parametrize("redirection", ["> {0} 2>&1", "> {0} 2> {0}", ">> {0} 2>&1"])
def test_server_with_both_streams_in_one_file_loses_no_line(redirection: str, tmp_path: Path) -> None:
    file = tmp_path / "flashpol.log"
    serve = shlex.join(command("serve", "--allow", "*:*", "--listen", "127.0.0.1:0", "--admin", "off"))
    script = (
        f"{{ echo before; {serve} & trap 'kill $!' TERM; wait $!; wait $!; echo after; }} {redirection.format(file)}"
    )
    process = subprocess.Popen(["sh", "-c", script], cwd=ROOT)
    eventually(lambda: file.exists() and "INFO: ready" in file.read_text() and "try: " in file.read_text(), "ready")
    process.terminate()
    process.wait(DEADLINE)
    lines = file.read_text().splitlines()
    assert "\0" not in file.read_text()
    assert [line for line in lines if line in ("before", "after")] == ["before", "after"]
    patterns = (
        r"WARNING: policy from --allow: ",
        r"INFO: ready: ",
        r"^flashpol \S+ ready: ",
        r"^try: printf ",
        r"INFO: stopped$",
    )
    for pattern in patterns:
        assert [line for line in lines if re.search(pattern, line)], pattern


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("flashpol")
    before = logger.handlers[:], logger.propagate, logger.level
    yield logger
    logger.handlers[:], logger.propagate, logger.level = before


def test_set_up_again_replaces_the_handler(logger: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    log.set_up("arbiter")
    assert log.set_up("worker-3") is logger
    logger.debug("not shown")
    logging.getLogger("flashpol.server").warning("100%% sure")
    out, err = capfd.readouterr()
    assert out == ""
    assert err.endswith(f"worker-3[{os.getpid()}] WARNING: 100%% sure\n")
    assert err.count("\n") == 1, "set up again after a fork, it replaces what was"


def test_set_up_without_a_format_keeps_the_format(logger: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    log.set_up("arbiter", "json")
    log.set_up("worker-3")
    logger.warning("hello", extra={"event": "greeting"})
    found = json.loads(capfd.readouterr().err)
    assert (found["process"], found["message"], found["event"]) == ("worker-3", "hello", "greeting")
    log.set_up("arbiter", "text")
    logger.warning("hello")
    assert capfd.readouterr().err.endswith(f"arbiter[{os.getpid()}] WARNING: hello\n")


def test_line_about_dropped_lines_is_json_too(pipe: Pipe) -> None:
    pipe.logger.handlers[0].setFormatter(JsonFormatter("admin"))
    pipe.fill()
    pipe.logger.info("lost")
    pipe.read()
    pipe.logger.info("kept")
    first, second = map(json.loads, pipe.read().splitlines())
    assert first["message"] == DROPPED.format(1)
    assert second["message"] == "kept"


def test_dropped_lines_are_reported_without_another_line_once_there_is_room(pipe: Pipe) -> None:
    [handler] = pipe.logger.handlers
    assert isinstance(handler, NonBlockingHandler)
    pipe.fill()
    pipe.logger.info("lost")
    handler.report_dropped()
    assert handler.dropped == 1  # the report is no line that was dropped
    pipe.read()
    handler.report_dropped()
    assert pipe.read() == DROPPED.format(1) + "\n"
    handler.report_dropped()
    assert pipe.read() == ""


def test_report_suppressed_reports_dropped_lines(
    logger: logging.Logger, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "STDERR", pipe.into)
    log.set_up("worker-0")
    pipe.fill()
    logger.warning("lost")
    pipe.read()
    log.report_suppressed()
    assert DROPPED.format(1) in pipe.read()


def test_line_about_dropped_lines_and_a_long_line_are_two_writes() -> None:
    pipe = Pipe(1 << 16)
    with closing(pipe):
        pipe.fill()
        pipe.logger.info("lost")
        pipe.read()
        pipe.logger.info("y" * LINE_BYTES)
        assert pipe.read() == DROPPED.format(1) + "\n" + "y" * (LINE_BYTES - 1) + "\n"


def test_logger_limits_a_flood_with_any_handler(logger: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    """Also in an embedding program, and the suppressed lines are reported."""
    logger.handlers[:] = [logging.StreamHandler()]
    logger.propagate = False
    for number in range(1000):
        logger.warning("flood %d", number)
    log.report_suppressed(everything=True)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == USUAL.burst + 1
    assert lines[-1].startswith(f"{1000 - USUAL.burst} more in the last ")


def test_set_up_again_keeps_the_count_of_dropped_lines_of_this_process_only(
    logger: logging.Logger, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "STDERR", pipe.into)
    log.set_up("arbiter")
    pipe.fill()
    logger.warning("lost")
    log.set_up("arbiter")  # as a reload does
    pipe.read()
    logger.warning("reported")
    assert DROPPED.format(1) in pipe.read()
    pipe.fill()
    logger.warning("lost")
    log.set_up("worker-0")  # as a child does, to which it did not happen
    pipe.read()
    logger.warning("not reported")
    assert "dropped" not in pipe.read()
