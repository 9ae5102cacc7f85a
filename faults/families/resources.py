"""What a host can run out of: descriptors, memory, somebody who reads the log; and its clock."""

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.measure import status
from faults import FaultsError, build
from faults.clients import Bad
from faults.scene import Family, Scene, with_settings
from faults.server import Server

family = Family()

FILES = 300  # descriptors of a worker
CAP = 300  # connections in all
MEMORY_BYTES = 16 << 20  # that a worker may ask for beyond what it starts with


@family.attack("no-descriptors")
def no_descriptors(scene: Scene) -> None:
    """More silent clients than there are descriptors."""
    for pid in scene.server.workers:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (FILES, FILES))
    with Bad(scene.server.port, connections=5 * FILES, rate=4_000, say="nothing", then="hold"):
        scene.wait()
    scene.load = f"{5 * FILES:,} silent clients, {FILES} descriptors a worker"


@family.attack("no-places", server=with_settings(max_connections=CAP))
def no_places(scene: Scene) -> None:
    """More silent clients than `max_connections` allows; who had to give way comes again at once."""
    with Bad(scene.server.port, connections=5 * CAP, rate=4_000, say="nothing", then="hold") as bad:
        scene.wait()
    opened = bad.done["opened"] / scene.lasting
    scene.load = f"{5 * CAP:,} silent clients, {opened:,.0f} new ones a second, max_connections {CAP}"


@contextmanager
def _little_memory() -> Iterator[Server]:
    """Each of its processes may have a little more address space than a worker takes when it starts."""
    with Server() as usual:
        limit = max(status(pid)["VmSize"] for pid in usual.workers) + MEMORY_BYTES
    with Server(under=["prlimit", f"--as={limit}"]) as server:
        yield server


@family.attack("no-memory", server=_little_memory)
def no_memory(scene: Scene) -> None:
    """Clients that each need a greenlet, and an address space with no room for so many."""
    with Bad(scene.server.large_port, connections=4_000, rate=2_000, say="whole", then="hold", deaf=True):
        scene.wait()
    scene.load = f"4,000 that never read 1 MB, {MEMORY_BYTES >> 20} MB for each worker (RLIMIT_AS)"


@contextmanager
def _unread_log() -> Iterator[Server]:
    """Its log is a pipe that is full already."""
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)
        try:
            while True:
                os.write(writing, bytes(1 << 16))
        except BlockingIOError:
            os.set_blocking(writing, True)  # as a shell or a service manager would hand it
        with Server({"access_log": 1.0}, stderr=writing) as server:
            yield server
    finally:
        os.close(reading)
        os.close(writing)


@family.attack("full-log-pipe", server=_unread_log)
def full_log_pipe(scene: Scene) -> None:
    """Every connection is to be logged, and nobody reads the log."""
    with Bad(scene.server.port, connections=64, rate=1_000, say="mixed", then="close"):
        scene.wait()
    scene.load = "a pipe that nobody reads, a line due for each of 1,000 connections a second"


@contextmanager
def _jumping_clock() -> Iterator[Server]:
    with Server(environment={"LD_PRELOAD": str(build.preload("jump"))}) as server:
        yield server


@family.attack("clock-jumps", server=_jumping_clock)
def clock_jumps(scene: Scene) -> None:
    """The wall clock of the server's processes jumps by a day, forth and back, while silent clients wait."""
    for pid in scene.server.workers:
        if "jump.so" not in Path(f"/proc/{pid}/maps").read_text():
            raise FaultsError("the workers' clock does not jump: jump.so was not preloaded")
    began = time.monotonic()
    with Bad(scene.server.port, connections=500, rate=1_000, say="half", then="hold") as bad:
        scene.wait()
    # Each is held for 3 s, so this is what deadlines that are kept must let in.
    expected = 500 * (time.monotonic() - began) / 3.0
    if not 0.5 * expected <= bad.done["ended"] + 500 <= 1.5 * expected + 500:
        raise FaultsError(f"deadlines moved with the clock: {bad.done['ended']} ended, about {expected:.0f} were due")
    scene.load = "CLOCK_REALTIME jumps by a day 5 times a second (preloaded, not the machine's); 500 silent"
