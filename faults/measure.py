"""Measure one attack: good clients before, during and after it, and the server's account at the end."""

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from faults import FaultsError
from faults.attack import Attack, AttackRun
from faults.clients import GoodClients, RequestResult, quantile
from faults.places import POLICY, Row
from faults.server import Account, Server

WARM_UP = 0.5  # seconds at the start that are not counted
# The server has recovered when the good clients of so many seconds, but not more than so many clients, got their
# replies in a row, this share of them as fast as before.
RECOVERED_SECONDS, RECOVERED_OF = 0.2, 100
RECOVERED = 0.95
# Good clients of a second server, few enough to be no load.
BESIDE = (Row("a second server", "small", replace(POLICY, rate=100)),)
SETTLE_SECONDS = 20.0  # until all connections have ended: more than their deadlines


@dataclass(frozen=True)
class Lengths:
    """Seconds before the attack and after it, and whether it has its quick length or its full one."""

    before: float
    after: float
    quick: bool = False


FULL = Lengths(4.0, 2.0)
QUICK = Lengths(1.0, 1.0, quick=True)


@dataclass(frozen=True)
class PlaceOutcome:
    """What the good clients of one place noticed. failures: counts by kind and what happened. Times in seconds.

    calm: how many were served before the attack. The p99 is of those that wait only for the server. recovery None: not
    within the run.
    """

    place: str
    requests: int
    calm: int
    failures: dict[str, int]
    p99_before: float
    p99_during: float
    recovery: float | None

    @property
    def ratio(self) -> float:
        return self.p99_during / self.p99_before if self.p99_before else 0.0

    @property
    def lost(self) -> int:
        return sum(self.failures.values())


@dataclass(frozen=True)
class Outcome:
    """The result of one attack. missed: what else it requires of the server and did not get, in words."""

    attack: Attack
    load: str
    places: tuple[PlaceOutcome, ...]
    unaccounted: int
    crashed: int  # connections that were open in a process of the server when it was killed
    missed: tuple[str, ...] = ()
    bystander: PlaceOutcome | None = None  # of a second server, which was not attacked: what the machine did

    @property
    def ratio(self) -> float:
        """The worst of all places."""
        return max(place.ratio for place in self.places)

    @property
    def lost(self) -> int:
        return sum(place.lost for place in self.places)


def recovery(results: Sequence[RequestResult], end: float, usual: float, of: int = RECOVERED_OF) -> float | None:
    """Seconds from `end` until good clients get replies as before: the next `of`, most within `usual` seconds.

    None if that does not happen; 0 if it holds from the end on.
    """
    after = [each for each in results if each.started >= end]
    for start in range(len(after) - of + 1):
        following = after[start : start + of]
        fast = sum(each.ok and (each.seconds <= usual or not each.prompt) for each in following)
        if all(each.ok for each in following) and fast >= RECOVERED * of:
            return following[0].started - end if start else 0.0
    return None


def judge(place: str, results: Sequence[RequestResult], attacked: float, ended: float, before: float) -> PlaceOutcome:
    """What the clients of one place noticed of an attack between these times. before: seconds of calm before it."""
    calm = [each for each in results if each.ended < attacked]
    during = [each.seconds for each in results if each.ended >= attacked and each.started < ended and each.prompt]
    usual = quantile([each.seconds for each in calm if each.prompt], 0.99)
    of = max(3, min(RECOVERED_OF, int(len(calm) / before * RECOVERED_SECONDS)))
    failures = Counter(f"{each.kind} {each.outcome}" for each in results if not each.ok)
    return PlaceOutcome(
        place,
        len(results),
        len(calm),
        dict(failures),
        usual,
        quantile(during, 0.99),
        recovery(results, ended, 2 * usual, of),
    )


def measure(attack: Attack, lengths: Lengths, *, bystander: bool = False) -> Outcome:
    """Run it. bystander: beside a second server, not attacked. Raises FaultsError if the result means nothing."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(attack.server())
        good = GoodClients(server, folder / "trace", attack.rows)
        beside = GoodClients(stack.enter_context(Server()), folder / "beside", BESIDE) if bystander else None
        with good, beside or nullcontext():
            time.sleep(WARM_UP)
            start = time.monotonic()
            time.sleep(lengths.before)
            run = AttackRun(server, attack.quick if lengths.quick else attack.seconds)
            attacked = time.monotonic()
            attack.run(run)
            ended = time.monotonic()
            time.sleep(lengths.after)

        def judged(clients: GoodClients) -> tuple[PlaceOutcome, ...]:
            found = {
                place: [each for each in all_ if each.started >= start] for place, all_ in clients.results().items()
            }
            return tuple(judge(place, results, attacked, ended, lengths.before) for place, results in found.items())

        places = judged(good)
        _require_enough(attack.name, attack.rows, places, lengths.before)
        account = _account(server, run)
        unaccounted = sum(abs(account.unaccounted(each.name)) for each in server.listeners)
        crashed = int(account.total("refused_total", reason="crashed"))
        return Outcome(
            attack, run.load, places, unaccounted, crashed, tuple(run.missed), judged(beside)[0] if beside else None
        )


def _require_enough(name: str, rows: Sequence[Row], places: Sequence[PlaceOutcome], before: float) -> None:
    """Raise FaultsError if many of the clients that were due before the attack could not start, or were too slow."""
    expected = sum(row.kind.rate * max(0.0, before - 1.2 * row.kind.mute) for row in rows if not row.kind.count)
    calm = sum(place.calm for place in places)
    if calm < 0.8 * expected:
        raise FaultsError(f"{name}: only {calm} good clients ran before the attack; the machine is too busy")


def _account(server: Server, run: AttackRun) -> Account:
    """The server's account once no connection is open; if that does not come, as it is."""
    try:
        return server.settled(SETTLE_SECONDS)
    except FaultsError:
        account = server.metrics()
        for what, left in account.left_open().items():
            run.missed.append(f"{left:,} {what} are open {SETTLE_SECONDS:.0f} s later, without any client")
        return account
