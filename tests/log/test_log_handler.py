"""Log lines never hold up a process, and never stop one."""

import fcntl
import json
import logging
import os
import select
import socket
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from flashpol.log import handler as log
from flashpol.log.format import JsonFormatter
from flashpol.log.handler import LINE_BYTES, NonBlockingHandler
from flashpol.log.rate_limit import USUAL

DROPPED = "log lines that were dropped, because nobody read them"


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


def test_a_line(pipe: Pipe) -> None:
    pipe.logger.warning("%s is %d", "port", 843)
    assert pipe.read() == "port is 843\n"


def test_a_full_pipe_never_blocks_and_the_drops_are_told_later(pipe: Pipe) -> None:
    pipe.fill()
    assert os.get_blocking(pipe.into), "a write would block, so returning at all shows that there was none"
    for number in range(3):
        pipe.logger.info("lost %d", number)
    assert set(pipe.read()) == {"x"}
    pipe.logger.info("kept")
    assert pipe.read() == f"{DROPPED}: 3\nkept\n"
    pipe.logger.info("next")
    assert pipe.read() == "next\n", "the drops are told once"


def test_the_pipe_stays_blocking_for_those_who_share_it(pipe: Pipe) -> None:
    pipe.logger.info("a line")
    assert os.get_blocking(pipe.into)


def test_a_long_line_fits_into_what_the_pipe_takes_at_once(pipe: Pipe) -> None:
    pipe.logger.info("y" * 100_000)
    assert pipe.read() == "y" * (LINE_BYTES - 1) + "\n"


def test_a_closed_pipe(pipe: Pipe) -> None:
    os.close(pipe.out)
    for _ in range(3):
        pipe.logger.error("nobody reads this")
    pipe.out = os.open(f"/proc/self/fd/{pipe.into}", os.O_RDONLY | os.O_NONBLOCK)  # somebody does again
    pipe.logger.error("hello")
    assert pipe.read() == f"{DROPPED}: 3\nhello\n"


def test_a_closed_descriptor(pipe: Pipe, capsys: pytest.CaptureFixture[str]) -> None:
    [handler] = pipe.logger.handlers
    handler.close()
    os.close(pipe.into)
    pipe.logger.error("nowhere to go")
    assert pipe.read() == ""
    assert capsys.readouterr() == ("", "")


def test_the_shared_descriptor_stays_as_it_is(pipe: Pipe) -> None:
    pipe.logger.info("told without blocking")
    assert os.get_blocking(pipe.into)


def test_a_socket_cannot_be_opened_again_and_is_written_all_the_same() -> None:
    here, there = socket.socketpair()
    with here, there:
        logger = logging.Logger("test")
        logger.addHandler(NonBlockingHandler(there.fileno()))
        logger.info("as the journal gets it")
        assert here.recv(100) == b"as the journal gets it\n"


def test_a_mistake_in_a_log_call_is_told(pipe: Pipe) -> None:
    pipe.logger.info("%d of %d", 1)  # noqa: PLE1206
    assert "cannot be formatted: '%d of %d' with (1,)" in pipe.read()


def test_text_that_is_no_text(pipe: Pipe) -> None:
    pipe.logger.info("name %s", "\udcff")
    assert pipe.read() == "name ?\n"


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("flashpol")
    before = logger.handlers[:], logger.propagate, logger.level
    yield logger
    logger.handlers[:], logger.propagate, logger.level = before


def test_set_up(logger: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    log.set_up("arbiter")
    assert log.set_up("worker-3") is logger
    logger.debug("not shown")
    logging.getLogger("flashpol.server").warning("100%% sure")
    out, err = capfd.readouterr()
    assert out == ""
    assert err.endswith(f"worker-3[{os.getpid()}] WARNING: 100%% sure\n")
    assert err.count("\n") == 1, "set up again after a fork, it replaces what was"


def test_set_up_keeps_the_format_in_a_child(logger: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    log.set_up("arbiter", "json")
    log.set_up("worker-3")
    logger.warning("hello", extra={"event": "greeting"})
    found = json.loads(capfd.readouterr().err)
    assert (found["process"], found["message"], found["event"]) == ("worker-3", "hello", "greeting")
    log.set_up("arbiter", "text")
    logger.warning("hello")
    assert capfd.readouterr().err.endswith(f"arbiter[{os.getpid()}] WARNING: hello\n")


def test_json_of_drops_is_json(pipe: Pipe) -> None:
    pipe.logger.handlers[0].setFormatter(JsonFormatter("admin"))
    pipe.fill()
    pipe.logger.info("lost")
    pipe.read()
    pipe.logger.info("kept")
    first, second = map(json.loads, pipe.read().splitlines())
    assert first["message"] == f"{DROPPED}: 1"
    assert second["message"] == "kept"


def test_drops_and_a_long_line_are_two_writes() -> None:
    pipe = Pipe(1 << 16)
    with closing(pipe):
        pipe.fill()
        pipe.logger.info("lost")
        pipe.read()
        pipe.logger.info("y" * LINE_BYTES)
        assert pipe.read() == f"{DROPPED}: 1\n" + "y" * (LINE_BYTES - 1) + "\n"


def test_a_flood_is_limited_whoever_made_the_handlers(
    logger: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also in an embedding program, and what was left out is told."""
    logger.handlers[:] = [logging.StreamHandler()]
    logger.propagate = False
    for number in range(1000):
        logger.warning("flood %d", number)
    log.tell(everything=True)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == USUAL.burst + 1
    assert lines[-1].startswith(f"{1000 - USUAL.burst} more in the last ")


def test_what_was_dropped_is_told_by_the_same_process_after_it_was_set_up_again(
    logger: logging.Logger, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "STDERR", pipe.into)
    log.set_up("arbiter")
    pipe.fill()
    logger.warning("lost")
    log.set_up("arbiter")  # as a reload does
    pipe.read()
    logger.warning("told")
    assert f"{DROPPED}: 1" in pipe.read()
    pipe.fill()
    logger.warning("lost")
    log.set_up("worker-0")  # as a child does, to which it did not happen
    pipe.read()
    logger.warning("not told")
    assert DROPPED not in pipe.read()
