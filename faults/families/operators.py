"""What comes from the operator's side: reloads, and whoever reaches the admin endpoint."""

import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

from faults.scene import Family, Scene

family = Family()

SCRAPERS = 4
STALLED = 150  # more than the endpoint has room for


@family.attack("reload-storm")
def reload_storm(scene: Scene) -> None:
    """SIGHUP again and again; each makes a new generation of workers beside the old one."""
    for number in scene.every(0.05):
        scene.server.process.send_signal(signal.SIGHUP)
        scene.load = f"{number + 1} SIGHUPs, one every 50 ms"


@family.attack("admin-hammered")
def admin_hammered(scene: Scene) -> None:
    """Scrapes and pages without a pause."""

    def hammer(_: int) -> int:
        done = 0
        while scene.left:
            with suppress(OSError), socket.create_connection(("127.0.0.1", scene.server.admin_port), 5) as client:
                path = ("/metrics", "/", "/-/status")[done % 3]
                client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                while client.recv(65536):
                    pass
                done += 1
        return done

    with ThreadPoolExecutor(SCRAPERS) as pool:
        done = sum(pool.map(hammer, range(SCRAPERS)))
    scene.load = f"{done / scene.lasting:,.0f} requests a second from {SCRAPERS} clients"


@family.attack("admin-stalled")
def admin_stalled(scene: Scene) -> None:
    """Requests that stop half way, more than there are places; the metrics must still be had."""
    scrapes = 0
    with ExitStack() as held:
        for _ in range(STALLED):
            client = socket.create_connection(("127.0.0.1", scene.server.admin_port), 5)
            held.enter_context(client)
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
        while scene.left:
            scene.server.metrics()
            scrapes += 1
            time.sleep(min(0.2, scene.left))
    scene.load = f"{STALLED} requests stalled half way; {scrapes} scrapes meanwhile"
