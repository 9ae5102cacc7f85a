"""The cost of a scrape: how long /metrics takes, and whether clients notice.

Scrapes are timed with 8 workers and 10 listeners, as a large host has, and with 64 and 100, more than any known host
has. The p99 of clients is compared between turns with ten scrapes a second and turns without, on a server of one
worker, in an open loop of 20,000 a second. The scraping thread has idle priority, since a real scraper is another
machine.
"""

import os
import threading

from bench import load, servers
from bench.compare import of_medians
from bench.measure import scrape
from bench.report import Figure, Results
from bench.scenarios.interleave import WARM_UP
from bench.servers import Server
from bench.settings import Settings

SIZES = ((8, 10), (64, 100))  # workers, listeners
QUICK_SIZES = ((2, 3),)
TARGETS = {(8, 10): 20.0}  # ms
SCRAPES = 15
CLIENTS = 32  # of the closed loop that warms the server up
RATE, SECONDS, TURNS = 20_000.0, 0.3, 25
EVERY = 0.1  # seconds
MIN_SCRAPES = 0.8  # share of the scrapes that were due
BESIDE_TARGET = 1.1


def run(settings: Settings, results: Results) -> None:
    """Add the time of a scrape by size of the server, and the p99 beside scrapes."""
    if settings.peers_only:
        results.note("scrape: only flashpol is measured")
        return
    for size in settings.either(SIZES, QUICK_SIZES):
        with servers.flashpol(None, workers=size[0], listeners=size[1]) as server:
            scrape(server.admin)  # not counted: it imports modules and fills caches
            times = [scrape(server.admin)[0] * 1000 for _ in range(settings.either(SCRAPES, 2))]
        name = f"{size[0]} workers, {size[1]} listeners"
        results.add_spread("scrape", name, "ms", times, at_most=TARGETS.get(size), digits=1)
    with servers.flashpol(settings.server_cpu) as server:
        load.closed(server, connections=CLIENTS, count=WARM_UP, cpu=settings.load_cpus)
        with_scrapes, without, seen = _alternate(server, settings)
    if seen < MIN_SCRAPES * len(with_scrapes) * SECONDS / EVERY and not settings.quick:
        results.note(f"scrape: only {seen} scrapes in {len(with_scrapes)} turns: the machine was too busy")
    name = "p99 beside 10 scrapes a second / without, of medians (and 95 % interval)"
    results.add(Figure("scrape", name, "ratio", of_medians(with_scrapes, without), at_most=BESIDE_TARGET))


def _alternate(server: Server, settings: Settings) -> tuple[list[float], list[float], int]:
    """p99 beside scrapes, p99 without, and the number of scrapes."""
    p99: dict[bool, list[float]] = {True: [], False: []}
    seen: list[float] = []
    for number in range(settings.turns(TURNS)):
        for scraping in (number % 2 == 0, number % 2 != 0):
            over = threading.Event()
            thread = threading.Thread(target=_scrape_until, args=(over, server.admin, seen), daemon=True)
            if scraping:
                thread.start()
            one = load.open_loop(server, rate=RATE, seconds=settings.either(SECONDS, 0.2), cpu=settings.load_cpus)
            over.set()
            if scraping:
                thread.join()
            p99[scraping].append(one.latency["p99"])
    return p99[True], p99[False], len(seen)


def _scrape_until(over: threading.Event, port: int, seen: list[float]) -> None:
    os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))
    while True:
        seen.append(scrape(port)[0])
        if over.wait(EVERY):
            return
