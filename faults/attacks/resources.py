"""Attacks on resources: descriptors, memory, a log that is not read; and on the wall clock."""

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.measure import status
from faults import FaultsError, build
from faults.attack import AttackGroup, AttackRun, with_settings
from faults.clients import BadClients
from faults.server import Server

group = AttackGroup()

FILES = 300  # descriptors of a worker
MAX_CONNECTIONS = 300
MEMORY_BYTES = 16 << 20  # address space that a worker may take in addition to what it starts with


@group.attack("no-descriptors")
def no_descriptors(run: AttackRun) -> None:
    """More silent clients than the workers have descriptors."""
    for pid in run.server.workers:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (FILES, FILES))
    with BadClients(run.server.port, connections=5 * FILES, rate=4_000, say="nothing", then="hold"):
        run.wait()
    run.load = f"{5 * FILES:,} silent clients, {FILES} descriptors a worker"


@group.attack("max-connections", server=with_settings(max_connections=MAX_CONNECTIONS))
def max_connections(run: AttackRun) -> None:
    """More silent clients than `max_connections` allows; an evicted one connects again at once."""
    with BadClients(run.server.port, connections=5 * MAX_CONNECTIONS, rate=4_000, say="nothing", then="hold") as bad:
        run.wait()
    opened = bad.output["opened"] / run.seconds
    run.load = (
        f"{5 * MAX_CONNECTIONS:,} silent clients, {opened:,.0f} new ones a second, max_connections {MAX_CONNECTIONS}"
    )


@contextmanager
def _little_memory() -> Iterator[Server]:
    """Each process may have little more address space than a worker takes when it starts."""
    with Server() as usual:
        limit = max(status(pid)["VmSize"] for pid in usual.workers) + MEMORY_BYTES
    with Server(under=["prlimit", f"--as={limit}"]) as server:
        yield server


@group.attack("no-memory", server=_little_memory)
def no_memory(run: AttackRun) -> None:
    """Clients that need a greenlet each, in an address space that is too small for all of them."""
    with BadClients(run.server.ports["large"], connections=4_000, rate=2_000, say="whole", then="hold", deaf=True):
        run.wait()
    run.load = f"4,000 that never read 1 MB, {MEMORY_BYTES >> 20} MB for each worker (RLIMIT_AS)"


@contextmanager
def _unread_log() -> Iterator[Server]:
    """A server whose log is a full pipe."""
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)
        try:
            while True:
                os.write(writing, bytes(1 << 16))
        except BlockingIOError:
            os.set_blocking(writing, True)  # as a shell or a service manager would pass it
        with Server({"access_log": 1.0}, stderr=writing) as server:
            yield server
    finally:
        os.close(reading)
        os.close(writing)


@group.attack("full-log-pipe", server=_unread_log)
def full_log_pipe(run: AttackRun) -> None:
    """Every connection is to be logged, and the log is a pipe that is not read."""
    with BadClients(run.server.port, connections=64, rate=1_000, say="mixed", then="close"):
        run.wait()
    run.load = "a pipe that is not read, a line due for each of 1,000 connections a second"


@contextmanager
def _jumping_clock() -> Iterator[Server]:
    with Server(environment={"LD_PRELOAD": str(build.preload("jump"))}) as server:
        yield server


@group.attack("clock-jumps", server=_jumping_clock)
def clock_jumps(run: AttackRun) -> None:
    """The wall clock of the server's processes jumps a day ahead and back, while silent clients wait."""
    for pid in run.server.workers:
        if "jump.so" not in Path(f"/proc/{pid}/maps").read_text():
            raise FaultsError("the workers' clock does not jump: jump.so was not preloaded")
    began = time.monotonic()
    with BadClients(run.server.port, connections=500, rate=1_000, say="half", then="hold") as bad:
        run.wait()
    # Each is held for 3 s, so this many end if the deadlines are kept.
    expected = 500 * (time.monotonic() - began) / 3.0
    if not 0.5 * expected <= bad.output["ended"] + 500 <= 1.5 * expected + 500:
        raise FaultsError(f"deadlines moved with the clock: {bad.output['ended']} ended, about {expected:.0f} were due")
    run.load = "CLOCK_REALTIME jumps by a day 5 times a second (preloaded, not the machine's); 500 silent"
