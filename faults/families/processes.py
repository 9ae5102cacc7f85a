"""What happens to the server's own processes."""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from faults.scene import Family, Scene, with_settings
from faults.server import STOP_SECONDS, Server

family = Family()

STALL_TIMEOUT = 0.5  # seconds; the default is longer, and a quick run shorter


@family.attack("worker-killed")
def worker_killed(scene: Scene) -> None:
    """A worker dies every 100 ms, one after the other."""
    killed = 0
    for number in scene.every(0.1):
        # Good clients come every 2 ms: in step with them either none or all of the kills would find one inside.
        time.sleep(random.uniform(0, 0.002))
        workers = scene.server.workers
        if workers:
            with suppress(ProcessLookupError):
                os.kill(workers[number % len(workers)], signal.SIGKILL)
                killed += 1
    scene.load = f"{killed} workers of {scene.lasting:.0f} s killed by SIGKILL"


@contextmanager
def _service() -> Iterator[Server]:
    """Under a service manager that holds the socket."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as sock, Server(inherited=sock) as server:
        yield server


@family.attack("arbiter-killed", server=_service)
def arbiter_killed(scene: Scene) -> None:
    """The parent dies every other second; a service manager that holds the socket starts the server again."""
    for number in scene.every(2.0):
        scene.server.process.kill()
        scene.server.process.wait(STOP_SECONDS)
        scene.server.start()
        scene.load = f"{number + 1} times killed by SIGKILL, socket activation, started again at once"
    # What the killed ones counted died with them.
    with suppress(subprocess.TimeoutExpired):
        scene.server.process.wait(0)


@family.attack("worker-stopped", server=with_settings(stall_timeout=STALL_TIMEOUT))
def worker_stopped(scene: Scene) -> None:
    """A worker stands still (SIGSTOP), as one does that waits for a disk that is gone."""
    stopped = 0
    for _ in scene.every(3.0):
        os.kill(scene.server.workers[0], signal.SIGSTOP)
        stopped += 1
    scene.load = f"{stopped} times one of two workers stopped, stall_timeout {STALL_TIMEOUT} s"
