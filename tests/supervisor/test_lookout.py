"""What runs under a lookout ends when that says so, and is otherwise left alone."""

import os
import signal
from pathlib import Path

import pytest

from flashpol.supervisor.lookout import Interrupted, lookout


def test_it_ends_a_system_call_that_would_wait_for_ever(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise Interrupted("enough")

    with pytest.raises(Interrupted, match="enough"), lookout(look):
        (tmp_path / "pipe").read_bytes()
    assert looks == 3


def test_nothing_that_catches_mistakes_catches_it() -> None:
    def look() -> None:
        raise Interrupted("enough")

    def careless() -> None:
        while True:
            try:
                signal.pause()
            except Exception:
                continue

    with pytest.raises(Interrupted), lookout(look):
        careless()


def test_afterwards_nobody_looks_any_more() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with lookout(lambda: None):
        assert signal.getitimer(signal.ITIMER_REAL) != (0.0, 0.0)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) == before
    with pytest.raises(ConnectionError), lookout(lambda: None):
        raise ConnectionError
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
