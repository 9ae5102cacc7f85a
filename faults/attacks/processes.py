"""Attacks on the server's own processes."""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from faults.attack import AttackGroup, AttackRun, with_settings
from faults.server import STOP_SECONDS, Server

group = AttackGroup()

STALL_TIMEOUT = 0.5  # seconds; the default would be too long for a quick run


@group.attack("worker-killed")
def worker_killed(run: AttackRun) -> None:
    """SIGKILL ends a worker every 100 ms, in turn."""
    killed = 0
    for number in run.every(0.1):
        # Good clients connect every 2 ms. Kills in step with them would hit either none or all of their connections.
        time.sleep(random.uniform(0, 0.002))
        workers = run.server.workers
        if workers:
            with suppress(ProcessLookupError):
                os.kill(workers[number % len(workers)], signal.SIGKILL)
                killed += 1
    run.load = f"{killed} workers of {run.seconds:.0f} s killed by SIGKILL"


@contextmanager
def _service() -> Iterator[Server]:
    """A server under a service manager that holds the socket."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as sock, Server(inherited=sock) as server:
        yield server


@group.attack("arbiter-killed", server=_service)
def arbiter_killed(run: AttackRun) -> None:
    """SIGKILL ends the arbiter every 2 s; a service manager that holds the socket restarts the server."""
    for number in run.every(2.0):
        run.server.process.kill()
        run.server.process.wait(STOP_SECONDS)
        run.server.start()
        run.load = f"{number + 1} times killed by SIGKILL, socket activation, restarted at once"
    # The counters of the killed servers died with them.
    with suppress(subprocess.TimeoutExpired):
        run.server.process.wait(0)


@group.attack("worker-stopped", server=with_settings(stall_timeout=STALL_TIMEOUT))
def worker_stopped(run: AttackRun) -> None:
    """SIGSTOP stalls a worker, as waiting for a dead disk would."""
    stopped = 0
    for _ in run.every(3.0):
        os.kill(run.server.workers[0], signal.SIGSTOP)
        stopped += 1
    run.load = f"{stopped} times one of two workers stopped, stall_timeout {STALL_TIMEOUT} s"
