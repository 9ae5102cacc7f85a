"""What strangers can do with nothing but connections."""

from faults.clients import Bad
from faults.network import Firewall
from faults.scene import Family, Scene, with_settings

family = Family()

LORIS = 5_000  # of each kind: silent, dripping and never reading
HALF_OPEN = 1_000


@family.attack("slow-loris", lasting=60.0)
def slow_loris(scene: Scene) -> None:
    """15,000 that say nothing, a byte a second, or ask for a large policy and never read it."""
    small, large = scene.server.port, scene.server.large_port
    with (
        Bad(small, connections=LORIS, rate=2_000, say="nothing", then="hold"),
        Bad(small, connections=LORIS, rate=2_000, say="nothing", then="drip"),
        Bad(large, connections=LORIS, rate=500, say="whole", then="hold", deaf=True),
    ):
        scene.wait()
    scene.load = f"{LORIS:,} silent, {LORIS:,} a byte a second, {LORIS:,} that never read 1 MB"


@family.attack("reset-storm")
def reset_storm(scene: Scene) -> None:
    """Connect, ask nothing, half or all, and RST."""
    with Bad(scene.server.port, connections=256, rate=8_000, say="mixed", then="reset") as bad:
        scene.wait()
    scene.load = f"{_rate(bad, scene)} connections a second, ended by RST"


@family.attack("close-storm")
def close_storm(scene: Scene) -> None:
    """Connect and close: what port scanners and health checks do."""
    with Bad(scene.server.port, connections=256, rate=8_000, say="nothing", then="close") as bad:
        scene.wait()
    scene.load = f"{_rate(bad, scene)} connections a second, closed at once"


@family.attack("garbage")
def garbage(scene: Scene) -> None:
    """Input without end: after nothing, after half a request and after a whole one."""
    with Bad(scene.server.port, connections=32, rate=1_000, say="mixed", then="flood") as bad:
        scene.wait()
    megabytes = bad.done["taken"] / 1e6 / scene.lasting
    scene.load = f"{_rate(bad, scene)} floods a second, of which the kernel took {megabytes:,.0f} MB/s"


@family.attack("one-address")
def one_address(scene: Scene) -> None:
    """More connections than one address may have, silent ones; it comes again at once."""
    with Bad(scene.server.port, connections=4_000, rate=8_000, say="nothing", then="hold", addresses=1) as bad:
        scene.wait()
    scene.load = f"{_rate(bad, scene)} silent connections a second from one address"


@family.attack("address-spray")
def address_spray(scene: Scene) -> None:
    """Each connection from an address of its own, as far as a million goes."""
    with Bad(scene.server.port, connections=256, rate=8_000, say="mixed", then="reset", addresses=1_000_000) as bad:
        scene.wait()
    scene.load = f"{_rate(bad, scene)} connections a second, each from another address"


@family.attack("proxy-headers")
def proxy_headers(scene: Scene) -> None:
    """Where a PROXY header is due: floods, and headers that are not finished."""
    port = scene.server.proxied_port
    with (
        Bad(port, connections=32, rate=1_000, say="mixed", then="flood") as bad,
        Bad(port, connections=1_000, rate=2_000, say="nothing", then="hold"),
    ):
        scene.wait()
    scene.load = f"{_rate(bad, scene)} floods a second instead of a header, 1,000 silent"


@family.attack("full-accept-queue", server=with_settings(backlog=64))
def full_accept_queue(scene: Scene) -> None:
    """Bursts of more than the queue holds. What does not fit the kernel drops, and the client asks again after 1 s."""
    for number in scene.every(0.5):
        with Bad(scene.server.port, connections=200, rate=1e9, say="half", then="hold"):
            scene.load = f"{number + 1} bursts of 200 on a queue of 64"


@family.attack("half-open", own_network=True)
def half_open(scene: Scene) -> None:
    """Peers that vanish: a firewall drops all that goes to them and comes from them, FIN and RST as well."""
    small, large = scene.server.port, scene.server.large_port
    with (
        Bad(small, connections=HALF_OPEN, rate=2_000, say="mixed", then="hold"),
        Bad(large, connections=HALF_OPEN, rate=2_000, say="whole", then="hold", deaf=True),
    ):
        for number in scene.every(2.0):
            scene.load = f"{2 * HALF_OPEN:,} clients, dropped by a firewall {number + 1} times"
            with Firewall():
                scene.pause(1.0)


def _rate(bad: Bad, scene: Scene) -> str:
    return f"{bad.done['opened'] / scene.lasting:,.0f}"
