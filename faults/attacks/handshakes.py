"""Attacks on handshakes: hellos by the thousand, parts of them, and handshakes that the client does not complete.

Each has good clients with and without TLS at all four places.
"""

from collections.abc import Sequence
from contextlib import ExitStack

from faults.attack import AttackGroup, AttackRun
from faults.certificates import NAME, RSA
from faults.clients import HostileClients
from faults.hello import VARIED
from faults.places import with_tls
from faults.shared import shared, with_files
from faults.watch import MemoryWatch

group = AttackGroup(
    defaults={
        "max_ratio": 3.0,
        "quick": 3.0,
        "server": shared(certificates=[NAME]),
        "rows": with_tls("games"),
        "tls": True,
    }
)

FLOOD, FLOOD_RATE = 500, 20_000  # attackers at a time, which come again as soon as they are served
MANY = 60_000  # addresses
SOME = 40
CONNECTIONS = 300  # max_connections
HANDSHAKES = 100  # max_handshakes of each worker
FILES = 300  # descriptors of a process
HELD, HELD_RATE = 3_000, 3_000
OVERLOAD, OVERLOAD_RATE = 15_000, 5_000
# Clients that begin a handshake: attackers of their address that only begin one have as many places as it may, and at
# `max_handshakes` of many addresses a far client is like one that stalls.
BEGINNERS, FAR = ("TLS policy", "TLS game"), ("far TLS policy",)
# Megabytes that attackers may take of all workers, which have 2,000 handshakes under way at most.
MEGABYTES = 100


def attack_with(
    run: AttackRun,
    what: str,
    script: str,
    listeners: str | Sequence[str] = "games",
    *,
    connections: int = FLOOD,
    rate: float = FLOOD_RATE,
    addresses: int = 1,
    megabytes: int = MEGABYTES,
    vary: int = 0,
    small_window: bool = False,
) -> dict[str, int]:
    """These attackers until the end of the run. Returns what they counted. megabytes: the most that they may take."""
    bad = HostileClients(
        run.server, listeners, script, connections=connections, rate=rate, addresses=addresses, vary=vary,
        small_window=small_window,
    )  # fmt: skip
    with MemoryWatch(run.server) as memory, bad:
        run.wait()
    grown = max(0, memory.grown) / 1e6
    run.require("MB of memory taken", round(grown), megabytes)
    count = bad.output
    of = "one address" if addresses == 1 else f"{addresses:,} addresses"
    rates = {name: count[name] / run.seconds for name in ("opened", "answered", "secured") if count[name]}
    run.load = f"{what} of {of}: " + ", ".join(
        [*(f"{per_second:,.0f} {name} a second" for name, per_second in rates.items()), f"{grown:.0f} MB of memory"]
    )
    return count


@group.attack("handshake-flood")
def handshake_flood(run: AttackRun) -> None:
    """One address sends hellos, and leaves as soon as the server has made its part of the handshake."""
    attack_with(run, "whole hellos", "send:{hello-13},await,reset")


@group.attack("handshake-flood-spread")
def handshake_flood_spread(run: AttackRun) -> None:
    """The same from 60,000 addresses."""
    attack_with(run, "whole hellos", "send:{hello-13},await,reset", addresses=MANY)


@group.attack("abandoned-hellos")
def abandoned_hellos(run: AttackRun) -> None:
    """Clients that send a hello and RST, so that the handshake is work for a client that has gone."""
    attack_with(run, "hellos of clients that have gone", "send:{hello-13},reset", rate=8_000, addresses=MANY)


@group.attack(
    "hello-overload",
    rows=with_tls("games", alike=BEGINNERS, crowded=(*BEGINNERS, "late TLS policy", *FAR)),
    seconds=8.0,
    quick=4.0,
)
def hello_overload(run: AttackRun) -> None:
    """More hellos than the server has turns for, each of an address of its own, whose clients wait.

    Good clients that begin a handshake at the same listener are served in part, as the attackers are.
    """
    attack_with(run, "hellos", "send:{hello-13}", connections=OVERLOAD, rate=OVERLOAD_RATE, addresses=MANY)


@group.attack("costly-hellos", server=shared(certificates=[NAME, RSA]))
def costly_hellos(run: AttackRun) -> None:
    """Hellos that make the server compute as much as a client may ask for: P-384, and a signature with RSA."""
    with ExitStack() as stack:
        for number, what in enumerate(("hello-p384", "hello-rsa")):
            stack.enter_context(
                HostileClients(
                    run.server, "games", f"send:{{{what}}},await,reset",
                    connections=FLOOD // 2, rate=FLOOD_RATE, first=number,
                )
            )  # fmt: skip
        attack_with(run, "hellos with P-384, others for RSA-2048, and usual ones", "send:{hello-13},await,reset")


@group.attack("half-hellos")
def half_hellos(run: AttackRun) -> None:
    """Thousands of clients that send most of a hello and wait, with all defaults."""
    attack_with(
        run, f"{HELD:,} half hellos", "send:{hello-13}*200", connections=HELD, rate=HELD_RATE, addresses=SOME
    )  # fmt: skip


@group.attack("half-hellos-at-limit", server=shared(certificates=[NAME], max_connections=CONNECTIONS))
def half_hellos_at_limit(run: AttackRun) -> None:
    """One address keeps 400 half hellos, and opens each again, at `max_connections`."""
    attack_with(run, "400 half hellos", "send:{hello-13}*200", connections=400, rate=2_000)


