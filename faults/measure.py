"""Measure one attack: good clients before, during and after it, and the server's account at the end."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from faults import FaultsError
from faults.attack import Attack, AttackRun
from faults.clients import GoodClients, RequestResult, quantile
from faults.server import LISTENERS, Server

RATE = 500.0  # good clients a second: 2 % of the capacity of two workers on the slowest machine that was tried
WARM_UP = 0.5  # seconds at the start that are not counted
# The server has recovered when so many good clients in a row got their replies, this share of them as fast as before.
RECOVERED_OF = 100
RECOVERED = 0.95
SETTLE_SECONDS = 20.0  # until all connections have ended: more than their deadlines


@dataclass(frozen=True)
class Lengths:
    """Seconds before the attack, during it (None: the attack's own length), and after it."""

    before: float
    during: float | None
    after: float


FULL = Lengths(4.0, None, 2.0)
QUICK = Lengths(2.0, 3.0, 1.5)


@dataclass(frozen=True)
class Outcome:
    """The result of one attack. Times in seconds; `recovery` None: not within the run."""

    attack: Attack
    load: str
    requests: int
    failures: dict[str, int]
    p99_before: float
    p99_during: float
    recovery: float | None
    unaccounted: int
    crashed: int  # connections that were open in a process of the server when it was killed
    bystander: float | None = None  # p99 during an attack on another server on this machine; None: not measured

    @property
    def ratio(self) -> float:
        return self.p99_during / self.p99_before if self.p99_before else 0.0


def recovery(results: list[RequestResult], end: float, usual: float) -> float | None:
    """Seconds from `end` until good clients get replies as before: all of the next ones, most within `usual` seconds.

    None if that does not happen; 0 if it holds from the end on.
    """
    after = [each for each in results if each.started >= end]
    for start in range(len(after) - RECOVERED_OF + 1):
        following = after[start : start + RECOVERED_OF]
        fast = sum(each.ok and each.seconds <= usual for each in following)
        if all(each.ok for each in following) and fast >= RECOVERED * RECOVERED_OF:
            return following[0].started - end if start else 0.0
    return None


def measure(attack: Attack, lengths: Lengths, rate: float = RATE) -> Outcome:
    """Run it. Raises FaultsError if the result means nothing."""
    with attack.server() as server, tempfile.TemporaryDirectory() as folder:
        good = GoodClients(server.port, server.expected, rate, Path(folder) / "trace")
        with good:
            time.sleep(WARM_UP)
            start = time.monotonic()
            time.sleep(lengths.before)
            run = AttackRun(server, lengths.during or attack.seconds)
            attacked = time.monotonic()
            attack.run(run)
            ended = time.monotonic()
            time.sleep(lengths.after)
        results = [each for each in good.results() if each.started >= start]
        account = server.settled(SETTLE_SECONDS)
        unaccounted = sum(abs(account.unaccounted(name)) for name in LISTENERS)
    before = [each.seconds for each in results if each.started < attacked]
    during = [each.seconds for each in results if attacked <= each.started < ended]
    if len(before) < 0.8 * rate * lengths.before:
        raise FaultsError(
            f"{attack.name}: only {len(before)} good clients ran before the attack; the machine is too busy"
        )
    usual = quantile(before, 0.99)
    failures: dict[str, int] = {}
    for each in results:
        if not each.ok:
            failures[each.outcome] = failures.get(each.outcome, 0) + 1
    return Outcome(
        attack,
        run.load,
        len(results),
        failures,
        usual,
        quantile(during, 0.99),
        recovery(results, ended, 2 * usual),
        unaccounted,
        int(account.total("refused_total", reason="crashed")),
    )


def measure_bystander(attack: Attack, lengths: Lengths, rate: float = RATE) -> float:
    """The p99 of good clients of a second server during this attack on the first: its effect on the machine."""
    with attack.server() as attacked, Server() as server, tempfile.TemporaryDirectory() as folder:
        with GoodClients(server.port, server.expected, rate, Path(folder) / "trace") as good:
            time.sleep(WARM_UP)
            run = AttackRun(attacked, lengths.during or attack.seconds)
            start = time.monotonic()
            attack.run(run)
            ended = time.monotonic()
        return quantile([each.seconds for each in good.results() if start <= each.started < ended], 0.99)
