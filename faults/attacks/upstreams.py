"""Attacks on and by way of applications: one that is dead, local ports that run out, bytes by the gigabyte."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from bench import build
from faults.attack import AttackGroup, AttackRun
from faults.clients import BAD_NICE, BadClients
from faults.network import ELSEWHERE, add_elsewhere, limit_local_ports, usual_local_ports
from faults.places import GAME, LATE_GAME, PLAYER, QUIET_PLAYER, four_places
from faults.server import Listener, Server
from faults.shared import shared

group = AttackGroup(defaults={"max_ratio": 3.0, "quick": 3.0, "rows": four_places("games")})

SESSIONS = 200  # max_sessions of each worker
PORTS = 1_000  # local ports of the machine
FLOWS, FLOW_BYTES = 300, 1 << 33  # more than is sent in the time of any run
PLAYED = (GAME, LATE_GAME, PLAYER, QUIET_PLAYER)


@contextmanager
def _dead_application() -> Iterator[Server]:
    """The application of `games` accepts nothing, and its accept queue is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as dead, ExitStack() as stack:
        address = dead.getsockname()
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(address)
        yield stack.enter_context(shared(upstream=f"{address[0]}:{address[1]}", max_sessions=SESSIONS)())


@group.attack("dead-application", server=_dead_application, rows=four_places("games", without=PLAYED))
def dead_application(run: AttackRun) -> None:
    """Clients of an application that does not accept, beside one that is well, with one `max_sessions`."""
    port, hello = run.server.ports["games"], run.server.message("hello")
    with BadClients(port, connections=1_000, rate=250, say=hello, then="hold", addresses=1) as bad:
        run.wait()
    opened = bad.output["opened"] / run.seconds
    run.load = f"{opened:,.0f} clients a second of an application that does not accept, max_sessions {SESSIONS}"


@contextmanager
def _elsewhere() -> Iterator[Server]:
    """The application of `games` has the address of another host."""
    add_elsewhere()
    with usual_local_ports():
        limit_local_ports(PORTS)  # the server reads at its start how many there are
        with shared(address=ELSEWHERE)() as server:
            yield server


@group.attack("local-ports", server=_elsewhere, own_network=True, seconds=8.0)
def local_ports(run: AttackRun) -> None:
    """Short sessions, whose clients send FIN first, with an application that has an address of another host."""
    port, byte = run.server.ports["games"], run.server.message("byte")
    # Several addresses, since otherwise the attackers' own ports run out.
    with BadClients(port, connections=200, rate=500, say=byte, then="finish", addresses=10) as bad:
        run.wait()
    opened = bad.output["opened"] / run.seconds
    run.load = f"{opened:,.0f} short sessions a second to an upstream that is not loopback, {PORTS:,} local ports"


@contextmanager
def _source() -> Iterator[Server]:
    """One worker; the application of the listener `films` is a source of bytes."""
    with subprocess.Popen(
        [str(build.load_generator()), "relay", "application"], stdout=subprocess.PIPE, text=True
    ) as source:
        try:
            assert source.stdout
            port = source.stdout.readline().split()[1]
            films = Listener("films", options={"upstream": f'"127.0.0.1:{port}"'})
            with shared(more=(films,), workers=1, max_address_connections=0)() as server:
                yield server
        finally:
            source.kill()


@group.attack(
    "bulk-sessions",
    server=_source,
    max_ratio=10.0,
    # Its application is busy with the films, so only policies say how fast the server is.
    rows=four_places("films", like="games", source="127.1.1.1", without=PLAYED),
)
def bulk_sessions(run: AttackRun) -> None:
    """Sessions that move bytes as fast as the machine can, in the only worker."""
    port = run.server.ports["films"]
    command = ["nice", f"-n{BAD_NICE}", str(build.load_generator()), "relay", "bulk", port, FLOWS, FLOW_BYTES]
    before = run.server.metrics().total("relay_bytes_total", sender="upstream")
    with subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL) as clients:
        run.wait()
        moved = run.server.metrics().total("relay_bytes_total", sender="upstream") - before
        clients.kill()
    run.load = f"{FLOWS} sessions that move {moved / run.seconds / 1e6:,.0f} MB/s, one worker"
