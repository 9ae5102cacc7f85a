"""Clients that hold a place and say nothing, or too little, until `max_connections` or `max_sessions` is reached.

Each attack has good clients at all four places.
"""

from contextlib import ExitStack
from pathlib import Path

from faults.attack import AttackGroup, AttackRun
from faults.clients import BadClients
from faults.places import four_places
from faults.server import PROXIED, Listener
from faults.shared import shared

CONNECTIONS = 300  # max_connections, above the good clients, of whom about 60 are connected at a time
SESSIONS = 150  # max_sessions of each of two workers
# A flood keeps so many open, and opens so many in a second: each is evicted soon.
FLOOD, FLOOD_RATE = 400, 2_000
# Patient attackers come in waves, so many at once: few enough for the places that are left, so that none is evicted,
# and late enough that those of the wave before are sessions (`first_byte_timeout`, 1 s).
FIRST_WAVE, NEXT_WAVE, WAVE_SECONDS, AT_ONCE = 240, 80, 1.05, 10_000
SPREAD = 40  # addresses with a few connections each

group = AttackGroup(
    defaults={
        "max_ratio": 3.0,
        "quick": 3.0,
        "server": shared(max_connections=CONNECTIONS),
        "rows": four_places("games"),
    }
)
# Sessions that both sides use keep their places, also those of attackers whose byte the application echoes. A late
# client, which is silent, gives way where they have nearly all.
ANSWERED = four_places("games", alike=("game",), crowded=("late game",))


def _message(run: AttackRun, name: str) -> str | Path:
    return name if name in ("nothing", "half") else run.server.message(name)


def _flood(run: AttackRun, what: str, message: str, listener: str = "games") -> None:
    """One address keeps many connections open, on which it has sent this message, and opens each again."""
    say, port = _message(run, message), run.server.ports[listener]
    with BadClients(port, connections=FLOOD, rate=FLOOD_RATE, say=say, then="hold", addresses=1) as bad:
        run.wait()
    run.load = f"{FLOOD} {what} of one address, {bad.output['opened'] / run.seconds:,.0f} opened a second"


def _waves(
    run: AttackRun, what: str, message: str, listener: str = "games", *, addresses: int = 1, first: int = FIRST_WAVE
) -> None:
    """Waves of connections on which this message is sent, and which are then held. first: connections of the first."""
    say, port = _message(run, message), run.server.ports[listener]
    opened = 0
    with ExitStack() as stack:
        for number in run.every(WAVE_SECONDS):
            wave = NEXT_WAVE if number else first
            stack.enter_context(
                BadClients(port, connections=wave, rate=AT_ONCE, say=say, then="hold", addresses=addresses, total=wave)
            )
            opened += wave
    of = "one address" if addresses == 1 else f"{addresses} addresses"
    run.load = f"{opened} {what} of {of}, in waves"


@group.attack("silent-sessions", quick=4.0)
def silent_sessions(run: AttackRun) -> None:
    """Silent clients of a shared port, which become sessions, at `max_connections`."""
    _waves(run, "silent sessions", "nothing")


@group.attack("silent-flood")
def silent_flood(run: AttackRun) -> None:
    """Silent clients of a shared port at `max_connections`, so many that each is soon evicted."""
    _flood(run, "silent clients of a shared port", "nothing")


@group.attack("silent-spread", quick=4.0)
def silent_spread(run: AttackRun) -> None:
    """Silent clients of a shared port at `max_connections`, a few of each of 40 addresses."""
    _waves(run, "silent sessions", "nothing", addresses=SPREAD)


@group.attack("silent-chat", rows=four_places("chat"), quick=4.0)
def silent_chat(run: AttackRun) -> None:
    """Silent clients of a shared port whose application speaks first, at `max_connections`."""
    _waves(run, "silent sessions, to which the application speaks,", "nothing", "chat")


@group.attack("one-byte-sessions", rows=ANSWERED)
def one_byte_sessions(run: AttackRun) -> None:
    """Sessions of clients that sent a byte and then nothing, at `max_connections`."""
    _waves(run, "sessions that are silent after a byte", "byte")


@group.attack("half-requests")
def half_requests(run: AttackRun) -> None:
    """Clients of a shared port that send half a request, at `max_connections`."""
    _flood(run, "half requests", "half")


@group.attack("drip-feeders")
def drip_feeders(run: AttackRun) -> None:
    """Clients of a shared port that send the request a byte at a time, at `max_connections`."""
    port = run.server.ports["games"]
    with BadClients(
        port, connections=FLOOD, rate=FLOOD_RATE, say="nothing", then="drip", every=0.2, addresses=1
    ) as bad:
        run.wait()
    opened = bad.output["opened"] / run.seconds
    run.load = f"{FLOOD} that send a byte every 0.2 s, of one address, opened {opened:,.0f} a second"


@group.attack(
    "endless-proxy-headers",
    server=shared(max_connections=CONNECTIONS, more=(Listener("proxied", options=PROXIED),)),
    rows=four_places("proxied", others=("small", "slow", "games")),
)
def endless_proxy_headers(run: AttackRun) -> None:
    """PROXY headers that do not end, on a listener of their own, at `max_connections`."""
    _flood(run, "half PROXY headers", "proxy", "proxied")


@group.attack("lingering")
def lingering(run: AttackRun) -> None:
    """Clients that have their reply, have sent more than a request, and do not close, at `max_connections`."""
    _flood(run, "lingering connections", "more")


@group.attack("silent-max-sessions", server=shared(max_sessions=SESSIONS))
def silent_max_sessions(run: AttackRun) -> None:
    """Silent clients of a shared port take all of `max_sessions`."""
    _waves(run, "silent sessions", "nothing", first=FLOOD)


@group.attack("one-byte-max-sessions", server=shared(max_sessions=SESSIONS), rows=ANSWERED)
def one_byte_max_sessions(run: AttackRun) -> None:
    """Clients that sent a byte and then nothing take all of `max_sessions`."""
    _waves(run, "sessions that are silent after a byte", "byte", first=FLOOD)
