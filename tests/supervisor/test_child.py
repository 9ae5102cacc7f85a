"""A place for one process: when the next one starts, and how it is told to stop."""

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from flashpol.counters.shared import SharedCounters
from flashpol.process.control import Begin, HandOver, StandDown
from flashpol.process.privileges import Identity
from flashpol.supervisor.child import FIRST_DELAY, HEALTHY_AFTER, LAST_DELAY, Child
from testkit.polling import eventually


def child(main: Callable[[Any], object] = lambda stop: stop.event.wait(10)) -> Child:
    return Child("worker 0", lambda: main, SharedCounters(1, 1).process(0))  # type: ignore[return-value, arg-type]


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """fork() pretends: the pid is one that nothing is sent to."""
    monkeypatch.setattr(os, "fork", lambda: 12345)


@pytest.mark.usefixtures("forks")
def test_a_crash_loop_backs_off() -> None:
    one, now, delays = child(), 1000.0, []
    for _ in range(10):
        one.start(now, (), Identity())
        now += 0.5  # it lives half a second
        delays.append(one.ended(now))
        assert one.due == now + delays[-1]
        now = one.due
    assert delays[:3] == [0.0, FIRST_DELAY, 2 * FIRST_DELAY]
    assert delays == sorted(delays)
    assert delays[-1] == LAST_DELAY
    assert one.restarts == one.status.restarts == 10


@pytest.mark.usefixtures("forks")
def test_a_child_that_lived_long_is_replaced_at_once_and_starts_afresh() -> None:
    one = child()
    for now in (1000.0, 1001.0, 1002.0):
        one.start(now, (), Identity())
        one.ended(now + 0.1)
    one.start(1100.0, (), Identity())
    assert one.ended(1100.0 + HEALTHY_AFTER) == 0.0
    one.start(1200.0, (), Identity())
    assert one.ended(1200.0 + HEALTHY_AFTER - 0.1) == FIRST_DELAY


@pytest.mark.usefixtures("forks")
def test_a_child_that_served_is_replaced_at_once_but_not_more_often_than_the_first_delay() -> None:
    one, now = child(), 1000.0
    for lived in (0.2, FIRST_DELAY, FIRST_DELAY / 4, 0.2):
        one.start(now, (), Identity())
        one.status.up = 1
        now += lived
        assert one.ended(now) == pytest.approx(max(0.0, FIRST_DELAY - lived))
        now = one.due or 0.0
    # The next one does not come up: that is another matter, and begins with no delay.
    for delay in (0.0, FIRST_DELAY):
        one.start(now, (), Identity())
        assert one.ended(now + 0.01) == delay
        now = one.due or 0.0


def test_a_fork_that_fails_is_tried_again_and_leaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    one, before = child(), len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Resource temporarily"):
        one.start(1000.0, (), Identity())
    assert (one.pid, one.due) == (0, 1000.0 + FIRST_DELAY)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize("away", ["", "dead", "down", "stopped", "still", "finishing"])
def test_whether_it_answers(away: str) -> None:
    one = child()
    assert not one.answering
    one.start(1000.0, (), Identity())
    one.status.up = away != "down"
    one.stopped, one.still = away == "stopped", away == "still"
    one.status.accepts_no_more = away == "finishing"
    if away == "dead":
        one.ended(1001.0)
    assert one.answering == (not away)
    one.let_go()


@pytest.mark.usefixtures("forks")
def test_who_is_dead_is_told_nothing_and_that_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    one = child()
    assert not one.send(Begin())
    one.start(1000.0, (), Identity())  # the other end of its line is closed here, and was nowhere else
    assert not one.send(Begin())
    assert caplog.records == []
    one.let_go()


def test_who_reads_nothing_and_cannot_be_told_to_finish_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    one = child(lambda stop: time.sleep(60))
    one.start(0.0, (one,), Identity())
    try:
        while one.send(StandDown(0)):
            pass
        assert "cannot be told" in caplog.text
        one.retire(HandOver(frozenset()), deadline=time.monotonic() + 100)
        assert one.deadline == 0.0
    finally:
        one.kill()
        eventually(partial(gone, one.pid), "the end")
        one.let_go()


def gone(pid: int) -> bool:
    with suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return True


def test_the_end_of_the_pipe_ends_the_child_and_no_sibling() -> None:
    """Siblings inherit each other's pipes; a copy kept open would keep the first one alive."""
    one, other = child(), child()
    one.start(0.0, (one, other), Identity())
    other.start(0.0, (one, other), Identity())
    try:
        assert one.status.pid == one.pid != other.pid
        one.let_go()
        eventually(partial(gone, one.pid), "the end of the first")
        assert not gone(other.pid)
    finally:
        for each in (one, other):
            each.let_go()
            each.kill() if not gone(each.pid) else None
            eventually(partial(gone, each.pid), "the end")


def test_a_child_that_fails_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    def fail(stop: object) -> None:
        raise RuntimeError("no luck")

    one = child(fail)
    one.start(0.0, (one,), Identity())
    assert os.waitstatus_to_exitcode(os.waitpid(one.pid, 0)[1]) == 1
    one.let_go()
    assert "worker 0 failed" in (said := capfd.readouterr().err)
    assert "no luck" in said
