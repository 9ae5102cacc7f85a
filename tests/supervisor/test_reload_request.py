"""A reload request wakes the arbiter."""

import os
import signal
from collections.abc import Iterator

import pytest

from flashpol.supervisor.reload_request import SIGNAL, ReloadRequest
from testkit.polling import eventually


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """The signals that came; whichever thread of the test's process gets them, they do not end it."""
    signals: list[int] = []
    before = signal.signal(SIGNAL, lambda number, _: signals.append(number))
    try:
        yield signals
    finally:
        signal.signal(SIGNAL, before)


def test_send_by_another_process_signals_and_is_pending_once(heard: list[int]) -> None:
    request = ReloadRequest()
    assert not request.pending()
    child = os.fork()
    if child == 0:
        request.send()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    eventually(lambda: heard, "the signal")
    assert request.pending()
    assert not request.pending()
    request.close()


def test_send_with_a_full_pipe_does_not_block(heard: list[int]) -> None:
    request = ReloadRequest()
    for _ in range(70_000):
        request.send()
    assert request.pending()
    request.send()
    request.close()
    assert set(heard) == {SIGNAL}
