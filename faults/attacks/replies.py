"""Attacks by clients that ask and do not read: replies that the kernel has taken, and those that it has not."""

from faults import kernel
from faults.attack import AttackGroup, AttackRun
from faults.clients import BadClients
from faults.places import LATE, four_places
from faults.server import WORKERS, Listener
from faults.shared import shared

group = AttackGroup(defaults={"max_ratio": 3.0, "quick": 3.0})

CONNECTIONS = 300  # max_connections
DEAF = 400  # clients that never read
SLOW_REPLIES = 50  # max_slow_replies of each worker
# Their address has as many slow replies as it may, so that its other clients ask for small policies only.
DEAF_ROWS = four_places("slow", asked="small")
UNREAD = 4_000  # clients of one address with a window that is smaller than the reply
ADDRESS_CONNECTIONS = 10  # max_address_connections
# Replies of a worker before it notices the address: WATCHED_RATE in a second, then one of CHECK_BUSY is watched, until
# WATCHED_LINGERING linger (accept/reply.pxi). Each worker may also have its share of the limit and a few more, since
# workers do not wait for each other.
UNNOTICED = 12 + 8 * 3


@group.attack(
    "unread-replies",
    server=shared(max_address_connections=ADDRESS_CONNECTIONS, more=(Listener("medium", "medium"),)),
    rows=four_places("medium", like="small", without=(LATE,), asked=None, others=("small", "slow", "games")),
)
def unread_replies(run: AttackRun) -> None:
    """One address asks again and again and leaves each reply to the kernel, where it counts for the address."""
    port = run.server.ports["medium"]
    memory = kernel.tcp_memory()
    with BadClients(port, connections=UNREAD, rate=2_000, say="whole", then="hold", deaf=True, addresses=1):
        run.wait()
        unread, megabytes = kernel.unread_replies(port), (kernel.tcp_memory() - memory) / 1e6
    run.require("unread replies of one address in FIN-WAIT-1", unread, WORKERS * (2 * ADDRESS_CONNECTIONS + UNNOTICED))
    run.load = (
        f"{UNREAD:,} clients of one address that do not read 11.9 KB, max_address_connections {ADDRESS_CONNECTIONS}: "
        f"{unread:,} sockets in FIN-WAIT-1, {megabytes:.1f} MB in the kernel"
    )


def _deaf(run: AttackRun, limit: str) -> None:
    port = run.server.ports["slow"]
    with BadClients(port, connections=DEAF, rate=400, say="whole", then="hold", deaf=True, addresses=1):
        run.wait()
    run.load = f"{DEAF} clients of one address that never read 200 KB, {limit}"


@group.attack("deaf-clients", server=shared(max_connections=CONNECTIONS), rows=DEAF_ROWS)
def deaf_clients(run: AttackRun) -> None:
    """Clients that never read a large reply, at `max_connections`."""
    _deaf(run, f"max_connections {CONNECTIONS}")


@group.attack("deaf-slow-replies", server=shared(max_slow_replies=SLOW_REPLIES), rows=DEAF_ROWS)
def deaf_slow_replies(run: AttackRun) -> None:
    """Clients that never read a large reply take all of `max_slow_replies`."""
    _deaf(run, f"max_slow_replies {SLOW_REPLIES} of each worker")
