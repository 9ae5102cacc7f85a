"""Reloads under load: every client gets its whole reply; and the tail latency.

An open loop sends a third of the highest rate of a closed loop, while the arbiter gets SIGHUP once a second: new
workers start on the same sockets, and the old ones drain.
"""

import os
import signal
import threading

from bench import BenchError, load, servers
from bench.report import Results
from bench.settings import Settings

SECONDS = 6.0
EVERY = 1.0  # seconds
SHARE = 0.33
CLIENTS, REPLIES = 256, 10_000
ROUNDS = 3
QUANTILES = ("p50", "p99", "p999", "max")


def run(settings: Settings, results: Results) -> None:
    """Add latencies with and without reloads. A lost reply ends the run."""
    if settings.peers_only:
        results.note("reload: only flashpol is measured")
        return
    calm: list[load.Open] = []
    reloading: list[load.Open] = []
    seconds = settings.either(SECONDS, 2.5)
    with servers.flashpol(settings.server_cpu) as server:
        top = load.closed(server, connections=CLIENTS, count=REPLIES, cpu=settings.load_cpus)
        rate = SHARE * top.replies / top.seconds
        for _ in range(settings.turns(ROUNDS)):
            calm.append(load.open_loop(server, rate=rate, seconds=seconds / 2, cpu=settings.load_cpus))
            with _Reloads(server.parent):
                reloading.append(load.open_loop(server, rate=rate, seconds=seconds, cpu=settings.load_cpus))
    failed = sum(one.failed for one in [*calm, *reloading])
    if failed:
        raise BenchError(f"flashpol: {failed} clients got no reply during reloads")
    for quantile in QUANTILES:
        for words, runs in (("calm", calm), ("reloading every second", reloading)):
            samples = [one.latency[quantile] for one in runs]
            results.add_spread("reload", f"{quantile}, {words}", "us", samples, digits=0)
    replies = [float(one.replies) for one in reloading]
    results.add_spread("reload", "replies while reloading, none lost", "", replies, digits=0, better="")


class _Reloads:
    """Within the context, a thread sends SIGHUP to the arbiter every second."""

    def __init__(self, arbiter: int) -> None:
        self._arbiter = arbiter
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _send(self) -> None:
        while not self._over.wait(EVERY):
            os.kill(self._arbiter, signal.SIGHUP)
