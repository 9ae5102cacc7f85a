"""How the admin process wakes the arbiter."""

import os
import signal

from flashpol.server.bell import Bell


def test_another_process_rings() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (Bell.SIGNAL,))
    bell = Bell()
    try:
        assert not bell.rung()
        child = os.fork()
        if child == 0:
            bell.ring()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert signal.sigtimedwait((Bell.SIGNAL,), 5) is not None
        assert bell.rung()
        assert not bell.rung()
    finally:
        bell.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_ringing_for_ever_blocks_nobody() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (Bell.SIGNAL,))
    bell = Bell()
    try:
        for _ in range(70_000):
            bell.ring()
        assert bell.rung()
        bell.ring()
        while signal.sigtimedwait((Bell.SIGNAL,), 0):
            pass
    finally:
        bell.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
