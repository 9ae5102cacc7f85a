"""A worker whose event loop does not turn is killed, and its successor serves the clients in its queue."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from testkit.clients import REQUEST, ask, connect, rest
from testkit.polling import eventually
from testkit.processes import POLICY, Flashpol, Process, stat

STALL = 1.0  # seconds
CLIENTS = 32


def configured(folder: Path, stall_timeout: float, server: str = "", listener: str = "", workers: int = 2) -> Flashpol:
    path = folder / "flashpol.toml"
    path.write_text(
        f'[server]\nstall_timeout = {stall_timeout}\n{server}\n[policies.p]\nfile = "{POLICY}"\n'
        f'[[listeners]]\nname = "main"\naddress = "127.0.0.1:0"\npolicy = "p"\n{listener}\n'
    )
    return Flashpol("-c", path, listen=(), workers=workers)


def elapsed(seconds: float) -> Callable[[], bool]:
    """For an event that is not to happen: only the time can be waited for."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def test_stalled_worker_is_replaced_and_loses_no_client(tmp_path: Path) -> None:
    """The only one, so that no sibling can serve its queue."""
    with configured(tmp_path, STALL, workers=1) as server:
        stopped = server.workers[0]
        stopped.kill(signal.SIGSTOP)
        clients = [connect(server.place, REQUEST) for _ in range(CLIENTS)]
        assert {rest(client) for client in clients} == {POLICY.read_bytes() + b"\0"}
        assert not stopped.alive
        [line] = [line for line in server.log.splitlines() if " stalled: it has not served for " in line]
        assert f"(pid {stopped.pid})" in line
        server.counts(1, "worker_restarts_total")


def test_stalled_worker_does_not_hold_up_a_reload(tmp_path: Path) -> None:
    """On a shared port, where it would have drain_timeout for its sessions."""
    with configured(tmp_path, STALL, "shutdown_timeout = 0.5", 'upstream = "127.0.0.1:1"') as server:
        stopped = server.workers[0]
        stopped.kill(signal.SIGSTOP)
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: " reloaded: " in server.log, "the reload is done")
        assert not stopped.alive
        assert ask(server.place) == POLICY.read_bytes() + b"\0"


@pytest.mark.slow
def test_server_stopped_and_continued_as_a_whole_is_no_stall(tmp_path: Path) -> None:
    """As a terminal does it with Ctrl-Z and fg: the arbiter did not run either."""
    with configured(tmp_path, STALL) as server:
        before = server.workers
        everybody = [Process.of(server.process.pid), *server.children]
        for one in everybody:
            assert one
            one.kill(signal.SIGSTOP)
        eventually(lambda: all(one and stat(one.pid)[0] == "T" for one in everybody), "all are stopped")
        eventually(elapsed(2 * STALL), "longer than a worker may stand still")
        for one in everybody:
            assert one
            one.kill(signal.SIGCONT)
        assert rest(connect(server.place, REQUEST)) == POLICY.read_bytes() + b"\0"
        eventually(elapsed(STALL), "time to judge them")
        assert server.workers == before


@pytest.mark.slow
def test_stall_timeout_0_leaves_a_stopped_worker_alone(tmp_path: Path) -> None:
    with configured(tmp_path, 0) as server:
        stopped = server.workers[0]
        stopped.kill(signal.SIGSTOP)
        # It is seen, and that is all.
        eventually(lambda: server.up == 1, "one of two is not called up")
        assert server.metrics().total("loop_lag_seconds") > 1.0
        assert stopped.alive
        stopped.kill(signal.SIGCONT)
        eventually(lambda: server.up == 2, "it goes on")
        server.counts(0, "worker_restarts_total")