@group.attack("hello-drips")
def hello_drips(run: AttackRun) -> None:
    """Clients that send a hello a byte at a time, each byte in a record of its own."""
    script = "drip:{hello-pieces}*5"
    attack_with(run, f"{HELD:,} hellos in drips", script, connections=HELD, rate=HELD_RATE, addresses=SOME)


@group.attack("first-records")
def first_records(run: AttackRun) -> None:
    """Clients that send a record with the first byte of a hello, and wait."""
    script = "send:{hello-pieces}*6"
    attack_with(run, "first records of hellos", script, connections=8_000, rate=4_000, addresses=MANY)


@group.attack("large-hellos")
def large_hellos(run: AttackRun) -> None:
    """Clients that send 60 KB of a hello but its last byte, and wait."""
    script = "send:{hello-large}*60000"
    attack_with(run, f"{HELD:,} large hellos", script, connections=HELD, rate=HELD_RATE, addresses=SOME)


@group.attack("record-begins", server=shared(certificates=[NAME], max_connections=CONNECTIONS))
def record_begins(run: AttackRun) -> None:
    """Clients that send the first two bytes of a record, 16 03, and wait, at `max_connections`."""
    attack_with(run, "400 clients, silent after 16 03,", "send:{tls-begin}", connections=400, rate=2_000)


@group.attack("stalled-handshakes", rows=with_tls("games", alike=BEGINNERS))
def stalled_handshakes(run: AttackRun) -> None:
    """Clients that send a hello, receive the server's part, and are silent, with all defaults."""
    script = "send:{hello-13},await"
    attack_with(run, f"{HELD:,} stalled handshakes", script, connections=HELD, rate=HELD_RATE)


@group.attack("stalled-spread", rows=with_tls("games", alike=BEGINNERS, crowded=FAR))
def stalled_handshakes_spread(run: AttackRun) -> None:
    """The same, each of an address of its own."""
    script = "send:{hello-13},await"
    attack_with(run, f"{HELD:,} stalled handshakes", script, connections=HELD, rate=HELD_RATE, addresses=MANY)


@group.attack("dripping-handshakes", rows=with_tls("games", alike=BEGINNERS, crowded=FAR), quick=4.0)
def dripping_handshakes(run: AttackRun) -> None:
    """The same, and they go on with a byte every 0.1 s."""
    script = "send:{hello-13},await,drip:{tls-sealed}*100"
    attack_with(run, f"{HELD:,} dripping handshakes", script, connections=HELD, rate=1_500, addresses=MANY)


@group.attack(
    "stalled-at-limit",
    server=shared(certificates=[NAME], max_handshakes=HANDSHAKES),
    rows=with_tls("games", crowded=FAR),
)
def stalled_at_limit(run: AttackRun) -> None:
    """Stalled handshakes of 40 addresses, more than a small `max_handshakes` allows."""
    script = "send:{hello-13},await"
    attack_with(run, "600 stalled handshakes", script, connections=600, rate=1_000, addresses=SOME)


@group.attack(
    "stalled-few-files",
    server=shared(certificates=[NAME], under=with_files(FILES)),
    rows=with_tls("games", alike=BEGINNERS),
)
def stalled_few_files(run: AttackRun) -> None:
    """Stalled handshakes of one address take the descriptors."""
    attack_with(
        run, f"600 stalled handshakes, {FILES} descriptors,", "send:{hello-13},await", connections=600, rate=600
    )


@group.attack("idle-tls", rows=with_tls("small"))
def idle_tls(run: AttackRun) -> None:
    """Clients of a policy port that complete the handshake, and send nothing in it."""
    attack_with(
        run, "2,500 silent clients with TLS", "secure:13", "small", connections=2_500, rate=2_500, addresses=SOME
    )


@group.attack(
    "idle-tls-at-limit", server=shared(certificates=[NAME], max_handshakes=HANDSHAKES), rows=with_tls("small")
)
def idle_tls_at_limit(run: AttackRun) -> None:
    """The same of one address, more than a small `max_handshakes` allows."""
    attack_with(run, "600 silent clients with TLS", "secure:13", "small", connections=600, rate=600)


@group.attack("garbage-records")
def garbage_records(run: AttackRun) -> None:
    """Clients that send garbage where a hello is due: each kind from an address of its own."""
    kinds = ("tls-garbage", "tls-overlong", "tls-other", "tls-empty")
    with ExitStack() as stack:
        for number, what in enumerate(kinds):
            stack.enter_context(
                HostileClients(
                    run.server, "games", f"send:{{{what}}}", connections=50, rate=1_000, first=number + 1
                )
            )  # fmt: skip
        attack_with(run, "garbage of five kinds, hellos of 16 MB", "send:{hello-endless},loop:0", rate=1_000)


def _wrong_names(run: AttackRun, what: str) -> None:
    at = run.server.message("hello-name").read_bytes().index(VARIED.encode())
    before, log = len(run.server.metrics()), len(run.server.log)
    attack_with(run, what, "send:{hello-name},await,reset", addresses=SOME, vary=at)
    run.require("new metrics", len(run.server.metrics()) - before, 200)
    run.require("bytes of log lines", len(run.server.log) - log, 10_000)


@group.attack("wrong-names")
def wrong_names(run: AttackRun) -> None:
    """Hellos for names that no certificate has, each another one."""
    _wrong_names(run, "hellos for another name each")


@group.attack("wrong-names-strict", server=shared(certificates=[NAME], games={"tls_strict_sni": "true"}))
def wrong_names_strict(run: AttackRun) -> None:
    """The same on a listener that refuses them."""
    _wrong_names(run, "hellos for another name each, refused,")
