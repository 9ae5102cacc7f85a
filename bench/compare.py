"""Two runs beside each other: what became slower, with how much certainty.

A figure's samples are resampled (bootstrap): as many are drawn from them with repetition, and the ratio of the medians
is taken; very often. The middle 95 % of those ratios are the interval. A figure is better or worse only if the whole
interval lies beyond the margin; a run on a busy machine has wide intervals, and then nothing is claimed.
"""

import json
import random
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import BenchError
from bench.measure import Spread

RESAMPLES = 2000
CONFIDENCE = 0.95
MARGIN = 0.03  # less is not worth a line
SEED = 843  # the same files give the same verdict
ENOUGH = 3  # samples on each side


@dataclass(frozen=True)
class Change:
    """New / old of one figure, and the interval in which that ratio lies."""

    key: str
    old: float
    new: float
    ratio: float
    low: float
    high: float
    better: str  # "less" or "more"

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or empty: not certain, or not much."""
        if self.low > 1 + MARGIN:
            return "better" if self.better == "more" else "worse"
        if self.high < 1 - MARGIN:
            return "worse" if self.better == "more" else "better"
        return ""


def load(path: Path) -> dict[str, Any]:
    """What a run wrote. Raises BenchError if it is not that."""
    try:
        document: dict[str, Any] = json.loads(path.read_text())
        document["figures"], document["samples"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{path}: not a report of python -m bench: {error}") from None
    return document


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """Of the figures that both runs have samples of and that can be better or worse, in the order of the new run."""
    dice = random.Random(SEED)
    found = []
    for figure in new["figures"]:
        key = figure["key"]
        before, after = old["samples"].get(key, []), new["samples"].get(key, [])
        if not figure["better"] or min(len(before), len(after)) < ENOUGH or min(before) <= 0:
            continue
        low, high = interval(before, after, dice)
        a, b = statistics.median(before), statistics.median(after)
        found.append(Change(key, a, b, b / a, low, high, figure["better"]))
    return found


def interval(before: list[float], after: list[float], dice: random.Random) -> tuple[float, float]:
    """The confidence interval of median(after) / median(before), by bootstrap."""
    quotients = sorted(
        statistics.median(dice.choices(after, k=len(after))) / statistics.median(dice.choices(before, k=len(before)))
        for _ in range(RESAMPLES)
    )
    cut = int(RESAMPLES * (1 - CONFIDENCE) / 2)
    return quotients[cut], quotients[-1 - cut]


def of_medians(ours: list[float], theirs: list[float]) -> Spread:
    """The quotient of the medians, and its confidence interval: a disturbance makes neighbours differ tenfold."""
    low, high = interval(theirs, ours, random.Random(SEED))
    return Spread(statistics.median(ours) / statistics.median(theirs), low, high)


def table(found: list[Change], *, everything: bool = False) -> str:
    """What changed for certain, a line each; or all of it."""
    shown = [change for change in found if everything or change.verdict]
    rows = [("figure", "old", "new", "new / old", "95 % interval", "")]
    rows += [
        (c.key, f"{c.old:,.4g}", f"{c.new:,.4g}", f"{c.ratio:.3f}", f"{c.low:.3f} - {c.high:.3f}", c.verdict)
        for c in shown
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    worse = sum(change.verdict == "worse" for change in found)
    better = sum(change.verdict == "better" for change in found)
    lines.append(f"{len(found)} figures compared: {worse} worse, {better} better, the others not for certain")
    return "\n".join(lines if shown else lines[-1:])
