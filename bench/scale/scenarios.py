"""The fleets and storms that `docs/scale.md` shows."""

from dataclasses import dataclass, replace

from bench.scale import model
from bench.scale.model import Client, Host
from bench.scale.simulation import Fleet, Outcome, Simulation, Storm

CLIENTS = 10_000_000
SECONDS = 120.0
SHIPPED = Host("as installed")
TUNED = Host(
    "tuned", memory_gib=24.0, files=1_048_576, max_sessions=450_000, backends=16, port_range=(1024, 65_535),
    conntrack_max=4_194_304, somaxconn=65_535,
)  # fmt: skip
ACCEPTS = 2_000.0  # sessions a second that a slow application accepts
EVERYBODY = 1.0  # share of the sessions that end


@dataclass(frozen=True)
class Case:
    """One row. words: what it is; `the same`: what differs from the row before."""

    words: str
    fleet: Fleet
    storm: Storm


def fleet_of(client: Client, kernel_of_socket: float, host: Host = TUNED) -> Fleet:
    """As many hosts as 10 million clients need, and one more."""
    hosts = model.hosts_for(CLIENTS, host, client, kernel_of_socket)
    return Fleet(host, client, CLIENTS, hosts)


def cases(client: Client, kernel_of_socket: float) -> list[Case]:
    """What happens to a fleet of such clients."""
    fleet = fleet_of(client, kernel_of_socket)
    short = replace(fleet, host=replace(fleet.host, somaxconn=SHIPPED.somaxconn))
    half = model.useful_queue(client) // 2
    useful = replace(fleet, host=replace(fleet.host, backlog=half))
    return [
        Case("nothing: sessions end and begin", fleet, Storm()),
        Case("one host is lost", fleet, Storm(lost=1)),
        Case("the same, somaxconn 4,096", short, Storm(lost=1)),
        Case("all sessions are cut, clients come back at once", fleet, Storm(cut=EVERYBODY)),
        Case("the same, somaxconn 4,096", short, Storm(cut=EVERYBODY)),
        Case(f"all sessions are cut, at once, somaxconn {fleet.host.somaxconn:,}, `backlog` {half:,} "
             "(half of the longest useful queue)", useful, Storm(cut=EVERYBODY)),
        Case(f"`backlog` {half:,}, clients come back within 10 s", useful, Storm(cut=EVERYBODY, spread=10.0)),
        Case(f"`backlog` {half:,}, clients come back within 60 s", useful, Storm(cut=EVERYBODY, spread=60.0)),
    ]  # fmt: skip


def slow_application(client: Client, kernel_of_socket: float) -> list[Case]:
    """One host is lost, and the application of each host accepts few sessions a second, from a short accept queue and
    from a long one; without connect_rate and with it."""
    found = []
    for queue in (SHIPPED.somaxconn, TUNED.somaxconn):
        fleet = replace(fleet_of(client, kernel_of_socket), accepts=ACCEPTS, application_queue=queue)
        limited = replace(fleet, host=replace(fleet.host, connect_rate=ACCEPTS / fleet.host.cores))
        words = f"the application's accept queue has {queue:,} places"
        found.append(Case(f"{words}, connect_rate off", fleet, Storm(lost=1)))
        found.append(Case(f"{words}, connect_rate {limited.host.connect_rate:g}", limited, Storm(lost=1)))
    return found


def run(case: Case, seed: int, seconds: float = SECONDS) -> Outcome:
    """Simulate it."""
    return Simulation(case.fleet, case.storm, seconds, seed).run()
