"""The curve of replies per second: coordinates for an SVG that is stretched to the width of the page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from flashpol.admin.history import INTERVAL, KEPT, Sample

WIDTH, HEIGHT = 600, 120
SPAN = INTERVAL * KEPT  # seconds
# Samples further apart than this, in seconds, are not connected: the endpoint paused.
GAP = 3 * INTERVAL
# Times a power of ten; half of each is easily read too.
ROUND = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """runs: connected parts of the curve, as x and y; top: where the axis ends, in replies per second."""

    runs: Sequence[Points]
    top: float
    highest: float
    mean: float
    last: float
    width: int = WIDTH
    height: int = HEIGHT
    span: float = SPAN

    @property
    def lines(self) -> list[str]:
        """Each run as SVG writes points."""
        return [_written(run) for run in self.runs]

    @property
    def areas(self) -> list[str]:
        """Each run with the area below it."""
        return [_written([(run[0][0], HEIGHT), *run, (run[-1][0], HEIGHT)]) for run in self.runs]


def rates(samples: Sequence[Sample]) -> list[tuple[float, float]]:
    """(age of an interval's end in seconds, replies per second in it), oldest first."""
    if not samples:
        return []
    newest = samples[-1].at
    return [
        (newest - new.at, (new.total.replies - old.total.replies) / (new.at - old.at))
        for old, new in pairwise(samples)
        if new.at > old.at
    ]


def ceiling(value: float) -> float:
    """The next round number that is not below `value`, and at least 1: where an axis ends."""
    if value <= 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return float(next(step * power for step in ROUND if step * power >= value))


def chart(samples: Sequence[Sample]) -> Chart | None:
    """Replies per second over the last minutes; None before there are two samples."""
    points = rates(samples)
    if not points:
        return None
    values = [value for _, value in points]
    top = ceiling(max(values))
    runs: list[Points] = []
    previous = math.inf
    for age, value in points:
        if age > SPAN:
            continue
        if previous - age > GAP:
            runs.append([])
        runs[-1].append((WIDTH * (1 - age / SPAN), HEIGHT * (1 - value / top)))
        previous = age
    return Chart(runs, top, max(values), sum(values) / len(values), values[-1])


def _written(points: Points) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
