"""Clients that hold a place and say nothing, or too little, until `max_connections` or `max_sessions` is reached.

Each attack has good clients at all four places.
"""

from contextlib import ExitStack

from faults.attack import AttackGroup, AttackRun
from faults.clients import BadClients
from faults.places import four_places
from faults.server import PROXIED, Listener
from faults.shared import shared

CONNECTIONS = 300  # max_connections, above the good clients, of whom about 100 are connected at a time
SESSIONS = 150  # max_sessions of each of two workers
HELD = 400  # by the attackers, all of one address
# How many they open in a second. The patient ones come at once, and those that were closed again at a rate at which a
# place is held for longer than a client needs whose segment was lost.
FLOOD, AT_ONCE, AGAIN = 2_000, 10_000, 100

group = AttackGroup(
    defaults={
        "max_ratio": 3.0,
        "quick": 3.0,
        "server": shared(max_connections=CONNECTIONS),
        "rows": four_places("games"),
    }
)
PATIENT = four_places("games", patient=True)


def _hold(
    run: AttackRun, what: str, message: str, *, listener: str = "games", flood: bool = False, addresses: int = 1
) -> None:
    """One address or several keep `HELD` connections open, with this message sent on each, and open each again."""
    say = message if message in ("nothing", "half") else run.server.message(message)
    port = run.server.ports[listener]
    with ExitStack() as stack:

        def hold(connections: int, rate: float, total: int = 0) -> BadClients:
            return stack.enter_context(
                BadClients(
                    port, connections=connections, rate=rate, say=say, then="hold", addresses=addresses, total=total
                )
            )

        if flood:
            bad = hold(HELD, FLOOD)
        else:
            hold(HELD // 2, AT_ONCE, total=HELD // 2)
            bad = hold(HELD // 2, AGAIN)
        run.wait()
    of = "one address" if addresses == 1 else f"{addresses} addresses"
    run.load = f"{HELD} {what} of {of}, {bad.output['opened'] / run.seconds:,.0f} opened a second"


@group.attack("silent-sessions", rows=PATIENT)
def silent_sessions(run: AttackRun) -> None:
    """Silent clients of a shared port, which become sessions, at `max_connections`."""
    _hold(run, "silent sessions", "nothing")


@group.attack("silent-flood")
def silent_flood(run: AttackRun) -> None:
    """Silent clients of a shared port at `max_connections`, so many that each is soon evicted."""
    _hold(run, "silent clients of a shared port", "nothing", flood=True)


@group.attack("silent-spread", rows=PATIENT)
def silent_spread(run: AttackRun) -> None:
    """Silent clients of a shared port at `max_connections`, ten of each address."""
    _hold(run, "silent sessions", "nothing", addresses=HELD // 10)


@group.attack("silent-chat", rows=four_places("chat", patient=True))
def silent_chat(run: AttackRun) -> None:
    """Silent clients of a shared port whose application speaks first, at `max_connections`."""
    _hold(run, "silent sessions, to which the application speaks,", "nothing", listener="chat")


@group.attack("one-byte-sessions")
def one_byte_sessions(run: AttackRun) -> None:
    """Sessions of clients that sent a byte and then nothing, at `max_connections`."""
    _hold(run, "sessions that are silent after a byte", "byte")


@group.attack("half-requests")
def half_requests(run: AttackRun) -> None:
    """Clients of a shared port that send half a request, at `max_connections`."""
    _hold(run, "half requests", "half", flood=True)


@group.attack("drip-feeders")
def drip_feeders(run: AttackRun) -> None:
    """Clients of a shared port that send the request a byte at a time, at `max_connections`."""
    port = run.server.ports["games"]
    with BadClients(port, connections=HELD, rate=FLOOD, say="nothing", then="drip", every=0.2, addresses=1) as bad:
        run.wait()
    opened = bad.output["opened"] / run.seconds
    run.load = f"{HELD} that send a byte every 0.2 s, of one address, opened {opened:,.0f} a second"


@group.attack(
    "endless-proxy-headers",
    server=shared(max_connections=CONNECTIONS, more=(Listener("proxied", options=PROXIED),)),
    rows=four_places("proxied", others=("small", "slow", "games")),
)
def endless_proxy_headers(run: AttackRun) -> None:
    """PROXY headers that do not end, on a listener of their own, at `max_connections`."""
    _hold(run, "half PROXY headers", "proxy", listener="proxied", flood=True)


@group.attack("lingering")
def lingering(run: AttackRun) -> None:
    """Clients that have their reply, have sent more than a request, and do not close, at `max_connections`."""
    _hold(run, "lingering connections", "more", flood=True)


@group.attack("silent-max-sessions", server=shared(max_sessions=SESSIONS), rows=PATIENT)
def silent_max_sessions(run: AttackRun) -> None:
    """Silent clients of a shared port take all of `max_sessions`."""
    _hold(run, "silent sessions", "nothing")


@group.attack("one-byte-max-sessions", server=shared(max_sessions=SESSIONS))
def one_byte_max_sessions(run: AttackRun) -> None:
    """Clients that sent a byte and then nothing take all of `max_sessions`."""
    _hold(run, "sessions that are silent after a byte", "byte")
