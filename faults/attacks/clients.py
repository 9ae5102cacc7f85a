"""Attacks by clients, which need nothing but connections."""

from faults.attack import AttackGroup, AttackRun, with_settings
from faults.clients import BadClients
from faults.network import Firewall

group = AttackGroup()

LORIS = 5_000  # clients of each kind: silent, dripping and never reading
HALF_OPEN = 1_000


@group.attack("slow-loris", seconds=60.0)
def slow_loris(run: AttackRun) -> None:
    """15,000 clients that send nothing, a byte a second, or a request for 1 MB that they never read."""
    small, large = run.server.port, run.server.ports["large"]
    with (
        BadClients(small, connections=LORIS, rate=2_000, say="nothing", then="hold"),
        BadClients(small, connections=LORIS, rate=2_000, say="nothing", then="drip"),
        BadClients(large, connections=LORIS, rate=500, say="whole", then="hold", deaf=True),
    ):
        run.wait()
    run.load = f"{LORIS:,} silent, {LORIS:,} a byte a second, {LORIS:,} that never read 1 MB"


@group.attack("reset-storm")
def reset_storm(run: AttackRun) -> None:
    """Connect, send no request, half of one or a whole one, and RST."""
    with BadClients(run.server.port, connections=256, rate=8_000, say="mixed", then="reset") as bad:
        run.wait()
    run.load = f"{_rate(bad, run)} connections a second, ended by RST"


@group.attack("close-storm")
def close_storm(run: AttackRun) -> None:
    """Connect and close, as port scanners and health checks do."""
    with BadClients(run.server.port, connections=256, rate=8_000, say="nothing", then="close") as bad:
        run.wait()
    run.load = f"{_rate(bad, run)} connections a second, closed at once"


@group.attack("garbage")
def garbage(run: AttackRun) -> None:
    """Endless input: at once, after half a request, and after a whole one."""
    with BadClients(run.server.port, connections=32, rate=1_000, say="mixed", then="flood") as bad:
        run.wait()
    megabytes = bad.output["taken"] / 1e6 / run.seconds
    run.load = f"{_rate(bad, run)} floods a second, of which the kernel took {megabytes:,.0f} MB/s"


@group.attack("one-address")
def one_address(run: AttackRun) -> None:
    """One address opens more silent connections than it may have, and opens each again at once."""
    with BadClients(run.server.port, connections=4_000, rate=8_000, say="nothing", then="hold", addresses=1) as bad:
        run.wait()
    run.load = f"{_rate(bad, run)} silent connections a second from one address"


@group.attack("address-spray")
def address_spray(run: AttackRun) -> None:
    """Each connection comes from another of a million addresses."""
    with BadClients(
        run.server.port, connections=256, rate=8_000, say="mixed", then="reset", addresses=1_000_000
    ) as bad:
        run.wait()
    run.load = f"{_rate(bad, run)} connections a second, each from another address"


@group.attack("proxy-headers")
def proxy_headers(run: AttackRun) -> None:
    """Clients of a listener that expects a PROXY header send floods, or no complete header."""
    port = run.server.ports["proxied"]
    with (
        BadClients(port, connections=32, rate=1_000, say="mixed", then="flood") as bad,
        BadClients(port, connections=1_000, rate=2_000, say="nothing", then="hold"),
    ):
        run.wait()
    run.load = f"{_rate(bad, run)} floods a second instead of a header, 1,000 silent"


@group.attack("full-accept-queue", server=with_settings(backlog=64))
def full_accept_queue(run: AttackRun) -> None:
    """Bursts that exceed the accept queue: the kernel drops the rest, and those clients retry after 1 s."""
    for number in run.every(0.5):
        with BadClients(run.server.port, connections=200, rate=1e9, say="half", then="hold"):
            run.load = f"{number + 1} bursts of 200 on a queue of 64"


@group.attack("half-open", own_network=True)
def half_open(run: AttackRun) -> None:
    """Peers vanish: a firewall drops every packet to and from them, FIN and RST as well."""
    small, large = run.server.port, run.server.ports["large"]
    with (
        BadClients(small, connections=HALF_OPEN, rate=2_000, say="mixed", then="hold"),
        BadClients(large, connections=HALF_OPEN, rate=2_000, say="whole", then="hold", deaf=True),
    ):
        for number in run.every(2.0):
            run.load = f"{2 * HALF_OPEN:,} clients, dropped by a firewall {number + 1} times"
            with Firewall():
                run.pause(1.0)


def _rate(bad: BadClients, run: AttackRun) -> str:
    return f"{bad.output['opened'] / run.seconds:,.0f}"
