"""Compare two runs: which figures changed, and how certain that is.

A figure's samples are resampled (bootstrap): as many are drawn from them with repetition, and the ratio of the medians
is taken, 2,000 times. The middle 95 % of those ratios are the interval. A figure is better or worse only if the whole
interval lies outside the margin. A run on a busy machine has wide intervals, and then no change is reported.

scipy.stats.bootstrap would replace `interval`, six lines, with a package of 100 MB; so it is not used.
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
MARGIN = 0.03  # a smaller change is not reported
SEED = 843  # fixed, so that the same files give the same verdict
MIN_SAMPLES = 3  # on each side


@dataclass(frozen=True)
class Change:
    """One figure: new / old, and the confidence interval of that ratio."""

    key: str
    old: float
    new: float
    ratio: float
    low: float
    high: float
    better: str  # "less" or "more"
    margin: float = MARGIN

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or empty if the change is uncertain or small."""
        if self.low > 1 + self.margin:
            return "better" if self.better == "more" else "worse"
        if self.high < 1 - self.margin:
            return "worse" if self.better == "more" else "better"
        return ""


def load(path: Path) -> dict[str, Any]:
    """Read a report. Raises BenchError if the file is none."""
    try:
        document: dict[str, Any] = json.loads(path.read_text())
        document["figures"], document["samples"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{path}: not a report of python -m bench: {error}") from None
    return document


def changes(old: dict[str, Any], new: dict[str, Any], margin: float = MARGIN) -> list[Change]:
    """The changes of all figures that both runs have samples of and that can be better or worse, in the new order."""
    generator = random.Random(SEED)
    found = []
    for figure in new["figures"]:
        key = figure["key"]
        before, after = old["samples"].get(key, []), new["samples"].get(key, [])
        if not figure["better"] or min(len(before), len(after)) < MIN_SAMPLES or min(before) <= 0:
            continue
        low, high = interval(before, after, generator)
        a, b = statistics.median(before), statistics.median(after)
        found.append(Change(key, a, b, b / a, low, high, figure["better"], margin))
    return found


def interval(before: list[float], after: list[float], draw: random.Random) -> tuple[float, float]:
    """The confidence interval of median(after) / median(before), by bootstrap."""
    quotients = sorted(
        statistics.median(draw.choices(after, k=len(after))) / statistics.median(draw.choices(before, k=len(before)))
        for _ in range(RESAMPLES)
    )
    cut = int(RESAMPLES * (1 - CONFIDENCE) / 2)
    return quotients[cut], quotients[-1 - cut]


def of_medians(ours: list[float], theirs: list[float]) -> Spread:
    """The ratio of the medians with its confidence interval, for tails: neighbouring samples differ up to tenfold."""
    low, high = interval(theirs, ours, random.Random(SEED))
    return Spread(statistics.median(ours) / statistics.median(theirs), low, high)


def table(found: list[Change], *, everything: bool = False) -> str:
    """A table of the certain changes, one figure a line; everything: of all figures."""
    shown = [change for change in found if everything or change.verdict]
    worse = sum(change.verdict == "worse" for change in found)
    better = sum(change.verdict == "better" for change in found)
    end = f"{len(found)} figures compared: {worse} worse, {better} better, the others uncertain"
    return "\n".join([*(lines(shown, "old", "new") if shown else []), end])


def lines(shown: list[Change], old: str, new: str) -> list[str]:
    """A table of changes with its head, one a line. old, new: what the two runs are called."""
    rows = [("figure", old, new, f"{new} / {old}", "95 % interval", "")]
    rows += [
        (c.key, f"{c.old:,.4g}", f"{c.new:,.4g}", f"{c.ratio:.3f}", f"{c.low:.3f} - {c.high:.3f}", c.verdict)
        for c in shown
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
