"""How the admin process wakes the arbiter."""

import os
import signal
from collections.abc import Iterator

import pytest

from flashpol.supervisor.reload_request import ReloadRequest
from testkit.polling import eventually


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """The signals that came. Whichever thread of the test's process they are sent to, they end nothing."""
    signals: list[int] = []
    before = signal.signal(ReloadRequest.SIGNAL, lambda number, _: signals.append(number))
    try:
        yield signals
    finally:
        signal.signal(ReloadRequest.SIGNAL, before)


def test_another_process_rings(heard: list[int]) -> None:
    bell = ReloadRequest()
    assert not bell.rung()
    child = os.fork()
    if child == 0:
        bell.ring()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    eventually(lambda: heard, "the signal")
    assert bell.rung()
    assert not bell.rung()
    bell.close()


def test_ringing_for_ever_blocks_nobody(heard: list[int]) -> None:
    bell = ReloadRequest()
    for _ in range(70_000):
        bell.ring()
    assert bell.rung()
    bell.ring()
    bell.close()
    assert set(heard) == {ReloadRequest.SIGNAL}
