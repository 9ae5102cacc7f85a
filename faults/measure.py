"""One attack, measured: good clients before, during and after it, and the server's account in the end."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from faults import FaultsError
from faults.clients import Asked, Good, quantile
from faults.scene import Attack, Scene
from faults.server import LISTENERS, Server

RATE = 500.0  # good clients a second: 2 % of what two workers could answer on the slowest machine we have seen
WARM_UP = 0.5  # seconds; not counted as anything
RECOVERED_OF = 100  # good clients in a row …
RECOVERED = 0.95  # … of which all are answered and this share as fast as before: the server has recovered
SETTLE_SECONDS = 20.0  # deadlines of those still inside, and then some


@dataclass(frozen=True)
class Lengths:
    """Seconds: before the attack, during it (None: as long as it asks for), after it."""

    before: float
    during: float | None
    after: float


FULL = Lengths(4.0, None, 2.0)
QUICK = Lengths(2.0, 3.0, 1.5)


@dataclass(frozen=True)
class Outcome:
    """What came of one attack. Times in seconds; `recovery` None: not while we looked."""

    attack: Attack
    load: str
    asked: int
    failures: dict[str, int]
    p99_before: float
    p99_during: float
    recovery: float | None
    unaccounted: int
    crashed: int  # connections that were inside a process of the server when it was killed
    bystander: float | None = None  # p99 during an attack on another server on this machine; None: not measured

    @property
    def ratio(self) -> float:
        return self.p99_during / self.p99_before if self.p99_before else 0.0


def recovery(asked: list[Asked], end: float, usual: float) -> float | None:
    """Seconds from `end` until the good clients are answered as before: all of the next ones, most within `usual`.

    None if that never comes; 0 if they noticed nothing at its end.
    """
    after = [each for each in asked if each.began >= end]
    for start in range(len(after) - RECOVERED_OF + 1):
        following = after[start : start + RECOVERED_OF]
        fast = sum(each.well and each.took <= usual for each in following)
        if all(each.well for each in following) and fast >= RECOVERED * RECOVERED_OF:
            return following[0].began - end if start else 0.0
    return None


def measure(attack: Attack, lengths: Lengths, rate: float = RATE) -> Outcome:
    """Run it. Raises FaultsError if that tells nothing."""
    with attack.server() as server, tempfile.TemporaryDirectory() as place:
        good = Good(server.port, server.expected, rate, Path(place) / "said")
        with good:
            time.sleep(WARM_UP)
            began = time.monotonic()
            time.sleep(lengths.before)
            scene = Scene(server, lengths.during or attack.lasting)
            attacked = time.monotonic()
            attack.run(scene)
            ended = time.monotonic()
            time.sleep(lengths.after)
        asked = [each for each in good.asked() if each.began >= began]
        account = server.settled(SETTLE_SECONDS)
        unaccounted = sum(abs(account.unaccounted(name)) for name in LISTENERS)
    before = [each.took for each in asked if each.began < attacked]
    during = [each.took for each in asked if attacked <= each.began < ended]
    if len(before) < 0.8 * rate * lengths.before:
        raise FaultsError(
            f"{attack.name}: only {len(before)} good clients before the attack: is the machine that busy?"
        )
    usual = quantile(before, 0.99)
    failures: dict[str, int] = {}
    for each in asked:
        if not each.well:
            failures[each.outcome] = failures.get(each.outcome, 0) + 1
    return Outcome(
        attack,
        scene.load,
        len(asked),
        failures,
        usual,
        quantile(during, 0.99),
        recovery(asked, ended, 2 * usual),
        unaccounted,
        account.total("refused_total", reason="crashed"),
    )


def measure_bystander(attack: Attack, lengths: Lengths, rate: float = RATE) -> float:
    """The p99 of good clients of a second server while this attack is on the first: what it does to the machine."""
    with attack.server() as attacked, Server() as server, tempfile.TemporaryDirectory() as place:
        with Good(server.port, server.expected, rate, Path(place) / "said") as good:
            time.sleep(WARM_UP)
            scene = Scene(attacked, lengths.during or attack.lasting)
            began = time.monotonic()
            attack.run(scene)
            ended = time.monotonic()
        return quantile([each.took for each in good.asked() if began <= each.began < ended], 0.99)
