"""Attacks by all that one address, or a few, may have with the default limits.

Each has good clients at all four places; those of the same address are what a NAT hides.
"""

from contextlib import ExitStack

from faults.attack import AttackGroup, AttackRun
from faults.clients import BadClients
from faults.places import four_places
from faults.shared import shared, with_files

group = AttackGroup(defaults={"max_ratio": 3.0, "quick": 3.0, "server": shared(), "rows": four_places("games")})

SILENT = 2_100  # of one address, which may have 1,000 connections
CROWD, CROWD_EACH = 20, 1_000  # addresses, and the silent clients of each
SCALED_EACH, SCALED_FILES = 100, 2_000  # the same with a tenth of the descriptors
PLAYERS, FEW_PLAYERS = 5_000, 1_500  # with one address: more than 1,000
PROCESS_CLIENTS = 10_000  # of one process of attackers: it may have 20,000 files


def _silent(run: AttackRun, listener: str) -> None:
    port = run.server.ports[listener]
    with BadClients(port, connections=SILENT, rate=2_000, say="nothing", then="hold", addresses=1) as bad:
        run.wait()
    opened = bad.output["opened"] / run.seconds
    run.load = f"{SILENT:,} silent clients of one address, {opened:,.0f} opened a second, all defaults"


@group.attack("nat-policy", rows=four_places("small"))
def nat_policy(run: AttackRun) -> None:
    """One of many clients behind a NAT opens more silent connections than one address may have."""
    _silent(run, "small")


@group.attack("nat-shared")
def nat_shared(run: AttackRun) -> None:
    """The same on a shared port, where silent clients become sessions."""
    _silent(run, "games")


def _play(run: AttackRun, players: int) -> None:
    """So many sessions of one address are opened, and none of them may end."""
    port, hello = run.server.ports["games"], run.server.message("hello")
    with BadClients(port, connections=players, rate=players / 2, say=hello, then="hold", addresses=1) as bad:
        run.wait()
    run.require("of these sessions were refused or ended", bad.output["ended"] + bad.output["failed"], 0)
    run.load = f"{players:,} players of one address, all defaults"


@group.attack("nat-players", quick=0)
def nat_players(run: AttackRun) -> None:
    """5,000 players have one address; they are no attack."""
    _play(run, PLAYERS)


@group.attack("nat-few-players")
def nat_few_players(run: AttackRun) -> None:
    """1,500 players have one address; they are no attack."""
    _play(run, FEW_PLAYERS)


def _crowd(run: AttackRun, each: int) -> None:
    """Silent clients of a shared port, so many of each address, opened at once."""
    total, port = CROWD * each, run.server.ports["games"]
    processes = -(-total // PROCESS_CLIENTS)
    with ExitStack() as stack:
        for number in range(processes):
            count, addresses = total // processes, CROWD // processes
            stack.enter_context(
                BadClients(
                    port, connections=count, rate=20_000, say="nothing", then="hold",
                    addresses=addresses, first=number * addresses, total=count,
                )
            )  # fmt: skip
        run.wait()
    run.load = f"{total:,} silent clients of a shared port, {each:,} of each of {CROWD} addresses"


@group.attack("silent-crowd", quick=0, seconds=10.0)
def silent_crowd(run: AttackRun) -> None:
    """20 addresses have 1,000 silent clients of a shared port each, with all defaults."""
    _crowd(run, CROWD_EACH)


@group.attack("small-silent-crowd", server=shared(under=with_files(SCALED_FILES)))
def small_silent_crowd(run: AttackRun) -> None:
    """20 addresses have 100 silent clients of a shared port each, with a tenth of the descriptors."""
    _crowd(run, SCALED_EACH)
    run.load += f", {SCALED_FILES:,} descriptors"
