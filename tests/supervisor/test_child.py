"""One child process at a time: when its successor starts, and how it is controlled."""

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


def nothing() -> None:
    """Nothing is inherited that must be closed."""


def close(*children: Child) -> Callable[[], None]:
    def close_inherited() -> None:
        for each in children:
            each.close_control()

    return close_inherited


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """fork() pretends: the pid is one that nothing is sent to."""
    monkeypatch.setattr(os, "fork", lambda: 12345)


@pytest.mark.usefixtures("forks")
def test_child_that_never_comes_up_restarts_after_longer_and_longer_pauses() -> None:
    one, now, delays = child(), 1000.0, []
    for _ in range(10):
        one.start(now, nothing, Privileges())
        now += 0.5  # it lives half a second
        delays.append(one.on_exit(now))
        assert one.due == now + delays[-1]
        now = one.due
    assert delays[:3] == [0.0, FIRST_DELAY, 2 * FIRST_DELAY]
    assert delays == sorted(delays)
    assert delays[-1] == LAST_DELAY
    assert one.restarts == one.status.restarts == one.failed_starts == 10


@pytest.mark.usefixtures("forks")
def test_child_that_lived_long_restarts_at_once() -> None:
    one = child()
    for now in (1000.0, 1001.0, 1002.0):
        one.start(now, nothing, Privileges())
        one.on_exit(now + 0.1)
    one.start(1100.0, nothing, Privileges())
    assert one.on_exit(1100.0 + HEALTHY_AFTER) == 0.0
    one.start(1200.0, nothing, Privileges())
    assert one.on_exit(1200.0 + HEALTHY_AFTER - 0.1) == FIRST_DELAY


@pytest.mark.usefixtures("forks")
def test_child_that_came_up_restarts_once_in_the_first_delay() -> None:
    one, now = child(), 1000.0
    for lived in (0.2, FIRST_DELAY, FIRST_DELAY / 4, 0.2):
        one.start(now, nothing, Privileges())
        one.status.up = 1
        now += lived
        assert one.on_exit(now) == pytest.approx(max(0.0, FIRST_DELAY - lived))
        now = one.due or 0.0
    # The next one does not come up: that is another matter, and begins with no delay.
    for delay in (0.0, FIRST_DELAY):
        one.start(now, nothing, Privileges())
        assert one.on_exit(now + 0.01) == delay
        now = one.due or 0.0


def test_start_when_fork_fails_is_due_again_and_leaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    one, before = child(), len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Resource temporarily"):
        one.start(1000.0, nothing, Privileges())
    assert (one.pid, one.due) == (0, 1000.0 + FIRST_DELAY)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize("away", ["", "dead", "down", "stopped", "stalled", "draining"])
def test_answering_is_false_while_a_child_cannot_accept(away: str) -> None:
    one = child()
    assert not one.answering
    one.start(1000.0, nothing, Privileges())
    one.status.up = away != "down"
    one.stopped, one.stalled = away == "stopped", away == "stalled"
    one.status.draining = away == "draining"
    if away == "dead":
        one.on_exit(1001.0)
    assert one.answering == (not away)
    one.close_control()


@pytest.mark.usefixtures("forks")
def test_send_to_a_dead_child_is_false_and_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    one = child()
    assert not one.send(StartAccepting())
    one.start(1000.0, nothing, Privileges())  # the other end of its line is closed here, and was nowhere else
    assert not one.send(StartAccepting())
    assert caplog.records == []
    one.close_control()


def test_drain_of_a_child_that_reads_nothing_makes_it_overdue(caplog: pytest.LogCaptureFixture) -> None:
    one = child(lambda control: time.sleep(60))
    one.start(0.0, nothing, Privileges())
    try:
        while one.send(ReleaseSockets(0)):
            pass
        assert "cannot send a control message to worker 0" in caplog.text
        one.drain(Drain(frozenset()), time.monotonic() + 50, deadline=time.monotonic() + 100)
        assert one.deadline == 0.0
    finally:
        one.kill()
        eventually(partial(gone, one.pid), "the end")
        one.close_control()


def gone(pid: int) -> bool:
    with suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return True


def test_close_control_ends_that_child_and_no_sibling() -> None:
    """Siblings inherit each other's control sockets; an open copy would keep the first one running."""
    one, other = child(), child()
    one.start(0.0, close(one, other), Privileges())
    other.start(0.0, close(one, other), Privileges())
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


def test_child_whose_main_raises_logs_it_and_exits_with_1(capfd: pytest.CaptureFixture[str]) -> None:
    def fail(control: object) -> None:
        raise RuntimeError("no luck")

    one = child(fail)
    one.start(0.0, nothing, Privileges())
    assert os.waitstatus_to_exitcode(os.waitpid(one.pid, 0)[1]) == 1
    one.close_control()
    assert "worker 0 failed" in (said := capfd.readouterr().err)
    assert "no luck" in said
