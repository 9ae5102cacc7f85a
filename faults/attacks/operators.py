"""Attacks from the operator's side: reloads, and clients of the admin endpoint."""

import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

from faults.attack import AttackGroup, AttackRun

group = AttackGroup()

SCRAPERS = 4
STALLED = 150  # more than the endpoint serves at one time


@group.attack("reload-storm")
def reload_storm(run: AttackRun) -> None:
    """Repeated SIGHUPs, each of which starts a new generation of workers beside the old one."""
    for number in run.every(0.05):
        run.server.process.send_signal(signal.SIGHUP)
        run.load = f"{number + 1} SIGHUPs, one every 50 ms"


@group.attack("admin-hammered")
def admin_hammered(run: AttackRun) -> None:
    """Clients request metrics, the page and the status without a pause."""

    def hammer(_: int) -> int:
        done = 0
        while run.left:
            with suppress(OSError), socket.create_connection(("127.0.0.1", run.server.admin_port), 5) as client:
                path = ("/metrics", "/", "/-/status")[done % 3]
                client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                while client.recv(65536):
                    pass
                done += 1
        return done

    with ThreadPoolExecutor(SCRAPERS) as pool:
        done = sum(pool.map(hammer, range(SCRAPERS)))
    run.load = f"{done / run.seconds:,.0f} requests a second from {SCRAPERS} clients"


@group.attack("admin-stalled")
def admin_stalled(run: AttackRun) -> None:
    """More requests than the endpoint serves at one time stop half way; scrapes must still succeed."""
    scrapes = 0
    with ExitStack() as held:
        for _ in range(STALLED):
            client = socket.create_connection(("127.0.0.1", run.server.admin_port), 5)
            held.enter_context(client)
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
        while run.left:
            run.server.metrics()
            scrapes += 1
            time.sleep(min(0.2, run.left))
    run.load = f"{STALLED} requests stalled half way; {scrapes} scrapes meanwhile"
