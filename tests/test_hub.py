"""No exception of a callback ends its watcher. Greenlets that serve as long as the process runs begin again."""

import logging
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial

import gevent
import pytest

import flashpol.hub
from flashpol.hub import Readable, attempt, report_errors, run_again, started
from testkit.polling import eventually

until = partial(eventually, wait=gevent.sleep)


class Source:
    """A descriptor that is readable as often as it was written to; the callback reads it, or raises `error` once."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.reading, self.writing = socket.socketpair()
        self.reading.setblocking(False)
        self.error = error
        self.calls = 0
        self.readable = Readable(self.reading.fileno(), self._read, "a test", wake=lambda: self.writing.send(b"w"))
        self.readable.start()

    def _read(self) -> None:
        self.calls += 1
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.reading.recv(1)

    def close(self) -> None:
        self.readable.close()
        self.reading.close()
        self.writing.close()


@pytest.fixture
def make(no_leaked_files: None) -> Iterator[Callable[..., Source]]:
    sources: list[Source] = []

    def made(*arguments: BaseException) -> Source:
        sources.append(Source(*arguments))
        return sources[-1]

    yield made
    for source in sources:
        source.close()


@pytest.mark.parametrize("error", [ValueError("a bug"), MemoryError()])
def test_readable_calls_back_again_after_an_exception(
    make: Callable[..., Source], caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """Also after a MemoryError, as in a program that embeds a PolicyServer."""
    source = make(error)
    source.writing.send(b"x")
    until(lambda: source.readable.returned == 1, "the second call")
    assert source.calls == 2
    [record] = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "a callback (a test) failed")
    assert record.exc_info
    assert record.exc_info[1] is error


def test_readable_that_always_raises_is_called_after_pauses(
    make: Callable[..., Source], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its descriptor stays readable: without a pause it would be called in each turn of the loop."""
    monkeypatch.setattr(flashpol.hub, "RETRY_AFTER", 3600)
    source = make(ValueError())
    source.writing.send(b"x")
    until(lambda: source.calls, "the call")
    for _ in range(100):
        gevent.sleep(0)
    assert (source.calls, source.readable.returned) == (1, 0)
    assert (source.readable.is_watching, source.readable.is_paused) == (True, False)


def test_readable_that_was_closed_by_its_failing_callback_stays_closed(make: Callable[..., Source]) -> None:
    source = make()

    def close_and_raise() -> None:
        source.calls += 1
        readable.close()
        raise ValueError

    readable = Readable(source.reading.fileno(), close_and_raise, "a test")
    source.readable.close()
    readable.start()
    source.writing.send(b"x")
    until(lambda: source.calls, "the call")
    gevent.sleep(2 * flashpol.hub.RETRY_AFTER)
    assert source.calls == 1
    assert not readable.is_watching
    assert readable not in started()


def test_readable_passes_keyboard_interrupt_to_the_main_greenlet(make: Callable[..., Source]) -> None:
    source = make(KeyboardInterrupt())
    source.writing.send(b"x")
    with pytest.raises(KeyboardInterrupt):
        gevent.sleep(5)
    until(lambda: source.readable.returned == 1, "the second call")


def test_paused_readable_goes_on_and_watches_meanwhile(make: Callable[..., Source]) -> None:
    source = make()
    source.readable.pause(0.05)
    source.writing.send(b"x")
    assert (source.readable.is_paused, source.readable.is_watching) == (True, True)
    until(lambda: source.readable.returned == 1, "the call after the pause")
    assert (source.readable.is_paused, source.readable.is_watching) == (False, True)


def test_readable_stopped_by_others_is_not_watching(make: Callable[..., Source]) -> None:
    source = make()
    source.readable._watcher.stop()
    assert not source.readable.is_watching
    assert source.readable in started()


def test_run_again_calls_until_the_function_returns(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(flashpol.hub, "RESTART_AFTER", 0.001)
    failures = [ValueError(), MemoryError()]
    run_again(lambda: attempt_one(failures), "a test")
    assert [record.getMessage() for record in caplog.records] == ["a test failed"] * 2


def attempt_one(failures: list[Exception]) -> None:
    if failures:
        raise failures.pop()


def test_run_again_ends_when_its_greenlet_is_killed() -> None:
    greenlet = gevent.spawn(run_again, lambda: gevent.sleep(3600), "a test")
    gevent.sleep(0)
    greenlet.kill(timeout=5)
    assert greenlet.dead


class Ended(Exception):
    pass


@pytest.fixture
def hub_of_a_child(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """As in a child process, in which a MemoryError ends the process; here the list says how often it would have."""
    ends: list[bool] = []

    def end() -> None:
        ends.append(True)
        raise Ended

    hub = gevent.get_hub()
    hooks = sys.excepthook, sys.unraisablehook
    report_errors(end)  # type: ignore[arg-type]
    yield ends
    sys.excepthook, sys.unraisablehook = hooks
    del hub.print_exception
    flashpol.hub._Reaction.on_memory_error = None


@pytest.mark.parametrize("where", ["callback", "greenlet", "bare greenlet", "loop", "finalizer"])
def test_memory_error_anywhere_in_the_hub_ends_a_child(
    make: Callable[..., Source], hub_of_a_child: list[bool], where: str
) -> None:
    class Finalized:
        def __del__(self) -> None:
            raise_memory_error()

    if where == "callback":
        make(MemoryError()).writing.send(b"x")
    elif where == "greenlet":
        gevent.spawn(raise_memory_error)
    elif where == "bare greenlet":
        flashpol.hub.start_greenlet(raise_memory_error)
    elif where == "loop":
        gevent.get_hub().loop.run_callback(raise_memory_error)
    else:
        gevent.get_hub().loop.run_callback(Finalized)
    until(lambda: hub_of_a_child, "the end")


def raise_memory_error() -> None:
    raise MemoryError


@pytest.mark.parametrize("error", [ValueError(), MemoryError()])
def test_attempt_reports_and_returns_false(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise error

    assert not attempt(fail, "a test")
    assert attempt(lambda: None, "a test")
    assert [record.getMessage() for record in caplog.records] == ["a test failed"]
