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
from flashpol.process.control import Drain, ReleaseSockets, StartAccepting
from flashpol.process.privileges import Privileges
from flashpol.supervisor.child import FIRST_DELAY, HEALTHY_AFTER, LAST_DELAY, Child
from testkit.polling import eventually


def child(main: Callable[[Any], object] = lambda control: control.draining.wait(10)) -> Child:
    return Child("worker 0", lambda: main, SharedCounters(1, 1).process(0))  # type: ignore[return-value, arg-type]


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """fork() pretends: the pid is one that nothing is sent to."""
    monkeypatch.setattr(os, "fork", lambda: 12345)


@pytest.mark.usefixtures("forks")
def test_a_crash_loop_backs_off() -> None:
    one, now, delays = child(), 1000.0, []
    for _ in range(10):
        one.start(now, (), Privileges())
        now += 0.5  # it lives half a second
        delays.append(one.on_exit(now))
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
        one.start(now, (), Privileges())
        one.on_exit(now + 0.1)
    one.start(1100.0, (), Privileges())
    assert one.on_exit(1100.0 + HEALTHY_AFTER) == 0.0
    one.start(1200.0, (), Privileges())
    assert one.on_exit(1200.0 + HEALTHY_AFTER - 0.1) == FIRST_DELAY


@pytest.mark.usefixtures("forks")
def test_a_child_that_served_is_replaced_at_once_but_not_more_often_than_the_first_delay() -> None:
    one, now = child(), 1000.0
    for lived in (0.2, FIRST_DELAY, FIRST_DELAY / 4, 0.2):
        one.start(now, (), Privileges())
        one.status.up = 1
        now += lived
        assert one.on_exit(now) == pytest.approx(max(0.0, FIRST_DELAY - lived))
        now = one.due or 0.0
    # The next one does not come up: that is another matter, and begins with no delay.
    for delay in (0.0, FIRST_DELAY):
        one.start(now, (), Privileges())
        assert one.on_exit(now + 0.01) == delay
        now = one.due or 0.0


def test_a_fork_that_fails_is_tried_again_and_leaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    one, before = child(), len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Resource temporarily"):
        one.start(1000.0, (), Privileges())
    assert (one.pid, one.due) == (0, 1000.0 + FIRST_DELAY)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize("away", ["", "dead", "down", "stopped", "stalled", "draining"])
def test_whether_it_answers(away: str) -> None:
    one = child()
    assert not one.answering
    one.start(1000.0, (), Privileges())
    one.status.up = away != "down"
    one.stopped, one.stalled = away == "stopped", away == "stalled"
    one.status.draining = away == "draining"
    if away == "dead":
        one.on_exit(1001.0)
    assert one.answering == (not away)
    one.close_control()


@pytest.mark.usefixtures("forks")
def test_who_is_dead_is_told_nothing_and_that_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    one = child()
    assert not one.send(StartAccepting())
    one.start(1000.0, (), Privileges())  # the other end of its line is closed here, and was nowhere else
    assert not one.send(StartAccepting())
    assert caplog.records == []
    one.close_control()


def test_who_reads_nothing_and_cannot_be_told_to_finish_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    one = child(lambda control: time.sleep(60))
    one.start(0.0, (one,), Privileges())
    try:
        while one.send(ReleaseSockets(0)):
            pass
        assert "cannot send a control message to worker 0" in caplog.text
        one.drain(Drain(frozenset()), deadline=time.monotonic() + 100)
        assert one.deadline == 0.0
    finally:
        one.kill()
        eventually(partial(gone, one.pid), "the end")
        one.close_control()


def gone(pid: int) -> bool:
    with suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return True


def test_the_end_of_the_pipe_ends_the_child_and_no_sibling() -> None:
    """Siblings inherit each other's pipes; a copy kept open would keep the first one alive."""
    one, other = child(), child()
    one.start(0.0, (one, other), Privileges())
    other.start(0.0, (one, other), Privileges())
    try:
        assert one.status.pid == one.pid != other.pid
        one.close_control()
        eventually(partial(gone, one.pid), "the end of the first")
        assert not gone(other.pid)
    finally:
        for each in (one, other):
            each.close_control()
            each.kill() if not gone(each.pid) else None
            eventually(partial(gone, each.pid), "the end")


def test_a_child_that_fails_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    def fail(control: object) -> None:
        raise RuntimeError("no luck")

    one = child(fail)
    one.start(0.0, (one,), Privileges())
    assert os.waitstatus_to_exitcode(os.waitpid(one.pid, 0)[1]) == 1
    one.close_control()
    assert "worker 0 failed" in (said := capfd.readouterr().err)
    assert "no luck" in said
