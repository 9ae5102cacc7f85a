"""Log lines never hold up a process, and never stop one."""

import fcntl
import logging
import os
import select
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from flashpol.server import log
from flashpol.server.log import LINE_BYTES, NonBlockingHandler


class Pipe:
    def __init__(self) -> None:
        self.out, self.into = os.pipe()
        fcntl.fcntl(self.into, fcntl.F_SETPIPE_SZ, 4096)
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
    assert pipe.read() == "(3 log lines were dropped: nobody read them)\nkept\n"
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
    assert pipe.read() == "(3 log lines were dropped: nobody read them)\nhello\n"


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
